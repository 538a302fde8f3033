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
    /// The last test request.
    probe: Option<Probe>,
    /// True during a stop: the gateway refuses the hooks' requests.
    is_muted: bool,
}

struct Probe {
    began: Instant,
    /// `None` while the test request is under way.
    ended: Option<Instant>,
}

impl HookHealth {
    /// Takes the report of a page that was requested at `asked`. Returns true if a test request is due.
    ///
    /// A failure counts only in a page requested after the first test request ended: earlier failures can be from
    /// before this gateway's start.
    fn take(&mut self, report: HookReport, asked: Instant) -> bool {
        let failed = !report.error.is_empty();
        let Some(probe) = &self.probe else {
            if !failed {
                self.set(None);
            }
            return true;
        };
        if failed && probe.ended.is_none_or(|ended| asked < ended) {
            return false;
        }
        let is_due = failed && probe.began.elapsed() >= PROBE_PAUSE;
        self.set(failed.then_some(report));
        is_due
    }

    /// Logs a change.
    fn set(&mut self, now: Option<HookReport>) {
        match (&self.failure, &now) {
            (None, Some(failure)) => tracing::warn!("{}", failure.advice()),
            (Some(_), None) => tracing::info!("PocketBase's hooks reach this gateway again"),
            _ => {}
        }
        self.failure = now;
    }
}

impl HookMonitor {
    pub fn new(pocketbase: PocketBase, metrics: Metrics) -> Self {
        Self { pocketbase, metrics, health: Arc::default() }
    }

    /// Takes PocketBase's report, from a page of the outbox that was requested at `asked`. Asks PocketBase for a test
    /// request, in the background, after a failure or the first report.
    pub fn reported(&self, report: HookReport, asked: Instant) {
        let mut health = self.health.lock();
        if health.is_muted {
            return;
        }
        let is_due = health.take(report, asked);
        self.metrics.hooks_failing.set(i64::from(health.failure.is_some()));
        if is_due {
            health.probe = Some(Probe { began: Instant::now(), ended: None });
            tokio::spawn(self.clone().probe());
        }
    }

    /// The next page of the outbox has the result.
    async fn probe(self) {
        if let Err(error) = self.pocketbase.probe().await {
            tracing::debug!(%error, "PocketBase did not say whether its hooks reach this gateway");
        }
        if let Some(probe) = &mut self.health.lock().probe {
            probe.ended = Some(Instant::now());
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn report(error: &str) -> HookReport {
        HookReport { url: "http://gateway".into(), error: error.into() }
    }

    /// Ends the test request under way.
    fn end(health: &mut HookHealth) {
        health.probe.as_mut().expect("a test request").ended = Some(Instant::now());
    }

    fn begin(health: &mut HookHealth) {
        health.probe = Some(Probe { began: Instant::now(), ended: None });
    }

    #[tokio::test(start_paused = true)]
    async fn failures_from_before_the_first_test_request_are_ignored() {
        let mut health = HookHealth::default();
        assert!(health.take(report("connection refused"), Instant::now()), "a test request is due");
        begin(&mut health);
        let asked = Instant::now();
        assert!(!health.take(report("connection refused"), asked), "a test request is under way");
        tokio::time::advance(Duration::from_millis(1)).await;
        end(&mut health);
        assert!(!health.take(report("connection refused"), asked), "the page was requested before the end");
        assert_eq!(health.failure, None);
        assert!(!health.take(report("connection refused"), Instant::now()), "the pause is not over");
        assert_eq!(health.failure, Some(report("connection refused")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_tested_again_after_a_pause_until_success() {
        let mut health = HookHealth::default();
        assert!(health.take(report(""), Instant::now()), "the first report");
        begin(&mut health);
        end(&mut health);
        tokio::time::advance(PROBE_PAUSE).await;
        assert!(health.take(report("no route"), Instant::now()));
        assert_eq!(health.failure, Some(report("no route")));
        begin(&mut health);
        end(&mut health);
        tokio::time::advance(PROBE_PAUSE).await;
        assert!(!health.take(report(""), Instant::now()));
        assert_eq!(health.failure, None);
    }
}
