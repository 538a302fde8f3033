//! Compares the clients' logs with the truth and classifies every difference.
//!
//! A client's log of a channel is a sequence of chains. A chain begins with a subscribe without a position, or with a
//! recovery answered by `recovered: false`. The client then loads the state from PocketBase; the reload covers events
//! up to some sequence number of the outbox. From there on, each event has to come once and in order, across any
//! number of disconnects, as long as the answer is `recovered: true`. A chain's events may begin before the reload,
//! since the loaded state can be ahead of the publications, but not after it. The last chain has to reach the end of
//! the truth.

use super::record::{Before, Epochs, Log, Position, Seen, Start, Truth};
use std::collections::HashSet;
use std::fmt::Write;

/// Largest number of findings described in words.
const TOLD: usize = 60;

#[derive(Default)]
pub struct Findings {
    pub lost: u64,
    pub doubled: u64,
    pub reordered: u64,
    /// Events unknown to PocketBase, or from another channel.
    pub invented: u64,
    /// Offsets with gaps, or positions that contradict each other.
    pub numbering: u64,
    /// `recovered: false` without a valid reason.
    pub unexplained: u64,
    /// `recovered: false` because the client missed more than the history keeps.
    pub exceeded: u64,
    /// `recovered: false` because Redis lost its data.
    pub redis_lost: u64,
    /// Events delivered to a user whose membership had ended before.
    pub after_revocation: u64,
    pub to_visitors: u64,
    pub chains: u64,
    pub publications: u64,
    pub details: Vec<String>,
}

impl Findings {
    pub fn bad(&self) -> u64 {
        self.lost
            + self.doubled
            + self.reordered
            + self.invented
            + self.numbering
            + self.unexplained
            + self.after_revocation
    }

    fn tell(&mut self, log: &Log, what: &str) {
        if self.details.len() < TOLD {
            self.details.push(format!("client {} {}: {what}", log.client, log.channel));
        }
    }
}

pub struct Checker<'a> {
    pub history_size: u64,
    pub epochs: &'a Epochs,
}

impl Checker<'_> {
    /// Checks the log of a user with access from the beginning of the run to the end.
    pub fn check(&self, log: &Log, truth: &Truth, findings: &mut Findings) {
        match self.follow(log, truth, findings) {
            Some(chain) => chain.end(log, truth, true, findings),
            None => {
                findings.lost += truth.len() as u64;
                findings.tell(log, "was never subscribed");
            }
        }
    }

    /// Checks a visitor's log. Each visit is its beginning in the log and, once the visit is over, the sequence
    /// number of its end. Later events may come only in a later visit. The delivered events have no gaps, and may end
    /// anywhere.
    pub fn check_visitor(&self, log: &Log, truth: &Truth, visits: &[(usize, Option<u64>)], findings: &mut Findings) {
        if let Some(chain) = self.follow(log, truth, findings) {
            chain.end(log, truth, false, findings);
        }
        for (i, seen) in log.seen.iter().enumerate() {
            let Seen::Publication { key, offset } = seen else { continue };
            findings.to_visitors += 1;
            let Some(seq) = truth.place(*key).map(|place| truth.seqs[place]) else { continue };
            let visit = visits.iter().rev().find(|(begin, _)| *begin <= i);
            // Before the first visit, no event is for the visitor.
            let end = visit.map_or(Some(0), |(_, end)| *end);
            if let Some(end) = end.filter(|end| seq > *end) {
                findings.after_revocation += 1;
                findings.tell(log, &format!("event {seq} came, as offset {offset}, after the removal, {end}"));
            }
        }
    }

    /// Follows a log and returns the last chain, which is still open.
    fn follow(&self, log: &Log, truth: &Truth, findings: &mut Findings) -> Option<Chain> {
        let mut chain: Option<Chain> = None;
        for seen in &log.seen {
            match seen {
                Seen::Start(start) => {
                    let before = chain.take();
                    if let Some(before) = &before {
                        before.end(log, truth, false, findings);
                    }
                    if let Some(Before { since, losses }) = &start.instead_of {
                        let had = before.and_then(|chain| chain.reached(truth));
                        self.explain(log, truth, start, since, *losses, had, findings);
                    }
                    findings.chains += 1;
                    chain = Some(Chain::new(start));
                }
                Seen::Recovered { since, now } => match &mut chain {
                    Some(chain) if chain.position == **since && since.epoch == now.epoch => {
                        // Position that the client stores before its application gets any publication.
                        if now.offset != since.offset {
                            findings.numbering += 1;
                            findings.tell(log, &format!("recovered from {since:?}, but the reply says {now:?}"));
                        }
                    }
                    _ => {
                        findings.numbering += 1;
                        findings.tell(log, &format!("recovered from {since:?} to {now:?}, which does not continue"));
                    }
                },
                Seen::Publication { key, offset } => {
                    findings.publications += 1;
                    match &mut chain {
                        Some(chain) => chain.add(log, truth, *key, *offset, findings),
                        None => {
                            findings.numbering += 1;
                            findings.tell(log, &format!("offset {offset} came before any subscription"));
                        }
                    }
                }
            }
        }
        chain
    }

    /// Explains a `recovered: false`. `had` is a lower bound for the number of the channel's events that the client
    /// had.
    #[allow(clippy::too_many_arguments)]
    fn explain(
        &self,
        log: &Log,
        truth: &Truth,
        start: &Start,
        since: &Position,
        losses: u32,
        had: Option<usize>,
        findings: &mut Findings,
    ) {
        let now = &start.position;
        if now.epoch != since.epoch {
            if self.epochs.began(&log.channel, &since.epoch).is_some_and(|then| then < losses) {
                findings.redis_lost += 1;
                return;
            }
        } else {
            // The reply's position can be older than the end of the history, so the check compares with the events
            // committed at the reload. The reload came later, so that no excusable answer is reported as a fault.
            let missed = now.offset.saturating_sub(since.offset);
            let committed = start.reload.seq().map_or(truth.len(), |seq| truth.up_to(seq));
            let missed_at_most = committed.saturating_sub(had.unwrap_or(0)) as u64;
            if missed > self.history_size || missed_at_most > self.history_size {
                findings.exceeded += 1;
                return;
            }
        }
        findings.unexplained += 1;
        findings.tell(log, &format!("recovered:false from {since:?} to {now:?}, {losses} losses of Redis so far"));
    }
}

