//! The gateways' use of Redis: only channels with subscribers, a few links, and history only for returning clients.

use crate::harness::client::{Client, Place};
use crate::harness::http::Http;
use crate::harness::redis::Redis;
use crate::harness::{SECRET, World, until};
use konvert_gateway::broker::redis::RedisBroker;
use konvert_gateway::broker::{Broker, Entry, Retention};
use konvert_gateway::protocol::{ClientInfo, Payload};
use konvert_gateway::signature::{SIGNATURE, Signer, TIMESTAMP};
use serde_json::json;
use std::time::{Duration, Instant, SystemTime};
use tokio::time::sleep;

const MESSAGES: usize = 60;
const RETURNING: u64 = 20;

fn history_reads(redis: &Redis) -> u64 {
    redis.calls("xrange") + redis.calls("xrevrange")
}

/// The hooks post to the first gateway. The second reads the outbox now and then, and at once after the first has died.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_reads_the_outbox_less_while_another_publishes() {
    let mut world = World::start(2, true, &[("GATEWAY_PULL_INTERVAL", "1")]).await;
    let (room, users) = world.room(&["alice", "bob", "eve"]).await;
    let mut client = world.subscriber(1, &users[0], &room).await;
    let reads = async |world: &World| world.gateways[1].metric("gateway_relay_pulls_total{cause=\"timer\"}").await;
    let (before, begun) = (reads(&world).await, Instant::now());
    let mut sent = 0;
    while begun.elapsed() < Duration::from_secs(8) {
        world.pocketbase.write(&room, &users[0], &sent.to_string()).await;
        assert_eq!(client.message().await, sent.to_string());
        sent += 1;
        sleep(Duration::from_millis(50)).await;
    }
    let reads = reads(&world).await - before;
    assert!((1.0..=4.0).contains(&reads), "{reads} reads in eight seconds");

    world.gateways[0].process.kill();
    let begun = Instant::now();
    world.pocketbase.write(&room, &users[0], "late").await;
    assert_eq!(client.message().await, "late");
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_read_only_for_returning_clients() {
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
    // More than the hub's cache holds. Read in two pieces, since the first piece tells the size of publications.
    assert_eq!(history_reads(redis), before + 2);

    // Each gateway is subscribed to its clients' channels only, without patterns.
    let subscribed = |name: &str| -> (String, u64) {
        let name = format!("konvert:live:{{{name}}}");
        redis::cmd("PUBSUB").arg("NUMSUB").arg(name).query(&mut redis.client()).unwrap()
    };
    assert_eq!(subscribed(&channel).1, 2);
    assert_eq!(subscribed(&format!("room:{other}")).1, 0);
    assert_eq!(redis.calls("psubscribe"), 0);
    let links: String = redis::cmd("CLIENT").arg("LIST").query(&mut redis.client()).unwrap();
    assert_eq!(links.lines().count(), 2 * 3 + 1, "three of each gateway, and this one:\n{links}");
    clients.clear();
    drop(back);
    until("nobody to be subscribed", async || (subscribed(&channel).1 == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_subscribes_while_the_gateway_unsubscribes_misses_nothing() {
    let world = World::start(1, true, &[]).await;
    let redis = world.redis.as_ref().unwrap();
    let (room, users) = world.room(&["alice", "bob"]).await;
    let channel = format!("room:{room}");
    let mut alice = world.subscriber(0, &users[0], &room).await;
    alice.call("unsubscribe", json!({"channel": channel})).await;
    // Two seconds after its last subscriber left, the gateway unsubscribes, and has to wait for the answer.
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
async fn clients_that_return_together_share_a_read_of_history() {
    let world = World::start(2, true, &[]).await;
    let redis = world.redis.as_ref().unwrap();
    let (room, users) = world.room(&["alice", "bob", "nobody"]).await;
    let channel = format!("room:{room}");
    let mut alice = world.subscriber(0, &users[0], &room).await;
    let place = alice.history_position(&channel).await;
    for n in 0..MESSAGES {
        world.pocketbase.write(&room, &users[0], &n.to_string()).await;
    }
    // The other gateway has the channel, without the earlier publications.
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
    // Each read has two pieces.
    let reads = (history_reads(redis) - before) / 2;
    assert!((1..RETURNING / 2).contains(&reads), "{reads} reads");
    // Later publications reach every client.
    world.pocketbase.write(&room, &users[0], "hello").await;
    for client in &mut back {
        assert_eq!(client.message().await, "hello");
    }
}

/// Fills a channel's history like another gateway, without PocketBase. Returns the payload bytes.
async fn fill(redis: &Redis, channel: &str, count: u64, bytes: usize) -> usize {
    let hour = Duration::from_secs(3600);
    let retention = Retention { size: 500, ttl: hour, position_ttl: hour, ..Retention::default() };
    let broker = RedisBroker::connect(&redis.url(), "konvert", retention).await.unwrap();
    let data = Payload::trusted(format!("\"{}\"", "x".repeat(bytes - 2)).into());
    let entry =
        |seq| Entry { seq: 1_000_000 + seq, at: 0, channel: channel.into(), data: data.clone(), barrier: false };
    let entries: Vec<Entry> = (1..=count).map(entry).collect();
    assert_eq!(broker.publish(&entries).await.unwrap() as u64, count);
    count as usize * bytes
}

/// Bytes sent by Redis so far.
fn sent(redis: &Redis) -> u64 {
    let info: String = redis::cmd("INFO").arg("stats").query(&mut redis.client()).unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix("total_net_output_bytes:"));
    line.expect("Redis counts").trim().parse().expect("a number")
}

/// A user reads a full history of large publications in a loop, over many connections.
#[tokio::test(flavor = "multi_thread")]
async fn reading_a_full_history_is_limited_and_delays_no_other_client() {
    const CONNECTIONS: usize = 12;
    let settings = [("GATEWAY_MAX_READS_PER_SECOND", "20"), ("GATEWAY_MAX_READS_BURST", "200")];
    let world = World::start(1, true, &settings).await;
    let (redis, gateway) = (world.redis.as_ref().unwrap(), &world.gateways[0]);
    let (room, users) = world.room(&["eve", "nobody"]).await;
    let (other, honest) = world.room(&["alice", "bob", "mallory"]).await;
    let (channel, elsewhere) = (format!("room:{room}"), format!("room:{other}"));
    let all = fill(redis, &channel, 500, 60_000).await;
    let mut alice = world.subscriber(0, &honest[0], &other).await;
    let mut bob = world.subscriber(0, &honest[1], &other).await;

    let (before, begun) = (sent(redis), Instant::now());
    let reading = (0..CONNECTIONS).map(|_| {
        let (url, token, channel) = (gateway.websocket(), users[0].token.clone(), channel.clone());
        tokio::spawn(async move {
            let mut eve = Client::open(&url).await;
            eve.log_in(&token).await;
            eve.subscribe(&channel).await;
            let (mut read, mut refused) = (0, 0);
            while begun.elapsed() < Duration::from_secs(4) {
                let reply = eve.call("history", json!({"channel": channel, "limit": -1})).await;
                match reply["error"]["code"].as_u64() {
                    None => {
                        let publications = reply["history"]["publications"].as_array().unwrap();
                        assert_eq!(publications.len(), 8, "half of max_queue_size");
                        read += 1;
                    }
                    Some(111) => {
                        refused += 1;
                        sleep(Duration::from_millis(50)).await;
                    }
                    _ => panic!("{reply}"),
                }
            }
            (read, refused)
        })
    });
    let reading: Vec<_> = reading.collect();
    let mut signals = 0;
    while begun.elapsed() < Duration::from_secs(4) {
        let reply = alice.call("publish", json!({"channel": elsewhere, "data": {"type": "typing"}})).await;
        assert!(reply["publish"].is_object(), "{reply}");
        bob.signal().await;
        signals += 1;
        sleep(Duration::from_millis(150)).await;
    }
    let (mut read, mut refused) = (0, 0);
    for task in reading {
        let (its_reads, its_refusals) = task.await.unwrap();
        (read, refused) = (read + its_reads, refused + its_refusals);
    }
    let (bytes, seconds) = (sent(redis) - before, begun.elapsed().as_secs_f64());
    println!("{read} histories, {refused} refused, {signals} signals, {bytes} bytes of Redis in {seconds:.1} s");
    assert!(read > 0 && refused > 0, "{read} read, {refused} refused");
    // The user's budget at 16 KiB per token, and the reads under way at its end.
    let budget = (200.0 + 20.0 * seconds) * 16_384.0 + (CONNECTIONS * 8 * 60_000) as f64;
    assert!((bytes as f64) < 1.5 * budget, "{bytes} bytes, more than {budget}, of a history of {all}");
    assert_eq!(gateway.metric("gateway_broker_errors_total{operation=\"publish\"}").await, 0.0);
    assert_eq!(gateway.metric("gateway_broker_errors_total{operation=\"history\"}").await, 0.0);
}

/// A list of a large room would overflow the client's queue, hence error 106. Counting does not read the clients.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_presence_is_counted_and_closes_no_connection() {
    const CROWD: usize = 12_000;
    let world = World::start(1, true, &[]).await;
    let redis = world.redis.as_ref().unwrap();
    let (room, users) = world.room(&["alice", "nobody"]).await;
    let channel = format!("room:{room}");
    let mut alice = world.subscriber(0, &users[0], &room).await;
    let retention = Retention { presence_ttl: Duration::from_secs(3600), ..Retention::default() };
    let other = RedisBroker::connect(&redis.url(), "konvert", retention).await.unwrap();
    // Two connections per user.
    let info = |n: usize| ClientInfo { user: format!("user{:011}", n / 2).into(), client: format!("{n:032}").into() };
    let crowd: Vec<_> = (0..CROWD).map(|n| (channel.as_str().into(), info(n))).collect();
    other.add_presence(&crowd[..998]).await.unwrap();
    let listed = alice.call("presence", json!({"channel": channel})).await;
    assert_eq!(listed["presence"]["presence"].as_object().map(|clients| clients.len()), Some(999), "{listed}");

    other.add_presence(&crowd[998..]).await.unwrap();
    let before = sent(redis);
    for _ in 0..20 {
        let refused = alice.call("presence", json!({"channel": channel})).await;
        assert_eq!(refused["error"], json!({"code": 106, "message": "limit exceeded"}), "{refused}");
        let counted = alice.call("presence_stats", json!({"channel": channel})).await;
        let expected = json!({"num_clients": CROWD + 1, "num_users": CROWD / 2 + 1});
        assert_eq!(counted["presence_stats"], expected, "{counted}");
    }
    for (method, answer) in [
        ("presence", "too_many_clients".to_owned()),
        ("presence_stats", json!({"clients": CROWD + 1, "users": CROWD / 2 + 1}).to_string()),
    ] {
        let (target, body) = (format!("/api/{method}"), json!({"channel": channel}).to_string());
        let (time, signature) = Signer::new(&SECRET.into()).sign(SystemTime::now(), "POST", &target, body.as_bytes());
        let headers = [(TIMESTAMP, time.as_str()), (SIGNATURE, signature.as_str())];
        let response = Http::new().send("POST", &world.gateways[0].url(&target), &headers, body).await.unwrap();
        assert!(response.text.contains(&answer), "{method}: {}", response.text);
    }
    let bytes = sent(redis) - before;
    assert!(bytes < 200_000, "{bytes} bytes of Redis for 40 answers of a few bytes");
    world.pocketbase.write(&room, &users[0], "still here").await;
    assert_eq!(alice.message().await, "still here");
}

/// Pages through a history larger than the limit of an answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_history_is_read_in_pages() {
    let world = World::start(1, true, &[]).await;
    let redis = world.redis.as_ref().unwrap();
    let (room, users) = world.room(&["alice", "nobody"]).await;
    let channel = format!("room:{room}");
    fill(redis, &channel, 450, 100).await;
    let mut alice = world.subscriber(0, &users[0], &room).await;
    let newest = alice.history_position(&channel).await;
    let mut since = Place { offset: newest.offset - 450, ..newest.clone() };
    let mut pages = Vec::new();
    while since.offset < newest.offset {
        let Place { offset, epoch } = &since;
        let request = json!({"channel": channel, "limit": -1, "since": {"offset": offset, "epoch": epoch}});
        let reply = alice.call("history", request).await;
        let page = reply["history"]["publications"].as_array().unwrap_or_else(|| panic!("{reply}"));
        assert_eq!(page[0]["offset"], since.offset + 1, "no hole");
        since.offset = page.last().unwrap()["offset"].as_u64().unwrap();
        pages.push(page.len());
    }
    assert_eq!(pages, [300, 150]);
}
