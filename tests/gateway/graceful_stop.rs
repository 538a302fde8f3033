//! A planned stop: each client reconnects once, and the reconnections are spread out.

use crate::harness::client::{Client, Place};
use crate::harness::gateway::Gateway;
use crate::harness::http::Http;
use crate::harness::pocketbase::User;
use crate::harness::{World, until};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// Number of gateways restarted in turn, and the time over which each gateway spreads its disconnects.
const GATEWAYS: usize = 3;
const SPREAD: Duration = Duration::from_secs(3);
const CLIENTS: usize = 90;
const WRITERS: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_under_load_loses_nothing() {
    let settings = [
        ("GATEWAY_SHUTDOWN_SPREAD", "3"),
        ("GATEWAY_DRAIN_DELAY", "1"),
        ("GATEWAY_PULL_INTERVAL", "1"),
        // Longer than the test: a client still present afterwards was never removed.
        ("GATEWAY_PRESENCE_TTL", "600"),
        ("GATEWAY_MAX_CONNECTIONS_PER_USER", "1000"),
    ];
    let mut world = World::start(GATEWAYS, true, &settings).await;
    let (room, users) = world.room(&["alice", "bob", "eve"]).await;
    let urls: Arc<Vec<String>> = Arc::new(world.gateways.iter().map(Gateway::websocket).collect());
    let mut clients = Vec::new();
    for i in 0..CLIENTS {
        clients.push(Wanderer::start(i, &urls, &users[1], &room).await);
    }
    let writers = Writers::start(&world, &users[0], &room);

    for gateway in 0..GATEWAYS {
        let before = writers.written.load(Ordering::Relaxed);
        let asked = Instant::now();
        let unready = stop_and_watch(&mut world.gateways[gateway]).await;
        let ends: Vec<Duration> = clients.iter().flat_map(|client| client.ends_since(asked, gateway)).collect();
        assert!(ends.iter().all(|end| *end > unready), "readiness fails before any connection closes");
        assert_spread(gateway, ends, unready);
        world.gateways[gateway].restart().await;
        let written = || (writers.written.load(Ordering::Relaxed) >= before + 20).then_some(());
        until("more messages, with all gateways running", async || written()).await;
    }

    let expected = writers.stop().await;
    let mut observer = world.subscriber(0, &users[0], &room).await;
    let presence = observer.call("presence", json!({"channel": format!("room:{room}")})).await;
    let present: HashSet<&String> = presence["presence"]["presence"].as_object().expect("clients").keys().collect();
    assert_eq!(present.len(), CLIENTS + 1, "the observer, and each client once");

    let mut longest = Duration::ZERO;
    for client in clients {
        let journey = client.finish(expected.len()).await;
        assert_eq!(journey.contents.len(), expected.len(), "nothing lost, nothing doubled");
        assert_eq!(journey.contents.iter().collect::<HashSet<_>>(), expected.iter().collect());
        assert!(!journey.waits.is_empty(), "it was moved");
        longest = journey.waits.iter().copied().fold(longest, Duration::max);
    }
    println!("{} messages, {CLIENTS} clients; the longest wait for the next connection: {longest:.2?}", expected.len());
    assert!(longest < SPREAD + Duration::from_secs(5), "{longest:?}");
}

/// Stops a gateway and waits until it has ended. Returns the time until /readyz failed.
async fn stop_and_watch(gateway: &mut Gateway) -> Duration {
    let (http, ready, asked) = (Http::new(), gateway.admin("readyz"), Instant::now());
    gateway.process.signal("TERM");
    let answer = until("a gateway that is not ready", async || {
        http.get(&ready).await.ok().filter(|response| response.status == 503)
    });
    let answer = answer.await.json();
    assert!(answer["problems"][0].as_str().is_some_and(|problem| problem.contains("draining")), "{answer}");
    let unready = asked.elapsed();
    assert_eq!(until("its end", async || gateway.process.ended()).await, Some(0));
    unready
}

/// Asserts that the connections ended evenly over the whole spread.
fn assert_spread(gateway: usize, mut ends: Vec<Duration>, unready: Duration) {
    ends.sort_unstable();
    let (first, last) = (ends[0], ends[ends.len() - 1]);
    let mut slices = [0; 6];
    for end in &ends {
        let place = (*end - first).as_secs_f64() / (last - first).as_secs_f64() * 6.0;
        slices[(place as usize).min(5)] += 1;
    }
    println!(
        "gateway {gateway}: not ready after {unready:.2?}; {} connections ended from {first:.2?} to {last:.2?}, by sixths: {slices:?}",
        ends.len()
    );
    assert!(last - first > SPREAD * 3 / 4 && last - first < SPREAD + Duration::from_secs(1));
    assert!(slices.iter().all(|&n| n > 0 && n < ends.len() / 2), "{slices:?}");
}

