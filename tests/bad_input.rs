//! Whatever a client or a hook caller sends wrong gets its code, is counted, and harms nobody else.

mod harness;

use harness::client::Client;
use harness::gateway::Gateway;
use harness::http::Http;
use harness::tokens::{sign, signing_key};
use harness::{SECRET, World};
use jsonwebtoken::Algorithm;
use konvert_gateway::signature::{SIGNATURE, Signer, TIMESTAMP};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::{Frame, coding};

/// An honest client that must notice nothing, and what the attacks are made with.
struct Arena {
    world: World,
    room: String,
    users: Vec<harness::pocketbase::User>,
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

    /// The honest client still gets messages, and nothing panicked.
    async fn end_undisturbed(mut self) {
        self.world.pocketbase.write(&self.room, &self.users[0], "still here").await;
        assert_eq!(self.honest.message().await, "still here");
        assert_eq!(self.gateway().metric("gateway_session_panics_total").await, 0.0);
    }
}

#[tokio::test]
async fn frames_that_are_not_of_the_protocol() {
    let arena = Arena::new(&[("GATEWAY_MAX_FRAME_SIZE", "10000")]).await;
    let connect = json!({"id": 1, "connect": {"token": arena.users[0].token}}).to_string();
    let bad_utf8 = Message::Frame(Frame::message(vec![0xff, 0xfe], coding::OpCode::Data(coding::Data::Text), true));
    let cases: Vec<(&str, Option<&str>, Message, u16, &str)> = vec![
        ("not JSON", None, Message::text("hello"), 3501, r#"gateway_bad_frames_total{kind="malformed"}"#),
        ("not JSON, later", Some(&connect), Message::text("{"), 3501, r#"gateway_bad_frames_total{kind="malformed"}"#),
        (
            "an empty frame's command",
            Some(&connect),
            Message::text("null"),
            3501,
            r#"gateway_bad_frames_total{kind="malformed"}"#,
        ),
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
        ("binary", Some(&connect), Message::binary(b"{}".to_vec()), 3501, r#"gateway_bad_frames_total{kind="binary"}"#),
        (
            "too big",
            Some(&connect),
            Message::text("x".repeat(10_001)),
            1009,
            r#"gateway_bad_frames_total{kind="too_big"}"#,
        ),
        (
            "far too big",
            Some(&connect),
            Message::text("x".repeat(5_000_000)),
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
        (
            "connect twice",
            Some(&connect),
            Message::text(connect.clone()),
            3501,
            r#"gateway_disconnects_total{code="3501"}"#,
        ),
        (
            "a pong without a ping",
            Some(&connect),
            Message::text("{}"),
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
async fn commands_that_cannot_be_done() {
    let arena = Arena::new(&[("GATEWAY_MAX_SUBSCRIPTIONS", "1")]).await;
    let room = format!("room:{}", arena.room);
    let mut client = Client::connect(arena.gateway(), &arena.users[0].token).await;
    client.subscribe(&room).await;
    let long = format!("room:{}", "x".repeat(300));
    for (command, request, code) in [
        ("subscribe", json!({"channel": room}), 105),
        ("subscribe", json!({"channel": "room:another"}), 106),
        ("rpc", json!({"method": "no.such"}), 104),
        ("sub_refresh", json!({"channel": room, "token": "x"}), 108),
        ("history", json!({"channel": "room:another"}), 103),
        ("history", json!({"channel": room, "limit": 1, "since": {"offset": 0, "epoch": "another"}}), 112),
        ("refresh", json!({"token": "x"}), 0),
    ] {
        if code > 0 {
            let reply = client.call(command, request.clone()).await;
            assert_eq!(reply["error"]["code"], code, "{command} {request}: {reply}");
        } else {
            client.send(&json!({"id": 99, command: request}).to_string()).await;
            assert_eq!(client.closed().await.0, 3500);
        }
    }
    let mut client = Client::connect(arena.gateway(), &arena.users[0].token).await;
    client.subscribe(&room).await;
    let deep = format!(r#"{{"type":"typing","x":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    for data in [r#""typing""#, r#"["typing"]"#, "{}", r#"{"type":1}"#, r#"{"type":"typing","x":"\ud800"}"#, &deep] {
        client.send(&format!(r#"{{"id":100,"publish":{{"channel":"{room}","data":{data}}}}}"#)).await;
        assert_eq!(client.reply(100).await["error"]["code"], 107, "{data}");
    }
    let mut client = Client::connect(arena.gateway(), &arena.users[0].token).await;
    for (channel, code) in [
        ("", 102),
        (long.as_str(), 102),
        ("nothing:x", 102),
        ("room", 102),
        ("room:", 103),
        ("room:doesnotexist", 103),
        ("room:\u{e9}", 102),
        ("room:a b", 102),
    ] {
        let reply = client.call("subscribe", json!({"channel": channel})).await;
        let got = reply["error"]["code"].as_u64();
        assert!(got == Some(code) || (channel == "room" && got == Some(103)), "{channel:?}: {reply}");
    }
    arena.gateway().metric_reaches(r#"gateway_command_errors_total{code="102"}"#, 4.0).await;
    arena.end_undisturbed().await;
}

#[tokio::test]
async fn tokens_that_prove_nothing() {
    let arena = Arena::new(&[]).await;
    let alice = &arena.users[0];
    let (key, collection) = signing_key(&arena.world.pocketbase, &alice.id).await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims =
        json!({"id": alice.id, "type": "auth", "collectionId": collection, "exp": now + 60, "refreshable": true});
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        claims
    };
    let good = sign(Algorithm::HS256, &claims, &key);
    let payload = good.split('.').nth(1).unwrap();
    let superuser = arena.world.pocketbase.log_in("_superusers", "admin@example.com").await;
    let forged: Vec<(&str, String)> = vec![
        ("another key", sign(Algorithm::HS256, &claims, &"k".repeat(80))),
        ("another user's key", sign(Algorithm::HS256, &with("id", json!(arena.users[1].id)), &key)),
        ("another algorithm", sign(Algorithm::HS512, &claims, &key)),
        ("no signature", format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{payload}.")),
        ("a signature cut off", good[..good.len() - 4].to_owned()),
        ("a file token", sign(Algorithm::HS256, &with("type", json!("file")), &key)),
        ("another collection", sign(Algorithm::HS256, &with("collectionId", json!("pbc_3142635823")), &key)),
        ("a superuser's", superuser["token"].as_str().unwrap().to_owned()),
        ("a user that does not exist", sign(Algorithm::HS256, &with("id", json!("nosuchuser00000")), &key)),
        ("an id that is no id", sign(Algorithm::HS256, &with("id", json!("x".repeat(2000))), &key)),
        ("nonsense", "not.a.token".to_owned()),
        ("very long", "x".repeat(50_000)),
    ];
    for (name, token) in forged {
        let mut client = Client::open(&arena.gateway().websocket()).await;
        client.send(&json!({"id": 1, "connect": {"token": token}}).to_string()).await;
        assert_eq!(client.closed().await, (3500, "invalid token".into()), "{name}");
    }
    arena.gateway().metric_reaches(r#"gateway_disconnects_total{code="3500"}"#, 12.0).await;

    for (token, code) in [(String::new(), 101), (sign(Algorithm::HS256, &with("exp", json!(now - 1)), &key), 109)] {
        let mut client = Client::open(&arena.gateway().websocket()).await;
        let reply = client.call("connect", json!({"token": token})).await;
        assert_eq!(reply["error"]["code"], code, "{reply}");
        client.send(r#"{"id":2,"ping":{}}"#).await;
        assert_eq!(client.closed().await.0, 3501, "nothing more is taken after a failed connect");
    }
    // The same claims, rightly signed, are welcome; and a refresh cannot change who it is.
    let mut client = Client::connect(arena.gateway(), &good).await;
    let refreshed = client.call("refresh", json!({"token": alice.token})).await;
    assert!(refreshed["refresh"]["ttl"].as_u64() > Some(60), "{refreshed}");
    client.send(&json!({"id": 50, "refresh": {"token": arena.users[1].token}}).to_string()).await;
    assert_eq!(client.closed().await.0, 3500);
    arena.end_undisturbed().await;
}

#[tokio::test]
async fn who_says_nothing_or_stays_too_long() {
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
async fn hook_requests_that_are_not_from_the_hooks() {
    let arena = Arena::new(&[("GATEWAY_MAX_HOOK_SIZE", "1000")]).await;
    let (http, url) = (Http::new(), arena.gateway().url("/hooks/pocketbase"));
    let (ours, foreign) = (Signer::new(&SECRET.into()), Signer::new(&"another secret of 32 characters..".into()));
    let now = SystemTime::now();
    let body = r#"{"events":[]}"#;
    let signed =
        |signer: &Signer, at: SystemTime, body: &str| signer.sign(at, "POST", "/hooks/pocketbase", body.as_bytes());
    let hour = Duration::from_secs(3600);
    let long = format!(r#"{{"events":[],"padding":"{}"}}"#, "x".repeat(1000));
    let (room, later) = (format!("room:{}", arena.room), 1_000_000_000);
    let unordered =
        json!({"events": [{"seq": later, "channels": [room], "data": 1}, {"seq": 7, "channels": [], "data": 1}]})
            .to_string();
    for (name, signature, sent, status, code) in [
        ("wrong secret", signed(&foreign, now, body), body, 401, "bad_signature"),
        ("body of another request", signed(&ours, now, "{}"), body, 401, "bad_signature"),
        ("recorded an hour ago", signed(&ours, now - hour, body), body, 401, "stale_timestamp"),
        ("from the future", signed(&ours, now + hour, body), body, 401, "stale_timestamp"),
        ("signature of garbage", (String::from("1"), "zz".repeat(32)), body, 401, "bad_signature"),
        ("not JSON", signed(&ours, now, "nonsense"), "nonsense", 400, "bad_request"),
        ("another shape", signed(&ours, now, "[]"), "[]", 400, "bad_request"),
        ("numbers that fall", signed(&ours, now, &unordered), &unordered, 400, "bad_request"),
        ("too large", signed(&ours, now, &long), &long, 413, "too_large"),
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

#[tokio::test]
async fn requests_that_lead_nowhere() {
    let arena = Arena::new(&[]).await;
    let http = Http::new();
    for (method, path, status) in [
        ("GET", "/", 404),
        ("GET", "/metrics", 404),
        ("GET", "/hooks/pocketbase", 405),
        ("POST", "/connection/websocket", 405),
        ("GET", "/connection/websocket", 426),
    ] {
        let response = http.send(method, &arena.gateway().url(path), &[], "").await.unwrap();
        assert_eq!(response.status, status, "{method} {path}");
        assert!(response.json()["error"]["message"].is_string(), "{method} {path}: {}", response.text);
    }
    let mut request = arena.gateway().websocket().into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "centrifuge-protobuf".parse().unwrap());
    let refused = tokio_tungstenite::connect_async(request).await.unwrap_err().to_string();
    assert!(refused.contains("400"), "{refused}");
    arena.gateway().metric_reaches(r#"gateway_handshakes_refused_total{reason="unsupported_subprotocol"}"#, 1.0).await;
    assert_eq!(http.get(&arena.gateway().admin("nowhere")).await.unwrap().status, 404);
    arena.end_undisturbed().await;
}

#[tokio::test]
async fn logs_and_metrics_hold_no_secret_and_no_content() {
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
