//! Raises the rate until a server no longer copes, for any number and size of rooms.

use super::connect;
use crate::options::Options;
use crate::report::{Log, Table, median, ratio, short, spread};
use crate::step::{Load, Outcome, measure, warm_up};
use crate::target::{Audience, Source};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// Factor from one rate to the next.
const STEP: f64 = std::f64::consts::SQRT_2;
/// Range of the tried rates, as a factor of the first.
const RANGE: RangeInclusive<f64> = 1.0 / 64.0..=64.0;

/// Description of a workload, apart from the server.
#[derive(Clone, Copy)]
pub struct Course {
    pub name: &'static str,
    pub audience: Audience,
    /// The rate that is tried first, and at which CPU is compared, in messages per second.
    pub first: f64,
    /// True to look for the highest rate, false to measure only the first.
    pub climb: bool,
}

/// The rounds of one target.
pub struct Measured {
    pub label: String,
    /// Outcomes by rate, in thousandths of a message per second.
    rates: BTreeMap<u64, Vec<Outcome>>,
}

fn key(rate: f64) -> u64 {
    (rate * 1000.0).round() as u64
}

pub fn each(runs: &[Outcome], of: impl Fn(&Outcome) -> f64) -> Vec<f64> {
    runs.iter().map(of).collect()
}

pub fn server_cpu(run: &Outcome) -> f64 {
    run.per_million(run.usage.server.total())
}

pub fn copes(runs: &[Outcome]) -> String {
    format!("{}/{}", runs.iter().filter(|run| run.copes()).count(), runs.len())
}

impl Measured {
    /// Outcomes of the highest rate with which the server coped in most rounds.
    fn capacity(&self) -> Option<&[Outcome]> {
        let rounds = self.rates.values().map(Vec::len).max().unwrap_or(0);
        let most = |runs: &&Vec<Outcome>| runs.iter().filter(|run| run.copes()).count() * 2 > rounds;
        self.rates.values().rfind(most).map(Vec::as_slice)
    }

    fn capacity_rate(&self) -> f64 {
        self.capacity().map_or(0.0, |runs| runs[0].load.rate)
    }

    pub fn at(&self, rate: f64) -> Option<&[Outcome]> {
        self.rates.get(&key(rate)).map(Vec::as_slice)
    }

    pub fn cpu_at(&self, rate: f64) -> Option<f64> {
        self.at(rate).map(|runs| median(&each(runs, server_cpu)))
    }
}

/// Measures the targets in turn, once in every round.
pub fn run(options: &Options, log: &mut Log, course: Course) -> Vec<Measured> {
    let measured = |label| Measured { label, rates: BTreeMap::new() };
    let mut all: Vec<Measured> = options.targets.iter().map(|target| measured(target.label())).collect();
    let Course { name, audience, first, climb } = course;
    for round in 0..options.runs {
        for (target, Measured { label, rates }) in options.targets.iter().zip(&mut all) {
            eprintln!("{name} {}, round {}: {label}", audience.clients, round + 1);
            let mut server = target.start(audience, Source::Direct, &options.cores);
            let Some((swarm, _)) = connect(&server, options) else { continue };
            warm_up(&swarm, &mut server.lanes, audience.rooms);
            let mut try_rate = |rate: f64| {
                // Long enough for at least four messages.
                let load = Load { rate, seconds: options.seconds.max(4.0 / rate), rooms: audience.rooms };
                let outcome = measure(&swarm, &mut server.lanes, &server.watched, load, options.repeats);
                eprintln!("  {}", outcome.line());
                log.write(name, label, audience.clients, round, outcome.json());
                let copes = outcome.copes();
                if !copes {
                    swarm.calm_down();
                    // Reconnects clients disconnected by the server.
                    swarm.connect(options.in_flight);
                }
                rates.entry(key(rate)).or_default().push(outcome);
                copes
            };
            match &options.rates {
                Some(rates) if climb => rates.iter().for_each(|&rate| {
                    try_rate(rate);
                }),
                None if climb => self::climb(first, &mut try_rate),
                _ => {
                    try_rate(first);
                }
            }
        }
    }
    all
}

/// Climbs until two rates in a row are too high; goes down if the first rate is too high.
fn climb(first: f64, copes: &mut impl FnMut(f64) -> bool) {
    let mut rate = first;
    if !copes(first) {
        while RANGE.contains(&(rate / STEP / first)) {
            rate /= STEP;
            if copes(rate) {
                break;
            }
        }
        return;
    }
    let mut failed = 0;
    while failed < 2 && RANGE.contains(&(rate * STEP / first)) {
        rate *= STEP;
        failed = if copes(rate) { 0 } else { failed + 1 };
    }
}

