//! One run: load, faults, a calm end, and the comparison with PocketBase's tables.

use super::checker::{Checker, Findings};
use super::clients::Client;
use super::level;
use super::report::Report;
use super::storm::Storm;
use super::subscription::{Shared, Subscription};
use super::topology::{HISTORY, Topology, lock};
use super::truth::{self, Truths};
use super::visits::Visits;
use super::writers::{Answers, Writer};
use crate::harness::proxy::Weather;
use crate::harness::rng::Rng;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::RwLock;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

const CLIENTS: usize = 90;
const ROOMS: usize = 6;
const USERS: usize = 10;
const WRITERS: u64 = 3;
/// Time to wait for duplicates, which come with the next read of the outbox, every three seconds.
const AFTERGLOW: Duration = Duration::from_secs(4);
const PROGRESS: Duration = Duration::from_secs(10);

/// Runs for about `lasts`, prints the table and returns the report.
pub async fn run(seed: u64, clustered: bool, lasts: Duration) -> Report {
    let cluster = if clustered { " FAULTS_CLUSTER=1" } else { "" };
    println!("FAULTS_SEED={seed}{cluster}: {} s of faults", lasts.as_secs());
    let began = Instant::now();
    let logs = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("faults-{seed}"));
    let _ = std::fs::remove_dir_all(&logs);
    let topology = Arc::new(Topology::start(ROOMS, USERS, clustered, &logs).await);
    let world = Arc::clone(&topology.world);
    let root = Rng::new(seed);

    let (settle, stop) = (CancellationToken::new(), CancellationToken::new());
    let clients: Vec<Shared> =
        (0..CLIENTS).map(|number| Client::start(number, &world, root.fork(1_000 + number as u64), &settle)).collect();
    let answers = Arc::new(Mutex::new(Answers::default()));
    let gate = Arc::new(RwLock::new(()));
    let writer = |number: u64| Writer::new(number as usize, &world, root.fork(100 + number), &answers);
    let writers: Vec<_> =
        (0..WRITERS).map(|number| writer(number).run(Arc::clone(&gate), stop.clone())).map(tokio::spawn).collect();
    let visits = Visits::prepare(&topology, CLIENTS, &root, &settle).await;
    let visitors = visits.clients();
    let visits = tokio::spawn(visits.run(Arc::clone(&gate), stop.clone()));
    let watch = tokio::spawn(watch(Arc::clone(&topology), began));

    let everybody: Vec<Shared> = clients.iter().chain(&visitors).cloned().collect();
    let mut storm = Storm::new(&topology, &everybody, &gate, root.fork(1));
    storm.rage(lasts).await;
    let Storm { injected, mut truths, .. } = storm;

    println!("[{:>4} s] healed; settling", began.elapsed().as_secs());
    for link in topology.links.all() {
        link.set(Weather::Clear);
    }
    stop.cancel();
    settle.cancel();
    for writer in writers {
        writer.await.expect("a writer does not panic");
    }
    visits.await.expect("visits do not panic");
    level::at_the_end(&topology, &everybody, &mut truths).await;
    watch.abort();
    sleep(AFTERGLOW).await;
    finish(&topology).await;

    let mut findings = Findings::default();
    {
        let epochs = lock(&world.epochs);
        let checker = Checker { history_size: HISTORY, epochs: &epochs };
        for client in &clients {
            for subscription in lock(client).iter() {
                checker.check(&subscription.log, &truths.channels[&subscription.log.channel], &mut findings);
            }
        }
        for visitor in &visitors {
            for subscription in lock(visitor).iter() {
                let (log, truth) = (&subscription.log, &truths.channels[&subscription.log.channel]);
                checker.check_visitor(log, truth, &ends_of_visits(subscription, &truths), &mut findings);
            }
        }
    }
    let answers = std::mem::take(&mut *lock(&answers));
    let messages = truth::compare_tables(&topology, &answers, &truths).await;
    let events = truths.channels.values().map(|truth| truth.len() as u64).sum();
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

/// Beginning of each visit in the log, and sequence number of its end.
fn ends_of_visits(subscription: &Subscription, truths: &Truths) -> Vec<(usize, Option<u64>)> {
    let end = |id: &String| truths.removals.get(&(id.clone(), Arc::clone(&subscription.log.channel))).copied();
    subscription.visits.iter().map(|visit| (visit.begin, end(&visit.membership))).collect()
}

/// Checks that no process ends unexpectedly, and prints the progress.
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

/// Final check of the servers' processes and metrics.
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
