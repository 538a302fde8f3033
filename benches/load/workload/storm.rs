//! A reconnect storm: every client is dropped at once and comes back, while a few messages are published.

use super::connect;
use crate::mark::now;
use crate::options::Options;
use crate::publish::{MESSAGE, publish};
use crate::report::{Log, Table, median, ratio, short, spread};
use crate::step::{plan, warm_up};
use crate::target::{Audience, Source, Target};
use crate::usage::Snapshot;
use serde_json::json;

/// Number of messages published while clients are away or coming back, and their rate per second.
const MESSAGES: u32 = 5;
const RATE: f64 = 25.0;

/// Measurements of one storm.
struct Storm {
    /// Seconds until every client was subscribed for the first time, with cold caches, and the calls to PocketBase.
    first_seconds: f64,
    first_calls: Option<f64>,
    /// Seconds from the drop until the last client was subscribed again.
    seconds: f64,
    /// Milliseconds of one client's set-up.
    p50: f64,
    p99: f64,
    /// Microseconds of CPU per client: of the server, including the messages' delivery, and of PocketBase beside it.
    cpu: f64,
    beside: f64,
    cores: f64,
    client_cores: f64,
    others: f64,
    failed: usize,
    recovered: usize,
    unrecovered: usize,
    /// Messages that clients with recovery lost, got twice or got in another order.
    wrong: u64,
    calls: Option<f64>,
}

pub fn run(options: &Options, log: &mut Log) {
    let mut all: Vec<Vec<Storm>> = options.targets.iter().map(|_| Vec::new()).collect();
    for round in 0..options.runs {
        for (target, storms) in options.targets.iter().zip(&mut all) {
            eprintln!("storm {}, round {}: {}", options.storm, round + 1, target.label());
            let Some(storm) = once(options, target) else { continue };
            let seconds = short(storm.seconds);
            eprintln!(
                "  {seconds} s, {} µs per client, {} recovered, {} wrong",
                short(storm.cpu),
                storm.recovered,
                storm.wrong
            );
            let run = json!({
                "first_seconds": storm.first_seconds, "first_pocketbase_calls": storm.first_calls,
                "seconds": storm.seconds, "p50_ms": storm.p50, "p99_ms": storm.p99, "server_us_per_client": storm.cpu,
                "beside_us_per_client": storm.beside, "server_cores": storm.cores, "client_cores": storm.client_cores,
                "other_cores": storm.others, "failed": storm.failed, "recovered": storm.recovered,
                "unrecovered": storm.unrecovered, "wrong": storm.wrong, "pocketbase_calls": storm.calls,
            });
            log.write("storm", &target.label(), options.storm, round, run);
            storms.push(storm);
        }
    }
    print(options, &all);
}

fn once(options: &Options, target: &Target) -> Option<Storm> {
    let audience = Audience { clients: options.storm, rooms: 1 };
    let mut server = target.start(audience, Source::Direct, &options.cores);
    let calls = || server.calls.as_ref().map(|calls| calls());
    let (calls_before, begun) = (calls(), now());
    let (swarm, set_ups) = connect(&server, options)?;
    let first_seconds = (set_ups.finished - begun) as f64 / 1e9;
    let first_calls = calls().zip(calls_before).map(|(after, before)| after - before);
    warm_up(&swarm, &mut server.lanes, 1);
    let plan = plan(MESSAGES, 1);
    swarm.begin(plan);
    let calls = || server.calls.as_ref().map(|calls| calls());
    let calls_before = calls();
    let (before, dropped) = (Snapshot::of(&server.watched), now());
    swarm.close();
    let (set_ups, published) = std::thread::scope(|scope| {
        let lanes = &mut server.lanes;
        let publishing = scope.spawn(move || publish(plan, RATE, MESSAGE, lanes));
        let set_ups = swarm.connect(options.in_flight);
        (set_ups, publishing.join().expect("it ends"))
    });
    if target.recovers() {
        swarm.drain(published.count as u64 * options.storm as u64);
    }
    let usage = before.until_now(&server.watched);
    let summary = swarm.finish(published.sent);
    let wrong = summary.doubled + summary.reordered + if target.recovers() { summary.lost } else { 0 };
    if let Some(trouble) = swarm.trouble().or(published.failure) {
        eprintln!("  {trouble}");
    }
    let per_client = |seconds: f64| seconds * 1e6 / options.storm as f64;
    Some(Storm {
        first_seconds,
        first_calls,
        seconds: (set_ups.finished - dropped) as f64 / 1e9,
        p50: set_ups.times.value_at_quantile(0.5) as f64 / 1e3,
        p99: set_ups.times.value_at_quantile(0.99) as f64 / 1e3,
        cpu: per_client(usage.server.total()),
        beside: per_client(usage.beside.total()),
        cores: usage.server.total() / usage.seconds,
        client_cores: usage.client.total() / usage.seconds,
        others: usage.others / usage.seconds,
        failed: set_ups.failed,
        recovered: set_ups.recovered,
        unrecovered: set_ups.unrecovered,
        wrong,
        calls: calls().zip(calls_before).map(|(after, before)| after - before),
    })
}

fn print(options: &Options, all: &[Vec<Storm>]) {
    let heads = [
        "server",
        "all subscribed after s",
        "p50 ms per client",
        "p99 ms",
        "server CPU µs per client",
        "to raw",
        "server cores",
        "client cores",
        "others",
        "failed",
        "recovered",
        "not recovered",
        "lost, doubled, reordered",
        "calls of PocketBase",
        "its CPU µs per client",
        "the very first time: s",
        "calls of PocketBase",
    ];
    let mut table = Table::new(&heads);
    let each = |storms: &[Storm], of: &dyn Fn(&Storm) -> f64| storms.iter().map(of).collect::<Vec<f64>>();
    let raw = options.targets.iter().zip(all).find(|(target, _)| target.label() == "raw");
    let raw = raw.map(|(_, storms)| median(&each(storms, &|one| one.cpu)));
    for (target, storms) in options.targets.iter().zip(all).filter(|(_, storms)| !storms.is_empty()) {
        let all = |of: &dyn Fn(&Storm) -> f64| spread(&each(storms, of));
        let only = |of: &dyn Fn(&Storm) -> f64, here: bool| if here { all(of) } else { "–".to_owned() };
        let recovers = target.recovers();
        table.row(vec![
            target.label(),
            all(&|one| one.seconds),
            all(&|one| one.p50),
            all(&|one| one.p99),
            all(&|one| one.cpu),
            ratio(median(&each(storms, &|one| one.cpu)), raw),
            all(&|one| one.cores),
            all(&|one| one.client_cores),
            all(&|one| one.others),
            all(&|one| one.failed as f64),
            only(&|one| one.recovered as f64, recovers),
            only(&|one| one.unrecovered as f64, recovers),
            only(&|one| one.wrong as f64, recovers),
            only(&|one| one.calls.unwrap_or(f64::NAN), recovers),
            only(&|one| one.beside, recovers),
            all(&|one| one.first_seconds),
            only(&|one| one.first_calls.unwrap_or(f64::NAN), recovers),
        ]);
    }
    table.print(&format!("storm: {} dropped at once, {} set-ups in flight", options.storm, options.in_flight));
}
