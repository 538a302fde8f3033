//! Version handshake: compares PocketBase's hooks with the gateway.

/// Version of the gateway.
const GATEWAY: &str = env!("CARGO_PKG_VERSION");

/// Names the older side and the remedy; `None` for equal or unreadable versions. Hooks without a version
/// (`None`) are the older side.
pub fn mismatch(hooks: Option<&str>) -> Option<String> {
    compare(hooks, GATEWAY)
}

fn compare(hooks: Option<&str>, gateway: &str) -> Option<String> {
    let older_hooks = |version: &str| {
        format!(
            "PocketBase's hooks ({version}) are older than this gateway ({gateway}): run `konvert-gateway init DIR` and \
             restart PocketBase"
        )
    };
    let Some(hooks) = hooks else { return Some(older_hooks("without a version")) };
    let (theirs, ours) = (numbers(hooks)?, numbers(gateway)?);
    if theirs < ours {
        Some(older_hooks(hooks))
    } else if theirs > ours {
        Some(format!("this gateway ({gateway}) is older than PocketBase's hooks ({hooks}): upgrade the gateway"))
    } else {
        None
    }
}

/// The three numbers of a version such as `1.2.3` or `1.2.3-beta.1`.
fn numbers(version: &str) -> Option<[u64; 3]> {
    let release = version.split(['-', '+']).next()?;
    let numbers: Vec<u64> = release.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    numbers.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_side_is_named() {
        assert_eq!(
            compare(Some("0.1.0"), "0.2.0").unwrap(),
            "PocketBase's hooks (0.1.0) are older than this gateway (0.2.0): run `konvert-gateway init DIR` and restart \
             PocketBase"
        );
        assert_eq!(
            compare(Some("0.2.0"), "0.1.0").unwrap(),
            "this gateway (0.1.0) is older than PocketBase's hooks (0.2.0): upgrade the gateway"
        );
        assert!(compare(None, "0.1.0").unwrap().starts_with("PocketBase's hooks (without a version) are older"));
        assert!(compare(Some("0.9.9"), "0.10.0").unwrap().starts_with("PocketBase's hooks (0.9.9) are older"));
        for same in ["0.1.0", "0.1.0-beta.1", "0.1.0+build"] {
            assert_eq!(compare(Some(same), "0.1.0"), None, "{same}");
        }
        for unreadable in ["", "1", "1.2", "1.2.3.4", "a.b.c", "1.2.-3"] {
            assert_eq!(compare(Some(unreadable), "0.1.0"), None, "{unreadable}");
        }
    }

    #[test]
    fn the_hooks_have_the_version_of_the_gateway() {
        let hooks = include_str!("../../deploy/pocketbase/pb_hooks/gateway/version.js");
        assert!(hooks.contains(&format!("module.exports = \"{GATEWAY}\";")), "version.js is not of version {GATEWAY}");
    }
}