struct Chain {
    position: Position,
    reload: Option<u64>,
    seen: HashSet<usize>,
    highest: Option<usize>,
}

impl Chain {
    fn new(start: &Start) -> Self {
        let (position, reload) = (start.position.clone(), start.reload.seq());
        Self { position, reload, seen: HashSet::new(), highest: None }
    }

    fn add(&mut self, log: &Log, truth: &Truth, key: u64, offset: u64, findings: &mut Findings) {
        if offset != self.position.offset + 1 {
            findings.numbering += 1;
            findings.tell(log, &format!("offset {offset} follows {} ({})", self.position.offset, self.position.epoch));
        }
        self.position.offset = offset;
        let Some(place) = truth.place(key) else {
            findings.invented += 1;
            findings.tell(log, &format!("offset {offset} is no event of this channel"));
            return;
        };
        let seq = truth.seqs[place];
        if !self.seen.insert(place) {
            findings.doubled += 1;
            findings.tell(log, &format!("event {seq} (place {place}) came twice, now as offset {offset}"));
        } else if self.highest.is_some_and(|highest| place < highest) {
            findings.reordered += 1;
            findings.tell(log, &format!("event {seq} (place {place}) came late, as offset {offset}"));
        }
        self.highest = self.highest.max(Some(place));
    }

    /// Number of the channel's events that a client of this chain has, loaded or delivered.
    fn reached(&self, truth: &Truth) -> Option<usize> {
        let loaded = self.reload.map(|seq| truth.up_to(seq));
        self.highest.map(|place| place + 1).max(loaded)
    }

    fn end(&self, log: &Log, truth: &Truth, last: bool, findings: &mut Findings) {
        let first = self.seen.iter().min().copied();
        let loaded = self.reload.map(|seq| truth.up_to(seq));
        // Without a reload, for instance at the end of the run, the first event begins the chain.
        let from = first.into_iter().chain(loaded).min().unwrap_or(if last { 0 } else { truth.len() });
        let to = if last { truth.len() } else { self.highest.map_or(0, |place| place + 1) };
        let missing: Vec<usize> = (from..to).filter(|place| !self.seen.contains(place)).collect();
        // Events before the reload were loaded. But the delivered events must have no gap, or an old event would be
        // applied to newer state.
        if missing.is_empty() {
            return;
        }
        findings.lost += missing.len() as u64;
        let mut text = String::new();
        for place in missing.iter().take(5) {
            let _ = write!(text, " {} (place {place})", truth.seqs[*place]);
        }
        let what = if last { "the last chain" } else { "a chain" };
        let reload = self.reload;
        findings.tell(log, &format!("{} lost from {what}:{text} …; reload {reload:?}, first {first:?}", missing.len()));
    }
}

#[cfg(test)]
#[path = "checker_tests.rs"]
mod tests;
