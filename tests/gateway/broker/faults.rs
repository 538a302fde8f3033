//! Failures around a Redis broker.

use crate::harness::redis::Redis;
use crate::broker::{PREFIX, Recorder, brief, client, connect, entries, entry, generous, mark, numbered, payload, until};
use futures_util::future::join_all;
use konvert_gateway::broker::status_store::UserStatus;
use konvert_gateway::broker::{Broker, BrokerError, Entry, HistoryQuery, Sink};
use konvert_gateway::channel::CONTROL;
use konvert_gateway::protocol::{ClientInfo, Movement, Position, Publication};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

async fn ready(broker: &dyn Broker) {
    until("the broker to be ready", async || broker.check().await.ok()).await;
}

fn unavailable<T>(result: Result<T, BrokerError>) -> bool {
    matches!(result, Err(BrokerError::Unavailable(_)))
}

/// Asserts that the call fails, and returns its duration.
async fn failing<T>(call: impl Future<Output = Result<T, BrokerError>>) -> Duration {
    let start = Instant::now();
    assert!(unavailable(call.await));
    start.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_comes_back_empty() {
    let mut redis = Redis::start();
    let broker = connect(&redis, generous()).await;
    let recorder = Recorder::listen(&*broker).await;
    for n in 0..600 {
        broker.subscribe(&format!("c{n}")).await.unwrap();
    }
    broker.unsubscribe("c7").await.unwrap();
    broker.publish(&entries("c1", 1..=5)).await.unwrap();
    recorder.wait("c1", 5).await;
    let gaps = recorder.gaps();

    redis.kill();
    assert!(unavailable(broker.publish(&[entry("c1", 6)]).await));
    until("the loss to be noticed", async || broker.check().await.err()).await;
    // Redis is known to be down, so calls fail without waiting for an answer.
    assert!(failing(broker.history("c1", HistoryQuery::POSITION)).await < Duration::from_secs(1));
    assert!(failing(broker.subscribe("new")).await < Duration::from_secs(1));
    broker.unsubscribe("c8").await.unwrap();

    redis.restart();
    ready(&*broker).await;
    assert_eq!(recorder.gaps(), gaps + 1);
    let batch: Vec<_> = (0..600).map(|n| entry(&format!("c{n}"), 6 + n)).collect();
    assert_eq!(broker.publish(&batch).await.unwrap(), 600);
    let seen = recorder.wait("c1", 6).await;
    assert_eq!(seen[5].offset, 1);
    assert_eq!(recorder.epochs("c1").len(), 2);
    recorder.wait("c599", 1).await;
    assert!(recorder.of("c7").is_empty() && recorder.of("c8").is_empty() && recorder.of("new").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_may_start_before_redis() {
    let mut redis = Redis::start();
    redis.kill();
    let start = Instant::now();
    let broker = connect(&redis, generous()).await;
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(unavailable(broker.check().await));
    let recorder = Recorder::listen(&*broker).await;
    assert!(unavailable(broker.subscribe("c").await));

    redis.restart();
    ready(&*broker).await;
    broker.subscribe("c").await.unwrap();
    broker.publish(&[entry("c", 1)]).await.unwrap();
    recorder.wait("c", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_subscribing_link_is_cut() {
    let redis = Redis::start();
    let broker = connect(&redis, generous()).await;
    let recorder = Recorder::listen(&*broker).await;
    broker.subscribe("c").await.unwrap();
    for round in 1..=3 {
        let gaps = recorder.gaps();
        redis::cmd("CLIENT").arg(&["KILL", "TYPE", "pubsub"]).exec(&mut redis.client()).unwrap();
        broker.publish(&[entry("c", 2 * round)]).await.unwrap();
        until("the gap", async || (recorder.gaps() > gaps).then_some(())).await;
        ready(&*broker).await;
        // The gap is announced once the subscriptions are back.
        let seen = recorder.of("c").len();
        broker.publish(&[entry("c", 2 * round + 1)]).await.unwrap();
        recorder.wait("c", seen + 1).await;
        let last = recorder.of("c").pop().unwrap();
        assert_eq!((last.offset, last.data), (2 * round, payload((2 * round + 1).to_string())));
    }
    assert_eq!(recorder.epochs("c").len(), 1);
}

/// The queue between Redis and the sink is bounded, and an overflow is announced as a gap.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_sink_is_told_of_the_gap() {
    /// A sink that blocks while its gate is held.
    #[derive(Default)]
    struct Slow {
        gate: Mutex<()>,
        heard: Recorder,
    }
    impl Sink for Slow {
        fn publication(&self, channel: &str, epoch: &str, publication: Publication, after: Option<&Position>) {
            drop(self.gate.lock());
            self.heard.publication(channel, epoch, publication, after);
        }
        fn signal(&self, _: &str, _: Publication) {
            drop(self.gate.lock());
        }
        fn movement(&self, _: &str, _: Movement, _: ClientInfo) {}
        fn status(&self, _: &str, _: UserStatus) {}
        fn gap(&self) {
            self.heard.gap();
        }
    }

    let redis = Redis::start();
    let broker = connect(&redis, generous()).await;
    let slow = Arc::new(Slow::default());
    let sink: Arc<dyn Sink> = slow.clone();
    broker.start(Arc::downgrade(&sink)).await.unwrap();
    broker.subscribe("c").await.unwrap();
    let (holding, held) = std::sync::mpsc::channel();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let gate = Arc::clone(&slow);
    let holder = std::thread::spawn(move || {
        let _closed = gate.gate.lock().unwrap();
        holding.send(()).unwrap();
        // Until the other end is dropped.
        let _ = released.recv();
    });
    held.recv().unwrap();
    let mut client = redis.client();
    let flood = move || {
        let live = format!("{PREFIX}:live:{{c}}");
        let info = "{\"user\":\"u\",\"client\":\"c\"}";
        let mut thousand = redis::pipe();
        for _ in 0..1000 {
            thousand.cmd("PUBLISH").arg(&live).arg(format!("s{}:{info}{{}}", info.len())).ignore();
        }
        for _ in 0..80 {
            thousand.exec(&mut client).unwrap();
        }
    };
    tokio::task::spawn_blocking(flood).await.unwrap();
    // The answer comes after every earlier message on the link has been read. By then the queue has overflowed.
    until("the flood to be read", async || broker.subscribe("later").await.ok()).await;
    drop(release);
    holder.join().unwrap();
    until("the gap", async || (slow.heard.gaps() > 0).then_some(())).await;
    broker.publish(&[entry("c", 1)]).await.unwrap();
    assert_eq!(brief(&slow.heard.wait("c", 1).await), numbered([1]));
    broker.check().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commanding_link_is_cut() {
    let redis = Redis::start();
    let broker = connect(&redis, generous()).await;
    let recorder = Recorder::listen(&*broker).await;
    broker.subscribe("c").await.unwrap();
    for seq in 1..=5 {
        redis::cmd("CLIENT").arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]).exec(&mut redis.client()).unwrap();
        until("the publication", async || broker.publish(&[entry("c", seq)]).await.ok()).await;
    }
    assert_eq!(brief(&recorder.wait("c", 5).await), numbered(1..=5));
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_scripts_are_loaded_again() {
    let redis = Redis::start();
    let broker = connect(&redis, generous()).await;
    let flush = || redis::cmd("SCRIPT").arg("FLUSH").exec(&mut redis.client()).unwrap();
    for round in 0..3 {
        flush();
        assert_eq!(broker.publish(&entries("c", 10 * round + 1..=10 * round + 10)).await.unwrap(), 10);
        flush();
        assert_eq!(broker.history("c", HistoryQuery::POSITION).await.unwrap().position.offset, 10 * round + 10);
        flush();
        broker.add_presence(&[("c".into(), client("u", "c"))]).await.unwrap();
        flush();
        assert_eq!(broker.presence("c").await.unwrap().len(), 1);
        flush();
        broker.remove_presence(&[("c".into(), "c".into())]).await.unwrap();
        flush();
        assert_eq!(broker.advance(mark(round + 1)).await.unwrap().seq, round + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_in_redis_does_no_harm() {
    let redis = Redis::start();
    let broker = connect(&redis, generous()).await;
    let recorder = Recorder::listen(&*broker).await;
    broker.subscribe("c").await.unwrap();
    let mut client = redis.client();
    let live = format!("{PREFIX}:live:{{c}}");
    let garbage: [&[u8]; 8] =
        [b"", b"p", b"\xff\xfe\0", b"p1:abc:0", b"p9:abc:0:{\n}", b"QUEUED", b"s9:{}{}", &[b'x'; 100_000]];
    for message in garbage {
        redis::cmd("PUBLISH").arg(&live).arg(message).exec(&mut client).unwrap();
    }
    broker.publish(&[entry("c", 1)]).await.unwrap();
    assert_eq!(brief(&recorder.wait("c", 1).await), numbered([1]));
    assert_eq!((recorder.gaps(), recorder.signals.lock().unwrap().len()), (0, 0));

    // Keys of the gateway, overwritten by another program.
    let key = |kind: &str, channel: &str| format!("{PREFIX}:{kind}:{{{channel}}}");
    for kind in ["position", "stream", "presence", "leases"] {
        redis::cmd("SET").arg(key(kind, kind)).arg("x").exec(&mut client).unwrap();
    }
    redis::cmd("SET").arg(format!("{PREFIX}:mark")).arg("no number").exec(&mut client).unwrap();
    redis::cmd("HSET").arg(key("position", "h")).arg(&["epoch", "\n", "offset", "-1"]).exec(&mut client).unwrap();
    redis::cmd("HSET").arg(key("presence", "p")).arg(&["c", "not JSON"]).exec(&mut client).unwrap();
    redis::cmd("HSET").arg(key("position", "x")).arg(&["epoch", "e", "offset", "1"]).exec(&mut client).unwrap();
    redis::cmd("XADD").arg(key("stream", "x")).arg(&["1-1", "a", "b", "c", "d"]).exec(&mut client).unwrap();
    for channel in ["position", "h", "x"] {
        assert!(broker.history(channel, HistoryQuery::default()).await.is_err());
    }
    for channel in ["presence", "leases", "p"] {
        assert!(broker.presence(channel).await.is_err());
    }
    assert!(broker.publish(&[entry("position", 2)]).await.is_err());
    assert!(broker.begin(mark(1)).await.is_err());
    broker.check().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_paused_and_resumed() {
    let redis = Redis::start();
    let broker = connect(&redis, generous()).await;
    let recorder = Recorder::listen(&*broker).await;
    broker.subscribe("c").await.unwrap();
    broker.publish(&[entry("c", 1)]).await.unwrap();
    recorder.wait("c", 1).await;

    redis.pause();
    let stopped = Instant::now();
    let patience = Duration::from_secs(3);
    // Redis received the subscribe but did not answer, which is no success.
    assert!(failing(broker.subscribe("d")).await < Duration::from_secs(5));
    // After five seconds, both links are given up.
    until("five seconds of silence", async || {
        assert!(failing(broker.publish(&[entry("c", 2)])).await < patience);
        assert!(failing(broker.history("c", HistoryQuery::POSITION)).await < patience);
        (stopped.elapsed() > Duration::from_secs(5)).then_some(())
    })
    .await;
    assert!(failing(broker.subscribe("d")).await < Duration::from_secs(5));
    assert!(unavailable(broker.check().await));
    redis.resume();

    ready(&*broker).await;
    assert!(recorder.gaps() > 0);
    until("the publication", async || broker.publish(&entries("c", 2..=3)).await.ok()).await;
    // The first attempt may have been carried out when Redis woke, before the subscriptions were back.
    until("the last", async || recorder.of("c").iter().any(|p| p.data == payload("3")).then_some(())).await;
    let history = broker.history("c", HistoryQuery::default()).await.unwrap();
    assert_eq!(brief(&history.publications), numbered(1..=3));
    broker.subscribe("d").await.unwrap();
}

/// Checks that no publication follows a missed access change without a gap in between.
#[derive(Default)]
struct InOrder(Mutex<Order>);

#[derive(Default)]
struct Order {
    /// Offset of the next access change; unknown at first and after a gap.
    next: Option<u64>,
    gaps: usize,
    publications: usize,
    /// Publications whose barrier, or an earlier barrier, was missing.
    early: Vec<(u64, u64)>,
}

impl InOrder {
    /// Number of gaps and publications.
    fn counts(&self) -> (usize, usize) {
        let order = self.0.lock().unwrap();
        (order.gaps, order.publications)
    }
}

impl Sink for InOrder {
    fn publication(&self, channel: &str, _: &str, publication: Publication, _: Option<&Position>) {
        let mut order = self.0.lock().unwrap();
        if channel == CONTROL {
            // A missed access change shows at the next publication.
            if order.next.is_none_or(|next| next == publication.offset) {
                order.next = Some(publication.offset + 1);
            }
            return;
        }
        order.publications += 1;
        // Number of the access change just before the publication.
        let before: u64 = std::str::from_utf8(publication.data.as_bytes()).unwrap().parse().unwrap();
        if let Some(next) = order.next.filter(|next| *next <= before) {
            order.early.push((before, next));
        }
    }
    fn signal(&self, _: &str, _: Publication) {}
    fn movement(&self, _: &str, _: Movement, _: ClientInfo) {}
    fn status(&self, _: &str, _: UserStatus) {}
    fn gap(&self) {
        let mut order = self.0.lock().unwrap();
        (order.next, order.gaps) = (None, order.gaps + 1);
    }
}

/// The subscribing link is cut repeatedly while access changes and publications alternate. Publications after a missed
/// access change come after the gap.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_cut_nothing_overtakes_the_access_changes() {
    const ROOMS: u64 = 20_000;
    let redis = Redis::start();
    let (publisher, broker) = (connect(&redis, generous()).await, connect(&redis, generous()).await);
    let order = Arc::new(InOrder::default());
    let sink: Arc<dyn Sink> = order.clone();
    broker.start(Arc::downgrade(&sink)).await.unwrap();
    let rooms: Vec<String> = (0..ROOMS).map(|n| format!("room:{n}")).collect();
    broker.subscribe(CONTROL).await.unwrap();
    for some in rooms.chunks(5_000) {
        join_all(some.iter().map(async |room| broker.subscribe(room).await.unwrap())).await;
    }
    let mut pairs = 0;
    for _ in 0..5 {
        let (gaps, publications) = order.counts();
        let _: i64 = redis::cmd("CLIENT").arg(&["KILL", "TYPE", "pubsub"]).query(&mut redis.client()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while order.counts().0 == gaps || order.counts().1 < publications + 100 {
            assert!(Instant::now() < deadline, "the link does not come back");
            pairs += 1;
            let access = Entry { barrier: true, ..entry(CONTROL, 2 * pairs - 1) };
            let room = rooms[(7919 * pairs % ROOMS) as usize].clone();
            let message = Entry { data: payload(pairs.to_string()), ..entry(&room, 2 * pairs) };
            publisher.publish(&[access, message]).await.unwrap();
        }
        ready(&*broker).await;
    }
    let order = order.0.lock().unwrap();
    assert_eq!(order.early, [], "(its barrier, the next access change that was expected)");
}
