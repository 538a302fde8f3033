//! Ends of streams: by the gateway, by the client, and at the limits.

use crate::harness::World;
use crate::harness::stream_client::{StreamClient, TRANSPORTS, Transport, encode};
use crate::harness::until;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;

#[tokio::test]
async fn access_that_ends_ends_within_a_second() {
    let world = World::start(2, true, &[]).await;
    for (number, transport) in TRANSPORTS.into_iter().enumerate() {
        let names = ["alice", "bob", "eve"].map(|name| format!("{name}{number}"));
        let (room, users) = world.room(&names.each_ref().map(String::as_str)).await;
        let mut bob = StreamClient::connect(&world.gateways[1], transport, &users[1].token).await;
        bob.subscribe(&format!("room:{room}")).await;
        let filter = format!("(room='{room}'%26%26user='{}')", users[1].id);
        let path = format!("collections/room_members/records?filter={filter}");
        let found = world.pocketbase.as_superuser("GET", &path, &json!(null)).await;
        let membership = found["items"][0]["id"].as_str().expect("a membership").to_owned();
        let path = format!("collections/room_members/records/{membership}");
        world.pocketbase.as_superuser("DELETE", &path, &json!(null)).await;
        let removed = Instant::now();
        let code = loop {
            let push = bob.push().await.expect("the stream goes on");
            if let Some(code) = push["push"]["unsubscribe"]["code"].as_u64() {
                break code;
            }
        };
        assert!(code == 2100 && removed.elapsed() < Duration::from_secs(1), "{code} {:?}", removed.elapsed());

        let path = format!("collections/users/records/{}", users[1].id);
        world.pocketbase.as_superuser("PATCH", &path, &json!({"banned_until": "2099-01-01 00:00:00.000Z"})).await;
        let banned = Instant::now();
        assert_eq!(bob.closed().await, 4501, "{transport:?}");
        assert!(banned.elapsed() < Duration::from_secs(1), "{:?}", banned.elapsed());
    }
}

#[tokio::test]
async fn a_stop_tells_streams_to_reconnect() {
    let mut world = World::start(1, false, &[("GATEWAY_SHUTDOWN_SPREAD", "1")]).await;
    let (_, users) = world.room(&["alice", "bob", "eve"]).await;
    let mut clients = Vec::new();
    for transport in TRANSPORTS {
        clients.push(StreamClient::connect(world.gateway(), transport, &users[1].token).await);
    }
    world.gateway().process.signal("TERM");
    for client in &mut clients {
        assert_eq!(client.closed().await, 3001);
    }
    let gateway = &mut world.gateways[0];
    assert_eq!(until("its end", async || gateway.process.ended()).await, Some(0));
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_disconnected() {
    let world = World::start(1, false, &super::PINGS).await;
    let (_, users) = world.room(&["alice", "bob", "eve"]).await;
    for transport in TRANSPORTS {
        let mut client = StreamClient::connect(world.gateway(), transport, &users[1].token).await;
        client.answers_pings = false;
        assert_eq!(client.closed().await, 3012, "{transport:?}");
        assert_eq!(client.pings, 1, "{transport:?}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_disconnected_and_slows_nobody() {
    let settings = [("GATEWAY_MAX_QUEUE_SIZE", "65536"), ("GATEWAY_MAX_TOTAL_QUEUE_SIZE", "10000000")];
    let world = World::start(1, false, &settings).await;
    let (room, users) = world.room(&["alice", "bob", "eve"]).await;
    for (count, transport) in (1..).zip(TRANSPORTS) {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small buffer");
        let connect = encode(transport, &[json!({"id": 1, "connect": {"token": users[1].token}})]);
        let mut stuck = StreamClient::open_with(world.gateway().port, transport, &connect, socket).await;
        stuck.reply(1).await;
        stuck.subscribe(&format!("room:{room}")).await;
        let mut reader = StreamClient::connect(world.gateway(), transport, &users[1].token).await;
        reader.subscribe(&format!("room:{room}")).await;
        let slow = r#"gateway_disconnects_total{code="3008"}"#;
        let mut written = 0;
        while world.gateway().metric(slow).await < f64::from(count) {
            assert!(written < 300, "the gateway does not notice");
            let content = format!("{written}{}", "x".repeat(30_000));
            world.pocketbase.write(&room, &users[0], &content).await;
            assert_eq!(reader.content().await, content);
            written += 1;
        }
    }
}

/// HTTP allows no further request after one whose response ends with the connection.
#[tokio::test]
async fn surplus_bytes_are_dropped_and_a_flood_of_them_ends_the_stream() {
    let settings = [("GATEWAY_MAX_COMMANDS_BURST", "20"), ("GATEWAY_MAX_COMMANDS_PER_SECOND", "10")];
    let world = World::start(1, false, &settings).await;
    let (_, users) = world.room(&["alice", "bob", "eve"]).await;
    for transport in TRANSPORTS {
        let commands = encode(transport, &[json!({"id": 1, "connect": {"token": users[1].token}})]);
        // The second request follows in the same segment.
        let twice = crate::harness::stream_client::request(transport, &commands).repeat(2);
        let mut client = StreamClient::connect(world.gateway(), transport, &users[1].token).await;
        client.socket.write_all(&twice).await.expect("it can be written");
        let reply = client.call("rpc", json!({"method": "unknown"})).await;
        assert_eq!(reply["error"]["code"], 104, "{transport:?}");
        assert_eq!(world.gateway().metric("gateway_connections").await, 1.0, "no second session");
        let flooded = async {
            // Until the gateway closes. Each write is small, to be read alone.
            while client.socket.write_all(b"GET / HTTP/1.1\r\n\r\n").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(crate::harness::DEADLINE, flooded).await.expect("an end");
        world.gateway().metric_reaches(r#"gateway_disconnects_total{code="3013"}"#, 1.0).await;
        until("no connection", async || (world.gateway().metric("gateway_connections").await == 0.0).then_some(()))
            .await;
    }
}

/// Accepted commands are carried out, however long PocketBase takes; others are refused, and may be repeated.
#[tokio::test]
async fn a_full_inbox_refuses_and_loses_nothing() {
    let world = World::single().await;
    let (room, users) = world.room(&["alice", "bob", "eve"]).await;
    let mut bob = StreamClient::connect(world.gateway(), Transport::HttpStream, &users[1].token).await;
    world.pocketbase.process.signal("STOP");
    bob.send(&[json!({"id": 2, "subscribe": {"channel": format!("room:{room}")}})]).await;
    let mut accepted = Vec::new();
    let refused = loop {
        let id = 100 + accepted.len();
        let frame = json!({"id": id, "rpc": {"method": "unknown", "data": "x".repeat(4000)}}).to_string();
        let response = bob.post(frame.as_bytes()).await;
        if response.status != 204 {
            break response;
        }
        accepted.push(id);
        assert!(accepted.len() < 20, "the inbox has no limit");
    };
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (429, &json!("session_busy")), "{}", refused.text);
    assert!(refused.retry_after.is_some());
    world.pocketbase.process.signal("CONT");
    for id in accepted {
        let reply = bob.reply(u32::try_from(id).expect("a number")).await;
        assert_eq!(reply["error"]["code"], 104, "{reply}");
    }
}
