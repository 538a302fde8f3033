//! Streams: HTTP streams in both encodings and server-sent events do what a WebSocket does.

mod bad_requests;
mod ends;
mod memory;
mod nodes;

use crate::harness::client::Client;
use crate::harness::stream_client::{StreamClient, TRANSPORTS, Transport};
use crate::harness::{World, until};
use serde_json::{Value, json};
use std::collections::HashSet;

/// Pings every two seconds, so that tests see pings and answer them.
const PINGS: [(&str, &str); 2] = [("GATEWAY_PING_INTERVAL", "2"), ("GATEWAY_PONG_TIMEOUT", "1")];

#[tokio::test]
async fn commands_and_publications_pass_in_order_in_each_transport() {
    let world = World::start(1, false, &PINGS).await;
    let (room, users) = world.room(&["alice", "bob", "eve"]).await;
    let channel = format!("room:{room}");
    for transport in TRANSPORTS {
        let mut bob = StreamClient::connect(world.gateway(), transport, &users[1].token).await;
        let first = bob.subscribe(&channel).await;
        let contents: Vec<String> = (0..20).map(|n| format!("{transport:?} {n} \n\"é\" 🦀")).collect();
        for content in &contents {
            world.pocketbase.write(&room, &users[0], content).await;
        }
        for content in &contents {
            assert_eq!(&bob.content().await, content);
        }

        let published = bob.call("publish", json!({"channel": channel, "data": {"type": "typing"}})).await;
        assert_eq!(published["publish"], json!({}), "{transport:?}");
        let signal = bob.push().await.expect("the stream goes on");
        assert_eq!(signal["push"]["pub"]["data"], json!({"type": "typing"}), "{transport:?}");
        let history = bob.call("history", json!({"channel": channel, "limit": 3})).await;
        assert_eq!(history["history"]["publications"].as_array().map(Vec::len), Some(3), "{history}");
        until("the only client", async || {
            let stats = bob.call("presence_stats", json!({"channel": channel})).await;
            (stats["presence_stats"]["num_clients"] == 1).then_some(())
        })
        .await;
        let status = bob.call("rpc", json!({"method": "status.set", "data": {"status": "dnd"}})).await;
        assert_eq!(status["rpc"]["data"]["status"], "dnd", "{status}");
        let refused = bob.call("subscribe", json!({"channel": "room:unknown"})).await;
        assert_eq!(refused["error"]["code"], 103, "{refused}");

        // A missing pong would end the connection within three seconds.
        until("two pings", async || {
            bob.call("rpc", json!({"method": "unknown"})).await;
            (bob.pings >= 2).then_some(())
        })
        .await;
        drop(bob);

        let mut again = StreamClient::connect(world.gateway(), transport, &users[1].token).await;
        let recover = json!({"channel": channel, "recover": true, "offset": first["offset"], "epoch": first["epoch"]});
        let recovered = again.call("subscribe", recover).await;
        assert_eq!(recovered["subscribe"]["recovered"], true, "{recovered}");
        let missed = recovered["subscribe"]["publications"].as_array().expect("publications");
        assert!(missed.len() >= contents.len(), "{recovered}");
    }
    let gateway = world.gateway();
    for (transport, count) in [("http_stream", 4.0), ("sse", 2.0)] {
        let metric = format!("gateway_streams_total{{transport=\"{transport}\"}}");
        assert_eq!(gateway.metric(&metric).await, count, "{transport}");
    }
    // The gateway notices that the clients have gone.
    until("no connection", async || (gateway.metric("gateway_connections").await == 0.0).then_some(())).await;
}

/// Clients of a WebSocket and of all streams receive the same message.
#[tokio::test]
async fn clients_of_all_transports_share_a_room() {
    let world = World::single().await;
    let (room, users) = world.room(&["alice", "bob", "eve"]).await;
    let mut socket = world.subscriber(0, &users[1], &room).await;
    let mut streams = Vec::new();
    for transport in TRANSPORTS {
        let mut stream = StreamClient::connect(world.gateway(), transport, &users[1].token).await;
        stream.subscribe(&format!("room:{room}")).await;
        streams.push(stream);
    }
    world.pocketbase.write(&room, &users[0], "to all").await;
    assert_eq!(socket.message().await, "to all");
    for stream in &mut streams {
        assert_eq!(stream.content().await, "to all");
    }
    let mut client = Client::connect(world.gateway(), &users[2].token).await;
    assert!(client.call("subscribe", json!({"channel": "x:y"})).await["error"].is_object());
}

