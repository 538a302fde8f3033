//! Mistakes of clients and hook callers are counted, and reported to the caller. Deliberate attacks are in
//! `attacks.rs`.

use crate::harness::client::Client;
use crate::harness::gateway::Gateway;
use crate::harness::http::Http;
use crate::harness::tokens::{sign, signing_key};
use crate::harness::translation::PROTOBUF;
use crate::harness::{SECRET, World};
use jsonwebtoken::Algorithm;
use konvert_gateway::signature::{SIGNATURE, Signer, TIMESTAMP};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::{Frame, coding};

/// A gateway with an honest client, which must not be affected.
struct Arena {
    world: World,
    room: String,
    users: Vec<crate::harness::pocketbase::User>,
    honest: Client,
}

impl Arena {
    async fn new(settings: &[(&str, &str)]) -> Self {
        let world = World::start(1, false, settings).await;
        let (room, users) = world.room(&["alice", "bob", "eve"]).await;
        let honest = world.subscriber(0, &users[1], &room).await;
        Self { world, room, users, honest }
    }

    fn gateway(&self) -> &Gateway {
        self.world.gateway()
    }

    /// Checks that the honest client still gets messages, and that no session panicked.
    async fn end_undisturbed(mut self) {
        self.world.pocketbase.write(&self.room, &self.users[0], "still here").await;
        assert_eq!(self.honest.message().await, "still here");
        assert_eq!(self.gateway().metric("gateway_session_panics_total").await, 0.0);
    }
}

