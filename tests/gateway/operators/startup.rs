//! Settings that the gateway refuses before it listens.

use crate::harness::SECRET;
use std::process::Command;

/// Exit code and standard error of `check-config` with one setting.
fn checked(name: &str, value: &str) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_konvert-gateway"));
    let output = command.arg("check-config").env("GATEWAY_SECRET", SECRET).env(name, value).output();
    let output = output.expect("the gateway runs");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn an_unknown_log_level_is_an_error_that_names_the_levels() {
    for word in ["warning", "verbose", "info,konvert_gateway::relay=all", ""] {
        let (code, error) = checked("GATEWAY_LOG_LEVEL", word);
        assert_ne!(code, Some(0), "{word}");
        assert!(error.contains("log_level") || error.contains("GATEWAY_LOG_LEVEL"), "{word}: {error}");
        assert!(error.contains("error, warn, info, debug, trace"), "{word}: {error}");
    }
    for word in ["warn", "DEBUG", "info,konvert_gateway::relay=debug"] {
        assert_eq!(checked("GATEWAY_LOG_LEVEL", word).0, Some(0), "{word}");
    }
}
