//! The operators' view: the connection from PocketBase to the gateway, the environment, a new secret, a base path.

mod admin_page;
mod caddy;
mod kubernetes;
mod nginx;
mod panics;
mod prometheus;
mod startup;
mod versions;

use crate::harness::client::Client;
use crate::harness::gateway::Gateway;
use crate::harness::http::Http;
use crate::harness::pocketbase::{PocketBase, User};
use crate::harness::process::free_port;
use crate::harness::stream_client::{StreamClient, TRANSPORTS};
use crate::harness::{SECRET, World, until};
use serde_json::{Value, json};
use std::process::Command;

const NEW_SECRET: &str = "another secret for tests of 32 characters or more";

async fn warnings(gateway: &Gateway) -> Vec<String> {
    let answer = Http::new().get(&gateway.admin("readyz")).await.expect("the admin listener answers").json();
    let warnings = answer["warnings"].as_array().expect("warnings").iter();
    warnings.map(|warning| warning.as_str().expect("a text").to_owned()).collect()
}

fn doctor(gateway: &Gateway, pocketbase: &PocketBase) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_konvert-gateway"))
        .arg("doctor")
        .env("GATEWAY_SECRET", SECRET)
        .env("GATEWAY_LISTEN", format!("127.0.0.1:{}", gateway.port))
        .env("GATEWAY_POCKETBASE_URL", &pocketbase.url)
        .output();
    let output = output.expect("the gateway runs");
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

/// Uses streams of both kinds through a proxy, which must pass messages on at once, without an invented end.
async fn stream_through(port: u16, world: &World, room: &str, users: &[User]) {
    for transport in TRANSPORTS {
        let mut bob = StreamClient::connect_through(port, transport, &users[1].token).await;
        bob.subscribe(&format!("room:{room}")).await;
        for n in 0..3 {
            let content = format!("{n} over {transport:?}");
            world.pocketbase.write(room, &users[0], &content).await;
            assert_eq!(bob.content().await, content);
        }
        let head = bob.head.to_ascii_lowercase();
        assert!(!head.contains("content-encoding") && !head.contains("content-length"), "{head}");
        drop(bob);
        // The proxy passes the client's end on.
        until("the stream's end", async || (world.gateway().metric("gateway_connections").await <= 1.0).then_some(()))
            .await;
    }
}

#[tokio::test]
async fn a_wrong_gateway_url_is_reported_before_the_first_write_and_until_corrected() {
    let (port, wrong) = (free_port(), format!("http://user:hunter2@127.0.0.1:{}", free_port()));
    let mut pocketbase = PocketBase::start(&wrong).await;
    let gateway = Gateway::start(port, &pocketbase.url, &[("GATEWAY_PULL_INTERVAL", "1")]).await;
    let told = until("a warning", async || warnings(&gateway).await.pop()).await;
    for part in ["GATEWAY_URL", &wrong.replace("user:hunter2@", ""), "connection refused"] {
        assert!(told.contains(part), "{part} in {told}");
    }
    gateway.metric_reaches("gateway_hooks_failing", 1.0).await;
    assert_eq!(gateway.metric("gateway_hook_last_arrival_timestamp_seconds").await, 0.0);
    let (code, found) = doctor(&gateway, &pocketbase);
    assert_eq!(code, Some(1), "{found}");
    assert!(found.contains("WRONG requests from PocketBase's hooks") && found.contains("set GATEWAY_URL"), "{found}");
    for text in [gateway.process.log(), pocketbase.process.log(), told, found] {
        assert!(!text.contains("hunter2"), "{text}");
    }

    pocketbase.set("GATEWAY_URL", &format!("http://127.0.0.1:{port}"));
    pocketbase.restart().await;
    until("the warning to go", async || warnings(&gateway).await.is_empty().then_some(())).await;
    assert_eq!(gateway.metric("gateway_hooks_failing").await, 0.0);
    let (code, found) = doctor(&gateway, &pocketbase);
    assert!(code == Some(0) && found.contains("ok    requests from PocketBase's hooks"), "{found}");
    gateway.metric_reaches("gateway_hook_last_arrival_timestamp_seconds", 1_600_000_000.0).await;
}

