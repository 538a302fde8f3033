//! Requests to the hooks' endpoint by strangers, and malformed requests with the right secret.

use super::arena::Arena;
use crate::harness::SECRET;
use crate::harness::gateway::Gateway;
use konvert_gateway::signature::{SIGNATURE, Signer, TIMESTAMP};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const TARGET: &str = "/hooks/pocketbase";

pub async fn run(arena: &mut Arena) {
    arena.begin("hooks");
    signatures(arena).await;
    with_the_secret(arena).await;
}

fn ours() -> Signer {
    Signer::new(&SECRET.into())
}

/// An event that would shut Bob out of the room if a gateway accepted it.
fn forged_access(arena: &Arena) -> String {
    let access = json!([{"cause": "deleted", "channel": arena.channel()}, {"cause": "user", "user": arena.bob.id}]);
    json!({"boot": "x", "events": [{"seq": 1_000_000, "channels": ["$access"], "data": access, "access": access}]})
        .to_string()
}

async fn signatures(arena: &mut Arena) {
    let foreign = Signer::new(&"another secret of 32 characters..".into());
    let (now, body) = (SystemTime::now(), r#"{"events":[]}"#);
    let sign =
        |signer: &Signer, at, method: &str, target: &str, body: &str| signer.sign(at, method, target, body.as_bytes());
    let at = |seconds: i64| {
        let offset = Duration::from_secs(seconds.unsigned_abs());
        if seconds < 0 { now - offset } else { now + offset }
    };
    let right = sign(&ours(), now, "POST", TARGET, body);
    let forged = forged_access(arena);
    let with = |timestamp: &str, signature: &str| (timestamp.to_owned(), signature.to_owned());
    for (name, (timestamp, signature), sent, expected) in [
        ("another secret", sign(&foreign, now, "POST", TARGET, body), body, "401 bad_signature"),
        (
            "an event for $access, another secret",
            sign(&foreign, now, "POST", TARGET, &forged),
            &forged,
            "401 bad_signature",
        ),
        ("body changed", right.clone(), r#"{"events":[ ]}"#, "401 bad_signature"),
        ("body left out", right.clone(), "", "401 bad_signature"),
        (
            "signed for another path",
            sign(&ours(), now, "POST", "/api/gateway/confirm", body),
            body,
            "401 bad_signature",
        ),
        ("signed with a query", sign(&ours(), now, "POST", "/hooks/pocketbase?x", body), body, "401 bad_signature"),
        ("signed for another method", sign(&ours(), now, "PUT", TARGET, body), body, "401 bad_signature"),
        ("six minutes old", sign(&ours(), at(-360), "POST", TARGET, body), body, "401 stale_timestamp"),
        ("an hour old", sign(&ours(), at(-3600), "POST", TARGET, body), body, "401 stale_timestamp"),
        ("six minutes ahead", sign(&ours(), at(360), "POST", TARGET, body), body, "401 stale_timestamp"),
        ("from 1970", sign(&ours(), UNIX_EPOCH, "POST", TARGET, body), body, "401 stale_timestamp"),
        (
            "timestamp changed",
            with(&(right.0.parse::<u64>().expect("a number") + 1).to_string(), &right.1),
            body,
            "401 bad_signature",
        ),
        ("timestamp not a number", with("now", &right.1), body, "401 bad_signature"),
        ("timestamp negative", with("-1", &right.1), body, "401 bad_signature"),
        ("timestamp 2^80", with("1208925819614629174706176", &right.1), body, "401 bad_signature"),
        ("timestamp with a zero before", with(&format!("0{}", right.0), &right.1), body, "401 bad_signature"),
        ("timestamp empty", with("", &right.1), body, "401 bad_signature"),
        ("signature empty", with(&right.0, ""), body, "401 bad_signature"),
        ("signature cut off", with(&right.0, &right.1[..62]), body, "401 bad_signature"),
        ("signature and more", with(&right.0, &format!("{}00", right.1)), body, "401 bad_signature"),
        ("signature of zeros", with(&right.0, &"0".repeat(64)), body, "401 bad_signature"),
        ("signature that is no hexadecimal", with(&right.0, &"zz".repeat(32)), body, "401 bad_signature"),
        ("signature of 10,000 characters", with(&right.0, &"0".repeat(10_000)), body, "401 bad_signature"),
    ] {
        let headers = [(TIMESTAMP, timestamp.as_str()), (SIGNATURE, signature.as_str())];
        let seen = post(arena, &headers, sent).await;
        arena.score(name, expected, &seen).await;
    }
    let (timestamp, signature) = (right.0.as_str(), right.1.as_str());
    let (wrong, token) = ("0".repeat(64), arena.alice.token.clone());
    for (name, headers, expected) in [
        ("no headers", vec![], "401 missing_signature"),
        ("no signature", vec![(TIMESTAMP, timestamp)], "401 missing_signature"),
        ("no timestamp", vec![(SIGNATURE, signature)], "401 missing_signature"),
        ("a user's token instead", vec![("authorization", token.as_str())], "401 missing_signature"),
        ("the secret itself instead", vec![("authorization", SECRET)], "401 missing_signature"),
        (
            "signature twice, the first one wrong",
            vec![(TIMESTAMP, timestamp), (SIGNATURE, wrong.as_str()), (SIGNATURE, signature)],
            "401 bad_signature",
        ),
        ("both in one header", vec![(TIMESTAMP, timestamp), (SIGNATURE, "x, y")], "401 bad_signature"),
    ] {
        let seen = post(arena, &headers, body).await;
        arena.score(name, expected, &seen).await;
    }
    for (name, size) in [("2 MB unsigned", 2_000_000), ("64 MB unsigned", 64_000_000)] {
        let refused = r#"gateway_hooks_refused_total{reason="too_large"}"#;
        let before = arena.gateway().metric(refused).await;
        let seen = post(arena, &[], vec![b' '; size]).await;
        arena.gateway().metric_reaches(refused, before + 1.0).await;
        // The gateway closes before reading the whole body, so the answer may be lost.
        let seen = if seen == "cut off" { "413 too_large".to_owned() } else { seen };
        arena.score(name, "413 too_large", &seen).await;
    }
}

/// Posts with the secret, whose holder may publish. Malformed bodies are refused. Unreadable rows, and rows far behind
/// or far ahead, lose nothing: the message after each attack still arrives.
async fn with_the_secret(arena: &mut Arena) {
    let channel = arena.channel();
    let event = |seq: Value| json!({"seq": seq, "channels": [channel], "data": {"forged": true}});
    let body = |events: Vec<Value>| json!({"boot": "forged", "events": events}).to_string();
    let far = |seq: u64| body(vec![event(json!(seq))]);
    let channels = |channels: Value| json!({"events": [{"seq": 9, "channels": channels, "data": 1}]}).to_string();
    let deep = format!(r#"{{"events":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let many: Vec<String> = (0..1001).map(|i| format!("room:{i}")).collect();
    for (name, body, expected) in [
        ("not JSON", "nonsense".to_owned(), "400 bad_request"),
        ("nothing", String::new(), "400 bad_request"),
        ("a list", "[]".to_owned(), "400 bad_request"),
        ("no events", "{}".to_owned(), "400 bad_request"),
        ("events twice", r#"{"events":[],"events":[]}"#.to_owned(), "400 bad_request"),
        ("nested 100,000 deep", deep, "400 bad_request"),
        ("numbers that fall", body(vec![event(json!(1_000_000_000)), event(json!(7))]), "400 bad_request"),
        ("a number twice", body(vec![event(json!(7)), event(json!(7))]), "400 bad_request"),
        ("number 0", body(vec![event(json!(0))]), "400 bad_request"),
        ("a negative number", body(vec![event(json!(-1))]), "400 bad_request"),
        ("a float", body(vec![event(json!(1.5))]), "400 bad_request"),
        (
            "number 2^64",
            far(7).replace(":7,", ":18446744073709551616,").replace(":7}", ":18446744073709551616}"),
            "400 bad_request",
        ),
        // Unreadable rows are skipped, so that no row holds up the next.
        ("an event for $access", forged_access(arena), "202"),
        ("a channel without a name", channels(json!([""])), "202"),
        ("a channel's name of 1,025 bytes", channels(json!(["x".repeat(1025)])), "202"),
        ("1,001 channels", channels(json!(many)), "202"),
        ("a channel that is a number", channels(json!([7])), "202"),
        ("2 MB", far(7).replace("forged\":true", &format!("forged\":\"{}\"", "x".repeat(2_000_000))), "413 too_large"),
        ("an event far ahead: skips nothing", far(1_000_000_000), "202"),
        ("an event of long ago: published by nobody", far(1), "202"),
        ("an event of another run of PocketBase", far(2), "202"),
        (
            "access that is unreadable, far ahead",
            far(1_000_001).replace("\"channels\"", "\"access\":7,\"channels\""),
            "202",
        ),
    ] {
        let (timestamp, signature) = ours().sign(SystemTime::now(), "POST", TARGET, body.as_bytes());
        let seen = post(arena, &[(TIMESTAMP, &timestamp), (SIGNATURE, &signature)], body).await;
        arena.score(name, expected, &seen).await;
    }
    // A recorded post, sent again within the five minutes of its timestamp, to either gateway.
    let after = arena.world.pocketbase.boot().await;
    let events = arena.newest_events().await;
    let again = json!({"boot": after, "events": events}).to_string();
    let (timestamp, signature) = ours().sign(SystemTime::now(), "POST", TARGET, again.as_bytes());
    let headers = [(TIMESTAMP, timestamp.as_str()), (SIGNATURE, signature.as_str())];
    for (name, gateway) in [("what was published before", 0), ("the same on the other gateway", 1)] {
        let seen = post_to(arena, &arena.world.gateways[gateway], &headers, again.clone()).await;
        arena.score(&format!("{name}, posted again: delivered to nobody"), "202", &seen).await;
        let seen = post_to(arena, &arena.world.gateways[gateway], &headers, again.clone()).await;
        arena.score(&format!("{name}, with the same signature"), "409 replayed", &seen).await;
    }
    let mut headers = headers.to_vec();
    headers.push(("content-type", "text/html"));
    let (timestamp, signature) = ours().sign(SystemTime::now(), "POST", TARGET, b"{}");
    (headers[0].1, headers[1].1) = (&timestamp, &signature);
    let seen = post(arena, &headers, "{}").await;
    arena.score("another content type, no events", "400 bad_request", &seen).await;
}

async fn post(arena: &Arena, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> String {
    post_to(arena, arena.gateway(), headers, body).await
}

async fn post_to(arena: &Arena, gateway: &Gateway, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> String {
    arena.request("POST", &gateway.url(TARGET), headers, body).await
}
