//! Allowed origins: the web pages that may connect, by the header `Origin`, which browsers set and pages cannot change.

use super::value::{Value, quote};

/// Exact origins (`https://chat.example.org`), subdomains of a domain (`https://*.example.org`), and origins of apps
/// (`capacitor://localhost`, `file://`, `null`), separated by commas. An empty list allows every origin: connections
/// need a token, which no browser adds by itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Origins(Vec<String>);

impl Origins {
    pub fn allow_all(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the value of an `Origin` header is allowed, in any letter case.
    pub fn allow(&self, origin: &str) -> bool {
        let origin = origin.to_ascii_lowercase();
        self.allow_all() || self.0.iter().any(|pattern| matches(pattern, &origin))
    }
}

fn matches(pattern: &str, origin: &str) -> bool {
    let Some((scheme, domain)) = pattern.split_once("://*.") else { return pattern == origin };
    let subdomain = origin
        .strip_prefix(scheme)
        .and_then(|rest| rest.strip_prefix("://"))
        .and_then(|host| host.strip_suffix(domain))
        .and_then(|rest| rest.strip_suffix('.'));
    subdomain
        .is_some_and(|name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)))
}

/// Whether the text is an origin as browsers write it, optionally with `*.` before the domain.
fn is_pattern(text: &str) -> bool {
    // Pages from files and sandboxed frames have no host; for most of them, browsers send the origin "null".
    if matches!(text, "null" | "file://") {
        return true;
    }
    let Some((scheme, host)) = text.split_once("://") else { return false };
    let host = host.strip_prefix("*.").unwrap_or(host);
    let origin: Option<hyper::Uri> = format!("{scheme}://{host}").parse().ok();
    origin.is_some_and(|origin| {
        origin.authority().is_some_and(|authority| authority.as_str() == host) && !host.contains(['*', '@'])
    })
}

impl Value for Origins {
    fn parse(text: &str) -> Result<Self, String> {
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        let pattern = |word: &str| {
            let word = word.to_ascii_lowercase();
            if is_pattern(&word) {
                Ok(word)
            } else {
                Err(format!(
                    "{word:?} is not an origin such as https://chat.example.org or https://*.example.org, without a \
                     path; apps send capacitor://localhost, file:// or null"
                ))
            }
        };
        Ok(Self(words.map(pattern).collect::<Result<_, _>>()?))
    }

    fn show(&self) -> String {
        quote(&self.0.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_ones_and_subdomains() {
        let origins = Origins::parse(
            "https://chat.example.org, https://*.example.com,http://localhost:5173, https://*.x.org:8443",
        )
        .unwrap();
        for (origin, allowed) in [
            ("https://chat.example.org", true),
            ("HTTPS://Chat.Example.org", true),
            ("http://chat.example.org", false),
            ("https://chat.example.org:8443", false),
            ("https://chat.example.org.evil.net", false),
            ("https://evil.chat.example.org", false),
            ("https://a.example.com", true),
            ("https://a.b.example.com", true),
            ("https://example.com", false),
            ("https://.example.com", false),
            ("https://evilexample.com", false),
            ("https://evil.net/.example.com", false),
            ("https://evil.net:1@a.example.com", false),
            ("http://a.example.com", false),
            ("http://localhost:5173", true),
            ("http://localhost", false),
            ("https://a.x.org:8443", true),
            ("https://a.x.org", false),
            ("null", false),
            ("", false),
        ] {
            assert_eq!(origins.allow(origin), allowed, "{origin:?}");
        }
        assert_eq!(Origins::parse(origins.show().trim_matches('"')).unwrap(), origins);
    }

    #[test]
    fn apps_and_files() {
        let listed = ["null", "file://", "capacitor://localhost", "ionic://localhost", "tauri://localhost"];
        let origins = Origins::parse(&listed.join(",")).unwrap();
        assert!(listed.iter().all(|origin| origins.allow(origin)));
        for other in ["", "file:///etc/passwd", "capacitor://evil.example", "https://null", "nulls", "http://localhost"]
        {
            assert!(!origins.allow(other), "{other:?}");
        }
        assert_eq!(Origins::parse(origins.show().trim_matches('"')).unwrap(), origins);
    }

    #[test]
    fn none_listed_is_all_allowed() {
        assert!(Origins::default().allow("https://anywhere.example") && Origins::default().allow("null"));
    }

    #[test]
    fn what_is_no_origin_is_refused_with_an_example() {
        for text in [
            "example.org",
            "https://",
            "https://a.org/",
            "https://a.org/x",
            "*",
            "https://*",
            "https://a.*.org",
            "file:///srv/page.html",
            "nil",
        ] {
            let error = Origins::parse(text).unwrap_err();
            assert!(error.contains("https://*.example.org"), "{text}: {error}");
        }
    }
}
