//! The server API: its effects, through any gateway, and its refusals.

use crate::harness::client::Client;
use crate::harness::gateway::Gateway;
use crate::harness::http::{Http, Response};
use crate::harness::pocketbase::PocketBase;
use crate::harness::process::free_port;
use crate::harness::{SECRET, World, until};
use konvert_gateway::signature::{SIGNATURE, Signer, TIMESTAMP};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

async fn send(gateway: &Gateway, target: &str, body: &str) -> Response {
    let (timestamp, signature) = Signer::new(&SECRET.into()).sign(SystemTime::now(), "POST", target, body.as_bytes());
    let headers = [(TIMESTAMP, timestamp.as_str()), (SIGNATURE, signature.as_str())];
    Http::new().send("POST", &gateway.url(target), &headers, body.to_owned()).await.unwrap()
}

/// Calls a method and asserts success.
async fn call(gateway: &Gateway, method: &str, question: Value) -> Value {
    let response = send(gateway, &format!("/api/{method}?{}", free_port()), &question.to_string()).await;
    assert_eq!(response.status, 200, "{method}: {}", response.text);
    response.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_method_takes_effect_on_all_gateways() {
    for with_redis in [true, false] {
        each_method(World::start(if with_redis { 2 } else { 1 }, with_redis, &[]).await).await;
    }
}

async fn each_method(world: World) {
    let (here, there) = (&world.gateways[0], world.gateways.last().unwrap());
    let (room, users) = world.room(&["ann", "bob", "eve"]).await;
    let [ann, bob, eve] = users.try_into().ok().unwrap();
    let channel = format!("room:{room}");
    let mut first = world.subscriber(world.gateways.len() - 1, &bob, &room).await;
    let mut second = world.subscriber(0, &bob, &room).await;
    let mut other = world.subscriber(world.gateways.len() - 1, &ann, &room).await;

    call(here, "publish", json!({"channel": channel, "data": {"type": "notice", "n": [1.50]}})).await;
    for client in [&mut first, &mut second, &mut other] {
        let signal = client.signal().await;
        assert_eq!(signal["info"], json!({"user": "$server", "client": "$server"}));
        assert_eq!(signal["data"], json!({"type": "notice", "n": [1.50]}));
        assert!(signal.get("offset").is_none());
    }

    // A recorded request cannot be sent again, to any gateway.
    let (target, notice) = ("/api/publish", json!({"channel": channel, "data": "once"}).to_string());
    let (timestamp, signature) = Signer::new(&SECRET.into()).sign(SystemTime::now(), "POST", target, notice.as_bytes());
    let recorded = [(TIMESTAMP, timestamp.as_str()), (SIGNATURE, signature.as_str())];
    for (gateway, expected) in [(here, 200), (there, 409), (here, 409)] {
        let answer = Http::new().send("POST", &gateway.url(target), &recorded, notice.clone()).await.unwrap();
        assert_eq!(answer.status, expected, "{}", answer.text);
    }
    for client in [&mut first, &mut second, &mut other] {
        assert_eq!(client.signal().await["data"], "once");
    }

    let clients = call(here, "presence", json!({"channel": channel})).await;
    let mut present: Vec<&str> =
        clients["clients"].as_array().unwrap().iter().map(|client| client["user"].as_str().unwrap()).collect();
    present.sort_unstable();
    let mut expected = [&*ann.id, &*bob.id, &*bob.id];
    expected.sort_unstable();
    assert_eq!(present, expected);
    let stats = call(there, "presence_stats", json!({"channel": channel})).await;
    assert_eq!(stats, json!({"clients": 3, "users": 2}));
    let statuses = call(there, "statuses", json!({"users": [ann.id, eve.id, "nobody"]})).await;
    let status = |user: &str| statuses["statuses"][user]["status"].as_str().unwrap();
    assert_eq!((status(&ann.id), status(&eve.id), status("nobody")), ("online", "offline", "offline"));

    call(here, "unsubscribe", json!({"user": bob.id, "channel": channel})).await;
    for client in [&mut first, &mut second] {
        assert_eq!(client.unsubscribed().await["code"], 2105);
        let again = client.call("subscribe", json!({"channel": channel})).await;
        assert!(again["subscribe"].is_object(), "{again}");
        client.subscribe("room-updates").await;
    }
    call(here, "unsubscribe", json!({"user": bob.id, "channel": "room-updates"})).await;
    for client in [&mut first, &mut second] {
        assert_eq!(client.unsubscribed().await["code"], 2105);
        client.subscribe("room-updates").await;
    }
    call(there, "disconnect", json!({"user": bob.id, "reconnect": true})).await;
    for mut client in [first, second] {
        assert_eq!(client.closed().await, (4001, "reconnect".to_owned()));
    }
    let mut back = world.subscriber(world.gateways.len() - 1, &bob, &room).await;
    call(here, "disconnect", json!({"user": bob.id})).await;
    assert_eq!(back.closed().await.0, 4504);
    // No other client is affected.
    world.pocketbase.write(&room, &ann, "still here").await;
    assert_eq!(other.message().await, "still here");
    for (method, count) in [("publish", 2.0), ("presence", 1.0), ("unsubscribe", 2.0)] {
        assert_eq!(here.metric(&format!("gateway_api_requests_total{{method=\"{method}\"}}")).await, count, "{method}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_requests_are_refused_with_a_reason_and_have_no_effect() {
    let world = World::single().await;
    let gateway = world.gateway();
    let user = world.pocketbase.user("ann").await;
    let mut client = Client::connect(gateway, &user.token).await;
    let users: Vec<String> = (0..501).map(|i| i.to_string()).collect();
    let deep = "[".repeat(200) + &"]".repeat(200);
    for (method, body) in [
        ("publish", String::new()),
        ("publish", "{}".into()),
        ("publish", json!({"channel": "room:a"}).to_string()),
        ("publish", json!({"channel": "$access", "data": [{"cause": "rules"}]}).to_string()),
        ("publish", json!({"channel": "status:a", "data": 1}).to_string()),
        ("publish", json!({"channel": "room-updates", "data": 1}).to_string()),
        ("publish", json!({"channel": "room:a b", "data": 1}).to_string()),
        ("publish", json!({"channel": "room:a", "data": 1, "user": "somebody"}).to_string()),
        ("publish", format!(r#"{{"channel":"room:a","data":{deep}}}"#)),
        ("presence", json!({"channel": "$user:a"}).to_string()),
        ("presence_stats", json!({"channel": ["a"]}).to_string()),
        ("statuses", json!({"users": users}).to_string()),
        ("statuses", json!({"users": [1]}).to_string()),
        ("disconnect", json!({"user": user.id, "reconnect": "yes"}).to_string()),
        ("disconnect", json!({"user": user.id, "code": 4999}).to_string()),
        ("unsubscribe", json!({"user": user.id}).to_string()),
        ("unsubscribe", json!({"user": user.id, "channel": "$access"}).to_string()),
    ] {
        let refused = send(gateway, &format!("/api/{method}"), &body).await;
        assert_eq!(refused.status, 400, "{method} {body}: {}", refused.text);
        assert_eq!(refused.json()["error"]["code"], "bad_request");
        assert!(refused.json()["error"]["message"].as_str().unwrap().len() > 20, "{}", refused.text);
    }
    let large = json!({"channel": "room:a", "data": "x".repeat(70_000)}).to_string();
    assert_eq!(send(gateway, "/api/publish", &large).await.status, 413);
    for target in ["/api/", "/api/nothing", "/api/publish/"] {
        assert_eq!(send(gateway, target, "{}").await.status, 404, "{target}");
    }
    let http = Http::new();
    let disconnect = json!({"user": user.id}).to_string();
    let url = gateway.url("/api/disconnect");
    assert_eq!(http.get(&url).await.unwrap().status, 405);
    let signer = |secret: &str| Signer::new(&secret.into());
    let now = SystemTime::now();
    let long_ago = now - Duration::from_secs(400);
    for (signed, code) in [
        (None, "missing_signature"),
        (
            Some(signer("another secret of 32 characters!").sign(
                now,
                "POST",
                "/api/disconnect",
                disconnect.as_bytes(),
            )),
            "bad_signature",
        ),
        (Some(signer(SECRET).sign(now, "POST", "/hooks/pocketbase", disconnect.as_bytes())), "bad_signature"),
        (Some(signer(SECRET).sign(now, "POST", "/api/disconnect", b"{}")), "bad_signature"),
        (Some(signer(SECRET).sign(long_ago, "POST", "/api/disconnect", disconnect.as_bytes())), "stale_timestamp"),
    ] {
        let headers: Vec<(&str, &str)> = signed
            .iter()
            .flat_map(|(timestamp, signature)| [(TIMESTAMP, timestamp.as_str()), (SIGNATURE, signature.as_str())])
            .collect();
        let refused = http.send("POST", &url, &headers, disconnect.clone()).await.unwrap();
        assert_eq!((refused.status, refused.json()["error"]["code"].as_str()), (401, Some(code)));
    }
    assert!(client.call("ping", json!({})).await["error"].is_null(), "it is still connected");
    // A request with effects is accepted once, a query repeatedly.
    let nobody = json!({"user": "nobody"}).to_string();
    let (timestamp, signature) = signer(SECRET).sign(now, "POST", "/api/disconnect", nobody.as_bytes());
    let headers = [(TIMESTAMP, timestamp.as_str()), (SIGNATURE, signature.as_str())];
    for status in [200, 409] {
        assert_eq!(http.send("POST", &url, &headers, nobody.clone()).await.unwrap().status, status);
    }
    for _ in 0..2 {
        assert_eq!(send(gateway, "/api/statuses", r#"{"users":[]}"#).await.json(), json!({"statuses": {}}));
    }
}

/// `push.pb.js`, with the test as the notified service.
#[tokio::test(flavor = "multi_thread")]
async fn the_push_example_notifies_offline_members() {
    let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let push_url = format!("http://{}/push", service.local_addr().unwrap());
    let port = free_port();
    let environment = [("PUSH_URL", push_url.as_str())];
    let pocketbase = PocketBase::start_in(&format!("http://127.0.0.1:{port}"), &environment).await;
    let gateway = Gateway::start(port, &pocketbase.url, &[("GATEWAY_STATUS_GRACE", "1")]).await;
    let world = World { gateways: vec![gateway], pocketbase, redis: None };
    let (room, users) = world.room(&["ann", "bob", "carol", "dan", "eve"]).await;
    let carol = world.subscriber(0, &users[2], &room).await;
    // Dan has muted the room. Bob is offline, Carol online, Ann the author, and Eve in no room.
    let path = format!("collections/room_members/records?filter=(user='{}')", users[3].id);
    let found = world.pocketbase.as_superuser("GET", &path, &Value::Null).await;
    let path = format!("collections/room_members/records/{}", found["items"][0]["id"].as_str().unwrap());
    world.pocketbase.as_superuser("PATCH", &path, &json!({"muted": true})).await;

    let notified = tokio::spawn(async move {
        let mut notified = Vec::new();
        for _ in 0..2 {
            let (mut stream, _) = service.accept().await.unwrap();
            let mut request = String::new();
            while !request.ends_with('}') {
                let mut part = [0; 4096];
                let read = stream.read(&mut part).await.unwrap();
                request.push_str(&String::from_utf8_lossy(&part[..read]));
            }
            stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await.unwrap();
            let body = request.split_once("\r\n\r\n").unwrap().1;
            notified.push(serde_json::from_str::<Value>(body).unwrap());
        }
        notified
    });
    let first = world.pocketbase.write(&room, &users[0], "who is there?").await;
    carol.cut();
    until("Carol to be offline", async || {
        let statuses = call(world.gateway(), "statuses", json!({"users": [users[2].id]})).await;
        (statuses["statuses"][&users[2].id]["status"] == "offline").then_some(())
    })
    .await;
    let second = world.pocketbase.write(&room, &users[0], "and now?").await;
    let notified = timeout(Duration::from_secs(10), notified).await.expect("both are notified of").unwrap();
    let mut away = [users[1].id.clone(), users[2].id.clone()];
    away.sort();
    let of = |notice: &Value| {
        let mut users: Vec<String> = serde_json::from_value(notice["users"].clone()).unwrap();
        users.sort();
        (notice["room"].clone(), notice["message"].clone(), users)
    };
    assert_eq!(of(&notified[0]), (json!(room), first["id"].clone(), vec![users[1].id.clone()]));
    assert_eq!(of(&notified[1]), (json!(room), second["id"].clone(), away.to_vec()));
}