/// A session cannot be guessed and is printed nowhere: a request with the session sends commands as the client.
#[tokio::test]
async fn sessions_are_random_and_secret() {
    let world = World::start(1, false, &[("GATEWAY_LOG_LEVEL", "trace")]).await;
    let (room, users) = world.room(&["alice", "bob", "eve"]).await;
    let (mut sessions, mut held) = (HashSet::new(), Vec::new());
    for transport in TRANSPORTS {
        let mut client = StreamClient::connect(world.gateway(), transport, &users[1].token).await;
        client.subscribe(&format!("room:{room}")).await;
        assert_eq!((client.session.len(), client.node.len()), (32, 32));
        assert!(client.session.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert!(sessions.insert(client.session.clone()));
        held.push(client);
    }
    let presence = held[0].call("presence_stats", json!({"channel": format!("room:{room}")})).await;
    assert_eq!(presence["presence_stats"]["num_clients"], 3);
    let http = crate::harness::http::Http::new();
    let metrics = http.get(&world.gateway().admin("metrics")).await.expect("metrics").text;
    let user = http.get(&world.gateway().admin(&format!("user?key={}", users[1].id))).await.expect("a page").text;
    let log = world.gateway().process.log();
    for text in [&metrics, &user, &log] {
        assert!(sessions.iter().all(|session| !text.contains(session.as_str())), "{text}");
    }
    // A WebSocket needs no session.
    let mut socket = Client::open(&world.gateway().websocket()).await;
    let reply = socket.call("connect", json!({"token": users[1].token})).await;
    assert_eq!([&reply["connect"]["session"], &reply["connect"]["node"]], [&Value::Null; 2], "{reply}");
}

#[tokio::test]
async fn a_failed_connect_is_answered_over_the_stream() {
    let world = World::single().await;
    let (_, users) = world.room(&["alice", "bob", "eve"]).await;
    let forged = format!("{}x", users[1].token);
    for transport in TRANSPORTS {
        let connect = json!({"id": 1, "connect": {"token": forged}});
        let mut client = StreamClient::open(world.gateway(), transport, &[connect]).await;
        assert_eq!(client.closed().await, 3500, "{transport:?}");
        let guest = json!({"id": 1, "connect": {}});
        let mut client = StreamClient::open(world.gateway(), transport, &[guest]).await;
        assert_eq!(client.reply(1).await["error"]["code"], 101, "{transport:?}");
        let mut client = StreamClient::open(world.gateway(), transport, &[json!({"id": 1, "rpc": {}})]).await;
        assert_eq!(client.closed().await, 3501, "{transport:?}");
    }
}

#[tokio::test]
async fn a_stream_may_follow_another_request_on_the_same_connection() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let world = World::single().await;
    let (_, users) = world.room(&["alice", "bob", "eve"]).await;
    let address = ("127.0.0.1", world.gateway().port);
    let mut socket = tokio::net::TcpStream::connect(address).await.expect("the gateway accepts");
    let preflight = "OPTIONS /emulation HTTP/1.1\r\nHost: gateway\r\n\r\n";
    let mut answer = vec![0; 4096];
    for _ in 0..3 {
        socket.write_all(preflight.as_bytes()).await.expect("it can be written");
        let size = socket.read(&mut answer).await.expect("an answer");
        assert!(answer[..size].starts_with(b"HTTP/1.1 204 "));
    }
    let connect = json!({"id": 1, "connect": {"token": users[1].token}}).to_string();
    let request = crate::harness::stream_client::request(Transport::HttpStream, connect.as_bytes());
    socket.write_all(&request).await.expect("it can be written");
    let mut text = String::new();
    while !text.contains("\"session\"") {
        let size = socket.read(&mut answer).await.expect("an answer");
        assert!(size > 0, "ended after {text}");
        text.push_str(std::str::from_utf8(&answer[..size]).expect("a text"));
    }
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.matches("HTTP/1.1").count() == 1, "{text}");
}
