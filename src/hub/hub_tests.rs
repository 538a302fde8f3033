//! Tests of the hub on the real in-process broker. A cut link is simulated: the node is unsubscribed at the broker
//! during a publish, so the publication is in the history and is not delivered.

use super::suspension::{HELD_MAX, Revoked, Standing};
use super::sync::LINGER;
use super::*;
use crate::access::changes::Cause;
use crate::auth::Account;
use crate::broker::memory::MemoryBroker;
use crate::broker::{Entry, HistoryQuery, Retention, Sink};
use crate::connection::ConnectionId;
use crate::outbox::{Budget, Outbox};
use crate::protocol::{ClientInfo, Movement, Payload, Publication, Reply, codes};
use crate::writer::Writer;
use bytes::Bytes;
use serde_json::Value;
use std::time::Duration;

const CHANNEL: &str = "room:a";

struct Node {
    broker: Arc<MemoryBroker>,
    hub: Arc<Hub>,
    metrics: Metrics,
    seq: std::cell::Cell<u64>,
}

impl Node {
    async fn with_history(size: usize) -> Self {
        let day = Duration::from_secs(86_400);
        Self::with(Retention { size, ttl: day, position_ttl: day, presence_ttl: day, ..Retention::default() }).await
    }

    async fn with(retention: Retention) -> Self {
        let broker = MemoryBroker::new(retention);
        let metrics = Metrics::new().unwrap();
        let hub = Hub::new(broker.clone(), Presence::new(broker.clone()), metrics.clone());
        let sink: Weak<Hub> = Arc::downgrade(&hub);
        broker.start(sink).await.unwrap();
        Self { broker, hub, metrics, seq: 0.into() }
    }

    async fn publish(&self, count: u64) {
        for _ in 0..count {
            self.seq.set(self.seq.get() + 1);
            let data = Payload::parse(&self.seq.get().to_string()).unwrap();
            self.broker
                .publish(&[Entry { seq: self.seq.get(), at: 0, channel: CHANNEL.into(), data, barrier: false }])
                .await
                .unwrap();
        }
    }

    /// Publishes to the history, without delivery to this node.
    async fn publish_unheard(&self, count: u64) {
        self.broker.unsubscribe(CHANNEL).await.unwrap();
        self.publish(count).await;
        self.broker.subscribe(CHANNEL).await.unwrap();
    }

    async fn subscribe(&self, id: ConnectionId, recover: Option<&Position>) -> Subscribed {
        self.subscribe_with(connection(id, 1 << 20), recover).await
    }

    async fn subscribe_with(&self, connection: Arc<Connection>, recover: Option<&Position>) -> Subscribed {
        let accept = |reply| connection.outbox.push(json::reply(1, &Reply::Subscribe(reply)));
        assert!(self.hub.subscribe(CHANNEL, &connection, recover, None, accept).await.unwrap());
        let outbox = Arc::clone(&connection.outbox);
        let mut subscribed = Subscribed { connection, outbox, reply: Value::Null };
        subscribed.reply = subscribed.frames(1).await.remove(0)["subscribe"].take();
        subscribed
    }
}

fn connection(id: ConnectionId, limit: usize) -> Arc<Connection> {
    Connection::new(id, "u", "c", &Outbox::alone(limit), Account::blocking(&["a pest"]))
}

struct Subscribed {
    connection: Arc<Connection>,
    outbox: Arc<Outbox>,
    reply: Value,
}

impl Subscribed {
    /// Delivers at once, in place of the writer.
    fn write(&self) {
        self.outbox.writer().deliver();
    }

    async fn frames(&self, count: usize) -> Vec<Value> {
        let mut batch: Vec<Bytes> = Vec::new();
        while batch.len() < count {
            self.outbox.take(&mut batch).await.unwrap();
        }
        batch.iter().map(|frame| serde_json::from_slice(frame).unwrap()).collect()
    }

    async fn offsets(&self, count: usize) -> Vec<u64> {
        self.frames(count).await.iter().map(|frame| frame["push"]["pub"]["offset"].as_u64().unwrap()).collect()
    }

    fn position(&self) -> Position {
        let epoch = self.reply["epoch"].as_str().unwrap().to_owned();
        Position { offset: self.reply["offset"].as_u64().unwrap(), epoch }
    }
}

