//! Relays events from PocketBase's outbox to the broker, each event once and in order.
//!
//! The outbox is the log, and the hooks' posts are a fast path. The mark, kept in the broker, is the number of the last
//! published event. An event right after the mark is published at once, and an earlier event is a repeat. A later event
//! reveals a gap, and the relay reads the outbox. The relay also reads the outbox at the start, after a failure, and
//! every `pull_interval`, less often while another gateway moves the mark. Each read begins with the event at the mark, so
//! that the relay notices a replaced outbox (PocketBase restored from a backup): then all channels start a new epoch, and
//! clients are told to reload.
//!
//! Any number of gateways may relay at once: publishing is idempotent by sequence number, and a gateway publishes an
//! event after all earlier events, which are below the mark or published by the same gateway.
//!
//! [`machine`] decides on the next action, and [`driver`] executes the actions.

mod driver;
mod hook_monitor;
mod incomplete;
mod intake;
mod lag;
pub mod machine;
mod schedule;

use crate::broker::Broker;
use crate::config::Config;
use crate::event::Events;
use crate::metrics::Metrics;
use crate::outbox::writer::Writers;
use crate::pocketbase::PocketBase;
use crate::tasks::{self, Task};
use driver::Driver;
use hook_monitor::HookMonitor;
use incomplete::IncompleteEvents;
use intake::Intake;
use machine::Machine;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// Handle of the relay: takes events from the hooks, and reports the relay's state.
#[derive(Clone)]
pub struct Relay {
    intake: Intake,
    started: RelayStart,
    /// Number of batches taken from the hooks.
    offered: Arc<AtomicU64>,
    /// Number of processed batches.
    processed: watch::Receiver<u64>,
    failure: Arc<Mutex<Option<String>>>,
    warnings: Arc<Mutex<Vec<String>>>,
    hook_monitor: HookMonitor,
    metrics: Metrics,
    _task: Arc<AbortOnDropHandle<()>>,
}

/// Whether the relay knows its first event to publish.
#[derive(Clone)]
pub struct RelayStart(pub(crate) watch::Receiver<bool>);

impl RelayStart {
    /// Waits until the relay knows its first event to publish. A client that subscribes earlier could miss events
    /// before that event, which are never published.
    pub async fn wait(&self) {
        // An error: the task has ended, as at the process's end.
        let _ = self.0.clone().wait_for(|started| *started).await;
    }
}

impl Relay {
    /// Starts the relay's task, which ends with the last clone of the handle.
    /// Publishing waits while one of the `writers` is late.
    pub fn start(
        config: &Config,
        pocketbase: PocketBase,
        broker: Arc<dyn Broker>,
        writers: Option<Arc<Writers>>,
        metrics: Metrics,
    ) -> Self {
        let (intake, posted) = intake::queue();
        let (start, started) = watch::channel(false);
        let (done, processed) = watch::channel(0);
        let failure = Arc::new(Mutex::new(Some("the outbox has not been read yet".to_owned())));
        let warnings = Arc::<Mutex<Vec<String>>>::default();
        let hook_monitor = HookMonitor::new(pocketbase.clone(), metrics.clone());
        let driver = Driver {
            machine: Machine::default(),
            pocketbase,
            broker,
            writers,
            urgency: posted.urgency(),
            incomplete: IncompleteEvents::new(metrics.clone()),
            metrics: metrics.clone(),
            failure: Arc::clone(&failure),
            warnings: Arc::clone(&warnings),
            hook_monitor: hook_monitor.clone(),
            start,
            processed: done,
            has_published: false,
            advanced: None,
            mismatch: None,
            seen: 0,
            confirm_pause: config.pull_interval / 4 * 3,
        };
        let task = Arc::new(tasks::spawn(Task::Relay, driver.run(posted, config.pull_interval)));
        let (started, offered) = (RelayStart(started), Arc::default());
        Self { intake, started, offered, processed, failure, warnings, hook_monitor, metrics, _task: task }
    }

    /// Takes ascending events from a hook's body of `bytes` bytes. Never waits: with the queue full, the events are
    /// dropped here and later read from the outbox.
    pub fn offer(&self, events: Events, bytes: usize) {
        let count = events.events.len();
        if self.intake.offer(events, bytes) {
            self.offered.fetch_add(1, Ordering::Relaxed);
        } else {
            self.metrics.count_events("dropped", count);
        }
    }

    /// Ends the warnings about the hooks' requests, which a stopping gateway refuses.
    pub fn expect_refusals(&self) {
        self.hook_monitor.mute();
    }

    /// Waits until all batches offered before are published, or left to the outbox after a failure.
    pub async fn processed(&self) {
        let offered = self.offered.load(Ordering::Relaxed);
        // An error: the task has ended, as at the process's end.
        let _ = self.processed.clone().wait_for(|processed| *processed >= offered).await;
    }

    pub fn started(&self) -> RelayStart {
        self.started.clone()
    }

    /// The current failure to follow the outbox, if any.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    /// Sentences about partial failures: parts of `gateway.config.js` that are missing in PocketBase's schema, and
    /// hooks that do not reach the gateway.
    pub fn warnings(&self) -> Vec<String> {
        let config = self.warnings.lock().clone();
        config.into_iter().chain(self.hook_monitor.warning()).collect()
    }
}

#[cfg(test)]
mod rows_tests;
