//! Microbenchmarks of the gateway's parts, in-process: `cargo bench --bench pieces`, under two minutes.
//!
//! The work runs on one thread, so that the times contain no hand-over between cores. The wires accept every write; the
//! system calls, which are most of a delivery's cost, are measured by the load generator.

#[path = "../tests/harness/mod.rs"]
mod harness;

use criterion::{BenchmarkId, Criterion, Throughput};
use harness::SECRET;
use harness::node::{self, Node};
use harness::pocketbase::PocketBase;
use harness::process::free_port;
use konvert_gateway::auth::{Account, Auth};
use konvert_gateway::broker::History;
use konvert_gateway::event::Events;
use konvert_gateway::hub::feed::{Arrival, Feed, JoinOutcome};
use konvert_gateway::limits::replays::Replays;
use konvert_gateway::outbox::writer::{WriteTarget, Writer};
use konvert_gateway::outbox::{Budget, Outbox, Wire};
use konvert_gateway::protocol::decode::ClientFrame;
use konvert_gateway::protocol::encode::{self, Push};
use konvert_gateway::protocol::format::Format;
use konvert_gateway::protocol::{Payload, Position, Publication};
use konvert_gateway::signature::Signer;
use prometheus::IntGauge;
use serde_json::value::RawValue;
use std::hint::black_box;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

const CHANNEL: &str = "room:k3jx81mz0qp7v2a";
const TARGET: &str = "/hooks/pocketbase";

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    encode(&mut criterion);
    decode(&mut criterion);
    outbox(&mut criterion);
    position(&mut criterion);
    intake(&mut criterion);
    // Only PocketBase makes tokens and accounts.
    let (_pocketbase, auth, token, account) = runtime.block_on(async {
        let pocketbase = PocketBase::start(&format!("http://127.0.0.1:{}", free_port())).await;
        let auth = node::auth(&pocketbase);
        let token = pocketbase.user("anna").await.token;
        let account = node::account(&auth, &token).await;
        (pocketbase, auth, token, account)
    });
    verification(&mut criterion, &runtime, &auth, &token);
    fan_out(&mut criterion, &runtime, &account);
    lookup(&mut criterion, &runtime, &account);
    criterion.final_summary();
}

/// A wire accepting every write, like a socket with a fast client.
struct Swallow;

impl Wire for Swallow {
    fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(black_box(parts).iter().map(|part| part.len()).sum())
    }
}

/// A message's record change of exactly `bytes` bytes.
fn record(bytes: usize) -> String {
    let around = r#"{"action":"create","collection":"messages","record":{"id":"x1","content":""}}"#.len();
    let content = "x".repeat(bytes - around);
    format!(r#"{{"action":"create","collection":"messages","record":{{"id":"x1","content":"{content}"}}}}"#)
}

fn payload(bytes: usize) -> Payload {
    Payload::from_raw(&RawValue::from_string(record(bytes)).expect("JSON"))
}

fn publication(offset: u64, data: &Payload) -> Publication {
    Publication { offset, at: 0, data: data.clone(), info: None }
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    for (name, bytes) in [("256 B", 256), ("64 KiB", 64 * 1024)] {
        let publication = publication(123_456, &payload(bytes));
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::new("publication", name), |bencher| {
            bencher.iter(|| {
                encode::push(Format::WebSocketJson, black_box(CHANNEL), &Push::Publication(black_box(&publication)))
            });
        });
    }
    group.finish();
}

fn decode(criterion: &mut Criterion) {
    // An SDK's subscribe command after a reconnect.
    let subscribe = |id: u32| {
        format!(
            r#"{{"id":{id},"subscribe":{{"channel":"{CHANNEL}","recover":true,"epoch":"Xk3vQ0aZ","offset":{id}77}}}}"#
        )
    };
    let mut group = criterion.benchmark_group("decode");
    for count in [1, 16] {
        let frame = (1..=count).map(subscribe).collect::<Vec<_>>().join("\n");
        let frame = ClientFrame::Json(frame.into());
        group.throughput(Throughput::Elements(count.into()));
        group.bench_function(BenchmarkId::new("subscribe commands", count), |bencher| {
            bencher.iter(|| {
                for command in black_box(&frame).commands() {
                    black_box(command.expect("a command"));
                }
            });
        });
    }
    group.finish();
}

/// A writer's work: frames into the outbox, and one write.
fn outbox(criterion: &mut Criterion) {
    let frame = encode::push(Format::WebSocketJson, CHANNEL, &Push::Publication(&publication(1, &payload(256))));
    let held = IntGauge::new("held", "bytes").expect("a gauge");
    let outbox =
        Outbox::new(1 << 20, Format::WebSocketJson, Arc::new(Swallow), Writer::idle(Budget::new(1 << 28, held)));
    let mut group = criterion.benchmark_group("outbox");
    for count in [1, 16] {
        group.throughput(Throughput::Elements(count));
        group.bench_function(BenchmarkId::new("frames in one write", count), |bencher| {
            let now = Instant::now();
            bencher.iter(|| {
                for _ in 0..count {
                    black_box(outbox.push_here(std::iter::once(black_box(&frame))));
                }
                outbox.write_if_due(None, now).expect("nothing holds it back")
            });
            assert!(outbox.is_empty());
        });
    }
    group.finish();
}

