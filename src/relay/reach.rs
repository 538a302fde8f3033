//! Whether PocketBase's hooks reach the gateways: the direction that the gateway itself cannot see.
//!
//! With a wrong `GATEWAY_URL` in PocketBase's environment everything still arrives, but late, by reading the outbox.
//! PocketBase tells with each page of the outbox how its last request went; a request of its own is asked for at the
//! start, and while the last one failed.

use crate::event::Delivery;
use crate::metrics::Metrics;
use crate::pocketbase::PocketBase;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Between two requests to try the way.
const PROBE_PAUSE: Duration = Duration::from_secs(2);

/// Cheap to clone; all clones share their state.
#[derive(Clone)]
pub struct Reach {
    pocketbase: PocketBase,
    metrics: Metrics,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// What PocketBase said last, if its last request failed.
    failure: Option<Delivery>,
    probed: Option<Instant>,
}

impl Reach {
    pub fn new(pocketbase: PocketBase, metrics: Metrics) -> Self {
        Self { pocketbase, metrics, state: Arc::default() }
    }

    /// Takes in what PocketBase says of its last request. Asks it to try, in the background, if that failed or nothing
    /// is known yet.
    pub fn reported(&self, delivery: Delivery) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = (!delivery.error.is_empty()).then_some(delivery);
        match (&state.failure, &now) {
            (None, Some(failure)) => tracing::warn!("{}", failure.advice()),
            (Some(_), None) => tracing::info!("PocketBase's hooks reach this gateway again"),
            _ => {}
        }
        self.metrics.hooks_failing.set(i64::from(now.is_some()));
        let is_due = state.probed.is_none_or(|last| now.is_some() && last.elapsed() >= PROBE_PAUSE);
        state.failure = now;
        if is_due {
            state.probed = Some(Instant::now());
            let pocketbase = self.pocketbase.clone();
            tokio::spawn(async move {
                // The next page of the outbox says how it went.
                if let Err(error) = pocketbase.probe().await {
                    tracing::debug!(%error, "PocketBase did not say whether its hooks reach this gateway");
                }
            });
        }
    }

    /// Whether PocketBase's last request failed, so that changes arrive by reading the outbox alone.
    pub fn is_failing(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).failure.is_some()
    }

    /// A sentence with advice while PocketBase's last request failed.
    pub fn warning(&self) -> Option<String> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).failure.as_ref().map(Delivery::advice)
    }
}