#[tokio::test]
async fn the_reply_comes_first_and_everything_later_follows_in_order() {
    let node = Node::with_history(100).await;
    node.publish(3).await;
    let first = node.subscribe(1, None).await;
    assert_eq!(first.position().offset, 3);
    node.publish(3).await;
    let second = node.subscribe(2, None).await;
    assert_eq!(second.position().offset, 6);
    node.publish(2).await;
    assert_eq!(first.offsets(5).await, [4, 5, 6, 7, 8]);
    assert_eq!(second.offsets(2).await, [7, 8]);
    assert_eq!(node.metrics.deliveries.get(), 7);
}

#[tokio::test]
async fn nobody_subscribes_twice_and_who_left_gets_nothing() {
    let node = Node::with_history(100).await;
    let subscribed = node.subscribe(1, None).await;
    let again = node.hub.subscribe(CHANNEL, &subscribed.connection, None, None, |_| true).await;
    assert!(matches!(again, Err(SubscribeError::AlreadySubscribed)));
    assert!(node.hub.unsubscribe(CHANNEL, &subscribed.connection));
    assert!(!node.hub.unsubscribe(CHANNEL, &subscribed.connection));
    node.publish(1).await;
    subscribed.outbox.close(codes::SHUTDOWN);
    assert_eq!(subscribed.outbox.take(&mut Vec::new()).await, Err(codes::SHUTDOWN));
    assert_eq!(node.metrics.subscriptions.get(), 0);
}

#[tokio::test]
async fn a_declined_subscribe_leaves_nothing_behind() {
    let node = Node::with_history(100).await;
    assert!(!node.hub.subscribe(CHANNEL, &connection(1, 1000), None, None, |_| false).await.unwrap());
    assert_eq!(node.hub.standing(CHANNEL, 1), Standing::Out);
}

