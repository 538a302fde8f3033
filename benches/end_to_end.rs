//! User-visible costs, through a real PocketBase: the latency of a message, and the cost of the audience for the
//! writer.
//!
//! `cargo bench --bench end_to_end` prints the table of `benches/README.md`. The bench measures; the tests assert.

#[path = "../tests/harness/mod.rs"]
mod harness;

use harness::client::Client;
use harness::pocketbase::{PocketBase, User};
use harness::{World, message};
use serde_json::json;
use std::time::{Duration, Instant};

const AUDIENCE: usize = 1000;
const ROUNDS: usize = 200;
/// Ten creates per second and room.
const PACE: Duration = Duration::from_millis(100);

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        println!("{ROUNDS} creates each, ten per second; milliseconds: p50, p99");
        // The whole audience is one user on one address.
        let unlimited = [("GATEWAY_MAX_CONNECTIONS_PER_IP", "0"), ("GATEWAY_MAX_CONNECTIONS_PER_USER", "0")];
        let world = World::start(1, false, &unlimited).await;
        latency(&world, "in-process broker").await;
        audience(&world).await;
        drop(world);
        latency(&World::start(2, true, &[]).await, "Redis, other gateway").await;
    });
}

fn print(what: &str, mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    println!("{what:<60} {:>7.2} {:>7.2}", at(50), at(99));
    at(50)
}

async fn create(pocketbase: &PocketBase, room: &str, author: &User) -> Duration {
    let begun = Instant::now();
    pocketbase.create("messages", author, &message(room, author, "benchmark")).await;
    begun.elapsed()
}

/// Latency from the start of the REST call to the arrival at the other member.
async fn latency(world: &World, what: &str) {
    let (room, users) = world.room(&["anna", "ben", "nobody"]).await;
    let mut ben = world.subscriber(world.gateways.len() - 1, &users[1], &room).await;
    let mut pace = tokio::time::interval(PACE);
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        pace.tick().await;
        let begun = Instant::now();
        let (arrived, _) = tokio::join!(
            async {
                ben.message().await;
                begun.elapsed()
            },
            create(&world.pocketbase, &room, &users[0])
        );
        times.push(arrived);
    }
    print(&format!("REST create to the other's subscription ({what})"), times);
}

/// Creates in an empty room and in a full room by turns, so that other load affects both alike.
async fn audience(world: &World) {
    let (empty, users) = world.room(&["carol", "dave", "nobody2"]).await;
    let full = world.pocketbase.room(&users[0]).await;
    world.pocketbase.join(&full, &users[1]).await;
    // The readers get a separate runtime with one thread: at most one core, and no delay for the measured client.
    let readers =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let mut reading = Vec::new();
    for _ in 0..AUDIENCE {
        let (url, token, channel) = (world.gateway().websocket(), users[1].token.clone(), format!("room:{full}"));
        let client = readers.spawn(async move {
            let mut client = Client::open(&url).await;
            client.call("connect", json!({"token": token})).await;
            client.subscribe(&channel).await;
            client
        });
        let mut client = client.await.expect("a subscriber");
        reading.push(readers.spawn(async move {
            for _ in 0..ROUNDS {
                client.text().await.expect("it stays open");
            }
        }));
    }
    let cpu_before = cpu_seconds(world.gateway().process.pid());
    let mut pace = tokio::time::interval(PACE);
    let (mut alone, mut watched) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        pace.tick().await;
        // The order alternates as well, since the second create of a pair could profit from the first.
        if round % 2 == 0 {
            alone.push(create(&world.pocketbase, &empty, &users[0]).await);
            tokio::time::sleep(PACE / 2).await;
            watched.push(create(&world.pocketbase, &full, &users[0]).await);
        } else {
            watched.push(create(&world.pocketbase, &full, &users[0]).await);
            tokio::time::sleep(PACE / 2).await;
            alone.push(create(&world.pocketbase, &empty, &users[0]).await);
        }
    }
    for task in reading {
        task.await.expect("every subscriber gets every message");
    }
    readers.shutdown_background();
    let alone = print("REST create, 0 subscribers", alone);
    let watched = print(&format!("REST create, {AUDIENCE} subscribers"), watched);
    println!("ratio of the medians: {:.2}", watched / alone);
    let spent = cpu_seconds(world.gateway().process.pid()) - cpu_before;
    let deliveries = (ROUNDS * AUDIENCE) as f64;
    println!("the gateway's CPU per delivery, the relaying included: {:.1} µs", spent * 1e6 / deliveries);
}

/// User and system time of a process so far, in seconds. The kernel counts in ticks of 10 ms.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: f64 = fields[11..13].iter().map(|ticks| ticks.parse::<f64>().expect("a number")).sum();
    ticks / 100.0
}
