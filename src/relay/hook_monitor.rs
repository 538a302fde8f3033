//! Monitors requests from PocketBase's hooks to the gateways, a direction that the gateway cannot test alone.
//!
//! With a wrong `GATEWAY_URL` in PocketBase's environment, events still arrive, but late, by reads of the outbox.
//! PocketBase reports the result of the hooks' last request with each page of the outbox. At the start, and while the
//! last request failed, the gateway asks PocketBase for a test request.

use crate::event::HookReport;
use crate::metrics::Metrics;
use crate::pocketbase::PocketBase;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Minimum time between two test requests.
const PROBE_PAUSE: Duration = Duration::from_secs(2);

/// Cheap to clone; all clones share their health.
#[derive(Clone)]
pub struct HookMonitor {
    pocketbase: PocketBase,
    metrics: Metrics,
    health: Arc<Mutex<HookHealth>>,
}

#[derive(Default)]
struct HookHealth {
    /// The last report, if the hooks' last request failed.
    failure: Option<HookReport>,
    probed: Option<Instant>,
    /// True during a stop: the gateway refuses the hooks' requests.
    is_muted: bool,
}

impl HookMonitor {
    pub fn new(pocketbase: PocketBase, metrics: Metrics) -> Self {
        Self { pocketbase, metrics, health: Arc::default() }
    }

    /// Takes PocketBase's report. Asks PocketBase for a test request, in the background, after a failure or the first
    /// report.
    pub fn reported(&self, report: HookReport) {
        let mut health = self.health.lock();
        if health.is_muted {
            return;
        }
        if health.probed.is_none() && !report.error.is_empty() {
            // From before this gateway's start. The next report has the result of the test request.
            self.probe(&mut health);
            return;
        }
        let now = (!report.error.is_empty()).then_some(report);
        match (&health.failure, &now) {
            (None, Some(failure)) => tracing::warn!("{}", failure.advice()),
            (Some(_), None) => tracing::info!("PocketBase's hooks reach this gateway again"),
            _ => {}
        }
        self.metrics.hooks_failing.set(i64::from(now.is_some()));
        let is_due = health.probed.is_none_or(|last| now.is_some() && last.elapsed() >= PROBE_PAUSE);
        health.failure = now;
        if is_due {
            self.probe(&mut health);
        }
    }

    fn probe(&self, health: &mut HookHealth) {
        health.probed = Some(Instant::now());
        let pocketbase = self.pocketbase.clone();
        tokio::spawn(async move {
            // The next page of the outbox has the result.
            if let Err(error) = pocketbase.probe().await {
                tracing::debug!(%error, "PocketBase did not say whether its hooks reach this gateway");
            }
        });
    }

    /// Ignores reports from now on, since a gateway that stops refuses the hooks' requests.
    pub fn mute(&self) {
        self.health.lock().is_muted = true;
    }

    /// True if the hooks' last request failed: changes arrive by reads of the outbox alone.
    pub fn is_failing(&self) -> bool {
        self.health.lock().failure.is_some()
    }

    /// A sentence with advice, if the hooks' last request failed.
    pub fn warning(&self) -> Option<String> {
        self.health.lock().failure.as_ref().map(HookReport::advice)
    }
}
