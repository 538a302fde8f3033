//! Protection of the admin page against other web pages in the operator's browser.
//!
//! Browsers keep answers of the admin listener from other pages, unless a page's name resolves to the listener's
//! address (DNS rebinding). Such a request has the foreign name as Host. Accepted hosts are names that no stranger can
//! register: IP addresses, localhost, and names without a dot, as in a compose network.

use hyper::HeaderMap;
use hyper::header::HOST;
use std::net::IpAddr;

pub const ADVICE: &str = "open the admin page under an IP address or as localhost; a proxy has to send the listener's \
address, not its own name, as Host";

/// False for requests that a foreign page may have sent.
pub fn is_own(headers: &HeaderMap) -> bool {
    // HTTP/1.0 has no Host, and no browser speaks it.
    headers.get_all(HOST).iter().all(|host| host.to_str().is_ok_and(|host| is_own_name(without_port(host))))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn is_own_name(name: &str) -> bool {
    let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.parse::<IpAddr>().is_ok() || !name.contains('.') || name.to_ascii_lowercase().ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_a_stranger_can_register_are_foreign() {
        let is_own = |host: &str| is_own(&[(HOST, host.parse().unwrap())].into_iter().collect());
        for host in ["127.0.0.1:8001", "[::1]:8001", "10.1.2.3", "localhost:8001", "a.localhost", "gateway:8001", ""] {
            assert!(is_own(host), "{host}");
        }
        for host in ["evil.example", "evil.example:8001", "localhost.evil.example", "127.0.0.1.evil.example", "a.b:x"] {
            assert!(!is_own(host), "{host}");
        }
    }
}
