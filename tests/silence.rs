//! PocketBase stands still, with its connections open: what clients and operators notice of it.

mod harness;

use harness::World;
use harness::client::Client;
use serde_json::json;
use std::time::{Duration, Instant};

/// A client goes on sending commands, each in a frame of its own, and answers each ping. The commands fail one after the
/// other; the pings leave on time, and their answers are found behind the commands that wait.
#[tokio::test]
async fn a_client_that_waits_for_pocketbase_is_pinged_and_its_pongs_count() {
    const SUBSCRIBES: u32 = 5;
    let settings = [
        ("GATEWAY_PING_INTERVAL", "2"),
        ("GATEWAY_PONG_TIMEOUT", "1"),
        ("GATEWAY_POCKETBASE_TIMEOUT", "2"),
        ("GATEWAY_COMMAND_TIMEOUT", "3"),
    ];
    let world = World::start(1, false, &settings).await;
    let (_, users) = world.room(&["alice", "bob", "eve"]).await;
    let mut rooms = Vec::new();
    for _ in 0..SUBSCRIBES {
        rooms.push(world.pocketbase.room(&users[0]).await);
    }
    let mut client = Client::connect(world.gateway(), &users[0].token).await;
    let pings = client.pings;
    world.pocketbase.process.signal("STOP");
    for (id, room) in (100..).zip(&rooms) {
        client.send(&json!({"id": id, "subscribe": {"channel": format!("room:{room}")}}).to_string()).await;
    }
    let start = Instant::now();
    for id in 100..100 + SUBSCRIBES {
        assert_eq!(client.reply(id).await["error"]["code"], 100, "in order, each after its time");
    }
    let (took, pings) = (start.elapsed(), client.pings - pings);
    world.pocketbase.process.signal("CONT");
    assert!(took > Duration::from_secs(2 * u64::from(SUBSCRIBES) - 1), "{took:?}: one after the other");
    assert!(pings >= 3, "{pings} pings in {took:?}, at intervals of two seconds");
    // Served again, on the same connection.
    client.subscribe(&format!("room:{}", rooms[0])).await;
}
