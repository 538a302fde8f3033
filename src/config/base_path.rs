//! Path prefix of the public listener, for a gateway behind a proxy that forwards a single path.

use super::value::{Value, quote};

/// A path such as `/realtime`, without a slash at the end; empty for no prefix.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BasePath(String);

impl BasePath {
    /// Removes the base path from a request's path or target; `None` if the target is not below the base path.
    pub fn strip<'a>(&self, target: &'a str) -> Option<&'a str> {
        target
            .strip_prefix(self.0.as_str())
            .filter(|rest| self.0.is_empty() || rest.is_empty() || rest.starts_with('/'))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for BasePath {
    fn parse(text: &str) -> Result<Self, String> {
        let path = text.trim_end_matches('/');
        let is_segment = |segment: &str| {
            let mut bytes = segment.bytes();
            !matches!(segment, "" | "." | "..")
                && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
        };
        if path.is_empty() || path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(is_segment)) {
            Ok(Self(path.to_owned()))
        } else {
            Err(format!("{text:?} is not a path such as /realtime, with letters, digits and -._~ between slashes"))
        }
    }

    fn show(&self) -> String {
        quote(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_segments_are_stripped() {
        for (base, target, rest) in [
            ("", "/api/publish", Some("/api/publish")),
            ("/", "/api/publish", Some("/api/publish")),
            ("/a/b/", "/a/b/api/publish?x", Some("/api/publish?x")),
            ("/a", "/a", Some("")),
            ("/a", "/ab", None),
            ("/a", "/", None),
        ] {
            assert_eq!(BasePath::parse(base).unwrap().strip(target), rest, "{base} {target}");
        }
        for bad in ["realtime", "/a b", "/a//b", "/a/../b", "/a?b", "http://a/b"] {
            assert!(BasePath::parse(bad).unwrap_err().contains("/realtime"), "{bad}");
        }
    }
}
