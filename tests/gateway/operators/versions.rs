//! Hooks of another version than the gateway: the log and the doctor say which side is older.

use super::doctor;
use crate::harness::gateway::Gateway;
use crate::harness::pocketbase::{PocketBase, chat, install};
use crate::harness::process::free_port;
use crate::harness::until;
use std::fs;

#[tokio::test]
async fn the_older_side_is_named() {
    let ours = env!("CARGO_PKG_VERSION");
    let older = |hooks: &str| {
        format!(
            "PocketBase's hooks ({hooks}) are older than this gateway ({ours}): run `konvert-gateway init DIR` and \
             restart PocketBase"
        )
    };
    let newer = format!("this gateway ({ours}) is older than PocketBase's hooks (99.0.0): upgrade the gateway");
    for (hooks, sentence) in [("0.0.1", Some(older("0.0.1"))), ("99.0.0", Some(newer)), (ours, None)] {
        let folder = tempfile::tempdir().unwrap();
        install(&chat(), "pb_hooks", folder.path());
        let file = folder.path().join("gateway/version.js");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(ours), "{text}");
        fs::write(&file, text.replace(ours, hooks)).unwrap();

        let port = free_port();
        let pocketbase = PocketBase::start_with(&format!("http://127.0.0.1:{port}"), folder.path(), &[]).await;
        let gateway = Gateway::start(port, &pocketbase.url, &[("GATEWAY_PULL_INTERVAL", "1")]).await;
        gateway.metric_reaches(r#"gateway_relay_pulls_total{cause="timer"}"#, 3.0).await;
        let (code, found) = doctor(&gateway, &pocketbase);
        match sentence {
            Some(sentence) => {
                until("the warning", async || gateway.process.log().contains(&sentence).then_some(())).await;
                assert_eq!(gateway.process.log().matches(&sentence).count(), 1, "once");
                assert!(code == Some(1) && found.contains(&sentence), "{found}");
            }
            None => {
                assert!(!gateway.process.log().contains("older than"), "{}", gateway.process.log());
                assert!(code == Some(0) && !found.contains("older than"), "{found}");
            }
        }
    }
}