#[tokio::test]
async fn who_comes_back_gets_what_was_missed_from_here_or_from_history() {
    let node = Node::with_history(1000).await;
    let first = node.subscribe(1, None).await;
    let since = first.position();
    for missed in [5, 200] {
        node.hub.unsubscribe(CHANNEL, &connection(1, 0));
        node.publish(missed).await;
        let back = node.subscribe(1, Some(&since)).await;
        assert_eq!(back.reply["recovered"], true);
        let offsets: Vec<u64> =
            back.reply["publications"].as_array().unwrap().iter().map(|p| p["offset"].as_u64().unwrap()).collect();
        assert_eq!(offsets, (1..=node.seq.get()).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn what_the_link_lost_is_filled_for_all_at_once() {
    let node = Node::with_history(100).await;
    let (first, second) = (node.subscribe(1, None).await, node.subscribe(2, None).await);
    node.publish_unheard(3).await;
    // The next publication reveals the gap.
    node.publish(1).await;
    for subscriber in [&first, &second] {
        assert_eq!(subscriber.offsets(4).await, [1, 2, 3, 4]);
    }
    // The broker announces the gap, without another publication.
    node.publish_unheard(2).await;
    node.hub.gap();
    assert_eq!(first.offsets(2).await, [5, 6]);
    assert_eq!(node.metrics.gaps.with_label_values(&["filled"]).get(), 2);
}

#[tokio::test]
async fn a_gap_of_more_than_is_read_at_once_is_filled_in_parts() {
    let day = Duration::from_secs(86_400);
    // Five publications of one digit, or three of two.
    let read_bytes = 6;
    let node =
        Node::with(Retention { size: 100, ttl: day, position_ttl: day, read_bytes, ..Retention::default() }).await;
    let subscriber = node.subscribe(1, None).await;
    node.publish_unheard(40).await;
    node.publish(1).await;
    assert_eq!(subscriber.offsets(41).await, (1..=41).collect::<Vec<_>>());
    // A recovery has the same limit.
    node.hub.forget(CHANNEL);
    let back = node.subscribe(2, Some(&subscriber.position())).await;
    assert_eq!(back.reply["recovered"], false);
    let since = Position { offset: 38, ..subscriber.position() };
    let back = node.subscribe(3, Some(&since)).await;
    assert_eq!((&back.reply["recovered"], back.reply["publications"].as_array().unwrap().len()), (&true.into(), 3));
}

/// The gateway's recent publications expire with the history.
#[tokio::test(start_paused = true)]
async fn nothing_is_recovered_once_the_history_has_ended() {
    let (ttl, day) = (Duration::from_secs(60), Duration::from_secs(86_400));
    for (wait, recovered) in [(ttl, true), (ttl + Duration::from_secs(1), false)] {
        let node = Node::with(Retention { size: 100, ttl, position_ttl: day, ..Retention::default() }).await;
        let subscriber = node.subscribe(1, None).await;
        node.publish(3).await;
        tokio::time::advance(wait).await;
        let back = node.subscribe(2, Some(&subscriber.position())).await;
        assert_eq!(back.reply["recovered"], recovered, "after {wait:?}");
        let position = Position { offset: 3, ..subscriber.position() };
        assert_eq!(node.subscribe(3, Some(&position)).await.reply["recovered"], true, "nothing was missed");
    }
}

#[tokio::test]
async fn what_cannot_be_filled_is_told_and_a_new_subscribe_goes_on() {
    let node = Node::with_history(5).await;
    let lost = node.subscribe(1, None).await;
    node.publish_unheard(20).await;
    node.hub.gap();
    let told = lost.frames(1).await.remove(0);
    assert_eq!(
        told,
        serde_json::json!({"push": {"channel": CHANNEL, "unsubscribe": {"code": 2500, "reason": "insufficient state"}}})
    );
    assert_eq!(node.hub.standing(CHANNEL, 1), Standing::Out);
    let back = node.subscribe(1, Some(&lost.position())).await;
    assert_eq!((&back.reply["recovered"], back.position().offset), (&serde_json::json!(false), 20));
    node.publish(1).await;
    assert_eq!(back.offsets(1).await, [21]);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_noticed_is_found_by_comparing_positions() {
    let node = Node::with_history(100).await;
    tokio::spawn(Hub::check_positions(Arc::downgrade(&node.hub)));
    let subscriber = node.subscribe(1, None).await;
    node.publish_unheard(2).await;
    assert_eq!(subscriber.offsets(2).await, [1, 2]);
}

#[tokio::test]
async fn signals_reach_everybody_without_an_offset_but_those_who_block_their_sender() {
    let node = Node::with_history(5).await;
    let subscriber = node.subscribe(1, None).await;
    for user in ["a pest", "u"] {
        let info = ClientInfo { user: user.into(), client: "c".into() };
        node.broker.signal(CHANNEL, Payload::parse(r#"{"type":"typing"}"#).unwrap(), info).await.unwrap();
    }
    let frame = subscriber.frames(1).await.remove(0);
    assert_eq!(
        frame["push"]["pub"],
        serde_json::json!({"data": {"type": "typing"}, "info": {"user": "u", "client": "c"}})
    );
}

#[tokio::test]
async fn a_suspension_holds_back_and_ends_in_delivery_or_in_nothing() {
    // With and without publications still queued at the writers.
    for behind in [[false, false], [false, true], [true, false], [true, true]] {
        suspend_and_end(behind).await;
    }
}

async fn suspend_and_end(behind: [bool; 2]) {
    let node = Node::with_history(100).await;
    let (stays, goes) = (node.subscribe(1, None).await, node.subscribe(2, None).await);
    let write = |behind: bool| [&stays, &goes].into_iter().filter(|_| !behind).for_each(Subscribed::write);
    node.publish(1).await;
    write(behind[0]);
    let suspended = node.hub.suspend(&node.hub.channel_names(), Cause::Deleted, |_, _| true);
    assert_eq!(suspended.len(), 2);
    assert_eq!(node.hub.standing(CHANNEL, 1), Standing::Suspended);
    node.publish(2).await;
    write(behind[1]);
    assert!(!node.hub.resume(CHANNEL, &stays.connection, || false), "`still` is false");
    assert_eq!(node.hub.standing(CHANNEL, 1), Standing::Suspended);
    assert!(node.hub.resume(CHANNEL, &stays.connection, || true));
    assert_eq!(node.hub.revoke(CHANNEL, &goes.connection, Cause::Member, || false), Revoked::Overtaken);
    let outcome = node.hub.revoke(CHANNEL, &goes.connection, Cause::Member, || true);
    assert_eq!(outcome, Revoked::Ended(Cause::Deleted), "the stronger cause");
    assert_eq!(node.hub.revoke(CHANNEL, &goes.connection, Cause::Member, || true), Revoked::Absent);
    node.publish(1).await;
    assert_eq!(stays.offsets(4).await, [1, 2, 3, 4]);
    // The frame queued before the suspension was withdrawn.
    let told = goes.frames(1).await.remove(0);
    assert_eq!(told["push"]["unsubscribe"]["code"], 2102);
    goes.outbox.close(codes::SHUTDOWN);
    assert_eq!(goes.outbox.take(&mut Vec::new()).await, Err(codes::SHUTDOWN));
    assert!(goes.connection.channels().is_empty());
    assert_eq!(node.metrics.subscriptions.get(), 1);
}

#[tokio::test]
async fn joins_and_leaves_during_a_suspension_are_held_back() {
    let node = Node::with_history(100).await;
    let (stays, goes) = (node.subscribe(1, None).await, node.subscribe(2, None).await);
    for it in [&stays, &goes] {
        node.hub.tell_movements(CHANNEL, &it.connection);
    }
    node.hub.suspend(&node.hub.channel_names(), Cause::Member, |_, _| true);
    for (movement, client) in [(Movement::Join, "x"), (Movement::Leave, "y")] {
        node.hub.movement(CHANNEL, movement, ClientInfo { user: "v".into(), client: client.into() });
    }
    assert!(node.hub.resume(CHANNEL, &stays.connection, || true));
    node.hub.revoke(CHANNEL, &goes.connection, Cause::Member, || true);
    let pushes: Vec<Value> = stays.frames(2).await.iter().map(|frame| frame["push"].clone()).collect();
    assert_eq!(
        (&pushes[0]["join"]["info"]["client"], &pushes[1]["leave"]["info"]["client"]),
        (&"x".into(), &"y".into())
    );
    assert!(goes.frames(1).await.remove(0)["push"]["unsubscribe"].is_object(), "the held frames are dropped");
}

/// A change of the account reads the connection's channels, and then locks each channel: a channel whose subscribe uses
/// the access from before the change must be in the list.
#[tokio::test]
async fn a_subscribe_under_way_is_among_the_channels_of_its_connection() {
    let node = Node::with_history(100).await;
    let connection = connection(1, 1 << 20);
    let seen = |accepted: bool| {
        let connection = &connection;
        move |_| {
            assert!(connection.channels().contains(CHANNEL), "listed during `accept`");
            accepted
        }
    };
    assert!(!node.hub.subscribe(CHANNEL, &connection, None, None, seen(false)).await.unwrap());
    assert!(connection.channels().is_empty(), "a refused channel is not listed");
    assert!(node.hub.subscribe(CHANNEL, &connection, None, None, seen(true)).await.unwrap());
    assert_eq!(node.hub.suspend_all_of(std::slice::from_ref(&connection), Cause::User).len(), 1);
    assert_eq!(node.hub.standing(CHANNEL, 1), Standing::Suspended);
}

/// After every kind of end of a subscription, the client leaves presence, and an empty channel is detached from the
/// broker.
#[tokio::test(start_paused = true)]
async fn each_end_of_a_subscription_leaves_the_presence_and_the_channel() {
    for end in ["unsubscribed", "revoked", "suspended for too long", "history lost"] {
        let node = Node::with_history(2).await;
        let it = node.subscribe(1, None).await;
        let connections = std::slice::from_ref(&it.connection);
        node.hub.presence.enter(&CHANNEL.into(), &it.connection.info()).await.unwrap();
        match end {
            "unsubscribed" => assert!(node.hub.unsubscribe(CHANNEL, &it.connection)),
            "revoked" => {
                let outcome = node.hub.revoke(CHANNEL, &it.connection, Cause::User, || true);
                assert_eq!(outcome, Revoked::Ended(Cause::User));
            }
            "suspended for too long" => {
                assert_eq!(node.hub.suspend_all_of(connections, Cause::User).len(), 1);
                node.publish(HELD_MAX as u64 + 5).await;
                it.write();
                assert!(node.hub.resume(CHANNEL, &it.connection, || true));
            }
            _ => {
                node.publish_unheard(10).await;
                node.hub.gap();
            }
        }
        let left = async || {
            while !node.broker.presence(CHANNEL).await.unwrap().is_empty() || node.metrics.channels.get() > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(3 * LINGER, left()).await.unwrap_or_else(|_| panic!("{end}: still in presence"));
        assert_eq!((node.metrics.subscriptions.get(), it.connection.channels().len()), (0, 0), "{end}");
    }
}

/// A new rule suspends all subscriptions: the cost grows linearly with the number of subscriptions.
#[tokio::test]
async fn all_subscriptions_of_many_users_are_suspended_at_once() {
    const COUNT: u64 = 20_000;
    let node = Node::with_history(100).await;
    let (writer, mut connections) = (Writer::idle(Budget::unlimited()), Vec::new());
    for id in 0..COUNT {
        let outbox = Outbox::beside(1000, &writer);
        let connection = Connection::new(id, format!("u{id}"), "c", &outbox, Account::blocking(&[]));
        assert!(node.hub.subscribe(CHANNEL, &connection, None, None, |_| true).await.unwrap());
        connections.push(connection);
    }
    let start = std::time::Instant::now();
    assert_eq!(node.hub.suspend_all_of(&connections, Cause::Rules).len() as u64, COUNT);
    let by_connection = start.elapsed();
    assert_eq!(node.hub.suspend(&node.hub.channel_names(), Cause::Rules, |_, _| true).len() as u64, COUNT);
    println!(
        "{COUNT} suspended by connection in {by_connection:?}, by channel in {:?}",
        start.elapsed() - by_connection
    );
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test]
async fn who_was_suspended_for_too_long_recovers() {
    let node = Node::with_history(1000).await;
    let subscriber = node.subscribe(1, None).await;
    node.hub.suspend(&[CHANNEL.into()], Cause::Related, |_, _| true);
    node.publish(HELD_MAX as u64 + 5).await;
    subscriber.write();
    assert!(node.hub.resume(CHANNEL, &subscriber.connection, || true));
    assert_eq!(subscriber.frames(1).await[0]["push"]["unsubscribe"]["code"], 2500);
    let back = node.subscribe(1, Some(&subscriber.position())).await;
    assert_eq!(back.reply["publications"].as_array().unwrap().len(), HELD_MAX + 5);
}

/// A watcher that suspends all subscriptions at each publication, as a revocation does.
struct Strict(Weak<Hub>, Mutex<Vec<String>>);

impl Watcher for Strict {
    fn publication(&self, data: &Payload) {
        let hub = self.0.upgrade().unwrap();
        hub.suspend(&hub.channel_names(), Cause::Related, |_, _| true);
        self.1.lock().unwrap().push(String::from_utf8(data.as_bytes().to_vec()).unwrap());
    }

    fn lost(&self) {
        self.1.lock().unwrap().push("lost".into());
    }
}

#[tokio::test]
async fn what_is_watched_takes_effect_before_anything_later_of_other_channels() {
    let node = Node::with_history(5).await;
    let strict = Arc::new(Strict(Arc::downgrade(&node.hub), Mutex::default()));
    let watcher: Weak<Strict> = Arc::downgrade(&strict);
    node.hub.watch("$watched", watcher);
    let subscriber = node.subscribe(1, None).await;
    let publish = async |seq: u64, channel: &str| {
        let data = Payload::parse(&seq.to_string()).unwrap();
        let entry = Entry { seq, at: 0, channel: channel.into(), data, barrier: false };
        node.broker.publish(&[entry]).await.unwrap();
    };
    // Both publications are missed, and the room's gap is found first.
    for channel in ["$watched", CHANNEL] {
        node.broker.unsubscribe(channel).await.unwrap();
    }
    publish(1, CHANNEL).await;
    publish(2, "$watched").await;
    publish(3, CHANNEL).await;
    for channel in ["$watched", CHANNEL] {
        node.broker.subscribe(channel).await.unwrap();
    }
    node.hub.gap();
    publish(4, CHANNEL).await;
    while node.hub.standing(CHANNEL, 1) != Standing::Suspended {
        tokio::task::yield_now().await;
    }
    assert_eq!(*strict.1.lock().unwrap(), ["2"]);
    subscriber.outbox.close(codes::SHUTDOWN);
    assert_eq!(subscriber.outbox.take(&mut Vec::new()).await, Err(codes::SHUTDOWN));
    // A read of history, too, waits for the undelivered access change before it.
    node.hub.resume(CHANNEL, &subscriber.connection, || true);
    node.broker.unsubscribe("$watched").await.unwrap();
    publish(5, "$watched").await;
    publish(6, CHANNEL).await;
    node.hub.history(CHANNEL, HistoryQuery::after(0)).await.unwrap();
    assert_eq!(strict.1.lock().unwrap().last().unwrap(), "5");
    // An unrecoverable loss is reported to the watcher.
    node.broker.unsubscribe("$watched").await.unwrap();
    for seq in 7..20 {
        publish(seq, "$watched").await;
    }
    node.broker.subscribe("$watched").await.unwrap();
    publish(20, "$watched").await;
    while strict.1.lock().unwrap().last().is_none_or(|last| last != "lost") {
        tokio::task::yield_now().await;
    }
}

/// A late notice makes the gateway read the watched channel alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_notice_is_read_without_reading_all_channels() {
    const CHANNELS: u64 = 1000;
    let node = Node::with_history(100).await;
    let strict = Arc::new(Strict(Arc::downgrade(&node.hub), Mutex::default()));
    let watcher: Weak<Strict> = Arc::downgrade(&strict);
    node.hub.watch("$watched", watcher);
    let mut kept = Vec::new();
    for id in 0..CHANNELS {
        let connection = connection(id, 1 << 20);
        assert!(node.hub.subscribe(&format!("room:{id}"), &connection, None, None, |_| true).await.unwrap());
        kept.push(connection);
    }
    let filled = || node.metrics.gaps.with_label_values(&["filled"]).get();
    let before = filled();
    // The notice is in the history, and is never delivered.
    node.broker.unsubscribe("$watched").await.unwrap();
    let data = Payload::parse("1").unwrap();
    let notice = Entry { seq: 1, at: 0, channel: "$watched".into(), data, barrier: false };
    node.broker.publish(&[notice]).await.unwrap();
    node.broker.subscribe("$watched").await.unwrap();
    assert!(node.hub.subscribe("room:new", &connection(CHANNELS, 1 << 20), None, None, |_| true).await.unwrap());
    assert_eq!(*strict.1.lock().unwrap(), ["1"], "the notice has taken effect before the subscribe");
    let channels = node.hub.channels.iter().map(|entry| Arc::clone(entry.value())).collect::<Vec<_>>();
    for channel in channels {
        node.hub.make_live(&channel).await.unwrap();
    }
    println!("{} of {} channels were read again", filled() - before, CHANNELS + 2);
    assert_eq!(filled() - before, 1, "the watched channel alone");
}

/// Publications during the read of a missed notice are delivered after the notice has taken effect. Channels without
/// publications are not read.
#[tokio::test]
async fn what_arrives_behind_a_missed_notice_waits_for_it() {
    let node = Node::with_history(100).await;
    let strict = Arc::new(Strict(Arc::downgrade(&node.hub), Mutex::default()));
    let watcher: Weak<Strict> = Arc::downgrade(&strict);
    node.hub.watch("$watched", watcher);
    let subscriber = node.subscribe(1, None).await;
    assert!(node.hub.subscribe("room:quiet", &connection(2, 1 << 20), None, None, |_| true).await.unwrap());
    let publish = async |seq: u64, channel: &str| {
        let data = Payload::parse(&seq.to_string()).unwrap();
        let entry = Entry { seq, at: 0, channel: channel.into(), data, barrier: false };
        node.broker.publish(&[entry]).await.unwrap();
    };
    let watched = &node.hub.watched.get().unwrap().channel;
    let reading = watched.link.lock().await;
    node.broker.unsubscribe("$watched").await.unwrap();
    publish(1, "$watched").await;
    node.broker.subscribe("$watched").await.unwrap();
    publish(2, "$watched").await;
    publish(3, CHANNEL).await;
    subscriber.write();
    assert_eq!(node.metrics.deliveries.get(), 0, "the publication waits");
    assert!(node.hub.find("room:quiet").unwrap().state().flow.is_live());
    assert!(strict.1.lock().unwrap().is_empty());

    drop(reading);
    while node.hub.standing(CHANNEL, 1) != Standing::Suspended {
        tokio::task::yield_now().await;
    }
    node.hub.make_live(&node.hub.find(CHANNEL).unwrap()).await.unwrap();
    assert_eq!(*strict.1.lock().unwrap(), ["1", "2"]);
    assert!(watched.state().flow.is_live());
    subscriber.write();
    assert_eq!(node.metrics.deliveries.get(), 0, "the notice came first");
    assert!(node.hub.resume(CHANNEL, &subscriber.connection, || true));
    assert_eq!(subscriber.offsets(1).await, [1]);
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_channel_is_unlinked_after_a_while_and_can_be_used_again() {
    let node = Node::with_history(5).await;
    node.subscribe(1, None).await;
    node.hub.unsubscribe(CHANNEL, &connection(1, 0));
    assert_eq!(node.metrics.channels.get(), 1);
    tokio::time::sleep(LINGER * 2).await;
    assert_eq!(node.metrics.channels.get(), 0);
    node.publish(1).await;
    let back = node.subscribe(1, None).await;
    assert_eq!(back.position().offset, 1);
    node.publish(1).await;
    assert_eq!(back.offsets(1).await, [2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn joining_leaving_and_publishing_at_once_loses_nothing() {
    let node = Node::with_history(10_000).await;
    let (hub, broker) = (Arc::clone(&node.hub), Arc::clone(&node.broker));
    let publishing = tokio::spawn(async move {
        for seq in 1..=3000 {
            let data = Payload::parse(&seq.to_string()).unwrap();
            broker.publish(&[Entry { seq, at: 0, channel: CHANNEL.into(), data, barrier: false }]).await.unwrap();
            if seq % 50 == 0 {
                tokio::task::yield_now().await;
            }
        }
    });
    let coming_and_going = (0..8).map(|id| {
        let hub = Arc::clone(&hub);
        tokio::spawn(async move {
            let mut since: Option<Position> = None;
            let mut got = 0;
            while got < 3000 {
                let connection = connection(id, 1 << 26);
                let outbox = &connection.outbox;
                let accept = |reply| outbox.push(json::reply(1, &Reply::Subscribe(reply)));
                let recover = since.clone().unwrap_or(Position { offset: 0, epoch: hub_epoch(&hub).await });
                hub.subscribe(CHANNEL, &connection, Some(&recover), None, accept).await.unwrap();
                tokio::task::yield_now().await;
                hub.unsubscribe(CHANNEL, &connection);
                outbox.close(codes::SHUTDOWN);
                let mut batch = Vec::new();
                while outbox.take(&mut batch).await.is_ok() {}
                for frame in batch {
                    let frame: Value = serde_json::from_slice(&frame).unwrap();
                    let publications = match &frame["subscribe"]["publications"] {
                        Value::Array(recovered) => recovered.clone(),
                        _ if frame["push"].is_object() => vec![frame["push"]["pub"].clone()],
                        _ => Vec::new(),
                    };
                    for publication in publications {
                        got += 1;
                        assert_eq!(publication["offset"], got, "the next offset");
                    }
                }
                since = Some(Position { offset: got, ..recover });
            }
        })
    });
    for task in coming_and_going.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    publishing.await.unwrap();
}

async fn hub_epoch(hub: &Hub) -> String {
    hub.broker.history(CHANNEL, HistoryQuery::POSITION).await.unwrap().position.epoch
}

/// A node with one subscriber, and a watched channel whose publications suspend all subscribers.
struct Guarded {
    node: Node,
    strict: Arc<Strict>,
    subscriber: Subscribed,
}

impl Guarded {
    async fn start() -> Self {
        let node = Node::with_history(5).await;
        let strict = Arc::new(Strict(Arc::downgrade(&node.hub), Mutex::default()));
        let watcher: Weak<Strict> = Arc::downgrade(&strict);
        node.hub.watch("$watched", watcher);
        let subscriber = node.subscribe(1, None).await;
        Self { node, strict, subscriber }
    }

    /// Appends a publication to a channel's history without delivery. Returns the publication and the channel's epoch.
    async fn publish_unheard(&self, channel: &str) -> (Publication, String) {
        let broker = &self.node.broker;
        broker.unsubscribe(channel).await.unwrap();
        self.node.seq.set(self.node.seq.get() + 1);
        let data = Payload::parse(&self.node.seq.get().to_string()).unwrap();
        let entry = Entry { seq: self.node.seq.get(), at: 0, channel: channel.into(), data, barrier: false };
        broker.publish(&[entry]).await.unwrap();
        broker.subscribe(channel).await.unwrap();
        let history = broker.history(channel, HistoryQuery { limit: None, ..HistoryQuery::default() }).await.unwrap();
        (history.publications.last().unwrap().clone(), history.position.epoch)
    }

    fn arrives(&self, channel: &str, (publication, epoch): &(Publication, String), after: Option<&Position>) {
        self.node.hub.publication(channel, epoch, publication.clone(), after);
    }

    fn heard(&self) -> Vec<String> {
        self.strict.1.lock().unwrap().clone()
    }

    fn standing(&self) -> Standing {
        self.node.hub.standing(CHANNEL, 1)
    }

    /// Closes the outbox. Returns true if the outbox was empty.
    async fn was_sent_nothing(self) -> bool {
        self.subscriber.outbox.close(codes::SHUTDOWN);
        self.subscriber.outbox.take(&mut Vec::new()).await == Err(codes::SHUTDOWN)
    }
}

/// Waits for a condition, at most one minute of the paused clock.
async fn eventually(condition: impl Fn() -> bool) {
    for _ in 0..60_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("the condition did not become true within a minute");
}

fn at((publication, epoch): &(Publication, String)) -> Position {
    Position { offset: publication.offset, epoch: epoch.clone() }
}

#[tokio::test(start_paused = true)]
async fn a_publication_waits_for_the_barrier_that_comes_late() {
    let it = Guarded::start().await;
    let change = it.publish_unheard("$watched").await;
    let message = it.publish_unheard(CHANNEL).await;
    let began = tokio::time::Instant::now();
    it.arrives(CHANNEL, &message, Some(&at(&change)));
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(it.standing(), Standing::Subscribed);
    }
    it.arrives("$watched", &change, None);
    assert_eq!((it.standing(), it.heard()), (Standing::Suspended, vec!["1".to_owned()]));
    eventually(|| it.node.metrics.gaps.with_label_values(&["filled"]).get() > 0).await;
    // Without reading the watched channel again.
    assert!(began.elapsed() < Duration::from_millis(100));
    assert!(it.was_sent_nothing().await);
}

#[tokio::test(start_paused = true)]
async fn a_barrier_that_never_comes_is_read_from_history() {
    let it = Guarded::start().await;
    let change = it.publish_unheard("$watched").await;
    let message = it.publish_unheard(CHANNEL).await;
    it.arrives(CHANNEL, &message, Some(&at(&change)));
    eventually(|| !it.heard().is_empty() || it.standing() == Standing::Suspended).await;
    assert_eq!((it.standing(), it.heard()), (Standing::Suspended, vec!["1".to_owned()]));
    // Delivery goes on, also for later publications with the same barrier.
    it.node.hub.resume(CHANNEL, &it.subscriber.connection, || true);
    assert_eq!(it.subscriber.offsets(1).await, [1]);
    let next = it.publish_unheard(CHANNEL).await;
    it.arrives(CHANNEL, &next, Some(&at(&change)));
    assert_eq!(it.subscriber.offsets(1).await, [2]);
    assert_eq!(it.node.metrics.publications_early.get(), 1);
}

/// The epoch ended when Redis lost its data. One read of the position shows that nothing is missing.
#[tokio::test(start_paused = true)]
async fn a_barrier_of_another_epoch_is_settled_once() {
    let it = Guarded::start().await;
    let barrier = Position { offset: 40, epoch: "before".into() };
    for offset in 1..=3 {
        let message = it.publish_unheard(CHANNEL).await;
        it.arrives(CHANNEL, &message, Some(&barrier));
        assert_eq!(it.subscriber.offsets(1).await, [offset]);
    }
    assert_eq!(it.node.metrics.publications_early.get(), 1);
    assert!(it.heard().is_empty());
}

/// The access change was confirmed and then lost with the master: all access is checked before publications go on.
#[tokio::test(start_paused = true)]
async fn a_barrier_that_is_lost_ends_in_a_check_of_everything() {
    let it = Guarded::start().await;
    let change = it.publish_unheard("$watched").await;
    it.arrives("$watched", &change, None);
    it.node.hub.resume(CHANNEL, &it.subscriber.connection, || true);
    let lost = Position { offset: 3, ..at(&change) };
    let began = tokio::time::Instant::now();
    for offset in 1..=2 {
        let message = it.publish_unheard(CHANNEL).await;
        it.arrives(CHANNEL, &message, Some(&lost));
        assert_eq!(it.subscriber.offsets(1).await, [offset]);
        assert_eq!(it.heard(), ["1", "lost"]);
        assert!(began.elapsed() > Duration::from_secs(5));
    }
    assert!(began.elapsed() < Duration::from_secs(6));
    // No later read waits for the lost barrier. A lower offset may be assigned again, and is a new barrier.
    let began = tokio::time::Instant::now();
    it.node.hub.level().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(1));
    let anew = Position { offset: 2, ..at(&change) };
    let channel = it.node.hub.find(CHANNEL).unwrap();
    assert!(it.node.hub.is_early(&channel, Some(&anew)) && !it.node.hub.is_early(&channel, Some(&lost)));
}

/// A single Redis names no barriers.
#[tokio::test(start_paused = true)]
async fn nothing_goes_on_while_the_watched_channel_is_read() {
    let it = Guarded::start().await;
    it.publish_unheard("$watched").await;
    let seen = it.publish_unheard("$watched").await;
    let message = it.publish_unheard(CHANNEL).await;
    it.arrives("$watched", &seen, None);
    it.arrives(CHANNEL, &message, None);
    assert!(it.heard().is_empty());
    eventually(|| it.heard().len() == 2).await;
    assert_eq!((it.standing(), it.heard()), (Standing::Suspended, vec!["1".to_owned(), "2".to_owned()]));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(it.was_sent_nothing().await);
}
