//! One run: load, faults, a calm at the end, and the comparison with PocketBase's tables.

use super::checker::{Checker, Findings};
use super::clients::{Client, Shared};
use super::fault::{Fault, kinds};
use super::proxy::Weather;
use super::record::Truth;
use super::report::{Injected, Report};
use super::rng::Rng;
use super::topology::{HISTORY, Topology, World, lock};
use super::truth;
use super::writers::{Answers, Writer};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

const CLIENTS: usize = 90;
const ROOMS: usize = 6;
const USERS: usize = 10;
const WRITERS: usize = 3;
/// For every client to be connected, subscribed and level with PocketBase once all is healed.
const SETTLING: Duration = Duration::from_secs(60);
/// Doubles come late: with the next read of the outbox, which is every three seconds.
const AFTERGLOW: Duration = Duration::from_secs(4);
const PROGRESS: Duration = Duration::from_secs(10);

/// Runs for about this long and says what it has found; prints the table.
pub async fn run(seed: u64, lasts: Duration) -> Report {
    println!("FAULTS_SEED={seed}: {} s of faults", lasts.as_secs());
    let began = Instant::now();
    let logs = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("faults-{seed}"));
    let _ = std::fs::remove_dir_all(&logs);
    let topology = Arc::new(Topology::start(ROOMS, USERS, &logs).await);
    let world = Arc::clone(&topology.world);
    let root = Rng::new(seed);

    let (settle, stop) = (CancellationToken::new(), CancellationToken::new());
    let clients: Vec<Shared> =
        (0..CLIENTS).map(|number| Client::start(number, &world, root.fork(1_000 + number as u64), &settle)).collect();
    let answers = Arc::new(Mutex::new(Answers::default()));
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| Writer::new(number, &world, root.fork(100 + number as u64), &answers).run(stop.clone()))
        .map(tokio::spawn)
        .collect();
    let watch = tokio::spawn(watch(Arc::clone(&topology), began));

    let injected = storm(&topology, root.fork(1), lasts).await;

    println!("[{:>4} s] healed; settling", began.elapsed().as_secs());
    for link in topology.links.all() {
        link.set(Weather::Clear);
    }
    stop.cancel();
    settle.cancel();
    for writer in writers {
        writer.await.expect("a writer does not panic");
    }
    let truths = settled(&topology, &clients).await;
    watch.abort();
    sleep(AFTERGLOW).await;
    finish(&topology).await;

    let mut findings = Findings::default();
    {
        let epochs = lock(&world.epochs);
        let checker = Checker { history_size: HISTORY, epochs: &epochs };
        for client in &clients {
            for subscription in lock(client).iter() {
                checker.check(&subscription.log, &truths[&subscription.log.channel], &mut findings);
            }
        }
    }
    let messages = truth::compare_tables(&topology, &lock(&answers)).await;
    let events = truths.values().map(|truth| truth.len() as u64).sum();
    let report = Report {
        seed,
        lasted: began.elapsed(),
        clients: CLIENTS,
        rooms: ROOMS,
        events,
        messages,
        injected,
        findings,
        violations: world.violations(),
    };
    report.print(&world.counts);
    println!("the servers' logs: {}", logs.display());
    report
}

/// Rounds of one to three faults at once, until the time is over. Every kind comes up before any comes up again;
/// the faults of processes come up more often than those of links.
async fn storm(topology: &Topology, mut rng: Rng, lasts: Duration) -> Injected {
    let end = Instant::now() + lasts;
    let mut deck = Vec::new();
    let mut injected = Injected::default();
    sleep(Duration::from_secs(1)).await;
    while Instant::now() < end {
        let size = [1, 1, 2, 2, 3][rng.below(5)];
        let mut round = Vec::new();
        for place in 0..size {
            if deck.is_empty() {
                deck = kinds();
                rng.shuffle(&mut deck);
            }
            let fault = Fault::draw(deck.pop().expect("it was filled"), &mut rng);
            let begins = if place == 0 { Duration::ZERO } else { rng.millis(0..2_000) };
            *injected.faults.entry(fault.kind).or_default() += 1;
            round.push(async move {
                sleep(begins).await;
                tell(&fault);
                fault.inject(topology).await;
            });
        }
        injected.together += u64::from(size > 1);
        let calm = if rng.chance(40) { rng.millis(200..4_000) } else { Duration::ZERO };
        futures_util::future::join_all(round).await;
        sleep(calm).await;
    }
    injected
}

fn tell(fault: &Fault) {
    if std::env::var_os("FAULTS_VERBOSE").is_some() {
        println!("  {} (gateway {}, {} ms)", fault.kind, fault.target, fault.lasts.as_millis());
    }
}

/// Sees to it that no process ends by itself, and says how far the run is.
async fn watch(topology: Arc<Topology>, began: Instant) {
    let mut told = Instant::now();
    loop {
        sleep(Duration::from_millis(500)).await;
        topology.check_processes();
        if told.elapsed() >= PROGRESS {
            told = Instant::now();
            println!("[{:>4} s] {}", began.elapsed().as_secs(), topology.world.progress());
        }
    }
}

/// Waits until every client has what PocketBase has, or the deadline, and returns the truth.
async fn settled(topology: &Topology, clients: &[Shared]) -> HashMap<Arc<str>, Truth> {
    let deadline = Instant::now() + SETTLING;
    for gateway in &topology.gateways {
        gateway.lock().await.ready().await;
    }
    let world = &topology.world;
    let begun = Instant::now();
    let mut truths = truth::read(world).await;
    while !whole(clients, &truths) && Instant::now() < deadline {
        sleep(Duration::from_millis(100)).await;
    }
    // Whoever is subscribed now must hear this, too.
    write_last_words(topology, world).await;
    truths = truth::read(world).await;
    while !whole(clients, &truths) && Instant::now() < deadline {
        sleep(Duration::from_millis(100)).await;
    }
    let behind = clients.iter().flat_map(|client| behind(client, &truths)).collect::<Vec<_>>();
    println!("  settled after {:.1} s; {} subscriptions are not level", begun.elapsed().as_secs_f64(), behind.len());
    for what in behind.iter().take(20) {
        println!("  {what}");
    }
    truths
}

async fn write_last_words(topology: &Topology, world: &World) {
    let pocketbase = topology.pocketbase.lock().await;
    for room in &world.rooms {
        pocketbase.write(&room.id, &world.users[0], "the last words").await;
    }
}

fn whole(clients: &[Shared], truths: &HashMap<Arc<str>, Truth>) -> bool {
    clients.iter().all(|client| behind(client, truths).is_empty())
}

fn behind(client: &Shared, truths: &HashMap<Arc<str>, Truth>) -> Vec<String> {
    let mut out = Vec::new();
    for subscription in lock(client).iter() {
        let truth = &truths[&subscription.log.channel];
        if !subscription.is_whole(truth.seqs.last().copied().unwrap_or(0), truth.last_key) {
            let (log, at) = (&subscription.log, &subscription.position);
            let state = subscription.state.name();
            out.push(format!("client {} {} is {state} at {at:?}, not level", log.client, log.channel));
        }
    }
    out
}

/// Looks a last time at what the servers say of themselves.
async fn finish(topology: &Topology) {
    topology.check_processes();
    for (number, gateway) in topology.gateways.iter().enumerate() {
        let gateway = gateway.lock().await;
        let panics = gateway.metric("gateway_session_panics_total").await;
        if panics > 0.0 {
            topology.world.violation(format!("gateway {number} counts {panics} panics"));
        }
        topology.keep_log(number, &gateway);
    }
    topology.keep_pocketbase_log(&*topology.pocketbase.lock().await);
}
