//! Several gateways on one Redis.

use crate::broker::{
    PREFIX, Recorder, brief, client, connect, entries, entry, generous, mark, numbered, payload, until,
};
use crate::harness::redis::Redis;
use konvert_gateway::broker::redis::RedisBroker;
use konvert_gateway::broker::status_store::{Choice, Lease, Status, StatusStore};
use konvert_gateway::broker::{Broker, BrokerError, Entry, HistoryQuery, Mark, PresenceStats, Retention};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_share_everything() {
    let redis = Redis::start();
    let [a, b] = [connect(&redis, generous()).await, connect(&redis, generous()).await];
    let [at_a, at_b] = [Recorder::listen(&*a).await, Recorder::listen(&*b).await];
    a.subscribe("c").await.unwrap();
    b.subscribe("c").await.unwrap();
    a.publish(&[entry("c", 1)]).await.unwrap();
    b.publish(&[entry("c", 2)]).await.unwrap();
    for recorder in [&at_a, &at_b] {
        assert_eq!(brief(&recorder.wait("c", 2).await), numbered([1, 2]));
    }
    let everything = HistoryQuery::default();
    assert_eq!(a.history("c", everything).await.unwrap(), b.history("c", everything).await.unwrap());
    assert_eq!(at_a.epochs("c"), at_b.epochs("c"));

    a.add_presence(&[("c".into(), client("u", "at a"))]).await.unwrap();
    b.add_presence(&[("c".into(), client("v", "at b"))]).await.unwrap();
    assert_eq!(a.presence("c").await.unwrap().len(), 2);
    b.remove_presence(&[("c".into(), "at a".into())]).await.unwrap();
    assert_eq!(a.presence("c").await.unwrap(), [client("v", "at b")]);

    assert_eq!((a.begin(mark(5)).await.unwrap().seq, b.begin(mark(9)).await.unwrap().seq), (5, 5));
    assert_eq!((b.advance(mark(7)).await.unwrap().seq, a.advance(mark(6)).await.unwrap().seq), (7, 7));

    // Another prefix is a separate namespace.
    let other = RedisBroker::connect(&redis.url(), "other", generous()).await.unwrap();
    assert_eq!(other.history("c", HistoryQuery::POSITION).await.unwrap().position.offset, 0);
    assert_eq!(other.begin(mark(1)).await.unwrap().seq, 1);
}

