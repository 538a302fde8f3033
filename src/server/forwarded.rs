//! Client address of a request from a trusted proxy: `Forwarded` (RFC 7239) or `X-Forwarded-For`.
//!
//! Each proxy appends the address that called it. The right end is therefore the proxy's own, while the left end may
//! be made up by the client. Read from the right, the client's address is the first that is not a trusted proxy.

use crate::config::Networks;
use hyper::HeaderMap;
use hyper::header::{FORWARDED, HeaderName};
use std::net::{IpAddr, SocketAddr};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The client's address, or `peer`, the trusted proxy, if the headers give no usable address. A proxy that sets one of
/// the headers may pass on the other as received from the client: if the headers disagree, neither is believed.
pub fn client(headers: &HeaderMap, peer: IpAddr, trusted: &Networks) -> IpAddr {
    let forwarded = lines(headers, &FORWARDED).map(|line| read(hops_of_forwarded(&line), trusted));
    let x_forwarded_for = lines(headers, &X_FORWARDED_FOR).map(|line| read(line.split(',').map(Some), trusted));
    match (forwarded, x_forwarded_for) {
        (Some(Some(one)), Some(Some(other))) if one == other => one,
        (Some(Some(one)), None) | (None, Some(Some(one))) => one,
        _ => peer,
    }
}

/// Whether a request has neither header: the proxy is not configured to send the client's address.
pub fn is_silent(headers: &HeaderMap) -> bool {
    !headers.contains_key(&FORWARDED) && !headers.contains_key(&X_FORWARDED_FOR)
}

/// All lines of a header as a single list; `None` without the header.
fn lines(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let lines = headers.get_all(name).iter().map(|line| line.to_str().unwrap_or("?"));
    let all: Vec<&str> = lines.collect();
    (!all.is_empty()).then(|| all.join(","))
}

/// The rightmost address that is not trusted, or the leftmost if all are trusted. `None` if the search meets an
/// element that is no address.
fn read<'a>(hops: impl DoubleEndedIterator<Item = Option<&'a str>>, trusted: &Networks) -> Option<IpAddr> {
    let mut nearest = None;
    for hop in hops.rev() {
        let address = address(hop?)?;
        nearest = Some(address);
        if !trusted.contain(address) {
            break;
        }
    }
    nearest
}

/// With or without a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let address = text.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip()));
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().map(IpAddr::V6).ok();
    address.ok().or_else(bracketed).map(|address: IpAddr| address.to_canonical())
}

/// The `for=` value of each element of a `Forwarded` header; `None` for elements with none or several.
fn hops_of_forwarded(line: &str) -> impl DoubleEndedIterator<Item = Option<&str>> {
    split(line, ',').into_iter().map(|element| {
        let pairs = split(element, ';').into_iter().filter_map(|pair| pair.trim().split_once('='));
        let mut nodes = pairs.filter(|(name, _)| name.eq_ignore_ascii_case("for")).map(|(_, node)| node);
        let node = nodes.next().filter(|_| nodes.next().is_none())?;
        // Addresses need no escapes, so escapes are not decoded.
        match node.strip_prefix('"') {
            Some(quoted) => quoted.strip_suffix('"'),
            None => Some(node),
        }
    })
}

/// Splits at separators outside of quotes.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(|c| {
        let separates = c == separator && !quoted;
        quoted ^= c == '"' && !escaped;
        escaped = quoted && c == '\\' && !escaped;
        separates
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources};
    use proptest::prelude::*;

    fn trusted() -> Networks {
        let environment = [
            ("GATEWAY_SECRET", "0123456789abcdef0123456789abcdef"),
            ("GATEWAY_TRUSTED_PROXIES", "10.0.0.0/8, 2001:db8:ffff::/48"),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        Config::load(&Sources { environment, ..Sources::default() }).unwrap().trusted_proxies
    }

    fn told(headers: &[(&'static str, &str)]) -> String {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        client(&map, "10.0.0.1".parse().unwrap(), &trusted()).to_string()
    }

    #[test]
    fn the_rightmost_that_is_no_trusted_proxy() {
        for (value, address) in [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1:4711", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:80", "2001:db8::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("203.0.113.9, 192.0.2.1, 10.1.2.3,2001:db8:ffff::1", "192.0.2.1"),
            ("nonsense, 192.0.2.1", "192.0.2.1"),
            ("10.3.3.3, 10.2.2.2", "10.3.3.3"),
            ("192.0.2.1, nonsense", "10.0.0.1"),
            ("nonsense, 10.2.2.2", "10.0.0.1"),
            ("192.0.2.1,", "10.0.0.1"),
            ("192.0.2.256", "10.0.0.1"),
            ("", "10.0.0.1"),
        ] {
            assert_eq!(told(&[("x-forwarded-for", value)]), address, "{value:?}");
        }
        assert_eq!(told(&[]), "10.0.0.1");
        assert_eq!(told(&[("x-forwarded-for", "203.0.113.9"), ("x-forwarded-for", "192.0.2.1")]), "192.0.2.1");
    }

    #[test]
    fn forwarded_as_the_rfc_has_it() {
        for (value, address) in [
            ("for=192.0.2.43", "192.0.2.43"),
            ("For=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17"),
            ("for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60"),
            ("by=203.0.113.43 ; FOR=\"192.0.2.60:80\"", "192.0.2.60"),
            ("for=192.0.2.43, for=198.51.100.17", "198.51.100.17"),
            ("for=198.51.100.17, for=10.9.9.9", "198.51.100.17"),
            ("for=\"a,b;for=x\\\"\", for=192.0.2.43", "192.0.2.43"),
            ("for=unknown", "10.0.0.1"),
            ("for=_hidden", "10.0.0.1"),
            ("for=192.0.2.43, for=unknown", "10.0.0.1"),
            ("for=192.0.2.43;for=192.0.2.44", "10.0.0.1"),
            ("for=192.0.2.43, proto=http", "10.0.0.1"),
            ("for=\"192.0.2.43", "10.0.0.1"),
            ("192.0.2.43", "10.0.0.1"),
        ] {
            assert_eq!(told(&[("forwarded", value)]), address, "{value:?}");
        }
    }

    #[test]
    fn headers_that_disagree_are_not_believed() {
        let x = ("x-forwarded-for", "192.0.2.1");
        assert_eq!(told(&[("forwarded", "for=192.0.2.1"), x]), "192.0.2.1");
        assert_eq!(told(&[("forwarded", "for=192.0.2.2"), x]), "10.0.0.1");
        assert_eq!(told(&[("forwarded", "nonsense"), x]), "10.0.0.1");
    }

    proptest! {
        #[test]
        fn whatever_a_client_sends_its_proxys_word_stands(made_up in "[ -~]{0,60}", real in any::<[u8; 4]>()) {
            let real = IpAddr::from(real);
            prop_assume!(!trusted().contain(real));
            prop_assert_eq!(told(&[("x-forwarded-for", &made_up), ("x-forwarded-for", &real.to_string())]), real.to_string());
        }
    }
}
