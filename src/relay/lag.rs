//! How far publishing is behind PocketBase's writes, for the metrics. Ages compare two machines' clocks.

use crate::event::Events;
use crate::metrics::Metrics;
use std::time::{SystemTime, UNIX_EPOCH};

/// Takes in a page of the outbox; everything up to `mark` has been published.
pub fn read(metrics: &Metrics, page: &Events, mark: u64) {
    let rows = page.last.saturating_sub(mark);
    metrics.outbox_lag_rows.set(i64::try_from(rows).unwrap_or(i64::MAX));
    let oldest = page.events.iter().find(|event| event.seq > mark);
    metrics.outbox_lag_seconds.set(oldest.map_or(0.0, |event| age(event.at)));
}

/// Takes in the times of events that have been published now.
pub fn published(metrics: &Metrics, times: &[u64]) {
    for at in times.iter().filter(|at| **at > 0) {
        metrics.outbox_seconds.observe(age(*at));
    }
}

/// Seconds since a time in Unix milliseconds; 0 for one that is not known or lies ahead.
fn age(at: u64) -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let now = u64::try_from(now).unwrap_or(u64::MAX);
    if at == 0 { 0.0 } else { now.saturating_sub(at) as f64 / 1000.0 }
}