/// Several relays publish the same outbox while Redis loses its scripts again and again, also between the requests of a
/// batch. A batch published in part is completed by the same relay or another, and nothing is left out.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_entries_from_several_nodes_are_published_once() {
    let redis = Redis::start();
    let watcher = connect(&redis, Retention { size: 10_000, ..generous() }).await;
    let recorder = Recorder::listen(&*watcher).await;
    watcher.subscribe("c").await.unwrap();

    let done = Arc::new(AtomicBool::new(false));
    let flusher = std::thread::spawn({
        let (done, mut client) = (Arc::clone(&done), redis.client());
        let script = redis::Script::new(PUBLISH_SCRIPT);
        move || {
            while !done.load(Ordering::Relaxed) {
                redis::cmd("SCRIPT").arg("FLUSH").exec(&mut client).unwrap();
                // At once, so that a batch continues after a failed request.
                script.prepare_invoke().load(&mut client).unwrap();
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    });
    // Several requests of a batch.
    let large = |seq: u64| Entry { data: payload(format!("{seq:>2000}")), ..entry("c", seq) };
    let publish_all = async || {
        let broker = connect(&redis, Retention { size: 10_000, ..generous() }).await;
        let mut new = 0;
        for batch in (1..=2000).map(large).collect::<Vec<_>>().chunks(1000) {
            new += until("a batch to pass", async || broker.publish(batch).await.ok()).await;
        }
        new
    };
    let (a, b, c) = tokio::join!(publish_all(), publish_all(), publish_all());
    done.store(true, Ordering::Relaxed);
    flusher.join().unwrap();

    let history = watcher.history("c", HistoryQuery::default()).await.unwrap().publications;
    for publications in [recorder.wait("c", 2000).await, history] {
        let trimmed = |(offset, text): (u64, String)| (offset, text.trim_start().to_owned());
        assert!(brief(&publications).into_iter().map(trimmed).eq(numbered(1..=2000)));
    }
    // Fewer if a call failed after partial success; never more.
    assert!(a + b + c <= 2000, "{a}, {b} and {c} publications of 2000");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mark_of_a_single_redis_moves_with_the_last_entry() {
    let redis = Redis::start();
    let broker = connect(&redis, Retention { size: 10_000, ..generous() }).await;
    broker.begin(mark(0)).await.unwrap();
    let (new, moved) = broker.publish_and_advance(&entries("c", 1..=1500), mark(1500)).await.unwrap();
    assert_eq!((new, moved), (1500, Some(mark(1500))));
    assert_eq!(broker.begin(mark(0)).await.unwrap(), mark(1500));

    // A conflict in the last of several requests.
    broker.publish(&entries("other", [3000])).await.unwrap();
    let conflict = Entry { data: payload("another"), ..entry("other", 3000) };
    let batch: Vec<Entry> = entries("c", 1501..=2999).into_iter().chain([conflict]).collect();
    let refused = broker.publish_and_advance(&batch, mark(3000)).await;
    assert!(matches!(refused, Err(BrokerError::Conflict)), "{refused:?}");
    assert_eq!(broker.begin(mark(0)).await.unwrap(), mark(1500));
    assert_eq!(broker.history("c", HistoryQuery::POSITION).await.unwrap().position.offset, 2999);
}

/// In a pipeline, a call can fail alone. Later entries of the channel are then refused, or the repeat of the failed entry
/// would look like an old one.
#[tokio::test(flavor = "multi_thread")]
async fn an_entry_without_the_previous_entry_of_the_batch_is_refused() {
    let redis = Redis::start();
    let script = redis::Script::new(PUBLISH_SCRIPT);
    let publish = |seq: u64, before: u64| {
        let mut call = script.key("position");
        call.key("stream").arg("e").arg(10).arg(60_000).arg(60_000).arg(0).arg("");
        call.arg(seq).arg(before).arg("1").arg("live").arg(0).arg(1000).arg("");
        call.invoke::<Vec<i64>>(&mut redis.client())
    };
    assert_eq!(publish(1, 0).unwrap(), [1]);
    let refused = publish(3, 2).unwrap_err();
    assert_eq!(refused.code(), Some("GAP"), "{refused}");
    assert_eq!((publish(2, 1).unwrap(), publish(3, 2).unwrap(), publish(3, 2).unwrap()), (vec![2], vec![3], vec![-1]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lower_limit_of_the_history_drops_all_surplus_at_once() {
    let redis = Redis::start();
    let large = connect(&redis, Retention { size: 5000, ..generous() }).await;
    large.publish(&entries("c", 1..=3000)).await.unwrap();
    for (size, bytes, kept) in [(1000, 1 << 30, 2002..=3001), (1000, 400, 2903..=3002)] {
        let small = connect(&redis, Retention { size, bytes, ..generous() }).await;
        small.publish(&[entry("c", *kept.end())]).await.unwrap();
        let history = small.history("c", HistoryQuery::default()).await.unwrap().publications;
        assert_eq!(brief(&history), kept.clone().map(|seq| (seq, seq.to_string())).collect::<Vec<_>>());
        let noted: usize = redis::cmd("HGET").arg("test:position:{c}").arg("bytes").query(&mut redis.client()).unwrap();
        assert_eq!(noted, 4 * kept.count());
    }
}

const PUBLISH_SCRIPT: &str = concat!(
    "local PUBLISH = 'PUBLISH'\n",
    include_str!("../../../src/broker/redis/scripts/above.lua"),
    include_str!("../../../src/broker/redis/scripts/shrink.lua"),
    include_str!("../../../src/broker/redis/scripts/mark.lua"),
    include_str!("../../../src/broker/redis/scripts/publish.lua")
);

/// A subscription counts as use of a channel, even without publications.
#[tokio::test(flavor = "multi_thread")]
async fn a_subscribed_channel_keeps_its_epoch() {
    let redis = Redis::start();
    let brief_life =
        Retention { ttl: Duration::from_millis(200), position_ttl: Duration::from_millis(400), ..generous() };
    let broker = connect(&redis, brief_life).await;
    let recorder = Recorder::listen(&*broker).await;
    broker.subscribe("used").await.unwrap();
    let old = broker.history("idle", HistoryQuery::POSITION).await.unwrap().position;
    broker.publish(&[entry("used", 1), entry("idle", 2)]).await.unwrap();

    let mut client = redis.client();
    let mut exists = |channel: &str| {
        redis::cmd("EXISTS").arg(format!("{PREFIX}:position:{{{channel}}}")).query::<bool>(&mut client).unwrap()
    };
    let three_lives = Instant::now() + Duration::from_millis(1200);
    until("three times its life", async || {
        assert!(exists("used"), "its position was forgotten");
        (Instant::now() > three_lives).then_some(())
    })
    .await;
    assert!(!exists("idle"));

    broker.publish(&[entry("used", 3), entry("idle", 4)]).await.unwrap();
    assert_eq!(brief(&recorder.wait("used", 2).await), numbered([1, 3]));
    assert_eq!(recorder.epochs("used").len(), 1);
    let new = broker.history("idle", HistoryQuery::default()).await.unwrap();
    assert_eq!(brief(&new.publications), numbered([4]));
    assert_ne!(new.position.epoch, old.epoch);
}

/// Redis may evict one key and keep the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_history_without_a_position_is_not_mixed_with_the_next() {
    let redis = Redis::start();
    let broker = connect(&redis, generous()).await;
    for channel in ["published", "read"] {
        broker.publish(&entries(channel, 1..=5)).await.unwrap();
        let position = format!("{PREFIX}:position:{{{channel}}}");
        redis::cmd("DEL").arg(position).exec(&mut redis.client()).unwrap();
    }
    broker.publish(&[entry("published", 6)]).await.unwrap();
    let history = broker.history("published", HistoryQuery::default()).await.unwrap();
    assert_eq!(brief(&history.publications), numbered([6]));
    let history = broker.history("read", HistoryQuery::default()).await.unwrap();
    assert_eq!((history.position.offset, history.publications), (0, vec![]));
}

/// Clients added by an earlier version of the gateway, or counts evicted by Redis.
#[tokio::test(flavor = "multi_thread")]
async fn inconsistent_presence_counts_are_rebuilt() {
    let redis = Redis::start();
    let broker = connect(&redis, generous()).await;
    let stats = |clients, users| PresenceStats { clients, users };
    broker.add_presence(&[("c".into(), client("u", "1"))]).await.unwrap();
    let info = r#"{"user":"v","client":"2"}"#;
    redis::cmd("HSET").arg("test:presence:{c}").arg("2").arg(info).exec(&mut redis.client()).unwrap();
    assert_eq!(broker.presence_stats("c").await.unwrap(), stats(2, 2));
    redis::cmd("DEL").arg("test:users:{c}").exec(&mut redis.client()).unwrap();
    assert_eq!(broker.presence_stats("c").await.unwrap(), stats(2, 2));
    broker.remove_presence(&[("c".into(), "1".into())]).await.unwrap();
    assert_eq!(broker.presence_stats("c").await.unwrap(), stats(1, 1));
}

fn lease_of_ann() -> Lease {
    let (user, client) = ("ann".into(), "1".into());
    Lease { user, client, idle: false, age: Duration::ZERO, choice: Choice::default() }
}

/// A renewed lease restores the time of the user's next check, which Redis may have lost, or written by a clock that was
/// ahead: without the check, the user of a dead gateway would stay online.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_deadline_of_a_user_is_restored() {
    for is_lost in [true, false] {
        restores_the_deadline(is_lost).await;
    }
}

async fn restores_the_deadline(is_lost: bool) {
    let redis = Redis::start();
    let retention = Retention { presence_ttl: Duration::from_millis(900), ..generous() };
    let broker = connect(&redis, retention).await;
    broker.sweep().await.unwrap();
    broker.lease(&[lease_of_ann()]).await.unwrap();
    let bucket = konvert_gateway::broker::status_store::bucket("ann");
    let key = format!("{PREFIX}:status:{{status:{bucket}}}:deadlines");
    let mut client = redis.client();
    if is_lost {
        assert_eq!(redis::cmd("DEL").arg(&key).query::<u32>(&mut client).unwrap(), 1);
    } else {
        redis::cmd("ZINCRBY").arg(&key).arg(3_600_000).arg("ann").exec(&mut client).unwrap();
    }
    broker.lease(&[lease_of_ann()]).await.unwrap();
    until("the end of the lease", async || {
        broker.sweep().await.unwrap();
        let status = broker.statuses(&["ann".to_owned()]).await.unwrap()[0].unwrap().status;
        (status == Status::Offline).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connected_user_is_not_forgotten() {
    let redis = Redis::start();
    let (presence_ttl, brief) = (Duration::from_millis(900), Duration::from_millis(1));
    let retention = Retention { presence_ttl, status_grace: brief, last_seen_ttl: brief, ..generous() };
    let broker = connect(&redis, retention).await;
    broker.sweep().await.unwrap();
    for _ in 0..15 {
        broker.lease(&[lease_of_ann()]).await.unwrap();
        tokio::time::sleep(presence_ttl / 3).await;
        let status = broker.statuses(&["ann".to_owned()]).await.unwrap()[0].map(|status| status.status);
        assert_eq!(status, Some(Status::Online));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_broker_closes_its_connections() {
    let redis = Redis::start();
    let mut client = redis.client();
    let mut clients = || {
        let list: String = redis::cmd("CLIENT").arg("LIST").query(&mut client).unwrap();
        list.lines().count()
    };
    let before = clients();
    let broker = connect(&redis, generous()).await;
    broker.subscribe("c").await.unwrap();
    assert_eq!(clients(), before + 3);
    drop(broker);
    until("its connections' end", async || (clients() == before).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_and_databases() {
    let redis = Redis::start_with(&["--requirepass", "s e/cret", "--save", ""]);
    let address = format!("127.0.0.1:{}", redis.port());
    let url = format!("redis://:s%20e%2Fcret@{address}/3");
    let broker = RedisBroker::connect(&url, PREFIX, generous()).await.unwrap();
    broker.check().await.unwrap();
    let recorder = Recorder::listen(&*broker).await;
    broker.subscribe("c").await.unwrap();
    broker.publish(&[entry("c", 1)]).await.unwrap();
    recorder.wait("c", 1).await;

    for wrong in ["", ":wrong@", "nobody:wrong@"] {
        let broker = RedisBroker::connect(&format!("redis://{wrong}{address}"), PREFIX, generous()).await.unwrap();
        let error = broker.check().await.unwrap_err().to_string();
        assert!(error.contains("uthentication") || error.contains("password"), "{error}");
    }
}

#[tokio::test]
async fn an_invalid_url_is_refused_at_once() {
    for url in ["", "nonsense", "http://x", "rediss://:secret@x", "redis://:secret@x/y", "redis://:secret@x/999"] {
        let error = RedisBroker::connect(url, PREFIX, generous()).await.err().unwrap().to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}

/// A gateway that does not yet know the new generation publishes nothing into it, and learns of it from Redis.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_the_previous_generation_publishes_nothing_into_the_new_one() {
    let redis = Redis::start();
    let (a, b) = (connect(&redis, generous()).await, connect(&redis, generous()).await);
    let at_b = Recorder::listen(&*b).await;
    b.subscribe("c").await.unwrap();
    let first = a.begin(mark(9)).await.unwrap();
    b.begin(mark(9)).await.unwrap();
    let next = a.restart(Mark { generation: 1, ..first }).await.unwrap();
    a.publish(&[entry("c", 10)]).await.unwrap();
    assert!(b.publish(&[entry("c", 11)]).await.is_err());
    assert_eq!(a.history("c", HistoryQuery::POSITION).await.unwrap().position.offset, 1);
    let gaps = at_b.gaps();
    assert_eq!(b.begin(first).await.unwrap(), next);
    assert_eq!(at_b.gaps(), gaps + 1);
    assert_eq!(b.publish(&[entry("c", 11)]).await.unwrap(), 1);
}

/// Redis has lost its data. A reader with a position in the new history waits for the next publications, so a gateway
/// that starts now must not set a later mark.
#[tokio::test(flavor = "multi_thread")]
async fn reading_history_restores_a_lost_mark() {
    let redis = Redis::start();
    let (a, b) = (connect(&redis, generous()).await, connect(&redis, generous()).await);
    a.begin(mark(5)).await.unwrap();
    redis::cmd("FLUSHALL").exec(&mut redis.client()).unwrap();
    a.history("c", HistoryQuery::POSITION).await.unwrap();
    assert_eq!(b.begin(mark(9)).await.unwrap().seq, 5);
}

/// Redis lost its data while a node was idle, and the other nodes have gone on from a later mark. The idle node's next
/// publication is long past, and must not appear in the new history.
#[tokio::test(flavor = "multi_thread")]
async fn entries_from_before_a_data_loss_are_not_published_into_the_new_history() {
    let mut redis = Redis::start();
    let (late, other) = (connect(&redis, generous()).await, connect(&redis, generous()).await);
    late.begin(mark(5)).await.unwrap();
    redis.kill();
    redis.restart();
    until("the mark of the others", async || other.begin(mark(9)).await.ok()).await;
    until("a link that is up", async || late.check().await.ok()).await;
    assert!(late.publish(&[entry("c", 6)]).await.is_err());
    assert_eq!(late.begin(mark(5)).await.unwrap().seq, 9);
    assert_eq!(late.publish(&[entry("c", 10)]).await.unwrap(), 1);
}

/// If the mark is unchanged, publishing goes on over the new connection.
#[tokio::test(flavor = "multi_thread")]
async fn publishing_continues_over_a_new_connection() {
    let mut redis = Redis::start_with(&["--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
    let broker = connect(&redis, generous()).await;
    broker.begin(mark(5)).await.unwrap();
    redis.kill();
    redis.restart();
    until("a link that is up", async || broker.check().await.ok()).await;
    assert_eq!(broker.publish(&[entry("c", 6)]).await.unwrap(), 1);
}
