//! The admin page's requests: the overview, one user, test messages, and their refusals.

use crate::harness::client::Client;
use crate::harness::gateway::Gateway;
use crate::harness::http::{Http, Response};
use crate::harness::pocketbase::PocketBase;
use crate::harness::process::free_port;
use crate::harness::{SECRET, World, until};
use futures_util::StreamExt;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const TOKEN: &str = "an admin token for tests of 32 characters or more";

async fn get(gateway: &Gateway, path: &str) -> Response {
    Http::new().get(&gateway.admin(path)).await.expect("the admin listener answers")
}

async fn publish(gateway: &Gateway, token: &str, body: &str) -> Response {
    let bearer = format!("Bearer {token}");
    let headers: &[(&str, &str)] = if token.is_empty() { &[] } else { &[("authorization", &bearer)] };
    Http::new().send("POST", &gateway.admin("publish"), headers, body.to_owned()).await.expect("it answers")
}

fn refusal_of<'a>(answer: &'a Value, user: &str) -> Option<&'a Value> {
    answer["refusals"].as_array()?.iter().find(|refusal| refusal["user"] == user)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_overview_and_the_search_show_channels_users_and_refusals_without_content_and_secrets() {
    let world = World::start(2, true, &[("GATEWAY_ADMIN_TOKEN", TOKEN)]).await;
    let (room, users) = world.room(&["alice", "bob", "carol", "eve"]).await;
    let (bob, eve) = (&users[1], &users[3]);
    let channel = format!("room:{room}");
    let gateway = world.gateway();
    let (mut first, _second) = (world.subscriber(0, bob, &room).await, world.subscriber(0, &users[2], &room).await);
    let _elsewhere = world.subscriber(1, bob, &room).await;
    first.subscribe("room-updates").await;
    let mut refused = Client::connect(gateway, &eve.token).await;
    for _ in 0..3 {
        refused.call("subscribe", json!({"channel": channel})).await;
    }
    world.pocketbase.write(&room, &users[0], "hunter2").await;
    assert_eq!(first.message().await, "hunter2");
    let forged = Http::new().send("POST", &gateway.url("/hooks/pocketbase"), &[], "{}").await.expect("it answers");
    assert_eq!(forged.status, 401);

    let overview = until("the overview to count the channels", async || {
        let overview = get(gateway, "overview").await.json();
        let largest = overview["largest"].as_array().expect("channels").clone();
        let both = largest.contains(&json!([channel, 2])) && largest.contains(&json!(["room-updates", 1]));
        both.then_some(overview)
    })
    .await;
    assert_eq!((&overview["ready"], &overview["connections"]), (&json!(true), &json!(3)), "{overview}");
    assert_eq!(overview["redis"], json!({"configured": true, "up": true, "why": null}));
    assert_eq!(overview["pocketbase"], json!({"up": true, "why": null}));
    assert!(overview["totals"]["publications"].as_u64() >= Some(1), "{overview}");
    assert!(overview["totals"]["refusals"].as_u64() >= Some(4), "{overview}");
    let of_eve = refusal_of(&overview, &eve.id).expect("a refusal of eve");
    assert_eq!((&of_eve["code"], &of_eve["count"]), (&json!(103), &json!(3)), "{of_eve}");
    assert_eq!((&of_eve["action"], &of_eve["channel"]), (&json!("subscribe"), &json!(channel)));
    let of_hooks = refusal_of(&overview, "").expect("a refusal without a user");
    assert_eq!((&of_hooks["action"], &of_hooks["code"]), (&json!("hooks"), &json!("missing_signature")));
    assert_eq!(of_hooks["address"], "127.0.0.1");

    let found = get(gateway, &format!("user?key={}", bob.id)).await.json();
    assert_eq!((&found["open"], &found["everywhere"]), (&json!(1), &json!(2)), "{found}");
    let subscriptions = found["connections"][0]["subscriptions"].as_array().expect("subscriptions");
    let names: Vec<&str> = subscriptions.iter().map(|it| it["channel"].as_str().expect("a name")).collect();
    assert_eq!(names, ["room-updates", &channel]);
    assert!(subscriptions.iter().all(|it| it["since"].as_u64() < Some(60) && it["suspended"] == false), "{found}");
    let found_eve = get(gateway, &format!("user?key={}", eve.id)).await.json();
    assert_eq!(refusal_of(&found_eve, &eve.id), Some(of_eve));
    assert_eq!(found_eve["connections"][0]["all_subscriptions"], 0);
    let nobody = get(gateway, "user?key=nobody").await.json();
    assert_eq!((&nobody["open"], &nobody["refusals"]), (&json!(0), &json!([])));
    assert_eq!(get(gateway, "user?key=").await.status, 400);
    for text in [overview, found, found_eve].map(|answer| answer.to_string()) {
        for secret in ["hunter2", SECRET, TOKEN, &bob.token, &eve.token] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_users_access_is_shown_and_why_pocketbase_is_down() {
    let mut world = World::start(1, false, &[("GATEWAY_PULL_INTERVAL", "1")]).await;
    let (room, users) = world.room(&["alice", "bob", "eve"]).await;
    let mut bob = world.subscriber(0, &users[1], &room).await;
    world.pocketbase.as_superuser("DELETE", &format!("collections/rooms/records/{room}"), &Value::Null).await;
    bob.unsubscribed().await;
    let ended = until("the end of the access", async || {
        let found = get(world.gateway(), &format!("user?key={}", users[1].id)).await.json();
        refusal_of(&found, &users[1].id).cloned()
    })
    .await;
    assert_eq!((&ended["action"], &ended["channel"]), (&json!("access"), &json!(format!("room:{room}"))), "{ended}");

    world.pocketbase.process.kill();
    let down = until("PocketBase to be missed", async || {
        let overview = get(world.gateway(), "overview").await.json();
        (overview["pocketbase"]["up"] == false).then_some(overview)
    })
    .await;
    assert!(down["pocketbase"]["why"].as_str().is_some_and(|why| why.contains("unreachable")), "{down}");
    assert_eq!((&down["redis"]["configured"], &down["ready"]), (&json!(false), &json!(false)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_message_needs_the_token_and_reaches_the_subscribers() {
    let world = World::start(1, false, &[("GATEWAY_ADMIN_TOKEN", TOKEN)]).await;
    let (room, users) = world.room(&["alice", "bob", "eve"]).await;
    let mut bob = world.subscriber(0, &users[1], &room).await;
    let body = |channel: &str| json!({"channel": channel, "text": "is anybody there?"}).to_string();
    let right = body(&format!("room:{room}"));
    let long = body(&"x".repeat(5000));
    for (token, body, status, code) in [
        ("", right.as_str(), 401, "bad_token"),
        ("wrong", &right, 401, "bad_token"),
        (SECRET, &right, 401, "bad_token"),
        (TOKEN, &body("room-updates"), 400, "bad_request"),
        (TOKEN, &body("$access"), 400, "bad_request"),
        (TOKEN, r#"{"channel":"room:x"}"#, 400, "bad_request"),
        (TOKEN, &long, 400, "bad_request"),
    ] {
        let answer = publish(world.gateway(), token, body).await;
        assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (status, Some(code)), "{}", answer.text);
    }
    let refused = world.gateway().metric(r#"gateway_hooks_refused_total{reason="bad_token"}"#).await;
    assert_eq!(refused, 3.0);
    let answer = publish(world.gateway(), TOKEN, &right).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let signal = bob.signal().await;
    assert_eq!(signal["data"], json!({"type": "test", "text": "is anybody there?"}));
    assert_eq!(signal["info"]["user"], "$server");
    let log = world.gateway().process.log();
    assert!(log.contains("a test message was published") && !log.contains(TOKEN), "{log}");
}

#[tokio::test]
async fn without_a_token_the_page_is_read_only_and_foreign_pages_get_nothing() {
    let pocketbase = PocketBase::start("http://127.0.0.1:1").await;
    let gateway = Gateway::start(free_port(), &pocketbase.url, &[]).await;
    for token in ["", TOKEN] {
        let answer = publish(&gateway, token, r#"{"channel":"room:x","text":"x"}"#).await;
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (403, &json!("read_only")));
    }
    // A name that resolves to the listener, as in DNS rebinding.
    for (path, foreign, own) in [("", 403, 200), ("overview", 403, 200), ("user?key=x", 403, 200), ("readyz", 200, 200)]
    {
        for (host, status) in [("evil.example", foreign), ("localhost:8001", own)] {
            let answer =
                Http::new().send("GET", &gateway.admin(path), &[("host", host)], "").await.expect("it answers");
            assert_eq!(answer.status, status, "{path} {host}: {}", answer.text);
        }
    }
    assert_eq!(Http::new().send("POST", &gateway.admin("overview"), &[], "").await.expect("it answers").status, 405);
    assert_eq!(get(&gateway, "nothing").await.status, 404);
}

/// Connections of the test of the overview's duration.
const MANY: usize = 3000;

#[tokio::test(flavor = "multi_thread")]
async fn an_overview_of_many_connections_takes_milliseconds() {
    let settings = [("GATEWAY_MAX_CONNECTIONS_PER_IP", "0"), ("GATEWAY_MAX_CONNECTIONS_PER_USER", "0")];
    let world = World::start(1, false, &settings).await;
    let (room, users) = world.room(&["alice", "bob", "eve"]).await;
    let clients: Vec<Client> = futures_util::stream::iter(0..MANY)
        .map(|_| world.subscriber(0, &users[1], &room))
        .buffer_unordered(50)
        .collect()
        .await;
    // Each overview counts the channels anew after a second; the fastest is free of the machine's other work.
    let mut fastest = [Duration::MAX; 2];
    for round in 0..12 {
        for (fastest, path) in fastest.iter_mut().zip(["overview".to_owned(), format!("user?key={}", users[1].id)]) {
            let began = Instant::now();
            let answer = get(world.gateway(), &path).await.json();
            *fastest = (*fastest).min(began.elapsed());
            let open = if path == "overview" { &answer["connections"] } else { &answer["open"] };
            assert_eq!(open, MANY, "round {round}: {path}");
        }
    }
    println!("{MANY} connections: overview {:?}, search {:?}", fastest[0], fastest[1]);
    assert!(fastest.iter().all(|it| *it < Duration::from_millis(20)), "{fastest:?}");
    drop(clients);
}