/// Tasks that write through PocketBase's REST API until stopped.
struct Writers {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<Vec<String>>>,
}

impl Writers {
    fn start(world: &World, author: &User, room: &str) -> Self {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let url = format!("{}/api/collections/messages/records", world.pocketbase.url);
        let write = |writer: usize| {
            let (stop, written, url) = (Arc::clone(&stop), Arc::clone(&written), url.clone());
            let (author, room, http) = (author.clone(), room.to_owned(), Http::new());
            tokio::spawn(async move {
                let mut contents = Vec::new();
                let mut pace = tokio::time::interval(Duration::from_millis(50));
                while !stop.load(Ordering::Relaxed) {
                    pace.tick().await;
                    let content = format!("{writer}/{}", contents.len());
                    let body = crate::harness::message(&room, &author, &content).to_string();
                    let headers = [("authorization", author.token.as_str()), ("content-type", "application/json")];
                    let answer = http.send("POST", &url, &headers, body).await.expect("PocketBase answers");
                    assert_eq!(answer.status, 200, "{}", answer.text);
                    contents.push(content);
                    written.fetch_add(1, Ordering::Relaxed);
                }
                contents
            })
        };
        let tasks = (0..WRITERS).map(write).collect();
        Self { stop, written, tasks }
    }

    /// Stops the writers and returns every written content.
    async fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for task in self.tasks {
            all.extend(task.await.expect("a writer"));
        }
        all
    }
}

/// A client that reconnects to the next gateway after each disconnect and recovers.
struct Wanderer {
    ends: Arc<std::sync::Mutex<Vec<(usize, Instant)>>>,
    expected: tokio::sync::watch::Sender<usize>,
    task: JoinHandle<Journey>,
}

struct Journey {
    contents: Vec<String>,
    /// Times from the end of a connection to the next subscription.
    waits: Vec<Duration>,
}

impl Wanderer {
    async fn start(number: usize, urls: &Arc<Vec<String>>, user: &User, room: &str) -> Self {
        let (expected, until) = tokio::sync::watch::channel(usize::MAX);
        let ends = Arc::default();
        let traveller = Traveller {
            urls: Arc::clone(urls),
            at: number % urls.len(),
            token: user.token.clone(),
            channel: format!("room:{room}"),
            ends: Arc::clone(&ends),
            journey: Journey { contents: Vec::new(), waits: Vec::new() },
        };
        let mut client = Client::open(&urls[traveller.at]).await;
        client.log_in(&user.token).await;
        let place = client.subscribe(&traveller.channel).await;
        Self { ends, expected, task: tokio::spawn(async move { traveller.travel(client, place, until).await }) }
    }

    /// Times of the disconnects from `gateway`, counted from `begin`.
    fn ends_since(&self, begin: Instant, gateway: usize) -> Vec<Duration> {
        let ends = self.ends.lock().expect("no panic");
        ends.iter().filter(|(at, when)| *at == gateway && *when > begin).map(|(_, when)| *when - begin).collect()
    }

    /// Returns the journey once the client has received `messages` messages.
    async fn finish(self, messages: usize) -> Journey {
        self.expected.send_replace(messages);
        tokio::time::timeout(crate::harness::DEADLINE, self.task).await.expect("everything arrives").expect("no surprise")
    }
}

struct Traveller {
    urls: Arc<Vec<String>>,
    at: usize,
    token: String,
    channel: String,
    ends: Arc<std::sync::Mutex<Vec<(usize, Instant)>>>,
    journey: Journey,
}

impl Traveller {
    async fn travel(
        mut self,
        mut client: Client,
        mut place: Place,
        mut expected: tokio::sync::watch::Receiver<usize>,
    ) -> Journey {
        while self.journey.contents.len() < *expected.borrow_and_update() {
            let text = tokio::select! {
                text = client.text() => text,
                _ = expected.changed() => continue,
            };
            match text {
                Ok(text) => {
                    let frame: Value = serde_json::from_str(&text).expect("a frame is JSON");
                    self.take(&frame["push"]["pub"], &mut place);
                }
                Err(close) => {
                    assert_eq!(close.map(|frame| u16::from(frame.code)), Some(3001));
                    let ended = Instant::now();
                    self.ends.lock().expect("no panic").push((self.at, ended));
                    client = self.move_on(&mut place).await;
                    self.journey.waits.push(ended.elapsed());
                }
            }
        }
        self.journey
    }

