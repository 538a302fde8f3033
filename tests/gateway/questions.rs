//! The calls to PocketBase that clients cause, and the effects on clients and operators while PocketBase is paused with
//! its connections open.

use crate::harness::client::Client;
use crate::harness::{World, until};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A client goes on sending commands in separate frames, and answers every ping. The commands fail one by one. The
/// pings leave on time, and the gateway finds the pongs behind the waiting commands.
#[tokio::test]
async fn a_client_waiting_for_pocketbase_is_pinged_and_its_pongs_count() {
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
    // The same connection is served again.
    client.subscribe(&format!("room:{}", rooms[0])).await;
}

const ASKED: &str = r#"gateway_access_checks_total{outcome="asked"}"#;

fn made_up(call: usize, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("made{call:05}up{number:04}")).collect()
}

async fn statuses(client: &mut Client, users: &[String]) -> Value {
    client.call("rpc", json!({"method": "status.get", "data": {"users": users}})).await
}

/// A user asks for the statuses of invented users, 500 at a time, over several connections. The connections share the
/// user's rate, and other users are not affected.
#[tokio::test]
async fn checks_of_invented_ids_are_limited_per_user() {
    let world = World::start(1, false, &[]).await;
    let (room, users) = world.room(&["alice", "bob", "eve"]).await;
    let mut attackers = Vec::new();
    for _ in 0..4 {
        attackers.push(Client::connect(world.gateway(), &users[2].token).await);
    }
    let mut honest = Client::connect(world.gateway(), &users[1].token).await;
    let before = world.gateway().metric(ASKED).await;
    let mut refused = 0;
    for call in 0..20 {
        let answer = statuses(&mut attackers[call % 4], &made_up(call, 500)).await;
        match answer["error"]["code"].as_u64() {
            Some(code) => {
                assert_eq!((code, &answer["error"]["temporary"]), (111, &json!(true)), "{answer}");
                refused += 1;
            }
            None => assert_eq!(answer["rpc"]["data"]["statuses"], json!({})),
        }
    }
    let asked = world.gateway().metric(ASKED).await - before;
    println!("{refused} of 20 calls were refused, and PocketBase was asked about {asked} of 10000 users");
    assert!((1..20).contains(&refused) && asked <= 5000.0, "{refused} refused, {asked} asked");
    let limited = r#"gateway_rate_limited_total{limit="questions"}"#;
    assert_eq!(world.gateway().metric(limited).await, f64::from(refused));
    honest.subscribe(&format!("room:{room}")).await;
    let known = statuses(&mut honest, &[users[0].id.clone()]).await;
    assert!(known["rpc"]["data"]["statuses"][&users[0].id].is_object(), "{known}");
}

/// A user missing from a list of statuses is cached as missing for a few seconds.
#[tokio::test]
async fn unknown_users_are_checked_once() {
    let world = World::start(1, false, &[]).await;
    let (_, users) = world.room(&["alice", "bob", "eve"]).await;
    let mut client = Client::connect(world.gateway(), &users[0].token).await;
    let before = world.gateway().metric(ASKED).await;
    for _ in 0..3 {
        assert_eq!(statuses(&mut client, &made_up(0, 10)).await["rpc"]["data"]["statuses"], json!({}));
    }
    assert_eq!(world.gateway().metric(ASKED).await - before, 10.0);
}

/// Many clients send commands while PocketBase is paused. Each client gets its errors, and the log has a few lines and
/// a count of the others.
#[tokio::test]
async fn failures_while_pocketbase_is_silent_are_counted_in_few_log_lines() {
    const CLIENTS: usize = 30;
    const SUBSCRIBES: u32 = 6;
    let settings = [("GATEWAY_POCKETBASE_TIMEOUT", "1"), ("GATEWAY_COMMAND_TIMEOUT", "2")];
    let world = World::start(1, false, &settings).await;
    let (_, users) = world.room(&["alice", "bob", "eve"]).await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Client::connect(world.gateway(), &users[0].token).await);
    }
    let warnings = || world.gateway().process.log().lines().filter(|line| line.contains("WARN")).count();
    let before = warnings();
    world.pocketbase.process.signal("STOP");
    for (number, client) in clients.iter_mut().enumerate() {
        for id in 100..100 + SUBSCRIBES {
            let subscribe = json!({"channel": format!("room:{number}x{id}")});
            client.send(&json!({"id": id, "subscribe": subscribe}).to_string()).await;
        }
    }
    for client in &mut clients {
        for id in 100..100 + SUBSCRIBES {
            assert_eq!(client.reply(id).await["error"]["code"], 100);
        }
    }
    let logged = warnings() - before;
    world.pocketbase.process.signal("CONT");
    println!("{} commands failed, and {logged} warnings were logged", CLIENTS as u32 * SUBSCRIBES);
    assert!((1..CLIENTS).contains(&logged), "{logged} warnings");
    let summary = "more failed access checks were left out of the log";
    until("the count of the others", async || world.gateway().process.log().contains(summary).then_some(())).await;
}
