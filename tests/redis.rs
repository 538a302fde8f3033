//! What gateways ask of Redis: each channel that somebody wants, over a few links, and history only for who comes back.

mod harness;

use harness::client::{Client, Place};
use harness::redis::Redis;
use harness::{World, until};
use serde_json::json;
use std::time::Duration;
use tokio::time::sleep;

const MESSAGES: usize = 60;
const RETURNING: u64 = 20;

fn history_reads(redis: &Redis) -> u64 {
    redis.calls("xrange") + redis.calls("xrevrange")
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_read_only_for_who_comes_back() {
    let world = World::start(2, true, &[]).await;
    let redis = world.redis.as_ref().unwrap();
    let (room, users) = world.room(&["alice", "bob", "carol", "eve"]).await;
    let (other, _) = world.room(&["dave", "erin", "frank"]).await;
    let channel = format!("room:{room}");
    let mut clients = Vec::new();
    for gateway in [0, 1] {
        for user in &users[..3] {
            clients.push(world.subscriber(gateway, user, &room).await);
        }
    }
    let mut leaving = Client::connect(&world.gateways[1], &users[1].token).await;
    leaving.subscribe(&channel).await;
    world.pocketbase.write(&room, &users[0], "seen").await;
    let seen = leaving.message_publication().await;
    let place = Place { offset: seen["offset"].as_u64().unwrap(), ..leaving.history_position(&channel).await };
    let before = history_reads(redis);
    leaving.cut();
    for n in 0..MESSAGES {
        world.pocketbase.write(&room, &users[0], &n.to_string()).await;
    }
    for client in &mut clients {
        assert_eq!(client.message().await, "seen");
        for n in 0..MESSAGES {
            assert_eq!(client.message().await, n.to_string());
        }
    }
    assert_eq!(history_reads(redis), before, "nobody has come back");

    let mut back = Client::connect(&world.gateways[0], &users[1].token).await;
    let result = back.recover(&channel, &place).await;
    assert_eq!(result["publications"].as_array().unwrap().len(), MESSAGES, "{result}");
    // More than a gateway keeps itself.
    assert_eq!(history_reads(redis), before + 1);

    // Each gateway is subscribed to what its clients want, and nobody to everything.
    let subscribed = |name: &str| -> (String, u64) {
        let name = format!("konvert:live:{{{name}}}");
        redis::cmd("PUBSUB").arg("NUMSUB").arg(name).query(&mut redis.client()).unwrap()
    };
    assert_eq!(subscribed(&channel).1, 2);
    assert_eq!(subscribed(&format!("room:{other}")).1, 0);
    assert_eq!(redis.calls("psubscribe"), 0);
    let links: String = redis::cmd("CLIENT").arg("LIST").query(&mut redis.client()).unwrap();
    assert_eq!(links.lines().count(), 2 * 2 + 1, "two of each gateway, and this one:\n{links}");
    clients.clear();
    drop(back);
    until("nobody to be subscribed", async || (subscribed(&channel).1 == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_while_the_gateway_leaves_the_channel_misses_nothing() {
    let world = World::start(1, true, &[]).await;
    let redis = world.redis.as_ref().unwrap();
    let (room, users) = world.room(&["alice", "bob"]).await;
    let channel = format!("room:{room}");
    let mut alice = world.subscriber(0, &users[0], &room).await;
    alice.call("unsubscribe", json!({"channel": channel})).await;
    // Two seconds after the last subscriber it leaves, and has to wait for the answer.
    sleep(Duration::from_millis(1500)).await;
    redis.pause();
    sleep(Duration::from_secs(1)).await;
    alice.send(&json!({"id": 99, "subscribe": {"channel": channel}}).to_string()).await;
    sleep(Duration::from_millis(300)).await;
    redis.resume();
    assert!(alice.reply(99).await["subscribe"].is_object());
    world.pocketbase.write(&room, &users[0], "hello").await;
    assert_eq!(alice.message().await, "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_come_back_together_share_a_read_of_history() {
    let world = World::start(2, true, &[]).await;
    let redis = world.redis.as_ref().unwrap();
    let (room, users) = world.room(&["alice", "bob", "nobody"]).await;
    let channel = format!("room:{room}");
    let mut alice = world.subscriber(0, &users[0], &room).await;
    let place = alice.history_position(&channel).await;
    for n in 0..MESSAGES {
        world.pocketbase.write(&room, &users[0], &n.to_string()).await;
    }
    // The other gateway has the channel, and nothing of what was before.
    let _bob = world.subscriber(1, &users[1], &room).await;
    let mut back = Vec::new();
    for _ in 0..RETURNING {
        back.push(Client::connect(&world.gateways[1], &users[0].token).await);
    }
    let before = history_reads(redis);
    redis.pause();
    let recover = json!({"channel": channel, "recover": true, "offset": place.offset, "epoch": place.epoch});
    for client in &mut back {
        client.send(&json!({"id": 99, "subscribe": recover}).to_string()).await;
    }
    sleep(Duration::from_millis(300)).await;
    redis.resume();
    for client in &mut back {
        let reply = client.reply(99).await;
        let publications = reply["subscribe"]["publications"].as_array().unwrap_or_else(|| panic!("{reply}"));
        assert_eq!((&reply["subscribe"]["recovered"], publications.len()), (&json!(true), MESSAGES), "{reply}");
    }
    let reads = history_reads(redis) - before;
    assert!((1..RETURNING / 2).contains(&reads), "{reads} reads");
    // What follows reaches them all.
    world.pocketbase.write(&room, &users[0], "hello").await;
    for client in &mut back {
        assert_eq!(client.message().await, "hello");
    }
}
