//! Counts and logs events that were published incompletely: truncated, unreadable, or with invalid channel names.

use crate::event::{Completeness, Event};
use crate::metrics::Metrics;
use std::time::Duration;
use tokio::time::Instant;

/// Minimum time between two log lines of the same kind.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// An event's number, the kind as in the metric's label, and the number of occurrences in the event.
pub(super) type Incomplete = (u64, &'static str, u64);

/// The incomplete events of a run.
pub(super) fn of(run: &[Event]) -> Vec<Incomplete> {
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

pub(super) struct IncompleteEvents {
    metrics: Metrics,
    /// Per kind, the time of the last log line, and the number of unlogged events since.
    logged: Vec<(&'static str, Instant, u64)>,
}

impl IncompleteEvents {
    pub fn new(metrics: Metrics) -> Self {
        Self { metrics, logged: Vec::new() }
    }

    pub fn note(&mut self, incomplete: &[Incomplete]) {
        for &(seq, kind, count) in incomplete {
            self.metrics.events.with_label_values(&[kind]).inc_by(count);
            if let Some(others) = self.take_turn(kind) {
                log(seq, kind, others);
            }
        }
    }

    /// The number of unlogged events of this kind, if a log line is due now; `None`: too early for a log line.
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
            "a change was not published to all channels of its templates, since a template gave an invalid channel \
             name; PocketBase's log names the template"
        ),
    }
}
