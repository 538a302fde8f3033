//! The broker on a Redis Cluster: keys on the node of their slot, moving slots and dying nodes.

use crate::harness::cluster::Cluster;
use crate::harness::redis::Redis;
use crate::broker::{PREFIX, Recorder, brief, client, entries, entry, generous, mark, numbered, payload, until};
use konvert_gateway::broker::redis::RedisBroker;
use konvert_gateway::broker::status_store::{Choice, Lease, StatusStore};
use konvert_gateway::broker::{Broker, BrokerError, Entry, HistoryQuery};
use konvert_gateway::channel::CONTROL;
use konvert_gateway::protocol::Position;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

async fn connect(cluster: &Cluster) -> Arc<RedisBroker> {
    RedisBroker::connect(&cluster.url(), PREFIX, generous()).await.unwrap()
}

fn live(channel: &str) -> String {
    format!("{PREFIX}:live:{{{channel}}}")
}

/// Publishes the entries one by one, each until the broker accepts it.
async fn publish_all(broker: &RedisBroker, entries: &[Entry]) {
    for entry in entries {
        until("the publication to be taken", async || broker.publish(std::slice::from_ref(entry)).await.ok()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_use_every_node_over_three_links_per_node() {
    let cluster = Cluster::start();
    let clients = |node: &Redis| {
        let list: String = redis::cmd("CLIENT").arg("LIST").query(&mut node.client()).unwrap();
        list.lines().count()
    };
    let before: Vec<usize> = cluster.nodes.iter().map(clients).collect();
    let (a, b) = (connect(&cluster).await, connect(&cluster).await);
    let (at_a, at_b) = (Recorder::listen(&*a).await, Recorder::listen(&*b).await);
    let channels: Vec<String> = (0..60).map(|n| format!("room:{n}")).collect();
    let owners: HashSet<usize> = channels.iter().map(|channel| cluster.owner(&live(channel))).collect();
    assert_eq!(owners.len(), 3, "the channels are on all nodes");
    for channel in &channels {
        a.subscribe(channel).await.unwrap();
        b.subscribe(channel).await.unwrap();
    }
    a.begin(mark(0)).await.unwrap();
    // One batch for every node.
    let batch: Vec<Entry> = (1..=300).map(|seq| entry(&channels[seq as usize % 60], seq)).collect();
    assert_eq!(a.publish(&batch).await.unwrap(), 300);
    assert_eq!(b.publish(&batch).await.unwrap(), 0);
    for recorder in [&at_a, &at_b] {
        for channel in &channels {
            let of_it = batch.iter().filter(|entry| entry.channel == *channel).map(|entry| entry.seq);
            assert_eq!(brief(&recorder.wait(channel, 5).await), numbered(of_it));
        }
        assert_eq!(recorder.gaps(), 0);
    }
    b.signal("room:7", payload("{}"), client("u", "c")).await.unwrap();
    until("the signal", async || (at_a.signals.lock().unwrap().len() == 1).then_some(())).await;

    let leases: Vec<Lease> = (0..100)
        .map(|n| Lease {
            user: format!("u{n}").into(),
            client: "c".into(),
            idle: false,
            age: Duration::ZERO,
            choice: Choice::default(),
        })
        .collect();
    for lease in &leases {
        b.subscribe(&format!("status:{}", lease.user)).await.unwrap();
    }
    a.lease(&leases).await.unwrap();
    for lease in &leases {
        until("the status", async || (at_b.states(&lease.user).len() == 1).then_some(())).await;
    }

    assert_eq!(cluster.calls("publish") + cluster.calls("subscribe"), 0, "sharded pub/sub alone");
    assert!(cluster.calls("spublish") >= 401);
    for (node, before) in cluster.nodes.iter().zip(&before) {
        assert_eq!(clients(node), before + 6, "three links of each gateway");
    }
    drop((a, b));
    let ended = async || cluster.nodes.iter().map(clients).eq(before.iter().copied()).then_some(());
    until("the links' end", ended).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_a_cluster_with_a_plain_url_is_an_error_that_names_the_right_url() {
    let cluster = Cluster::start();
    let broker = RedisBroker::connect(&cluster.nodes[0].url(), PREFIX, generous()).await.unwrap();
    let mut refused = Vec::new();
    for n in 0..20 {
        refused.extend(broker.publish(&[entry(&format!("c{n}"), 1)]).await.err());
    }
    assert!(!refused.is_empty());
    for error in refused {
        assert!(error.to_string().contains("redis-cluster://"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_url_of_a_single_redis_is_an_error() {
    let redis = Redis::start();
    let url = format!("redis-cluster://127.0.0.1:{}", redis.port());
    let broker = RedisBroker::connect(&url, PREFIX, generous()).await.unwrap();
    for error in [broker.check().await.unwrap_err(), broker.subscribe("c").await.unwrap_err()] {
        assert!(error.to_string().contains("no cluster"), "{error}");
    }
    for wrong in ["redis-cluster://", "redis-cluster://a:1,", "redis-cluster://:secret@a:1/2", "redis-cluster://a:x"] {
        let error = RedisBroker::connect(wrong, PREFIX, generous()).await.err().unwrap().to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}

/// Of the two nodes in the URL, one is dead and the other is a replica.
#[tokio::test(flavor = "multi_thread")]
async fn one_running_node_is_enough_to_find_the_cluster() {
    let mut cluster = Cluster::start_with(3, 1);
    let ports: Vec<u16> = cluster.nodes.iter().map(Redis::port).collect();
    let dead = ports[0];
    cluster.nodes[0].kill();
    let url = format!("redis-cluster://127.0.0.1:{dead},127.0.0.1:{}", ports[5]);
    let broker = RedisBroker::connect(&url, PREFIX, generous()).await.unwrap();
    until("the others to be found", async || broker.check().await.ok()).await;
    for n in 0..20 {
        publish_all(&broker, &[entry(&format!("c{n}"), 1)]).await;
    }
}

/// Slots move back and forth while messages flow. Every message is in the history once, in order and in one epoch.
/// Messages missed by a subscriber are announced as a gap, and the subscriber gets later messages.
#[tokio::test(flavor = "multi_thread")]
async fn moving_slots_lose_no_messages() {
    let cluster = Arc::new(Cluster::start());
    let (publisher, subscriber) = (connect(&cluster).await, connect(&cluster).await);
    let recorder = Recorder::listen(&*subscriber).await;
    for channel in ["moves", "stays"] {
        subscriber.subscribe(channel).await.unwrap();
    }
    publisher.begin(mark(0)).await.unwrap();
    let home = cluster.owner(&live("moves"));
    let moving = tokio::task::spawn_blocking({
        let cluster = Arc::clone(&cluster);
        move || {
            for step in [1, 2, 3] {
                std::thread::sleep(Duration::from_millis(300));
                cluster.migrate(&live("moves"), (home + step) % 3, Duration::from_millis(100));
            }
        }
    });
    let mut seq = 0;
    while !moving.is_finished() {
        let batch = [entry("moves", seq + 1), entry("stays", seq + 2), entry("moves", seq + 3)];
        until("a batch to be taken", async || publisher.publish(&batch).await.ok()).await;
        seq += 3;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    moving.await.unwrap();
    assert!(seq > 100, "it took {seq} messages only");
    until("the subscriber to be ready", async || subscriber.check().await.ok()).await;
    publish_all(&publisher, &[entry("moves", seq + 1)]).await;
    let last = payload((seq + 1).to_string());
    until("what came after", async || recorder.of("moves").iter().any(|p| p.data == last).then_some(())).await;

    let of_it: Vec<u64> = (1..=seq + 1).filter(|n| n % 3 != 2 || *n == seq + 1).collect();
    let history = subscriber.history("moves", HistoryQuery { limit: None, ..HistoryQuery::default() }).await.unwrap();
    let kept = history.publications.len();
    let all = numbered(of_it.iter().copied());
    assert_eq!(brief(&history.publications), all[all.len() - kept..]);
    assert_eq!(history.position.offset as usize, all.len());
    let heard = brief(&recorder.of("moves"));
    assert!(heard.is_sorted_by_key(|(offset, _)| *offset), "{heard:?}");
    assert!(heard.iter().all(|one| all.contains(one)));
    assert!(recorder.gaps() > 0 && heard.len() > all.len() / 4);
    assert_eq!(recorder.epochs("moves").len(), 1);
    let others = recorder.of("stays").len();
    assert_eq!(brief(&recorder.of("stays")), numbered((1..=seq).filter(|n| n % 3 == 2)), "{others}");
}

/// A subscriber without part in the move notices it in time, even if nothing is published meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_subscription_follows_its_slot() {
    let cluster = Cluster::start();
    let (publisher, subscriber) = (connect(&cluster).await, connect(&cluster).await);
    let recorder = Recorder::listen(&*subscriber).await;
    subscriber.subscribe("c").await.unwrap();
    publisher.publish(&[entry("c", 1)]).await.unwrap();
    recorder.wait("c", 1).await;
    let to = (cluster.owner(&live("c")) + 1) % 3;
    cluster.migrate(&live("c"), to, Duration::ZERO);
    until("the gap", async || (recorder.gaps() > 0).then_some(())).await;
    until("the subscriber to be ready", async || subscriber.check().await.ok()).await;
    publish_all(&publisher, &[entry("c", 2)]).await;
    assert_eq!(brief(&recorder.wait("c", 2).await), numbered([1, 2]));
    // The same for a channel unsubscribed meanwhile, and for a new channel.
    subscriber.unsubscribe("c").await.unwrap();
    subscriber.subscribe("d").await.unwrap();
    publish_all(&publisher, &[entry("c", 3), entry("d", 4)]).await;
    recorder.wait("d", 1).await;
    assert_eq!(recorder.of("c").len(), 2);
}

/// A silent replica confirms nothing. Once the replica is known to be dead, the master goes on alone.
#[tokio::test(flavor = "multi_thread")]
async fn an_entry_without_a_replica_does_not_count_as_published() {
    let cluster = Cluster::start_with(3, 1);
    let broker = connect(&cluster).await;
    broker.publish(&[entry("c", 1)]).await.unwrap();
    let replica = &cluster.nodes[cluster.replica_of(cluster.owner(&live("c")))];
    replica.pause();
    let error = broker.publish(&[entry("c", 2)]).await.unwrap_err();
    assert!(error.to_string().contains("no replica"), "{error}");
    publish_all(&broker, &[entry("c", 2), entry("c", 3)]).await;
    let history = broker.history("c", HistoryQuery::default()).await.unwrap();
    assert_eq!(brief(&history.publications), numbered(1..=3));
    replica.resume();
}

/// Acknowledged publications are still there after a replica has taken over, under the same offsets.
#[tokio::test(flavor = "multi_thread")]
async fn a_master_dies_and_its_replica_takes_over() {
    let mut cluster = Cluster::start_with(3, 1);
    let (publisher, subscriber) = (connect(&cluster).await, connect(&cluster).await);
    let recorder = Recorder::listen(&*subscriber).await;
    subscriber.subscribe("c").await.unwrap();
    publisher.begin(mark(0)).await.unwrap();
    publish_all(&publisher, &entries("c", 1..=200)).await;
    let before = recorder.wait("c", 200).await;
    assert_eq!(brief(&before), numbered(1..=200));

    let master = cluster.owner(&live("c"));
    cluster.nodes[master].kill();
    publish_all(&publisher, &entries("c", 201..=400)).await;
    assert_ne!(cluster.owner(&live("c")), master);
    let gaps = async || (recorder.gaps() > 0).then_some(());
    until("the gap", gaps).await;
    until("the subscriber to be ready", async || subscriber.check().await.ok()).await;
    publish_all(&publisher, &entries("c", [401])).await;
    let history = subscriber.history("c", HistoryQuery::default()).await.unwrap();
    assert_eq!(brief(&history.publications), numbered(1..=401));
    until("what came after", async || recorder.of("c").iter().any(|p| p.offset == 401).then_some(())).await;
    assert!(brief(&recorder.of("c")).iter().all(|one| *one == (one.0, one.0.to_string())));
    assert_eq!(recorder.epochs("c").len(), 1);
}

fn barrier(seq: u64) -> Entry {
    Entry { barrier: true, ..entry(CONTROL, seq) }
}

/// A channel on another master than the access changes.
fn apart(cluster: &Cluster) -> String {
    let access = cluster.owner(&live(CONTROL));
    let mut names = (0..).map(|n| format!("room:{n}"));
    names.find(|name| cluster.owner(&live(name)) != access).expect("there are three masters")
}

/// While the master of the access changes is paused, nothing later than such a change is published.
#[tokio::test(flavor = "multi_thread")]
async fn an_access_change_is_confirmed_before_anything_later_is_published() {
    let cluster = Cluster::start_patient();
    let broker = connect(&cluster).await;
    let recorder = Recorder::listen(&*broker).await;
    let room = apart(&cluster);
    broker.subscribe(&room).await.unwrap();
    let paused = &cluster.nodes[cluster.owner(&live(CONTROL))];
    paused.pause();
    let batch = [entry(&room, 1), barrier(2), entry(&room, 3)];
    let failure = broker.publish(&batch).await.unwrap_err();
    assert!(matches!(failure, BrokerError::Unavailable(_)), "{failure}");
    let history = broker.history(&room, HistoryQuery::default()).await.unwrap();
    assert_eq!((history.publications, recorder.of(&room)), (vec![], vec![]));
    // An entry without an access change before it does not wait for that master.
    assert_eq!(broker.publish(&[entry(&room, 1)]).await.unwrap(), 1);
    paused.resume();
    until("the batch to be taken", async || broker.publish(&batch).await.ok()).await;
    assert_eq!(brief(&recorder.wait(&room, 2).await), numbered([1, 3]));
}

/// Publications name the newest access change before them, also on a gateway that continues from another gateway's
/// mark.
#[tokio::test(flavor = "multi_thread")]
async fn publications_name_the_access_change_before_them() {
    let cluster = Cluster::start();
    let (a, b) = (connect(&cluster).await, connect(&cluster).await);
    let recorder = Recorder::listen(&*b).await;
    let room = apart(&cluster);
    for channel in [&room, CONTROL] {
        b.subscribe(channel).await.unwrap();
    }
    b.begin(mark(0)).await.unwrap();
    a.begin(mark(0)).await.unwrap();
    a.publish(&[entry(&room, 1)]).await.unwrap();
    a.publish(&[barrier(2), entry(&room, 3), entry(CONTROL, 4), barrier(5), entry(&room, 5)]).await.unwrap();
    a.publish(&[entry(CONTROL, 6), entry(&room, 6)]).await.unwrap();
    a.advance(mark(6)).await.unwrap();
    // Only now does broker `b` learn of the changes.
    b.begin(mark(0)).await.unwrap();
    b.publish(&[entry(&room, 7)]).await.unwrap();
    b.advance(mark(7)).await.unwrap();
    // Broker `a` does not take over an older change from the mark of `b`.
    a.publish(&[barrier(8)]).await.unwrap();
    a.advance(mark(7)).await.unwrap();
    a.publish(&[entry(&room, 9)]).await.unwrap();
    assert_eq!(brief(&recorder.wait(&room, 6).await), numbered([1, 3, 5, 6, 7, 9]));
    let epoch = recorder.epochs(CONTROL).remove(0);
    let at = |offset| (room.clone(), Position { offset, epoch: epoch.clone() });
    assert_eq!(*recorder.barriers.lock().unwrap(), [at(3), at(3), at(3), at(3), at(5)]);
    // A new generation begins without a barrier.
    let mut next = mark(20);
    next.generation = 1;
    a.restart(next).await.unwrap();
    b.begin(mark(0)).await.unwrap();
    for broker in [&a, &b] {
        broker.publish(&[entry(&room, 21)]).await.unwrap();
    }
    recorder.wait(&room, 7).await;
    assert_eq!(recorder.barriers.lock().unwrap().len(), 5);
}

/// On a single Redis, one link keeps the order.
#[tokio::test(flavor = "multi_thread")]
async fn a_single_redis_needs_no_barriers() {
    let redis = Redis::start();
    let broker = RedisBroker::connect(&redis.url(), PREFIX, generous()).await.unwrap();
    let recorder = Recorder::listen(&*broker).await;
    broker.subscribe("c").await.unwrap();
    broker.publish(&[barrier(1), entry("c", 1), entry("c", 2)]).await.unwrap();
    recorder.wait("c", 2).await;
    assert_eq!(redis.calls("hmget"), redis.calls("publish"), "only the script has read positions, once for each entry");
    assert!(recorder.barriers.lock().unwrap().is_empty());
}
