//! Compares what clients saw with the truth, and calls everything by its name.
//!
//! A client's view of a channel falls into chains. A chain begins with a subscribe that knows nothing, or with one
//! that is told `recovered: false`; then the client loads everything from PocketBase, and what it has loaded ends
//! at some number of the outbox (the reload). From there on each event has to come once and in order, across any
//! number of disconnects, as long as the client is told `recovered: true`. A chain's events may begin before the
//! reload, since what is loaded can be ahead of what is published; they must not begin behind it. The last chain
//! has to reach the truth's end.

use super::record::{Before, Epochs, Log, Position, Seen, Start, Truth};
use std::collections::HashSet;
use std::fmt::Write;

/// How many single findings are told in words.
const TOLD: usize = 60;

#[derive(Default)]
pub struct Findings {
    pub lost: u64,
    pub doubled: u64,
    pub reordered: u64,
    /// Something that PocketBase knows nothing of, or of another channel.
    pub invented: u64,
    /// Offsets that do not follow one another, or positions that do not fit together.
    pub numbering: u64,
    /// `recovered: false` for no reason that would excuse it.
    pub unexplained: u64,
    /// `recovered: false` since more was missed than history keeps.
    pub exceeded: u64,
    /// `recovered: false` since Redis lost its data.
    pub redis_lost: u64,
    /// To somebody whose membership's end is older.
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
    /// Of somebody who may see the channel from the run's beginning to its end.
    pub fn check(&self, log: &Log, truth: &Truth, findings: &mut Findings) {
        match self.follow(log, truth, findings) {
            Some(chain) => chain.end(log, truth, true, findings),
            None => {
                findings.lost += truth.len() as u64;
                findings.tell(log, "was never subscribed");
            }
        }
    }

    /// Of a visitor: each visit as where in the log it begins and, once it is over, its end's number in the outbox.
    /// Nothing later may come, unless in a later visit; what does come has no holes, and may end anywhere.
    pub fn check_visitor(&self, log: &Log, truth: &Truth, visits: &[(usize, Option<u64>)], findings: &mut Findings) {
        if let Some(chain) = self.follow(log, truth, findings) {
            chain.end(log, truth, false, findings);
        }
        for (i, seen) in log.seen.iter().enumerate() {
            let Seen::Publication { key, offset } = seen else { continue };
            findings.to_visitors += 1;
            let Some(seq) = truth.place(*key).map(|place| truth.seqs[place]) else { continue };
            let visit = visits.iter().rev().find(|(begin, _)| *begin <= i);
            // Before the first visit nothing is for him.
            let end = visit.map_or(Some(0), |(_, end)| *end);
            if let Some(end) = end.filter(|end| seq > *end) {
                findings.after_revocation += 1;
                findings.tell(log, &format!("event {seq} came, as offset {offset}, after the removal, {end}"));
            }
        }
    }

    /// Goes through a log and hands out its last chain, which is still open.
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
                        // What the client stores before anything is handed out to it.
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

    /// Why the client was told `recovered: false`. `had`: how many of the channel's events it had, at least.
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
            // The position that is told can lie behind the history's end, which is compared by what was committed
            // at the reload: that came later, so nothing that is excusable is taken for a fault.
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

    /// How many of the channel's events whoever lived this chain has, loaded or delivered.
    fn reached(&self, truth: &Truth) -> Option<usize> {
        let loaded = self.reload.map(|seq| truth.up_to(seq));
        self.highest.map(|place| place + 1).max(loaded)
    }

    fn end(&self, log: &Log, truth: &Truth, last: bool, findings: &mut Findings) {
        let first = self.seen.iter().min().copied();
        let loaded = self.reload.map(|seq| truth.up_to(seq));
        // Without a reload, as where the run ended before it, the first event begins the chain.
        let from = first.into_iter().chain(loaded).min().unwrap_or(if last { 0 } else { truth.len() });
        let to = if last { truth.len() } else { self.highest.map_or(0, |place| place + 1) };
        let missing: Vec<usize> = (from..to).filter(|place| !self.seen.contains(place)).collect();
        // What lies before the reload was loaded; but what is delivered from there on must be whole all the same,
        // or an old event would be applied to newer state.
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
