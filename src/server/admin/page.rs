//! The admin page: an HTML file with style and script, without requests to other servers.

use crate::server::respond::{Answer, text, uncached};
use aws_lc_rs::digest::{SHA256, digest};
use hyper::StatusCode;
use hyper::header::{CONTENT_SECURITY_POLICY, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};

const HTML: &str = include_str!("page.html");

pub struct Page {
    /// Content-Security-Policy: allows the style and the script by hash, and requests to the listener.
    policy: String,
}

impl Page {
    pub fn new() -> Self {
        let (style, script) = (hash(between("<style>", "</style>")), hash(between("<script>", "</script>")));
        let policy = format!(
            "default-src 'none'; style-src '{style}'; script-src '{script}'; connect-src 'self'; img-src data:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        Self { policy }
    }

    pub fn answer(&self) -> Answer {
        let mut answer = uncached(text(StatusCode::OK, "text/html; charset=utf-8", HTML));
        let headers = answer.headers_mut();
        let policy = HeaderValue::from_str(&self.policy);
        headers.insert(CONTENT_SECURITY_POLICY, policy.unwrap_or(HeaderValue::from_static("default-src 'none'")));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        answer
    }
}

fn between(begin: &str, end: &str) -> &'static str {
    let rest = HTML.split_once(begin).map_or("", |(_, rest)| rest);
    rest.split_once(end).map_or("", |(text, _)| text)
}

/// The hash of an element's text in a Content-Security-Policy.
fn hash(text: &str) -> String {
    format!("sha256-{}", base64(digest(&SHA256, text.as_bytes()).as_ref()))
}

/// Standard base64 with padding (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0_usize, |bits, at| bits << 8 | usize::from(group.get(at).copied().unwrap_or(0)));
        for at in 0..4 {
            let digit = char::from(DIGITS[bits >> (18 - 6 * at) & 63]);
            text.push(if at > group.len() { '=' } else { digit });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_as_in_the_standard() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn the_page_has_one_style_and_one_script_and_nothing_that_the_policy_forbids() {
        assert_eq!((HTML.matches("<style").count(), HTML.matches("<script").count()), (1, 1));
        for forbidden in [" style=\"", " onclick=", "innerHTML", "eval(", "src=", "url(", "@import", "https://"] {
            assert!(!HTML.contains(forbidden), "{forbidden}");
        }
    }
}
