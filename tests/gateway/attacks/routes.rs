//! Requests by strangers to PocketBase's routes for the gateway, which return keys and decide about access.

use super::arena::Arena;
use crate::harness::SECRET;
use konvert_gateway::signature::{SIGNATURE, Signer, TIMESTAMP};
use serde_json::json;
use std::time::{Duration, SystemTime};

pub async fn run(arena: &mut Arena) {
    arena.begin("routes");
    let (ours, foreign) = (Signer::new(&SECRET.into()), Signer::new(&"another secret of 32 characters..".into()));
    let now = SystemTime::now();
    let base = arena.world.pocketbase.url.clone();
    let users = json!({"users": [arena.alice.id]}).to_string();
    for (route, method) in [("keys", "POST"), ("authorize", "POST"), ("events", "GET"), ("confirm", "POST")] {
        let target = format!("/api/gateway/{route}");
        let url = format!("{base}{target}");
        let body = if method == "POST" { users.clone() } else { String::new() };
        let seen = arena.request(method, &url, &[], body.clone()).await;
        arena.score(&format!("{route} without a signature"), "401 missing_signature", &seen).await;
        let bearer = [("authorization", arena.alice.token.as_str())];
        let seen = arena.request(method, &url, &bearer, body.clone()).await;
        arena.score(&format!("{route} with a user's token"), "401 missing_signature", &seen).await;
        let (timestamp, signature) = foreign.sign(now, method, &target, body.as_bytes());
        let seen = signed(arena, method, &url, (&timestamp, &signature), body.clone()).await;
        arena.score(&format!("{route} with another secret"), "401 bad_signature", &seen).await;
        let old = now - Duration::from_secs(360);
        let (timestamp, signature) = ours.sign(old, method, &target, body.as_bytes());
        let seen = signed(arena, method, &url, (&timestamp, &signature), body.clone()).await;
        arena.score(&format!("{route}, recorded six minutes ago"), "401 stale_timestamp", &seen).await;
        let (timestamp, signature) = ours.sign(now, method, &target, body.as_bytes());
        let seen =
            signed(arena, method, &format!("{url}?after=0&limit=1"), (&timestamp, &signature), body.clone()).await;
        arena.score(&format!("{route}, recorded, with another query"), "401 bad_signature", &seen).await;
        let other = if method == "POST" { "GET" } else { "POST" };
        let (timestamp, signature) = ours.sign(now, other, &target, b"");
        let seen = signed(arena, other, &url, (&timestamp, &signature), String::new()).await;
        arena.score(&format!("{route} by {other}"), "404", &seen).await;
    }
    let target = "/api/gateway/keys";
    let url = format!("{base}{target}");
    let (timestamp, signature) = ours.sign(now, "POST", "/api/gateway/authorize", users.as_bytes());
    let seen = signed(arena, "POST", &url, (&timestamp, &signature), users.clone()).await;
    arena.score("a signature for another route", "401 bad_signature", &seen).await;
    let many: Vec<String> = (0..501).map(|i| format!("user{i:011}")).collect();
    let nested = format!("{{\"users\":{}1{}}}", "[".repeat(5000), "]".repeat(5000));
    for (name, body, expected) in [
        ("keys of 501 users", json!({"users": many}).to_string(), "400 bad_request"),
        ("keys of numbers", json!({"users": [1]}).to_string(), "400 bad_request"),
        ("keys of an object", json!({"users": {"length": 1}}).to_string(), "400 bad_request"),
        ("keys of nothing", "{}".to_owned(), "400 bad_request"),
        ("keys, not JSON", "nonsense".to_owned(), "400 bad_request"),
        ("keys, nested 5,000 deep", nested, "400 bad_request"),
        ("keys, a body of 2 MiB", json!({"users": ["x".repeat(2 << 20)]}).to_string(), "413"),
    ] {
        let (timestamp, signature) = ours.sign(SystemTime::now(), "POST", target, body.as_bytes());
        let seen = signed(arena, "POST", &url, (&timestamp, &signature), body).await;
        arena.score(name, expected, &seen).await;
    }
    for (name, query) in [
        ("events after -1", "?after=-1&limit=10"),
        ("events after 2^63", "?after=9223372036854775808&limit=10"),
        ("events with SQL", "?after=0;DROP&limit=10"),
        ("5,000 events", "?after=0&limit=5000"),
        ("events after nothing", ""),
    ] {
        let target = format!("/api/gateway/events{query}");
        let (timestamp, signature) = ours.sign(SystemTime::now(), "GET", &target, b"");
        let seen = signed(arena, "GET", &format!("{base}{target}"), (&timestamp, &signature), String::new()).await;
        arena.score(name, "400 bad_request", &seen).await;
    }
    for (name, path) in [
        ("the outbox as a collection", "/api/collections/_gateway_outbox/records"),
        ("the outbox in other case", "/api/collections/_GATEWAY_OUTBOX/records"),
    ] {
        let token = [("authorization", arena.alice.token.as_str())];
        let seen = arena.request("GET", &format!("{base}{path}"), &token, "").await;
        arena.score(name, "404", &seen).await;
    }
}

async fn signed(arena: &Arena, method: &str, url: &str, (timestamp, signature): (&str, &str), body: String) -> String {
    arena.request(method, url, &[(TIMESTAMP, timestamp), (SIGNATURE, signature)], body).await
}
