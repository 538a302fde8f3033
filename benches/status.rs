//! The cost of user statuses: a thousand changes per second through one gateway and its Redis.
//!
//! `cargo bench --bench status` prints the table of `benches/README.md`. The bench measures; the tests assert.

#[path = "../tests/harness/mod.rs"]
mod harness;

use harness::World;
use harness::client::Client;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::time::interval_at;

/// Number of users; each changes status once a second.
const USERS: usize = 1000;
/// Number of observers of each user's status.
const WATCHING: usize = 4;
const SECONDS: usize = 10;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(measure());
}

async fn measure() {
    let world = World::start(1, true, &[("GATEWAY_MAX_CONNECTIONS_PER_IP", "0")]).await;
    let first = world.pocketbase.user("first").await;
    let users = world.pocketbase.copies(&first, USERS).await;
    let mut watching = Vec::new();
    for some in users.chunks(250) {
        for watcher in &some[..WATCHING] {
            let mut client = Client::connect(world.gateway(), &watcher.token).await;
            let ask = |(id, user): (u32, &harness::pocketbase::User)| {
                json!({"id": id, "subscribe": {"channel": format!("status:{}", user.id)}}).to_string()
            };
            let frame: Vec<String> = (10..).zip(some).map(ask).collect();
            client.send(&frame.join("\n")).await;
            client.reply(9 + some.len() as u32).await;
            watching.push(tokio::spawn(async move { while client.text().await.is_ok() {} }));
        }
    }
    // The users connect at once, since token keys are fetched in batches.
    let connecting = users.iter().map(|user| Client::connect(world.gateway(), &user.token));
    let clients = futures_util::future::join_all(connecting).await;
    let start = tokio::time::Instant::now() + Duration::from_secs(1);
    let acting: Vec<_> = (0..).zip(clients).map(|(i, client)| tokio::spawn(act(client, start, i))).collect();
    tokio::time::sleep_until(start + Duration::from_secs(2)).await;
    let redis = world.redis.as_ref().expect("it was started").pid();
    let pids = [world.gateway().process.pid(), redis];
    let (before, changes) = (pids.map(cpu_seconds), world.gateway().metric("gateway_status_changes_total").await);
    let (begun, deliveries) = (Instant::now(), world.gateway().metric("gateway_deliveries_total").await);
    tokio::time::sleep(Duration::from_secs(SECONDS as u64 - 3)).await;
    let seconds = begun.elapsed().as_secs_f64();
    let changes = (world.gateway().metric("gateway_status_changes_total").await - changes) / seconds;
    let deliveries = (world.gateway().metric("gateway_deliveries_total").await - deliveries) / seconds;
    let spent = pids.map(cpu_seconds);
    println!("{changes:.0} changes and {deliveries:.0} deliveries per second; in cores:");
    println!("gateway {:.3}, Redis {:.3}", (spent[0] - before[0]) / seconds, (spent[1] - before[1]) / seconds);
    for acting in acting {
        acting.await.expect("every change is answered");
    }
    watching.iter().for_each(tokio::task::JoinHandle::abort);
}

/// Changes the user's mode once a second. The users' changes are spread over the second.
async fn act(mut client: Client, start: tokio::time::Instant, i: u32) {
    let mut pace = interval_at(start + Duration::from_secs(1) * i / USERS as u32, Duration::from_secs(1));
    for round in 0..SECONDS + 2 {
        pace.tick().await;
        let status = if round % 2 == 0 { "dnd" } else { "online" };
        client.call("rpc", json!({"method": "status.set", "data": {"status": status}})).await;
    }
}

/// User and system time of a process so far, in seconds. The kernel counts in ticks of 10 ms.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: f64 = fields[11..13].iter().map(|ticks| ticks.parse::<f64>().expect("a number")).sum();
    ticks / 100.0
}