fn position(criterion: &mut Criterion) {
    let epoch = "Xk3vQ0aZ";
    let data = payload(256);
    let at = |offset| Position { offset, epoch: epoch.to_owned() };
    let mut feed = Feed::default();
    feed.begin_sync();
    feed.finish_sync(History { publications: Vec::new(), position: at(0) });
    let mut offset = 0;
    let mut group = criterion.benchmark_group("position");
    group.bench_function("the next publication", |bencher| {
        bencher.iter(|| {
            offset += 1;
            let arrival = feed.arrive(epoch, &publication(offset, &data));
            assert_eq!(arrival, Arrival::Deliver);
        });
    });
    group.bench_function("a repeat", |bencher| {
        let repeated = publication(offset, &data);
        bencher.iter(|| assert_eq!(feed.arrive(black_box(epoch), black_box(&repeated)), Arrival::Repeat));
    });
    group.bench_function("recovery of 16", |bencher| {
        let since = at(offset - 16);
        bencher.iter(|| {
            let JoinOutcome::Ready(reply) = feed.join(Some(black_box(&since)), None) else {
                panic!("it is near at hand")
            };
            assert_eq!(reply.publications.len(), 16);
            reply
        });
    });
    group.finish();
}

/// From a post's body to events: signature check, replay check, and JSON parsing.
fn intake(criterion: &mut Criterion) {
    let (signer, now) = (Signer::new(&SECRET.into()), SystemTime::now());
    let data = record(256);
    let event = |seq: u32| format!(r#"{{"seq":{seq},"channels":["{CHANNEL}"],"data":{data}}}"#);
    let mut group = criterion.benchmark_group("hook intake");
    for count in [1, 100] {
        let events = (1..=count).map(event).collect::<Vec<_>>().join(",");
        let body = format!(r#"{{"boot":"k3jx81mz0qp7v2a","events":[{events}]}}"#).into_bytes();
        let (timestamp, signature) = signer.sign(now, "POST", TARGET, &body);
        let verify = |body: &[u8]| {
            signer.verify(now, (Some(&timestamp), Some(&signature)), ("POST", TARGET, body)).expect("rightly signed")
        };
        group.throughput(Throughput::Elements(count.into()));
        group.bench_function(BenchmarkId::new("signature", count), |bencher| bencher.iter(|| verify(black_box(&body))));
        group.bench_function(BenchmarkId::new("events", count), |bencher| {
            bencher.iter(|| Events::parse(black_box(&body)).expect("events"));
        });
    }
    let replays = Replays::default();
    let mut number = 0;
    group.throughput(Throughput::Elements(1));
    group.bench_function("replay check", |bencher| {
        bencher.iter(|| {
            number += 1;
            assert!(replays.note(1_800_000_000, number, 0));
        });
    });
    group.finish();
}

/// Verification with a cached key, the normal case after a user's first token.
fn verification(criterion: &mut Criterion, runtime: &Runtime, auth: &Auth, token: &str) {
    criterion.bench_function("token verification", |bencher| {
        let now = SystemTime::now();
        bencher.iter(|| runtime.block_on(auth.verify(black_box(token), now)).expect("it is valid"));
    });
}

/// Publish, history, position, encoding, the subscribers' outboxes and writes: everything but the sockets.
fn fan_out(criterion: &mut Criterion, runtime: &Runtime, account: &Arc<Account>) {
    let data = payload(256);
    let mut group = criterion.benchmark_group("fan-out");
    for subscribers in [100, 1000, 10_000] {
        let mut node = runtime.block_on(Node::start(Arc::clone(account)));
        runtime.block_on(async {
            for _ in 0..subscribers {
                node.subscribe(CHANNEL, Arc::new(Swallow)).await;
            }
        });
        for messages in [1, 16] {
            group.throughput(Throughput::Elements(messages * subscribers));
            let name = format!("to {subscribers}, messages at once");
            group.bench_function(BenchmarkId::new(name, messages), |bencher| {
                bencher.iter(|| runtime.block_on(node.publish(CHANNEL, &data, messages, subscribers)));
            });
        }
    }
    group.finish();
}

/// A message for one subscriber in one of many rooms.
fn lookup(criterion: &mut Criterion, runtime: &Runtime, account: &Arc<Account>) {
    const ROOMS: usize = 10_000;
    let data = payload(256);
    let mut node = runtime.block_on(Node::start(Arc::clone(account)));
    let rooms: Vec<String> = (0..ROOMS).map(|room| format!("room:{room:015}")).collect();
    runtime.block_on(async {
        for room in &rooms {
            node.subscribe(room, Arc::new(Swallow)).await;
        }
    });
    criterion.bench_function("fan-out/to 1, in 10,000 rooms by turns", |bencher| {
        let mut turns = rooms.iter().cycle();
        bencher.iter(|| {
            let room = turns.next().expect("it never ends");
            runtime.block_on(node.publish(room, &data, 1, 1));
        });
    });
}
