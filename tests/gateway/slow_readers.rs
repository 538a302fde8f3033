//! A client that does not read is disconnected and costs other clients no messages, no time and no memory.

use futures_util::{StreamExt, stream};
use crate::harness::client::{Client, Place};
use crate::harness::http::Http;
use crate::harness::pocketbase::User;
use crate::harness::{World, until};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

const STUCK: usize = 1000;
const READERS: usize = 20;
const MESSAGES: usize = 20_000;
/// Messages without stuck clients, for comparison.
const MESSAGES_ALONE: usize = 4000;
/// Upper bound of further messages until the kernel's buffers for the stuck clients are full and the gateway notices.
const MESSAGES_TO_STALL: usize = 2000;
/// Latencies are measured in slices of half a second.
const SLICE: usize = 500;
/// Events per post, and the interval between posts: 1000 messages per second.
const BATCH: usize = 10;
const PACE: Duration = Duration::from_millis(10);
/// Budget of all queues together.
const BUDGET: usize = 128 * 1024 * 1024;

const SLOW: &str = r#"gateway_disconnects_total{code="3008"}"#;

/// A thousand clients stop reading in a room with twenty readers, through which twenty thousand messages pass.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_stuck_clients_do_not_slow_other_clients() {
    // Only the hooks' posts, since a read of the outbox would bring every row at once.
    let settings = [
        ("GATEWAY_PULL_INTERVAL", "3600"),
        ("GATEWAY_MAX_TOTAL_QUEUE_SIZE", &BUDGET.to_string()),
        ("GATEWAY_MAX_CONNECTIONS_PER_IP", "0"),
        ("GATEWAY_MAX_CONNECTIONS_PER_USER", "0"),
    ];
    let world = World::start(1, false, &settings).await;
    let (room, users) = world.room(&["alice", "bob", "eve"]).await;
    let feed = Feed::new(&world, &room).await;
    // On separate threads, so that a late arrival is caused by the gateway.
    let runtime = Runtime::new().expect("a runtime");

    let readers = readers(&world, &users[1], &room, &runtime, 0..MESSAGES_ALONE).await;
    let sent = feed.send(&world, 0..MESSAGES_ALONE).await;
    let alone = latencies(readers, 0, &sent).await;

    let readers = self::readers(&world, &users[1], &room, &runtime, MESSAGES_ALONE..feed.rows.len()).await;
    let stuck: Vec<Client> = stream::iter(0..STUCK)
        .map(async |_| {
            let mut client = Client::open_narrow(world.gateway()).await;
            client.log_in(&users[1].token).await;
            client.subscribe(&format!("room:{room}")).await;
            client
        })
        .buffer_unordered(50)
        .collect()
        .await;
    let watch = Watch::start(&world);
    let mut next = MESSAGES_ALONE;
    while world.gateway().metric("gateway_queued_bytes").await < (STUCK * 16 * 1024) as f64 {
        feed.send(&world, next..next + 50).await;
        next += 50;
    }
    assert_eq!(world.gateway().metric(SLOW).await, 0.0, "all are stuck and none is gone");
    let sent = feed.send(&world, next..feed.rows.len()).await;
    assert!(sent.len() >= MESSAGES);
    let with_stuck = latencies(readers, next - MESSAGES_ALONE, &sent).await;
    let (growth, queued) = watch.stop(&world).await;

    println!("p50 and p99 of {READERS} readers, in ms: alone  {}", show(&alone));
    println!("with {STUCK} that do not read:             {}", show(&with_stuck));
    println!("the first of that, when they are cut off: {}", show(&with_stuck[..1]));
    println!("ratio of the p99: {:.2} (the goal is 1.33)", at(&with_stuck, 99) / at(&alone, 99));
    println!("memory grew by {} KiB; at most {} KiB were queued", growth / 1024, queued / 1024);
    assert!(at(&with_stuck, 99) < 10.0 * at(&alone, 99).max(5.0), "the stuck ones were felt");
    assert!(growth < BUDGET, "{growth} bytes");
    assert!(queued < BUDGET + STUCK * 1024, "{queued} bytes: past the budget one message at most for each");
    let slow = world.gateway().metric(SLOW).await;
    assert_eq!(slow, STUCK as f64, "all that were stuck were disconnected, and nobody else");
    until("the queues to be empty", async || {
        (world.gateway().metric("gateway_queued_bytes").await == 0.0).then_some(())
    })
    .await;
    drop(stuck);
    runtime.shutdown_background();
}

