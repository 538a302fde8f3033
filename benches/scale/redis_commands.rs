//! Cost of single commands with a real Redis: CPU time of Redis, and of a gateway's broker with the connections.

use crate::cpu;
use crate::harness::redis::Redis;
use konvert_gateway::broker::redis::RedisBroker;
use konvert_gateway::broker::status_store::{Choice, Lease, StatusStore, UserStatus};
use konvert_gateway::broker::{Broker, Entry, HistoryQuery, Retention, Sink};
use konvert_gateway::channel::CONTROL;
use konvert_gateway::protocol::{ClientInfo, Movement, Payload, Position, Publication};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::sleep;

/// Number of gateways' connections, which receive every message.
const LINKS: usize = 50;
/// Rounds of a measurement.
const ROUNDS: usize = 300;

/// A sink with a count of publications.
#[derive(Default)]
struct Counter(AtomicUsize);

impl Sink for Counter {
    fn publication(&self, _: &str, _: &str, _: Publication, _: Option<&Position>) {
        self.0.fetch_add(1, Relaxed);
    }
    fn signal(&self, _: &str, _: Publication) {}
    fn movement(&self, _: &str, _: Movement, _: ClientInfo) {}
    fn status(&self, _: &str, _: UserStatus) {}
    fn gap(&self) {}
}

/// Meter of CPU time: of Redis, and of the current thread with the brokers.
struct Meter {
    redis: u32,
    thread: i32,
}

impl Meter {
    /// Microseconds of Redis and of this thread for each of `count` parts of the work.
    async fn of(&self, count: usize, work: impl AsyncFnOnce()) -> (f64, f64) {
        let now = || (cpu::of_process(self.redis), cpu::of_thread(self.thread));
        let before = now();
        work().await;
        let after = now();
        let each = |after: Duration, before: Duration| (after - before).as_secs_f64() * 1e6 / count as f64;
        (each(after.0, before.0), each(after.1, before.1))
    }
}

/// Runs on a separate thread.
pub async fn run() {
    let server = Redis::start();
    let retention = Retention {
        size: 500,
        ttl: Duration::from_secs(3600),
        position_ttl: Duration::from_secs(86_400),
        presence_ttl: Duration::from_secs(3600),
        last_seen_ttl: Duration::from_secs(86_400),
        join_leave_max: 200,
        ..Retention::default()
    };
    let broker = RedisBroker::connect(&server.url(), "scale", retention.clone()).await.expect("a URL");
    let meter = Meter { redis: server.pid(), thread: cpu::this_thread() };
    println!("\n### Commands of a real Redis\n");
    println!("| command | Redis, µs | gateway, µs |\n|---|---:|---:|");
    let row = |name: &str, (redis, gateway): (f64, f64)| println!("| {name} | {redis:.1} | {gateway:.1} |");
    row("publish an access change, no subscriber", publish(&meter, &*broker, 0).await);
    row("position of a channel (with the mark)", positions(&meter, &*broker).await);
    row("renew presence: a client alone in its channel", presence(&meter, &*broker, 1).await);
    row("… of 16 in one channel, each", presence(&meter, &*broker, 16).await);
    row("… of 256 in one channel, each", presence(&meter, &*broker, 256).await);
    row("renew the lease of a status: 1 in a call", statuses(&meter, &*broker, 1).await);
    row("… 50 in a call, each", statuses(&meter, &*broker, 50).await);
    row("sweep of the statuses soon after another, refused", sweeps(&meter, &*broker, Duration::ZERO).await);
    // Short leases, with which every call is a sweep.
    let short = Retention { presence_ttl: Duration::from_millis(40), ..retention.clone() };
    let sweeper = RedisBroker::connect(&server.url(), "sweeps", short).await.expect("a URL");
    row("… carried out, 64 buckets", sweeps(&meter, &*sweeper, Duration::from_millis(3)).await);
    drop(sweeper);
    row("a message, each of 50 links", fan_out(&meter, &server, &*broker, &retention).await);
}

fn entry(seq: usize, channel: &str) -> Entry {
    let data = r#"{"access":[{"cause":"member","channel":"room:k3jx81mz0qp7v2a","user":"k3jx81mz0qp7v2b"}]}"#;
    let data = Payload::parse(data).expect("JSON");
    Entry { seq: seq as u64, at: 1, channel: channel.to_owned(), data, barrier: channel == CONTROL }
}