#[tokio::test]
async fn a_restarted_gateway_gets_posts_from_the_first_write_on() {
    let mut world = World::start(1, false, &[("GATEWAY_PULL_INTERVAL", "1")]).await;
    let (room, users) = world.room(&["alice", "bob", "eve"]).await;
    world.gateways[0].process.kill();
    for _ in 0..3 {
        world.pocketbase.write(&room, &users[0], "while it is away").await;
    }
    world.gateways[0].restart().await;
    world.gateway().metric_reaches("gateway_hook_last_arrival_timestamp_seconds", 1.0).await;
    until("no warning", async || warnings(world.gateway()).await.is_empty().then_some(())).await;
    // The failures of posts from before the start are no news.
    let log = world.gateway().process.log();
    assert!(!log.contains("do not reach the gateway"), "{log}");
    world.pocketbase.write(&room, &users[0], "it is back").await;
    world.gateway().metric_reaches(r#"gateway_relay_events_total{outcome="hook"}"#, 1.0).await;
}

#[tokio::test]
async fn a_secret_is_replaced_without_a_refused_request() {
    let mut world = World::start(1, false, &[("GATEWAY_PULL_INTERVAL", "1")]).await;
    let (room, users) = world.room(&["alice", "bob", "eve"]).await;
    // As described in deploy/operations.md: in every step, a side restarts with two secrets.
    for (i, (is_gateway, secret, second)) in
        [(true, SECRET, NEW_SECRET), (false, NEW_SECRET, SECRET), (true, NEW_SECRET, ""), (false, NEW_SECRET, "")]
            .into_iter()
            .enumerate()
    {
        let World { gateways, pocketbase, .. } = &mut world;
        if is_gateway {
            gateways[0].set("GATEWAY_SECRET", secret);
            gateways[0].set("GATEWAY_SECRET_SECOND", second);
            gateways[0].restart().await;
        } else {
            pocketbase.set("GATEWAY_SECRET", secret);
            pocketbase.set("GATEWAY_SECRET_SECOND", second);
            pocketbase.restart().await;
            gateways[0].ready().await;
        }
        let hooks = r#"gateway_relay_events_total{outcome="hook"}"#;
        let before = world.gateway().metric(hooks).await;
        let mut client = world.subscriber(0, &users[1], &room).await;
        // At the first post after a restart of PocketBase, the gateway notices the restart and reads the outbox.
        for text in [format!("first after step {i}"), format!("second after step {i}")] {
            world.pocketbase.write(&room, &users[0], &text).await;
            assert_eq!(client.message().await, text);
        }
        world.gateway().metric_reaches(hooks, before + 1.0).await;
        assert_eq!(world.gateway().metric_sum("gateway_hooks_refused_total").await, 0.0, "step {i}");
        let log = world.gateway().process.log();
        assert!(!log.contains("answered 401"), "step {i}: {log}");
    }
}

#[tokio::test]
async fn variables_of_kubernetes_and_cgi_are_ignored() {
    let pocketbase = PocketBase::start("http://127.0.0.1:1").await;
    let foreign = [
        ("GATEWAY_ADMIN_SERVICE_HOST", "10.0.0.1"),
        ("GATEWAY_ADMIN_PORT", "tcp://10.0.0.1:8001"),
        ("GATEWAY_ADMIN_PORT_8001_TCP_ADDR", "10.0.0.1"),
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("GATEWAY_TEAM", "blue"),
    ];
    let gateway = Gateway::start(free_port(), &pocketbase.url, &foreign).await;
    let log = gateway.process.log();
    assert!(log.contains("GATEWAY_TEAM") && !log.contains("GATEWAY_INTERFACE"), "{log}");
}

#[tokio::test]
async fn a_gateway_behind_a_path_serves_everything_below_it() {
    let port = free_port();
    let pocketbase = PocketBase::start(&format!("http://127.0.0.1:{port}/realtime")).await;
    let gateways = vec![Gateway::start(port, &pocketbase.url, &[("GATEWAY_BASE_PATH", "/realtime/")]).await];
    let world = World { gateways, pocketbase, redis: None };
    let (room, users) = world.room(&["alice", "bob", "eve"]).await;
    let mut client = world.subscriber(0, &users[1], &room).await;
    world.pocketbase.write(&room, &users[0], "below a path").await;
    assert_eq!(client.message().await, "below a path");
    world.gateway().metric_reaches(r#"gateway_relay_events_total{outcome="hook"}"#, 1.0).await;
    let http = Http::new();
    for (path, status) in [
        ("/realtime/connection/websocket", 426),
        ("/realtime/connection/websocket/", 426),
        ("/realtime/connection/sse", 400),
        ("/realtime/connection/http_stream/", 405),
        ("/realtime/emulation", 405),
        ("/emulation", 404),
        ("/connection/websocket", 404),
        ("/realtimeconnection/websocket", 404),
        ("/realtime", 404),
    ] {
        let answer = http.get(&world.gateway().url(path)).await.expect("it answers");
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
    }
    let question = json!({"channel": format!("room:{room}")}).to_string();
    let (timestamp, signature) = konvert_gateway::signature::Signer::new(&SECRET.into()).sign(
        std::time::SystemTime::now(),
        "POST",
        "/api/presence_stats",
        question.as_bytes(),
    );
    let headers = [("x-gateway-timestamp", timestamp.as_str()), ("x-gateway-signature", signature.as_str())];
    let answer = http.send("POST", &world.gateway().url("/realtime/api/presence_stats"), &headers, question).await;
    let answer: Value = answer.expect("it answers").json();
    assert_eq!(answer["clients"], 1, "{answer}");
}

#[tokio::test]
async fn the_log_gives_reasons_for_refusals_and_limits_repeated_lines() {
    let settings = [("GATEWAY_LOG_LEVEL", "debug,hyper=off"), ("GATEWAY_MAX_COMMANDS_BURST", "1000")];
    let world = World::start(1, false, &settings).await;
    let (room, users) = world.room(&["alice", "bob", "eve"]).await;
    let (member, stranger) = (&users[1], &users[2]);
    let log = || world.gateway().process.log();
    let mut client = world.subscriber(0, member, &room).await;
    let lines = |words: &[&str]| log().lines().filter(|line| words.iter().all(|word| line.contains(word))).count();
    let accepted = ["DEBUG", "accepted", "command=\"subscribe\"", &room, &member.id];
    assert_eq!(lines(&accepted), 1, "{}", log());
    assert!(
        client.call("publish", json!({"channel": format!("room:{room}"), "data": {"type": "hunter2"}})).await["error"]
            .is_object()
    );

    let mut eve = Client::connect(world.gateway(), &stranger.token).await;
    for _ in 0..200 {
        let reply = eve.call("subscribe", json!({"channel": format!("room:{room}")})).await;
        assert_eq!(reply["error"]["code"], 103);
    }
    let refused = ["INFO", "refused", "command=\"subscribe\"", &room, &stranger.id, "code=103", "permission denied"];
    until("a sum", async || (lines(&["refused commands", "count="]) > 0).then_some(())).await;
    assert!((1..200).contains(&lines(&refused)), "{}", lines(&refused));

    let mut forger = Client::open(&world.gateway().websocket()).await;
    let forged = format!("{}x", member.token);
    forger.send(&json!({"id": 1, "connect": {"token": forged}}).to_string()).await;
    assert_eq!(forger.closed().await.0, 3500);
    assert_eq!(lines(&["INFO", "refused", "command=\"connect\"", "invalid token: ", "127.0.0.1"]), 1, "{}", log());

    let http = Http::new();
    for _ in 0..100 {
        let answer = http.send("POST", &world.gateway().url("/hooks/pocketbase"), &[], "{}").await.expect("it answers");
        assert_eq!(answer.status, 401);
    }
    assert_eq!(lines(&["WARN", "missing_signature", "peer=127.0.0.1"]), 10, "{}", log());
    for secret in ["hunter2", &member.token, &stranger.token, &forged] {
        assert!(!log().contains(secret));
    }
}

#[tokio::test]
async fn metrics_exist_from_the_start_and_an_idle_connection_is_no_refusal() {
    let settings = [("GATEWAY_REQUEST_TIMEOUT", "1"), ("GATEWAY_PULL_INTERVAL", "1")];
    let mut world = World::start(1, true, &settings).await;
    let (room, users) = world.room(&["alice", "bob", "eve"]).await;
    let text = Http::new().get(&world.gateway().admin("metrics")).await.expect("it answers").text;
    for line in [
        "gateway_gaps_total{outcome=\"lost\"} 0",
        "gateway_disconnects_total{code=\"3008\"} 0",
        "gateway_hooks_refused_total{reason=\"bad_signature\"} 0",
        "gateway_sockets_refused_total{reason=\"request_timeout\"} 0",
        "gateway_broker_errors_total{operation=\"relay\"} 0",
        "gateway_pocketbase_failures_total{route=\"authorize\"} 0",
        "gateway_pocketbase_up 1",
        "gateway_redis_up 1",
        concat!("gateway_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
    ] {
        assert!(text.lines().any(|it| it == line), "{line} is not in {text}");
    }
    // The rows that created the room lag until the gateway has read them.
    assert!(text.lines().any(|it| it.starts_with("gateway_outbox_lag_rows ")), "no lag in {text}");
    let lag = async || world.gateway().metric("gateway_outbox_lag_rows").await;
    until("no lag", async || (lag().await == 0.0).then_some(())).await;
    // PocketBase keeps the connection of its post open; the gateway closes the connection after request_timeout.
    let mut reader = world.subscriber(0, &users[1], &room).await;
    world.pocketbase.write(&room, &users[0], "posted").await;
    reader.message_publication().await;
    // Closed after PocketBase's connection, which is older.
    let _silent = tokio::net::TcpStream::connect(("127.0.0.1", world.gateway().port)).await.expect("a connection");
    world.gateway().metric_reaches("gateway_sockets_refused_total{reason=\"request_timeout\"}", 1.0).await;
    assert_eq!(world.gateway().metric_sum("gateway_sockets_refused_total").await, 1.0, "the silent one alone");

    world.pocketbase.process.kill();
    let down = async |name| (world.gateway().metric(name).await == 0.0).then_some(());
    until("PocketBase to be missed", async || down("gateway_pocketbase_up").await).await;
    let redis = world.redis.take();
    drop(redis);
    until("Redis to be missed", async || (world.gateway().metric("gateway_redis_up").await == 0.0).then_some(())).await;
}

/// The histogram ends with the write into a socket, also on a gateway that did not publish the row.
#[tokio::test]
async fn the_latency_histogram_counts_writes_into_sockets_on_every_gateway() {
    let world = World::start(2, true, &[]).await;
    let (room, users) = world.room(&["alice", "bob", "eve"]).await;
    world.pocketbase.write(&room, &users[0], "to nobody").await;
    let mut readers = [world.subscriber(0, &users[1], &room).await, world.subscriber(1, &users[1], &room).await];
    let counts = async || {
        [
            world.gateways[0].metric("gateway_outbox_seconds_count").await,
            world.gateways[1].metric("gateway_outbox_seconds_count").await,
        ]
    };
    let before = counts().await;
    world.pocketbase.write(&room, &users[0], "to both").await;
    for reader in &mut readers {
        reader.message_publication().await;
    }
    for (gateway, before) in world.gateways.iter().zip(before) {
        gateway.metric_reaches("gateway_outbox_seconds_count", before + 1.0).await;
        let sum = gateway.metric("gateway_outbox_seconds_sum").await;
        assert!((0.0..60.0).contains(&sum), "seconds since the row, not since 1970: {sum}");
    }
}

#[tokio::test]
async fn a_trusted_proxy_without_a_forwarding_header_is_logged_once() {
    let pocketbase = PocketBase::start("http://127.0.0.1:1").await;
    let settings = [("GATEWAY_TRUSTED_PROXIES", "127.0.0.1")];
    let gateway = Gateway::start(free_port(), &pocketbase.url, &settings).await;
    let told = || gateway.process.log().matches("sends neither Forwarded nor X-Forwarded-For").count();
    let from = std::net::Ipv4Addr::LOCALHOST;
    assert!(Client::open_from(&gateway, from, &[("x-forwarded-for", "192.0.2.1")]).await.is_ok());
    assert_eq!(told(), 0);
    for _ in 0..3 {
        assert!(Client::open_from(&gateway, from, &[]).await.is_ok());
    }
    assert_eq!(told(), 1, "{}", gateway.process.log());
}
