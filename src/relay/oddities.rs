//! Events that did not go out as they were written: counts them, and logs them at most once in a while.

use crate::event::{Completeness, Event};
use crate::metrics::Metrics;
use std::time::Duration;
use tokio::time::Instant;

/// Between two log lines about the same kind.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// An event's number, its kind as in the metric's label, and how often the kind occurs in it.
pub(super) type Oddity = (u64, &'static str, u64);

/// Those of a run of events.
pub(super) fn of(run: &[Event]) -> Vec<Oddity> {
    let each = |event: &Event| {
        let completeness = match event.completeness {
            Completeness::Whole => None,
            Completeness::Truncated => Some((event.seq, "truncated", 1)),
            Completeness::Unreadable => Some((event.seq, "unreadable", 1)),
        };
        let dropped = (event.dropped > 0).then_some((event.seq, "impossible_channel", event.dropped));
        completeness.into_iter().chain(dropped)
    };
    run.iter().flat_map(each).collect()
}

pub(super) struct Oddities {
    metrics: Metrics,
    /// When each kind was last logged, and how many events have not been since.
    logged: Vec<(&'static str, Instant, u64)>,
}

impl Oddities {
    pub fn new(metrics: Metrics) -> Self {
        Self { metrics, logged: Vec::new() }
    }

    pub fn note(&mut self, oddities: &[Oddity]) {
        for &(seq, kind, count) in oddities {
            self.metrics.events.with_label_values(&[kind]).inc_by(count);
            if let Some(others) = self.take_turn(kind) {
                log(seq, kind, others);
            }
        }
    }

    /// How many events of this kind went unlogged before this one; `None`: this one does as well.
    fn take_turn(&mut self, kind: &'static str) -> Option<u64> {
        let now = Instant::now();
        let Some((_, last, unlogged)) = self.logged.iter_mut().find(|(known, ..)| *known == kind) else {
            self.logged.push((kind, now, 0));
            return Some(0);
        };
        if now.duration_since(*last) < LOG_INTERVAL {
            *unlogged += 1;
            return None;
        }
        *last = now;
        Some(std::mem::take(unlogged))
    }
}

fn log(seq: u64, kind: &'static str, others: u64) {
    match kind {
        "unreadable" => tracing::error!(
            seq,
            others,
            "a row of PocketBase's outbox is unreadable and was skipped; look at it in the table _gateway_outbox, and \
             see that hooks and gateway are of the same version"
        ),
        "truncated" => tracing::info!(
            seq,
            others,
            "a record is too large for an event (outbox.maxEventBytes): subscribers get its id and fetch it"
        ),
        _ => tracing::warn!(
            seq,
            others,
            "a change goes to fewer channels than its templates name, since no channel can have such a name; \
             PocketBase's log says which template"
        ),
    }
}
