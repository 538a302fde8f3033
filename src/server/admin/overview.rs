//! The overview of this gateway for the admin page.

use super::{Admin, Health};
use crate::hub::registry::keep_largest;
use prometheus::IntCounterVec;
use prometheus::core::Collector;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Maximum number of channels in an overview.
const CHANNELS: usize = 20;
/// Maximum number of refusals in an overview.
const REFUSALS: usize = 50;
/// Time that the list of the largest channels is used again, however many pages are open.
const FRESH: Duration = Duration::from_secs(1);

type Sizes = Vec<(Arc<str>, usize)>;

/// The channels with the most subscribers, as counted last. The lock is held while counting: of concurrent requests,
/// one counts.
#[derive(Default)]
pub struct Largest(Mutex<Option<(Instant, Sizes)>>);

impl Admin {
    /// Totals count from the start of the process; the page computes rates from the totals of two overviews.
    pub(super) async fn overview(&self) -> Value {
        let Health { problems, warnings, broker } = self.health().await;
        let largest: Vec<Value> = self.largest().await.iter().map(|(name, size)| json!([name, size])).collect();
        let services = &self.services;
        let (metrics, config) = (&services.metrics, &services.config);
        let is_up = metrics.pocketbase_up.get() == 1;
        let relay = self.relay.failure();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_ms": u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "ready": problems.is_empty(),
            "problems": problems,
            "warnings": warnings,
            "connections": metrics.connections.get(),
            "guests": metrics.guests.get(),
            "unauthenticated": metrics.unauthenticated.get(),
            "subscriptions": metrics.subscriptions.get(),
            "channels": metrics.channels.get(),
            "queued_bytes": metrics.queued_bytes.get(),
            "max_total_queue_size": config.max_total_queue_size,
            "totals": {
                "publications": metrics.publications.get(),
                "deliveries": metrics.deliveries.get(),
                "refusals": self.refusals_so_far(),
                "disconnects": sum(&metrics.disconnects),
            },
            "relay": {
                "cursor": metrics.relay_cursor.get(),
                "lag_rows": metrics.outbox_lag_rows.get(),
                "lag_seconds": metrics.outbox_lag_seconds.get(),
                "hooks_failing": metrics.hooks_failing.get() == 1,
            },
            "pocketbase": {"up": is_up, "why": relay.filter(|_| !is_up)},
            "redis": {"configured": config.redis_url.is_some(), "up": broker.is_none(), "why": broker},
            "largest": largest,
            "refusals": services.refusals.last(REFUSALS),
            "can_publish": self.can_publish(),
        })
    }

    fn refusals_so_far(&self) -> u64 {
        let metrics = &self.services.metrics;
        let counters =
            [&metrics.command_errors, &metrics.handshakes_refused, &metrics.sockets_refused, &metrics.hooks_refused];
        counters.into_iter().map(sum).sum()
    }

    async fn largest(&self) -> Sizes {
        let mut counted = self.largest.0.lock().await;
        match &*counted {
            Some((at, sizes)) if at.elapsed() < FRESH => sizes.clone(),
            _ => {
                let mut sizes = self.services.hub.largest_channels(CHANNELS).await;
                sizes.extend(self.services.updates.sizes().into_iter().filter(|(_, size)| *size > 0));
                keep_largest(&mut sizes, CHANNELS);
                *counted = Some((Instant::now(), sizes.clone()));
                sizes
            }
        }
    }
}

/// The sum of a counter over its labels.
fn sum(counter: &IntCounterVec) -> u64 {
    let families = counter.collect();
    let series = families.iter().flat_map(|family| family.get_metric());
    series.map(|series| series.get_counter().get_value() as u64).sum()
}