/// The test's events, already in the outbox.
struct Feed {
    http: Http,
    rows: Vec<String>,
    first: u64,
    /// Boot id of PocketBase's run. Posts of another run would first be compared with the outbox.
    boot: String,
}

impl Feed {
    async fn new(world: &World, room: &str) -> Self {
        let row = |n: usize| {
            let record = json!({"n": n, "room": room, "content": "x".repeat(200)});
            let data = json!({"action": "create", "collection": "messages", "record": record});
            json!({"channels": [format!("room:{room}")], "data": data}).to_string()
        };
        let rows: Vec<String> = (0..MESSAGES_ALONE + MESSAGES_TO_STALL + MESSAGES).map(row).collect();
        let first = world.pocketbase.append_to_outbox(&rows);
        world.gateway().metric_reaches("gateway_relay_cursor", (first - 1) as f64).await;
        Self { http: Http::new(), rows, first, boot: world.pocketbase.boot().await }
    }

    /// Posts the rows like the hooks; returns the time of each post.
    async fn send(&self, world: &World, range: std::ops::Range<usize>) -> Vec<Instant> {
        let mut pace = tokio::time::interval(PACE);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut sent = Vec::new();
        for begin in range.step_by(BATCH) {
            pace.tick().await;
            let event = |n: usize| format!(r#"{{"seq":{},{}"#, self.first + n as u64, &self.rows[n][1..]);
            let events: Vec<String> = (begin..begin + BATCH).map(event).collect();
            sent.extend([Instant::now(); BATCH]);
            let body = format!(r#"{{"boot":"{}","events":[{}]}}"#, self.boot, events.join(","));
            let answer = self.http.post_events(world.gateway(), body).await.expect("the gateway answers");
            assert_eq!(answer.status, 202, "{}", answer.text);
        }
        sent
    }
}

type Arrivals = Vec<JoinHandle<Vec<Instant>>>;

/// Subscribers that expect exactly these messages in order, and return the times of arrival.
async fn readers(world: &World, user: &User, room: &str, runtime: &Runtime, range: std::ops::Range<usize>) -> Arrivals {
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let (url, token, channel) = (world.gateway().websocket(), user.token.clone(), format!("room:{room}"));
        let opened = runtime.spawn(async move {
            let mut client = Client::open(&url).await;
            client.log_in(&token).await;
            client.subscribe(&channel).await;
            client
        });
        let (mut client, range) = (opened.await.expect("a subscriber"), range.clone());
        readers.push(runtime.spawn(async move {
            let mut arrivals = Vec::new();
            for n in range {
                let text = client.text().await.expect("it stays open");
                assert!(text.contains(&format!(r#""n":{n},"#)), "message {n} is next, not {text}");
                arrivals.push(Instant::now());
            }
            arrivals
        }));
    }
    readers
}

/// Sorted latencies of one slice of messages, over the readers.
type Slice = Vec<Duration>;

/// Latency of each message from its post to its arrival, without the readers' first ones.
async fn latencies(readers: Arrivals, first: usize, sent: &[Instant]) -> Vec<Slice> {
    let mut slices = vec![Slice::new(); sent.len().div_ceil(SLICE)];
    for reader in readers {
        let arrivals = tokio::time::timeout(crate::harness::DEADLINE, reader).await.expect("all messages arrive");
        let arrivals = arrivals.expect("each once and in order");
        for (n, (arrived, sent)) in arrivals[first..].iter().zip(sent).enumerate() {
            slices[n / SLICE].push(*arrived - *sent);
        }
    }
    slices.iter_mut().for_each(|slice| slice.sort_unstable());
    slices
}

/// A percentile in milliseconds: the median over the slices, which is robust against hiccups of the machine.
fn at(slices: &[Slice], percent: usize) -> f64 {
    let of = |slice: &Slice| slice[(slice.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    let mut all: Vec<f64> = slices.iter().map(of).collect();
    all.sort_unstable_by(f64::total_cmp);
    all[all.len() / 2]
}

fn show(slices: &[Slice]) -> String {
    format!("{:.2} {:.2}", at(slices, 50), at(slices, 99))
}

/// Samples the gateway's memory and queues continuously.
struct Watch {
    before: usize,
    done: Arc<AtomicBool>,
    highest: std::thread::JoinHandle<usize>,
    queued: JoinHandle<usize>,
}

impl Watch {
    fn start(world: &World) -> Self {
        let (done, process) = (Arc::new(AtomicBool::new(false)), world.gateway().process.pid());
        let until_done = Arc::clone(&done);
        let highest = std::thread::spawn(move || {
            let mut highest = 0;
            while !until_done.load(Ordering::Relaxed) {
                highest = highest.max(crate::harness::process::resident(process));
                std::thread::sleep(Duration::from_millis(20));
            }
            highest
        });
        let (until_done, url) = (Arc::clone(&done), world.gateway().admin("metrics"));
        let queued = tokio::spawn(async move {
            let (http, mut highest) = (Http::new(), 0);
            while !until_done.load(Ordering::Relaxed) {
                let text = http.get(&url).await.expect("the admin listener answers").text;
                let value = text.lines().find_map(|line| line.strip_prefix("gateway_queued_bytes ")).expect("a gauge");
                highest = highest.max(value.parse().expect("a number of bytes"));
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            highest
        });
        Self { before: crate::harness::process::resident(process), done, highest, queued }
    }

    /// Largest growth of memory, and largest size of the queues, in bytes.
    async fn stop(self, world: &World) -> (usize, usize) {
        world.gateway().metric_reaches(SLOW, STUCK as f64).await;
        self.done.store(true, Ordering::Relaxed);
        let queued = self.queued.await.expect("it watched");
        (self.highest.join().expect("it watched").saturating_sub(self.before), queued)
    }
}

/// When the total budget is used up, clients with large queues are disconnected; missed publications stay available.
#[tokio::test]
async fn a_client_disconnected_as_slow_recovers() {
    let world = World::start(1, false, &[("GATEWAY_MAX_TOTAL_QUEUE_SIZE", "1048576")]).await;
    let (room, users) = world.room(&["alice", "bob", "eve"]).await;
    let channel = format!("room:{room}");
    let mut reader = world.subscriber(0, &users[1], &room).await;
    let mut stuck = Vec::new();
    for _ in 0..8 {
        let mut client = Client::open_narrow(world.gateway()).await;
        client.log_in(&users[1].token).await;
        let place = client.subscribe(&channel).await;
        stuck.push((client, place));
    }
    let mut written = Vec::new();
    until("some stuck clients to be disconnected", async || {
        let content = format!("{} {}", written.len(), "x".repeat(8000));
        world.pocketbase.write(&room, &users[0], &content).await;
        assert_eq!(reader.message().await, content);
        written.push(content);
        (world.gateway().metric(SLOW).await >= 3.0).then_some(())
    })
    .await;
    let mut disconnected = 0.0;
    for (mut client, mut place) in stuck {
        let mut got = Vec::new();
        while got.len() < written.len()
            && let Ok(text) = client.text().await
        {
            let frame: Value = serde_json::from_str(&text).unwrap();
            place.offset = frame["push"]["pub"]["offset"].as_u64().unwrap();
            got.push(content(&frame["push"]["pub"]));
        }
        if got.len() < written.len() {
            disconnected += 1.0;
            let mut client = Client::connect(world.gateway(), &users[1].token).await;
            let result = client.recover(&channel, &place).await;
            assert_eq!(result["recovered"], true, "after {} of {}", got.len(), written.len());
            got.extend(result["publications"].as_array().unwrap().iter().map(content));
            while got.len() < written.len() {
                // Publications beyond a reply's share follow as pushes.
                got.push(client.message().await);
            }
        }
        assert_eq!(got, written);
    }
    assert_eq!(world.gateway().metric(SLOW).await, disconnected);
}

fn content(publication: &Value) -> String {
    publication["data"]["record"]["content"].as_str().unwrap_or_default().to_owned()
}

/// A client on a slow line recovers publications whose transfer takes longer than the pong timeout. The client gets
/// every publication, in pieces, and is not cut off for a ping that waits behind the pieces.
#[tokio::test]
async fn a_recovery_on_a_slow_line_is_not_cut_off() {
    const MISSED: usize = 40;
    let settings = [
        ("GATEWAY_PING_INTERVAL", "2"),
        ("GATEWAY_PONG_TIMEOUT", "1"),
        ("GATEWAY_WRITE_TIMEOUT", "4"),
        ("GATEWAY_PULL_INTERVAL", "3600"),
    ];
    let world = World::start(1, false, &settings).await;
    let (room, users) = world.room(&["alice", "bob", "eve"]).await;
    let channel = format!("room:{room}");
    let mut client = Client::connect(world.gateway(), &users[1].token).await;
    let place = client.subscribe(&channel).await;
    drop(client);
    let mut witness = world.subscriber(0, &users[0], &room).await;
    for n in 0..MISSED {
        world.pocketbase.write(&room, &users[0], &format!("{n:05} {}", "x".repeat(10_000))).await;
        witness.message().await;
    }

    // 400 KB at 32 KiB/s.
    let mut slow = Trickle::connect(world.gateway().port, 32 * 1024).await;
    let Place { offset, epoch } = place;
    let commands = [
        json!({"id": 1, "connect": {"token": users[1].token}}),
        json!({"id": 2, "subscribe": {"channel": channel, "recover": true, "offset": offset, "epoch": epoch}}),
    ];
    slow.client.send(&commands.map(|command| command.to_string()).join("\n")).await;
    assert_eq!(slow.client.reply(1).await["id"], 1);
    let result = slow.client.reply(2).await["subscribe"].take();
    assert_eq!(result["recovered"], true, "{result}");
    let mut got: Vec<String> = result["publications"].as_array().unwrap().iter().map(content).collect();
    got.retain(|content| !content.is_empty());
    assert!(got.len() < MISSED / 2, "the reply is a piece of it: {}", got.len());
    while got.len() < MISSED {
        got.push(slow.client.message().await);
    }
    let expected: Vec<String> = (0..MISSED).map(|n| format!("{n:05}")).collect();
    assert_eq!(got.iter().map(|content| content[..5].to_owned()).collect::<Vec<_>>(), expected);
    assert_eq!(slow.client.call("ping", json!({})).await["ping"], json!({}), "it is still there");
}

/// A client behind a line with a limited rate in bytes per second and a small buffer.
struct Trickle {
    client: Client,
    _line: JoinHandle<()>,
}

impl Trickle {
    async fn connect(gateway: u16, rate: usize) -> Self {
        const PIECE: usize = 2048;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let line = tokio::spawn(async move {
            let (client, _) = listener.accept().await.expect("the client comes");
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.set_recv_buffer_size(4096).expect("a small buffer");
            let gateway = socket.connect(([127, 0, 0, 1], gateway).into()).await.expect("the gateway accepts");
            let ((mut from_client, mut to_client), (mut from_gateway, mut to_gateway)) =
                (client.into_split(), gateway.into_split());
            let up = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_gateway).await });
            let mut pace = tokio::time::interval(Duration::from_secs(1) * PIECE as u32 / rate as u32);
            pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut piece = [0; PIECE];
            while let Ok(size @ 1..) = from_gateway.read(&mut piece).await {
                pace.tick().await;
                if to_client.write_all(&piece[..size]).await.is_err() {
                    break;
                }
            }
            up.abort();
        });
        let client = Client::open(&format!("ws://127.0.0.1:{port}/connection/websocket")).await;
        Self { client, _line: line }
    }
}

/// The WebSocket library itself answers pings, past the queue. These answers must not pile up either.
#[tokio::test]
async fn pings_without_reading_do_not_grow_memory() {
    // With the command limit, which also counts pings, the connection would end too early.
    let world = World::start(1, false, &[("GATEWAY_MAX_COMMANDS_PER_SECOND", "0")]).await;
    let (room, users) = world.room(&["alice", "bob", "eve"]).await;
    let mut reader = world.subscriber(0, &users[1], &room).await;
    let mut client = Client::open_narrow(world.gateway()).await;
    client.log_in(&users[1].token).await;
    let before = world.gateway().process.resident();
    for _ in 0..300_000 {
        client.send_raw(Message::Ping(vec![b'x'; 125].into())).await;
    }
    let growth = world.gateway().process.resident().saturating_sub(before);
    println!("memory grew by {} KiB for 37 MB of pings", growth / 1024);
    assert!(growth < 4 * 1024 * 1024, "{growth} bytes");
    world.pocketbase.write(&room, &users[0], "hello").await;
    assert_eq!(reader.message().await, "hello");
}
