//! How far publishing is behind PocketBase's writes, for the metrics. Ages compare two machines' clocks.

use crate::event::Events;
use crate::metrics::{Metrics, age};

/// Updates the metrics from a page of the outbox. All events up to `mark` are published.
pub fn read(metrics: &Metrics, page: &Events, mark: u64) {
    let rows = page.last.saturating_sub(mark);
    metrics.outbox_lag_rows.set(i64::try_from(rows).unwrap_or(i64::MAX));
    let oldest = page.events.iter().find(|event| event.seq > mark);
    metrics.outbox_lag_seconds.set(oldest.map_or(0.0, |event| age(event.at)));
}
