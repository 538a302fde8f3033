//! The report of a run.

use super::checker::Findings;
use super::fault::Kind;
use super::topology::{Counts, lock};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[derive(Default)]
pub struct Report {
    pub seed: u64,
    pub lasted: Duration,
    pub clients: usize,
    pub rooms: usize,
    pub events: u64,
    pub messages: u64,
    pub injected: Injected,
    pub findings: Findings,
    pub violations: Vec<String>,
}

#[derive(Default)]
pub struct Injected {
    pub faults: BTreeMap<Kind, u64>,
    /// Number of rounds with more than one fault.
    pub together: u64,
    /// Number of times that the clients had to catch up between faults.
    pub levels: u64,
}

impl Report {
    pub fn passed(&self) -> bool {
        self.findings.bad() == 0 && self.violations.is_empty()
    }

    fn fault_count(&self) -> u64 {
        self.injected.faults.values().sum()
    }

    /// Prints the findings in words, then the counts as Markdown tables.
    pub fn print(&self, counts: &Counts) {
        for detail in &self.findings.details {
            println!("seed {}: {detail}", self.seed);
        }
        for violation in &self.violations {
            println!("seed {}: {violation}", self.seed);
        }
        println!("\n{}", self.markdown(counts));
    }

    fn markdown(&self, counts: &Counts) -> String {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let found = &self.findings;
        let minutes = self.lasted.as_secs_f64() / 60.0;
        let mut out = String::new();
        let verdict = if self.passed() { "passed" } else { "FAILED" };
        let _ =
            writeln!(out, "### Seed {}: {verdict}, {minutes:.1} minutes, {} faults\n", self.seed, self.fault_count());
        let _ = writeln!(out, "| result | |\n|---|---|");
        let closes: Vec<String> = lock(&counts.closes).iter().map(|(code, count)| format!("{code}: {count}")).collect();
        let rows: [(&str, String); 20] = [
            ("clients, rooms", format!("{}, {}", self.clients, self.rooms)),
            ("events in PocketBase's outbox (messages that remain)", format!("{} ({})", self.events, self.messages)),
            (
                "requests to PocketBase (without an answer)",
                format!("{} ({})", get(&counts.writes), get(&counts.unanswered)),
            ),
            ("batches (rolled back)", format!("{} ({})", get(&counts.batches), get(&counts.rolled_back))),
            ("deliveries", get(&counts.deliveries).to_string()),
            ("connections", get(&counts.connects).to_string()),
            ("ends of connections, by code (0: silent, 1006: torn)", closes.join(", ")),
            ("temporary errors (100)", get(&counts.refusals).to_string()),
            ("unsubscribes with 2500", get(&counts.insufficient).to_string()),
            (
                "recovered (interrupted before all was handed out)",
                format!("{} ({})", get(&counts.recovered), get(&counts.interrupted)),
            ),
            ("not recovered: history exceeded", found.exceeded.to_string()),
            ("not recovered: Redis lost its data", found.redis_lost.to_string()),
            ("**not recovered: unexplained**", found.unexplained.to_string()),
            ("**lost**", found.lost.to_string()),
            ("**doubled**", found.doubled.to_string()),
            ("**reordered**", found.reordered.to_string()),
            (
                "**invented; numbering; other violations**",
                format!("{}; {}; {}", found.invented, found.numbering, self.violations.len()),
            ),
            (
                "visits (ended by a move); unsubscribed; refused",
                format!(
                    "{} ({}); {}; {}",
                    get(&counts.visits),
                    get(&counts.moves),
                    get(&counts.removed),
                    get(&counts.denials)
                ),
            ),
            ("deliveries to visitors", found.to_visitors.to_string()),
            ("**delivered after revocation**", found.after_revocation.to_string()),
        ];
        for (what, value) in rows {
            let _ = writeln!(out, "| {what} | {value} |");
        }
        let _ = writeln!(out, "\n| fault | times |\n|---|---|");
        for (kind, times) in &self.injected.faults {
            let _ = writeln!(out, "| {kind} | {times} |");
        }
        let _ = writeln!(out, "| (times that several came together) | {} |", self.injected.together);
        let _ = writeln!(out, "| (pauses in which everybody had to become level) | {} |", self.injected.levels);
        out
    }
}
