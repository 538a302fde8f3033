//! What updates channels cost a team tool: users whose boards are visible through their workspace's memberships.
//!
//! `cargo bench --bench updates` prints the table of `benches/README.md`; `-- --users 200 --boards 1000` sets the size of
//! the second and third part. It measures; the tests assert.

#[path = "../tests/harness/mod.rs"]
mod harness;

use harness::client::Client;
use harness::pocketbase::{PocketBase, User};
use harness::{World, gateway::Gateway, process::free_port};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

const CHANNEL: &str = "board-updates";
const SIZES: [usize; 4] = [500, 2000, 4000, 8000];
const ROUNDS: usize = 5;

fn main() {
    let option = |name: &str, default: usize| {
        let mut arguments = std::env::args().skip_while(|argument| argument != name).skip(1);
        arguments.next().map_or(default, |value| value.parse().expect("a whole number"))
    };
    let (users, boards) = (option("--users", 200), option("--boards", 1000));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        one_user().await;
        all_at_once(users, boards).await;
    });
}

async fn start() -> World {
    let port = free_port();
    let application = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kanban/pocketbase");
    let pocketbase = PocketBase::start_application(application, &format!("http://127.0.0.1:{port}")).await;
    let settings = [("GATEWAY_MAX_CONNECTIONS_PER_IP", "0")];
    let gateways = vec![Gateway::start(port, &pocketbase.url, &settings).await];
    World { gateways, pocketbase, redis: None }
}

/// A workspace with boards of these numbers.
async fn workspace(world: &World, from: usize, to: usize) -> String {
    let team = world.pocketbase.as_superuser("POST", "collections/workspaces/records", &json!({"name": "team"})).await;
    let id = team["id"].as_str().expect("an id").to_owned();
    fill(world, &id, from, to).await;
    id
}

async fn fill(world: &World, workspace: &str, from: usize, to: usize) {
    let body = json!({"workspace": workspace, "from": from, "to": to});
    world.pocketbase.own_route("/kanban/boards", &body).await;
}

async fn join(world: &World, workspace: &str, user: &User) {
    let body = json!({"workspace": workspace, "member": user.id, "role": "editor"});
    world.pocketbase.as_superuser("POST", "collections/memberships/records", &body).await;
}

/// Milliseconds that a subscribe takes, with as many attempts as the client needs.
async fn subscribe(mut client: Client) -> (f64, usize, Client) {
    let (begun, mut attempts) = (Instant::now(), 0);
    loop {
        attempts += 1;
        let reply = client.call("subscribe", json!({"channel": CHANNEL})).await;
        if reply["error"] == Value::Null {
            return (milliseconds(begun), attempts, client);
        }
        assert_eq!(reply["error"]["code"], 100, "{reply}");
    }
}

fn milliseconds(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1000.0
}

async fn one_user() {
    let world = start().await;
    let user = world.pocketbase.account("members", "ben").await;
    let team = workspace(&world, 0, 0).await;
    join(&world, &team, &user).await;
    let mut filled = 0;
    for size in SIZES {
        fill(&world, &team, filled, size).await;
        filled = size;
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let client = Client::connect(world.gateway(), &user.token).await;
            let (time, _, client) = subscribe(client).await;
            times.push(time);
            client.cut();
            harness::until("an empty channel", async || {
                (world.gateway().metric("gateway_subscriptions").await == 0.0).then_some(())
            })
            .await;
        }
        times.sort_by(f64::total_cmp);
        println!("a user with {size} boards: subscribed in {:.0} ms (median of {ROUNDS})", times[ROUNDS / 2]);
    }
}

async fn all_at_once(count: usize, boards: usize) {
    let world = start().await;
    let team = workspace(&world, 0, boards).await;
    let other = workspace(&world, boards, boards + 1).await;
    let mut users = Vec::new();
    for n in 0..count {
        let user = world.pocketbase.account("members", &format!("user{n}")).await;
        join(&world, &team, &user).await;
        users.push(user);
    }
    let mut clients = Vec::new();
    for user in &users {
        clients.push(Client::connect(world.gateway(), &user.token).await);
    }
    let begun = Instant::now();
    let all = futures_util::future::join_all(clients.into_iter().map(|client| tokio::spawn(subscribe(client)))).await;
    let took = milliseconds(begun);
    let mut attempts = 0;
    let mut clients: Vec<Client> = Vec::new();
    for joined in all {
        let (_, more, client) = joined.expect("a subscribe");
        attempts += more;
        clients.push(client);
    }
    println!("{count} users with {boards} boards each at once: all subscribed in {took:.0} ms, {attempts} attempts");

    // Each of some users becomes a member of another workspace with one board.
    let mut times = Vec::new();
    for (user, client) in users.iter().zip(&mut clients).take(20) {
        let begun = Instant::now();
        join(&world, &other, user).await;
        let data = client.publication().await["data"].take();
        assert_eq!(data["action"], "join", "{data}");
        times.push(milliseconds(begun));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    times.sort_by(f64::total_cmp);
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    println!("then a new membership: told {median:.0} ms after the write began (median of 20), at most {worst:.0} ms");
}
