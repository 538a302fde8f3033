//! A run at a fixed rate: published messages, received messages and cost.

use crate::publish::{Lane, MESSAGE, publish};
use crate::report::short;
use crate::swarm::Swarm;
use crate::tally::{Plan, Summary};
use crate::target::Cores;
use crate::usage::{Snapshot, Usage, Watched};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Latency limit in milliseconds: a server copes with a rate if the 99th percentile is below the limit.
const P99_MAX: f64 = 100.0;
/// Minimum share of a rate that a server must achieve to cope with the rate.
const ACHIEVED_MIN: f64 = 0.97;
/// CPU use of unrelated processes, in cores; above the limit a run counts as disturbed.
const DISTURBED: f64 = 0.5;
/// Number of publishers that share the plan's messages.
const PUBLISHERS: u32 = 4;

/// The load of a run.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Messages per second, over all rooms.
    pub rate: f64,
    pub seconds: f64,
    pub rooms: u32,
}

pub struct Outcome {
    pub load: Load,
    /// Messages per second.
    pub achieved: f64,
    pub summary: Summary,
    pub failed: usize,
    pub closed: usize,
    pub trouble: Option<String>,
    pub usage: Usage,
    /// Milliseconds of the publish calls: p50, p99.
    pub calls: [f64; 2],
}

/// Measures a run, with up to `repeats` repetitions while disturbed.
pub fn measure(swarm: &Swarm, lanes: &mut [Box<dyn Lane>], watched: &Watched, load: Load, repeats: usize) -> Outcome {
    let mut outcome = once(swarm, lanes, watched, load);
    for _ in 0..repeats {
        if !outcome.is_disturbed() {
            break;
        }
        std::thread::sleep(Duration::from_secs(2));
        swarm.calm_down();
        outcome = once(swarm, lanes, watched, load);
    }
    outcome
}

/// Publishes a few unmeasured messages, since the first messages find cold caches and growing buffers.
pub fn warm_up(swarm: &Swarm, lanes: &mut [Box<dyn Lane>], rooms: u32) {
    let rate = (20_000.0 * f64::from(rooms) / swarm.size() as f64).max(5.0);
    once(swarm, lanes, &Watched::default(), Load { rate, seconds: 1.0, rooms });
}

/// Number of the next run.
pub fn next_run() -> u32 {
    static RUN: AtomicU32 = AtomicU32::new(1);
    RUN.fetch_add(1, Ordering::Relaxed)
}

pub fn plan(messages: u32, rooms: u32) -> Plan {
    Plan { run: next_run(), rooms, publishers: PUBLISHERS, messages }
}

fn once(swarm: &Swarm, lanes: &mut [Box<dyn Lane>], watched: &Watched, load: Load) -> Outcome {
    let plan = plan((load.rate * load.seconds).round().max(1.0) as u32, load.rooms);
    swarm.begin(plan);
    let (closed, before) = (swarm.closed(), Snapshot::of(watched));
    let published = publish(plan, load.rate, MESSAGE, lanes);
    let audience = swarm.size() as f64 / f64::from(load.rooms);
    swarm.drain((published.count as f64 * audience) as u64);
    let usage = before.until_now(watched);
    let summary = swarm.finish(published.sent);
    let calls = [0.5, 0.99].map(|at| published.calls.value_at_quantile(at) as f64 / 1e3);
    Outcome {
        load,
        achieved: load.rate * published.count as f64 / f64::from(plan.messages),
        summary,
        failed: published.failed,
        closed: swarm.closed() - closed,
        trouble: published.failure.or_else(|| swarm.trouble()),
        usage,
        calls,
    }
}

impl Outcome {
    /// Latency at `quantile`, in milliseconds.
    pub fn latency(&self, quantile: f64) -> f64 {
        self.summary.latencies.value_at_quantile(quantile) as f64 / 1e3
    }

    pub fn copes(&self) -> bool {
        self.summary.is_clean()
            && self.failed + self.closed == 0
            && self.latency(0.99) < P99_MAX
            && self.achieved >= ACHIEVED_MIN * self.load.rate
    }

    pub fn is_disturbed(&self) -> bool {
        self.usage.others > DISTURBED * self.usage.seconds
    }

    /// Seconds of CPU per million deliveries.
    pub fn per_million(&self, seconds: f64) -> f64 {
        seconds * 1e6 / self.summary.delivered.max(1) as f64
    }

    /// Cores used by the server, its companion processes, the client, and the rest of the machine.
    pub fn cores(&self) -> [f64; 4] {
        let Usage { seconds, server, beside, client, others } = self.usage;
        [server.total(), beside.total(), client.total(), others].map(|used| used / seconds)
    }

    /// The bottleneck at an excessive rate.
    pub fn limit(&self, cores: &Cores) -> &'static str {
        let [server, _, client, _] = self.cores();
        let busy = |used: f64, cores: &[usize]| used > 0.85 * cores.len() as f64;
        match (busy(server, &cores.server), busy(client, &cores.client)) {
            _ if self.is_disturbed() => "the machine: others ran",
            (true, true) => "both sides' CPU",
            (true, false) => "server CPU",
            (false, true) => "client CPU",
            (false, false) => "not CPU",
        }
    }

    /// A line of progress for the user.
    pub fn line(&self) -> String {
        let Summary { lost, doubled, reordered, stray, .. } = self.summary;
        let [server, _, client, others] = self.cores();
        let mut line = format!(
            "{:>7}/s {}, achieved {}, p50 {} p99 {} ms, CPU s/M server {} client {}, \
             cores {server:.2} {client:.2}, others {others:.2}",
            short(self.load.rate),
            if self.copes() { "copes" } else { "is too much" },
            short(self.achieved),
            short(self.latency(0.5)),
            short(self.latency(0.99)),
            short(self.per_million(self.usage.server.total())),
            short(self.per_million(self.usage.client.total())),
        );
        if !self.summary.is_clean() {
            line += &format!(", lost {lost}, doubled {doubled}, reordered {reordered}, stray {stray}");
        }
        if let Some(trouble) = &self.trouble {
            line += &format!(", {} failed, {} closed: {trouble}", self.failed, self.closed);
        }
        line
    }

    pub fn json(&self) -> Value {
        let Summary { delivered, lost, doubled, reordered, stray, .. } = self.summary;
        let [server, beside, client, others] = self.cores();
        json!({
            "rate": self.load.rate, "achieved": self.achieved, "seconds": self.usage.seconds, "rooms": self.load.rooms,
            "copes": self.copes(), "disturbed": self.is_disturbed(), "trouble": self.trouble,
            "delivered": delivered, "lost": lost, "doubled": doubled, "reordered": reordered, "stray": stray,
            "failed": self.failed, "closed": self.closed,
            "p50_ms": self.latency(0.5), "p90_ms": self.latency(0.9), "p99_ms": self.latency(0.99),
            "p999_ms": self.latency(0.999), "max_ms": self.latency(1.0),
            "publish_p50_ms": self.calls[0], "publish_p99_ms": self.calls[1],
            "server_user_s": self.usage.server.user, "server_system_s": self.usage.server.system,
            "server_s_per_million": self.per_million(self.usage.server.total()),
            "client_s_per_million": self.per_million(self.usage.client.total()),
            "server_cores": server, "beside_cores": beside, "client_cores": client, "other_cores": others,
        })
    }
}