#[tokio::test]
async fn invalid_frames_are_counted_by_kind() {
    let arena = Arena::new(&[("GATEWAY_MAX_FRAME_SIZE", "10000")]).await;
    let connect = json!({"id": 1, "connect": {"token": arena.users[0].token}}).to_string();
    let bad_utf8 = Message::Frame(Frame::message(vec![0xff, 0xfe], coding::OpCode::Data(coding::Data::Text), true));
    let (other_kind, counter_of_other_kind) = if *PROTOBUF {
        let text = Frame::message("{}", coding::OpCode::Data(coding::Data::Text), true);
        (Message::Frame(text), r#"gateway_bad_frames_total{kind="text"}"#)
    } else {
        (Message::binary(b"{}".to_vec()), r#"gateway_bad_frames_total{kind="binary"}"#)
    };
    let cases: Vec<(&str, Option<&str>, Message, u16, &str)> = vec![
        ("not JSON", None, Message::text("hello"), 3501, r#"gateway_bad_frames_total{kind="malformed"}"#),
        (
            "an unknown command",
            Some(&connect),
            Message::text(r#"{"id":2,"explode":{}}"#),
            3501,
            r#"gateway_bad_frames_total{kind="unknown_command"}"#,
        ),
        (
            "a command without an id",
            Some(&connect),
            Message::text(r#"{"presence":{"channel":"room:a"}}"#),
            3501,
            r#"gateway_bad_frames_total{kind="no_id"}"#,
        ),
        ("a frame of the other kind", Some(&connect), other_kind, 3501, counter_of_other_kind),
        (
            "too big for the setting",
            Some(&connect),
            Message::text("x".repeat(10_001)),
            1009,
            r#"gateway_bad_frames_total{kind="too_big"}"#,
        ),
        ("not UTF-8", Some(&connect), bad_utf8, 1007, r#"gateway_bad_frames_total{kind="utf8"}"#),
        (
            "a command before connect",
            None,
            Message::text(r#"{"id":1,"ping":{}}"#),
            3501,
            r#"gateway_disconnects_total{code="3501"}"#,
        ),
    ];
    for (name, first, message, code, counter) in cases {
        let before = arena.gateway().metric(counter).await;
        let mut client = Client::open(&arena.gateway().websocket()).await;
        if let Some(first) = first {
            client.send(first).await;
        }
        client.send_raw(message).await;
        assert_eq!(client.closed().await.0, code, "{name}");
        arena.gateway().metric_reaches(counter, before + 1.0).await;
    }
    arena.end_undisturbed().await;
}

#[tokio::test]
async fn the_commands_before_a_malformed_one_are_answered() {
    let arena = Arena::new(&[]).await;
    let mut client = Client::connect(arena.gateway(), &arena.users[0].token).await;
    client
        .send("{\"id\":8,\"ping\":{}}\n{\"id\":9,\"rpc\":{\"method\":\"x\"}}\n{\"id\":10,\"send\":{}}\nnonsense")
        .await;
    assert_eq!(client.reply(8).await["ping"], json!({}));
    assert_eq!(client.reply(9).await["error"]["code"], 104);
    assert_eq!(client.closed().await, (3501, "bad request".into()));
    arena.end_undisturbed().await;
}

#[tokio::test]
async fn failed_commands_are_counted_by_code() {
    let arena = Arena::new(&[("GATEWAY_MAX_SUBSCRIPTIONS", "1")]).await;
    let room = format!("room:{}", arena.room);
    let mut client = Client::connect(arena.gateway(), &arena.users[0].token).await;
    client.subscribe(&room).await;
    for (command, request, code) in [
        ("subscribe", json!({"channel": room}), 105),
        ("subscribe", json!({"channel": "room:another"}), 106),
        ("history", json!({"channel": "room:another"}), 103),
    ] {
        let reply = client.call(command, request.clone()).await;
        assert_eq!(reply["error"]["code"], code, "{command} {request}: {reply}");
        arena.gateway().metric_reaches(&format!("gateway_command_errors_total{{code=\"{code}\"}}"), 1.0).await;
    }
    arena.end_undisturbed().await;
}

#[tokio::test]
async fn an_invalid_or_unsupported_command_fails_alone() {
    let arena = Arena::new(&[]).await;
    let room = format!("room:{}", arena.room);
    let mut client = Client::connect(arena.gateway(), &arena.users[0].token).await;
    client.subscribe(&room).await;
    for (command, request, code) in [
        ("publish", json!({"channel": room}), 107),
        ("publish", json!({"channel": room, "data": null}), 107),
        ("publish", json!({"channel": room, "data": {"type": "typing"}, "type": 1, "key": "k"}), 108),
        ("subscribe", json!({}), 107),
        ("subscribe", json!({"channel": 7}), 107),
        ("subscribe", json!({"channel": room, "flag": "2"}), 107),
        ("subscribe", json!({"channel": room, "recover": true, "offset": -1}), 107),
        ("subscribe", json!({"channel": room, "delta": "bsdiff"}), 107),
        ("subscribe", json!({"channel": room, "type": 1}), 108),
        ("subscribe", json!({"channel": room, "type": 4}), 108),
        ("subscribe", json!({"channel": room, "tf": {"key": "a", "cmp": "eq", "val": "b"}}), 108),
        ("history", json!({"channel": room, "limit": "all"}), 107),
        ("rpc", json!({"method": ["status.get"]}), 107),
        ("presence", json!([]), 107),
        ("sub_refresh", json!({"token": "t"}), 107),
    ] {
        let reply = client.call(command, request.clone()).await;
        assert_eq!(reply["error"]["code"], code, "{command} {request}: {reply}");
    }
    client.call("unsubscribe", json!({"channel": room})).await;
    for request in [
        json!({"channel": room, "recover": null, "epoch": null, "offset": null, "flag": null, "data": null}),
        json!({"channel": room, "type": null, "tf": null, "delta": null, "join_leave": null}),
        json!({"channel": room, "flag": -1}),
        json!({"channel": room, "delta": "fossil"}),
    ] {
        let reply = client.call("subscribe", request.clone()).await;
        assert!(reply["subscribe"].is_object() && reply["subscribe"]["delta"].is_null(), "{request}: {reply}");
        client.call("unsubscribe", json!({"channel": room})).await;
    }
    arena.end_undisturbed().await;
}

#[tokio::test]
async fn a_failed_connect_is_final_and_a_refresh_extends_the_connection() {
    let arena = Arena::new(&[("GATEWAY_CONNECT_TIMEOUT", "2")]).await;
    let alice = &arena.users[0];
    let room = format!("room:{}", arena.room);
    let (key, collection) = signing_key(&arena.world.pocketbase, &alice.id).await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = |exp: u64| json!({"id": alice.id, "type": "auth", "collectionId": collection, "exp": exp});
    let expired = sign(Algorithm::HS256, &claims(now - 1), &key);
    for (token, code) in [("", 101), (&expired, 109)] {
        // In the same frame and in a later frame, like the subscribes of SDKs: the only answer is the error.
        let mut client = Client::open(&arena.gateway().websocket()).await;
        let connect = json!({"id": 1, "connect": {"token": token}});
        client.send(&format!("{connect}\n{}", json!({"id": 2, "subscribe": {"channel": room}}))).await;
        client.send(&json!({"id": 3, "subscribe": {"channel": room}}).to_string()).await;
        let only = client.text().await.expect("an answer");
        let reply: Value = serde_json::from_str(&only).unwrap();
        assert_eq!((&reply["id"], &reply["error"]["code"]), (&json!(1), &json!(code)), "{only}");
        let end = client.text().await.expect_err("no other answer").expect("a close frame");
        assert_eq!(u16::from(end.code), 3502, "an SDK has closed by then");
    }
    let mut client = Client::connect(arena.gateway(), &sign(Algorithm::HS256, &claims(now + 60), &key)).await;
    client.send(&json!({"id": 9, "refresh": {"token": expired}}).to_string()).await;
    assert_eq!(client.closed().await, (3005, "connection expired".into()), "SDKs come back, unlike after an error");
    let mut client = Client::connect(arena.gateway(), &sign(Algorithm::HS256, &claims(now + 60), &key)).await;
    let refreshed = client.call("refresh", json!({"token": alice.token})).await;
    assert!(refreshed["refresh"]["ttl"].as_u64() > Some(60), "{refreshed}");
    arena.end_undisturbed().await;
}

#[tokio::test]
async fn silent_and_expired_connections_are_closed() {
    let arena = Arena::new(&[("GATEWAY_CONNECT_TIMEOUT", "1"), ("GATEWAY_TOKEN_GRACE", "1")]).await;
    let mut silent = Client::open(&arena.gateway().websocket()).await;
    assert_eq!(silent.closed().await, (3502, "stale".into()));
    let (key, collection) = signing_key(&arena.world.pocketbase, &arena.users[0].id).await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({"id": arena.users[0].id, "type": "auth", "collectionId": collection, "exp": now + 2});
    let mut expiring = Client::connect(arena.gateway(), &sign(Algorithm::HS256, &claims, &key)).await;
    assert_eq!(expiring.closed().await, (3005, "connection expired".into()));
    arena.end_undisturbed().await;
}

#[tokio::test]
async fn refused_posts_of_hooks_get_a_reason_and_are_counted() {
    let arena = Arena::new(&[("GATEWAY_MAX_HOOK_SIZE", "1000")]).await;
    let (http, url) = (Http::new(), arena.gateway().url("/hooks/pocketbase"));
    let (ours, foreign) = (Signer::new(&SECRET.into()), Signer::new(&"another secret of 32 characters..".into()));
    let now = SystemTime::now();
    let body = r#"{"events":[]}"#;
    let signed =
        |signer: &Signer, at: SystemTime, body: &str| signer.sign(at, "POST", "/hooks/pocketbase", body.as_bytes());
    let hour = Duration::from_secs(3600);
    let long = format!(r#"{{"events":[],"padding":"{}"}}"#, "x".repeat(1000));
    for (name, signature, sent, status, code) in [
        ("wrong secret", signed(&foreign, now, body), body, 401, "bad_signature"),
        ("recorded an hour ago", signed(&ours, now - hour, body), body, 401, "stale_timestamp"),
        ("not JSON", signed(&ours, now, "nonsense"), "nonsense", 400, "bad_request"),
        ("too large for the setting", signed(&ours, now, &long), &long, 413, "too_large"),
        ("right", signed(&ours, now, body), body, 202, ""),
    ] {
        let headers = [(TIMESTAMP, signature.0.as_str()), (SIGNATURE, signature.1.as_str())];
        let response = http.send("POST", &url, &headers, sent.to_owned()).await.unwrap();
        assert_eq!(response.status, status, "{name}: {}", response.text);
        if !code.is_empty() {
            assert_eq!(response.json()["error"]["code"], code, "{name}: {}", response.text);
            assert!(response.json()["error"]["message"].as_str().unwrap().len() > 20, "{name}: {}", response.text);
            arena.gateway().metric_reaches(&format!("gateway_hooks_refused_total{{reason=\"{code}\"}}"), 1.0).await;
        }
    }
    let unsigned = http.send("POST", &url, &[], body).await.unwrap();
    assert_eq!((unsigned.status, &unsigned.json()["error"]["code"]), (401, &json!("missing_signature")));
    arena.end_undisturbed().await;
}

/// Rows never written by the project's hooks: text other than JSON, JSON that ends its row or the whole answer, or
/// parts of the wrong type.
const UNREADABLE: &[&str] = &[
    "",
    "{",
    "}",
    "not JSON",
    r#"{"channels":["room:x"],"data":"cut off"#,
    r#"{"a":1},{"seq":1,"channels":[],"data":1}"#,
    r#"{"a":1}],"last":1}"#,
    r#"{"a":1}],"more":[{}"#,
    r#"{"channels":"room:x","data":1}"#,
    r#"{"channels":["no channel"],"data":1}"#,
    r#"{"channels":["$access"],"data":{"access":[{"cause":"deleted"}]}}"#,
    r#"{"channels":[]}"#,
    r#"{"channels":[],"data":1,"access":{}}"#,
    r#"{"channels":[],"data":1,"updates":1}"#,
];

#[tokio::test]
async fn unreadable_rows_are_skipped_without_delay() {
    let mut arena = Arena::new(&[("GATEWAY_PULL_INTERVAL", "1")]).await;
    let channel = format!("room:{}", arena.room);
    let many = format!(r#"{{"channels":[{}"room:x"],"data":1}}"#, r#""room:x","#.repeat(1000));
    let odd: Vec<&str> = UNREADABLE.iter().copied().chain([many.as_str()]).collect();
    let good = |name: &str| {
        let record = json!({"id": "m", "content": name});
        json!({"channels": [channel], "data": {"action": "create", "collection": "messages", "record": record}})
    };
    // One at a time, together, and each between readable rows.
    let mut names = Vec::new();
    for (i, row) in odd.iter().enumerate() {
        let name = format!("after {i}");
        arena.world.pocketbase.append_to_outbox(&[(*row).to_owned(), good(&name).to_string()]);
        arena.world.pocketbase.write(&arena.room, &arena.users[0], &format!("posted {i}")).await;
        names.extend([name, format!("posted {i}")]);
    }
    let together: Vec<String> = odd.iter().map(|row| (*row).to_owned()).chain([good("the last").to_string()]).collect();
    arena.world.pocketbase.append_to_outbox(&together);
    names.push("the last".into());
    for name in &names {
        assert_eq!(&arena.honest.message().await, name, "in order and exactly once");
    }
    let unreadable = r#"gateway_events_total{outcome="unreadable"}"#;
    arena.gateway().metric_reaches(unreadable, 2.0 * odd.len() as f64).await;
    assert_eq!(arena.gateway().metric(unreadable).await, 2.0 * odd.len() as f64);
    let log = arena.gateway().process.log();
    assert!(log.contains("a row of PocketBase's outbox is unreadable") && !log.contains("cut off\""), "{log}");

    // Access checks go on, and access ends when PocketBase ends it.
    arena.world.pocketbase.write(&arena.room, &arena.users[0], "still here").await;
    assert_eq!(arena.honest.message().await, "still here");
    let members = arena.world.pocketbase.as_superuser("GET", "collections/room_members/records", &Value::Null).await;
    let bob = members["items"].as_array().unwrap().iter().find(|member| member["user"] == json!(arena.users[1].id));
    let path = format!("collections/room_members/records/{}", bob.unwrap()["id"].as_str().unwrap());
    arena.world.pocketbase.append_to_outbox(&together[..odd.len()]);
    arena.world.pocketbase.as_superuser("DELETE", &path, &Value::Null).await;
    // "Removed", or "rules changed" if a full recheck came first.
    let code = arena.honest.unsubscribed().await["code"].clone();
    assert!(code == 2100 || code == 2103, "{code}");
}

/// A record too large for any subscriber's queue reaches every gateway, the history and updates channels by its id
/// only.
#[tokio::test]
async fn a_record_too_large_for_an_event_arrives_as_its_id() {
    let world = World::start(2, true, &[]).await;
    let (room, users) = world.room(&["alice", "bob", "carol", "eve"]).await;
    let channel = format!("room:{room}");
    let mut clients = Vec::new();
    for (gateway, user) in world.gateways.iter().zip(&users[1..3]) {
        let mut client = Client::connect(gateway, &user.token).await;
        let place = client.subscribe(&channel).await;
        client.subscribe("room-updates").await;
        clients.push((client, place, gateway, user));
    }
    // From the hooks: 60,000 characters of six bytes each. From rows of older hooks: more bytes than any queue holds.
    let large = world.pocketbase.write(&room, &users[0], &"\u{1}".repeat(60_000)).await;
    let row = |collection: &str, id: &str, bytes: usize| {
        let record = json!({"id": id, "content": "x".repeat(bytes)});
        let data = json!({"action": "update", "collection": collection, "record": record});
        json!({"channels": [channel], "data": data, "updates": {"channels": ["room-updates"], "users": []}}).to_string()
    };
    world.pocketbase.append_to_outbox(&[row("rooms", &room, 600_000), row("rooms", &room, 12_000_000)]);
    world.pocketbase.write(&room, &users[0], "after").await;
    let short = |action: &str, collection: &str, id: &str| json!({"action": action, "collection": collection, "record": {"id": id}, "truncated": true});
    let create = short("create", "messages", large["id"].as_str().unwrap());
    let update = short("update", "rooms", &room);
    let due = [&create, &update, &update];
    for (client, place, gateway, user) in &mut clients {
        let (mut messages, mut updates) = (Vec::new(), 0);
        while messages.len() < 4 || updates < 2 {
            let push = client.push().await["push"].take();
            if push["channel"] == "room-updates" {
                assert_eq!(push["pub"]["data"], update);
                updates += 1;
            } else {
                messages.push(push["pub"]["data"].clone());
            }
        }
        assert_eq!(messages[..3].iter().collect::<Vec<_>>(), due);
        assert_eq!(messages[3]["record"]["content"], "after");
        let mut late = Client::connect(gateway, &user.token).await;
        let recovered = late.recover(&channel, place).await;
        assert_eq!(recovered["recovered"], true, "{recovered}");
        let publications = recovered["publications"].as_array().unwrap();
        assert_eq!(publications[..3].iter().map(|it| &it["data"]).collect::<Vec<_>>(), due);
        assert_eq!(gateway.metric("gateway_disconnects_total{code=\"3008\"}").await, 0.0);
    }
    let mut counted = 0.0;
    for gateway in &world.gateways {
        counted += gateway.metric("gateway_events_total{outcome=\"truncated\"}").await;
    }
    assert!(counted >= 3.0, "{counted}");
}

#[tokio::test]
async fn requests_to_wrong_paths_or_methods_get_a_reason() {
    let arena = Arena::new(&[]).await;
    let http = Http::new();
    for (method, path, status) in
        [("GET", "/", 404), ("GET", "/hooks/pocketbase", 405), ("GET", "/connection/websocket", 426)]
    {
        let response = http.send(method, &arena.gateway().url(path), &[], "").await.unwrap();
        assert_eq!(response.status, status, "{method} {path}");
        assert!(response.json()["error"]["message"].is_string(), "{method} {path}: {}", response.text);
    }
    let mut request = arena.gateway().websocket().into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "centrifuge-xml".parse().unwrap());
    let refused = tokio_tungstenite::connect_async(request).await.unwrap_err().to_string();
    assert!(refused.contains("400"), "{refused}");
    arena.gateway().metric_reaches(r#"gateway_handshakes_refused_total{reason="unsupported_subprotocol"}"#, 1.0).await;
    assert_eq!(http.get(&arena.gateway().admin("nowhere")).await.unwrap().status, 404);
    arena.end_undisturbed().await;
}

#[tokio::test]
async fn logs_and_metrics_contain_no_secrets_and_no_content() {
    let mut arena = Arena::new(&[("GATEWAY_LOG_LEVEL", "trace"), ("GATEWAY_LOG_FORMAT", "json")]).await;
    let mut forger = Client::open(&arena.gateway().websocket()).await;
    forger.send(&json!({"id": 1, "connect": {"token": format!("{}x", arena.users[0].token)}}).to_string()).await;
    forger.closed().await;
    arena.world.pocketbase.write(&arena.room, &arena.users[0], "private-words").await;
    assert_eq!(arena.honest.message().await, "private-words");
    let (key, _) = signing_key(&arena.world.pocketbase, &arena.users[0].id).await;
    let log = arena.gateway().process.log();
    let metrics = Http::new().get(&arena.gateway().admin("metrics")).await.unwrap().text;
    assert!(log.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{log}");
    assert!(log.contains("refused"));
    for secret in [SECRET, key.as_str(), &arena.users[0].token, &arena.users[1].token, "private-words"] {
        assert!(!log.contains(secret) && !metrics.contains(secret), "{secret} in {log}");
    }
    assert!(!metrics.contains(&arena.room), "no label names a channel");
    arena.end_undisturbed().await;
}
