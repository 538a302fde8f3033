//! Two gateways beside a real PocketBase, on a Redis Cluster. Clients get every message once and in order while slots
//! move and masters die.

use crate::harness::World;
use crate::harness::client::Client;
use crate::harness::cluster::Cluster;
use serde_json::Value;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A prefix of Redis keys for which the relays' mark and the access changes have different masters.
const APART: &str = "chat";

/// More publications than a test writes during an outage. With a shorter history, clients would rightly be told to reload.
const ENOUGH_HISTORY: (&str, &str) = ("GATEWAY_HISTORY_SIZE", "100000");

fn live(room: &str) -> String {
    format!("konvert:live:{{room:{room}}}")
}

async fn all_in_order(client: &mut Client, count: usize) {
    for i in 0..count {
        assert_eq!(client.message().await, format!("message {i}"));
    }
    assert_eq!(client.message().await, "the last");
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_move_and_clients_get_everything() {
    let cluster = Arc::new(Cluster::start());
    let settings = [("GATEWAY_REDIS_URL", &*cluster.url()), ENOUGH_HISTORY];
    let world = World::start_beside(2, &settings).await;
    let (room, users) = world.room(&["alice", "bob", "carol", "eve"]).await;
    let mut bob = world.subscriber(0, &users[1], &room).await;
    let mut carol = world.subscriber(1, &users[2], &room).await;
    let home = cluster.owner(&live(&room));
    let moving = tokio::task::spawn_blocking({
        let (cluster, room) = (Arc::clone(&cluster), room.clone());
        move || {
            for step in [1, 2, 3] {
                std::thread::sleep(Duration::from_millis(300));
                cluster.migrate(&live(&room), (home + step) % 3, Duration::from_millis(200));
            }
        }
    });
    let mut count = 0;
    while !moving.is_finished() {
        world.pocketbase.write(&room, &users[0], &format!("message {count}")).await;
        count += 1;
    }
    moving.await.unwrap();
    world.pocketbase.write(&room, &users[0], "the last").await;
    assert!(count > 50, "{count} messages only");
    all_in_order(&mut bob, count).await;
    all_in_order(&mut carol, count).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_dies_and_clients_get_everything() {
    let mut cluster = Cluster::start_with(3, 1);
    let world = World::start_beside(2, &[("GATEWAY_REDIS_URL", &cluster.url())]).await;
    let (room, users) = world.room(&["alice", "bob", "carol", "eve"]).await;
    let mut bob = world.subscriber(0, &users[1], &room).await;
    let mut carol = world.subscriber(1, &users[2], &room).await;
    let count = 100;
    for i in 0..count {
        if i == 50 {
            let master = cluster.owner(&live(&room));
            cluster.nodes[master].kill();
        }
        world.pocketbase.write(&room, &users[0], &format!("message {i}")).await;
    }
    world.pocketbase.write(&room, &users[0], "the last").await;
    all_in_order(&mut bob, count).await;
    all_in_order(&mut carol, count).await;
    for gateway in &world.gateways {
        assert_eq!(gateway.metric("gateway_session_panics_total").await, 0.0);
    }
}

/// A member is removed while the master of the access changes is paused and other members write into a room on another
/// master. The removed member gets none of these messages, on either gateway; the others get every message.
#[tokio::test(flavor = "multi_thread")]
async fn a_removed_member_gets_nothing_while_the_master_of_access_changes_is_paused() {
    let cluster = Cluster::start_patient();
    let settings = [("GATEWAY_REDIS_URL", &*cluster.url()), ("GATEWAY_REDIS_PREFIX", APART), ENOUGH_HISTORY];
    let world = World::start_beside(2, &settings).await;
    let pocketbase = &world.pocketbase;
    let access = cluster.owner(&format!("{APART}:live:{{$access}}"));
    // Otherwise the relays could not continue from their mark.
    assert_ne!(cluster.owner(&format!("{APART}:mark")), access);
    let [alice, bob, carol] =
        [pocketbase.user("alice").await, pocketbase.user("bob").await, pocketbase.user("carol").await];
    let mut room = pocketbase.room(&alice).await;
    while cluster.owner(&format!("{APART}:live:{{room:{room}}}")) == access {
        room = pocketbase.room(&alice).await;
    }
    pocketbase.join(&room, &carol).await;
    let membership = pocketbase.join(&room, &bob).await;
    let mut bobs = [world.subscriber(0, &bob, &room).await, world.subscriber(1, &bob, &room).await];
    let mut carols = [world.subscriber(0, &carol, &room).await, world.subscriber(1, &carol, &room).await];
    pocketbase.write(&room, &alice, "while bob is a member").await;
    for client in bobs.iter_mut().chain(&mut carols) {
        assert_eq!(client.message().await, "while bob is a member");
    }

    let began = Instant::now();
    cluster.nodes[access].pause();
    let path = format!("collections/room_members/records/{}", membership["id"].as_str().unwrap());
    pocketbase.as_superuser("DELETE", &path, &Value::Null).await;
    let mut count = 0;
    while began.elapsed() < Duration::from_secs(4) {
        pocketbase.write(&room, &alice, &format!("message {count}")).await;
        count += 1;
    }
    cluster.nodes[access].resume();
    pocketbase.write(&room, &alice, "the last").await;
    for client in &mut carols {
        all_in_order(client, count).await;
    }
    for client in &mut bobs {
        loop {
            let push = client.push().await["push"].take();
            assert_ne!(push["pub"]["data"]["collection"], "messages", "{push}");
            if push["unsubscribe"].is_object() {
                assert_eq!(push["unsubscribe"]["code"], 2100, "{push}");
                break;
            }
        }
        assert_eq!(client.waiting(), None);
    }
}