/// Prints the capacity of each server, and a comparison.
pub fn print_capacity(options: &Options, title: &str, all: &[Measured], first: f64) {
    let cpu_there = format!("CPU s/M at {}/s", short(first));
    let heads = [
        "server",
        "capacity msg/s",
        "to nchan",
        "to raw",
        "deliveries/s",
        "CPU s/M",
        "user + system",
        "p50 ms",
        "p99 ms",
        "server cores",
        "client cores",
        "limit of the next rate",
        &cpu_there,
        "to raw",
    ];
    let mut table = Table::new(&heads);
    let [nchan, raw] = ["nchan", "raw"].map(|name| all.iter().find(|one| one.label == name));
    for one in all {
        let Some(runs) = one.capacity().or_else(|| Some(one.rates.values().next()?.as_slice())) else { continue };
        let rate = one.capacity_rate();
        let next = one.rates.values().find(|runs| runs[0].load.rate > rate);
        let limit = next.map_or("not reached", |runs| runs[0].limit(&options.cores));
        let at = |cell: fn(&Outcome) -> f64| spread(&each(runs, cell));
        let [user, system] = [
            each(runs, |run| run.per_million(run.usage.server.user)),
            each(runs, |run| run.per_million(run.usage.server.system)),
        ];
        table.row(vec![
            one.label.clone(),
            format!("{}{}", short(rate), if runs.iter().any(Outcome::is_disturbed) { " *" } else { "" }),
            ratio(rate, nchan.map(Measured::capacity_rate)),
            ratio(rate, raw.map(Measured::capacity_rate)),
            at(|run| run.summary.delivered as f64 / run.usage.seconds),
            at(server_cpu),
            format!("{} + {}", short(median(&user)), short(median(&system))),
            at(|run| run.latency(0.5)),
            at(|run| run.latency(0.99)),
            at(|run| run.cores()[0]),
            at(|run| run.cores()[2]),
            limit.to_owned(),
            one.cpu_at(first).map_or_else(|| "–".to_owned(), short),
            ratio(one.cpu_at(first).unwrap_or(f64::NAN), raw.and_then(|raw| raw.cpu_at(first))),
        ]);
    }
    table.print(title);
    if all.iter().flat_map(|one| one.rates.values().flatten()).any(Outcome::is_disturbed) {
        println!("\n\\* something else took more than half a core");
    }
}

/// Prints every measured rate.
pub fn print_rates(title: &str, all: &[Measured]) {
    let heads = [
        "server",
        "msg/s",
        "achieved",
        "copes",
        "p50 ms",
        "p90",
        "p99",
        "p99.9",
        "max",
        "lost/doubled/reordered/failed",
        "publish p50/p99 ms",
        "server CPU s/M",
        "client CPU s/M",
        "server cores",
        "client cores",
        "PocketBase",
        "others",
    ];
    let mut table = Table::new(&heads);
    for Measured { label, rates } in all {
        for runs in rates.values() {
            let at = |cell: &dyn Fn(&Outcome) -> f64| short(median(&each(runs, cell)));
            let wrong = |of: fn(&Outcome) -> u64| runs.iter().map(of).sum::<u64>();
            table.row(vec![
                label.clone(),
                short(runs[0].load.rate),
                at(&|run| run.achieved),
                copes(runs),
                at(&|run| run.latency(0.5)),
                at(&|run| run.latency(0.9)),
                spread(&each(runs, |run| run.latency(0.99))),
                at(&|run| run.latency(0.999)),
                at(&|run| run.latency(1.0)),
                format!(
                    "{}/{}/{}/{}",
                    wrong(|run| run.summary.lost),
                    wrong(|run| run.summary.doubled),
                    wrong(|run| run.summary.reordered + run.summary.stray),
                    wrong(|run| (run.failed + run.closed) as u64)
                ),
                format!("{}/{}", at(&|run| run.calls[0]), at(&|run| run.calls[1])),
                spread(&each(runs, server_cpu)),
                at(&|run| run.per_million(run.usage.client.total())),
                at(&|run| run.cores()[0]),
                at(&|run| run.cores()[2]),
                at(&|run| run.cores()[1]),
                at(&|run| run.cores()[3]),
            ]);
        }
    }
    table.print(title);
}