/// Publishes entries singly, from number `first` on.
async fn publish(meter: &Meter, broker: &dyn Broker, first: usize) -> (f64, f64) {
    let work = async || {
        for seq in 1..=ROUNDS {
            broker.publish(&[entry(first + seq, CONTROL)]).await.expect("Redis answers");
        }
    };
    meter.of(ROUNDS, work).await
}

async fn positions(meter: &Meter, broker: &dyn Broker) -> (f64, f64) {
    let channels: Vec<String> = (0..32).map(|room| format!("room:{room:015}")).collect();
    let work = async || {
        for _ in 0..ROUNDS / 10 {
            let reads = channels.iter().map(|channel| broker.history(channel, HistoryQuery::POSITION));
            futures_util::future::join_all(reads).await;
        }
    };
    meter.of(ROUNDS / 10 * channels.len(), work).await
}

/// Renews `clients` in 16 channels, in a single call.
async fn presence(meter: &Meter, broker: &dyn Broker, clients: usize) -> (f64, f64) {
    let client = |channel: usize, client: usize| {
        let info =
            ClientInfo { user: format!("user{client:011}").into(), client: format!("{channel:08}{client:014}").into() };
        (Arc::<str>::from(format!("room:{clients}-{channel:012}")), info)
    };
    let all: Vec<_> = (0..16).flat_map(|channel| (0..clients).map(move |each| client(channel, each))).collect();
    broker.add_presence(&all).await.expect("Redis answers");
    let rounds = (ROUNDS / clients).max(10);
    let work = async || {
        for _ in 0..rounds {
            broker.add_presence(&all).await.expect("Redis answers");
        }
    };
    meter.of(rounds * all.len(), work).await
}

/// Renews the leases of `users` of one bucket in a call.
async fn statuses(meter: &Meter, broker: &dyn Broker, users: usize) -> (f64, f64) {
    let bucket = konvert_gateway::broker::status_store::bucket;
    let names = (0..).map(|user| format!("user{user:011}")).filter(|user| bucket(user) == 0);
    let lease = |user: String| Lease {
        client: format!("client of {user}").into(),
        user: user.into(),
        idle: false,
        age: Duration::from_secs(1),
        choice: Choice::default(),
    };
    let leases: Vec<Lease> = names.take(users).map(lease).collect();
    let work = async || {
        for _ in 0..ROUNDS {
            StatusStore::lease(broker, &leases).await.expect("Redis answers");
        }
    };
    meter.of(ROUNDS * users, work).await
}

/// `pause`: between two calls.
async fn sweeps(meter: &Meter, broker: &dyn Broker, pause: Duration) -> (f64, f64) {
    let work = async || {
        for _ in 0..ROUNDS / 3 {
            sleep(pause).await;
            broker.sweep().await.expect("Redis answers");
        }
    };
    meter.of(ROUNDS / 3, work).await
}

/// Cost of a message for a subscribed connection, beyond the cost of the publish command.
async fn fan_out(meter: &Meter, server: &Redis, publisher: &dyn Broker, retention: &Retention) -> (f64, f64) {
    let alone = publish(meter, publisher, ROUNDS).await;
    let mut links = Vec::new();
    for _ in 0..LINKS {
        let link = RedisBroker::connect(&server.url(), "scale", retention.clone()).await.expect("a URL");
        let counter = Arc::<Counter>::default();
        let sink: Weak<Counter> = Arc::downgrade(&counter);
        link.start(sink).await.expect("a first start");
        link.subscribe(CONTROL).await.expect("Redis answers");
        links.push((link, counter));
    }
    let work = async || {
        for seq in 1..=ROUNDS {
            publisher.publish(&[entry(2 * ROUNDS + seq, CONTROL)]).await.expect("Redis answers");
        }
        while links.iter().any(|(_, counter)| counter.0.load(Relaxed) < ROUNDS) {
            sleep(Duration::from_millis(1)).await;
        }
    };
    let all = meter.of(ROUNDS, work).await;
    let each = |all: f64, alone: f64| (all - alone).max(0.0) / LINKS as f64;
    (each(all.0, alone.0), each(all.1, alone.1))
}