    /// Connects to the next gateway, subscribes and recovers the missed publications.
    async fn move_on(&mut self, place: &mut Place) -> Client {
        loop {
            self.at = (self.at + 1) % self.urls.len();
            let Some(mut client) = Client::try_open(&self.urls[self.at]).await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            client.log_in(&self.token).await;
            let result = client.recover(&self.channel, place).await;
            assert_eq!(result["recovered"], true, "{result}");
            for publication in result["publications"].as_array().into_iter().flatten() {
                self.take(publication, place);
            }
            return client;
        }
    }

    fn take(&mut self, publication: &Value, place: &mut Place) {
        place.offset += 1;
        assert_eq!(publication["offset"], place.offset, "the next one and no other");
        self.journey.contents.push(publication["data"]["record"]["content"].as_str().expect("a message").to_owned());
    }
}

#[tokio::test]
async fn clients_are_served_during_the_drain_delay_and_closed_with_3001_afterwards() {
    let settings = [("GATEWAY_DRAIN_DELAY", "2"), ("GATEWAY_SHUTDOWN_SPREAD", "4")];
    let mut world = World::start(1, false, &settings).await;
    let (room, users) = world.room(&["alice", "bob", "eve"]).await;
    let mut staying = Vec::new();
    for _ in 0..20 {
        staying.push(world.subscriber(0, &users[1], &room).await);
    }
    let (http, ready) = (Http::new(), world.gateway().admin("readyz"));
    world.gateway().process.signal("TERM");
    let not_ready = async || http.get(&ready).await.ok().filter(|response| response.status == 503);
    until("a gateway that is not ready", not_ready).await;

    let mut late = world.subscriber(0, &users[1], &room).await;
    world.pocketbase.write(&room, &users[0], "still served").await;
    for client in staying.iter_mut().chain([&mut late]) {
        assert_eq!(client.message().await, "still served");
    }
    let refused = until("the intake to close", async || {
        let response = http.post_events(world.gateway(), r#"{"events":[]}"#.to_owned()).await.unwrap();
        (response.status == 503).then_some(response)
    })
    .await;
    assert_eq!((refused.retry_after.as_deref(), &refused.json()["error"]["code"]), (Some("1"), &json!("draining")));
    let handshake = http.get(&world.gateway().url("/connection/websocket")).await.unwrap();
    assert_eq!((handshake.status, handshake.retry_after.as_deref()), (503, Some("1")));
    for mut client in staying.into_iter().chain([late]) {
        assert_eq!(client.closed().await, (3001, "shutdown".to_owned()));
    }
    assert_eq!(until("its end", async || world.gateways[0].process.ended()).await, Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_the_gateway_at_once() {
    let settings = [("GATEWAY_SHUTDOWN_SPREAD", "300"), ("GATEWAY_SHUTDOWN_TIMEOUT", "301")];
    for (first, second) in [("TERM", "TERM"), ("INT", "TERM"), ("HUP", "TERM")] {
        let mut world = World::start(1, false, &settings).await;
        let (room, users) = world.room(&["alice", "bob", "eve"]).await;
        let _client = world.subscriber(0, &users[1], &room).await;
        let (http, ready) = (Http::new(), world.gateway().admin("readyz"));
        world.gateway().process.signal(first);
        let not_ready = async || http.get(&ready).await.ok().filter(|response| response.status == 503);
        until("a gateway that is not ready", not_ready).await;
        let again = Instant::now();
        world.gateway().process.signal(second);
        assert_eq!(until("its end", async || world.gateways[0].process.ended()).await, Some(1));
        assert!(again.elapsed() < Duration::from_secs(1), "{:?}", again.elapsed());
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_delays_a_stop_no_longer_than_the_timeout() {
    let settings = [("GATEWAY_SHUTDOWN_SPREAD", "0"), ("GATEWAY_SHUTDOWN_TIMEOUT", "2")];
    let mut world = World::start(1, true, &settings).await;
    let (room, users) = world.room(&["alice", "bob", "eve"]).await;
    let channel = format!("room:{room}");
    let mut stuck = Client::open_narrow(world.gateway()).await;
    stuck.log_in(&users[1].token).await;
    stuck.subscribe(&channel).await;
    until("it to be stuck", async || {
        world.pocketbase.write(&room, &users[0], &"x".repeat(50_000)).await;
        (world.gateway().metric("gateway_queued_bytes").await > 100_000.0).then_some(())
    })
    .await;
    let asked = Instant::now();
    world.gateway().process.signal("TERM");
    assert_eq!(until("its end", async || world.gateways[0].process.ended()).await, Some(0));
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    world.gateways[0].restart().await;
    let mut observer = world.subscriber(0, &users[0], &room).await;
    let stats = observer.call("presence_stats", json!({"channel": channel})).await;
    assert_eq!(stats["presence_stats"]["num_clients"], 1, "the stuck one is not in the presence any more");
}
