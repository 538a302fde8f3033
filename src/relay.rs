//! From PocketBase's outbox to the broker: each event once, in order.
//!
//! The outbox is the log. What the hooks post is a fast path past it; the cursor, kept in the broker, says how
//! far publishing has come. An event that continues the cursor is published at once, an earlier one is a repeat,
//! and one further on means that something is missing, which is then read from the outbox. The outbox is also
//! read at the start, after any failure, and every `pull_interval`.
//!
//! Any number of gateways may do this at once: publishing is idempotent by sequence number, and a gateway
//! publishes an event only when everything before it has been published by itself or lies below the cursor.

use crate::broker::{Broker, BrokerError, Entry};
use crate::config::Config;
use crate::event::Event;
use crate::metrics::Metrics;
use crate::pocketbase::{PocketBase, PocketBaseError};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Posted batches that may wait. Beyond that they are dropped and read from the outbox.
const INTAKE: usize = 1024;
/// Events read from the outbox at once.
const PAGE: u16 = 500;
/// Bounds of the pause after a failure.
const RETRY: std::ops::Range<Duration> = Duration::from_millis(100)..Duration::from_secs(3);

#[derive(Debug, thiserror::Error)]
enum RelayError {
    #[error(transparent)]
    PocketBase(#[from] PocketBaseError),
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

/// The way in for what the hooks post, and what the rest of the gateway may know of the relay.
#[derive(Clone)]
pub struct Relay {
    intake: mpsc::Sender<Vec<Event>>,
    started: watch::Receiver<bool>,
    /// Batches taken from hooks, and how many of them are dealt with.
    offered: Arc<AtomicU64>,
    settled: watch::Receiver<u64>,
    failure: Arc<Mutex<Option<String>>>,
    metrics: Metrics,
}

impl Relay {
    /// Starts the relay's task, which ends when the last handle is dropped.
    pub fn start(config: &Config, pocketbase: PocketBase, broker: Arc<dyn Broker>, metrics: Metrics) -> Self {
        let (intake, posted) = mpsc::channel(INTAKE);
        let (start, started) = watch::channel(false);
        let (settle, settled) = watch::channel(0);
        let failure = Arc::new(Mutex::new(Some("the outbox has not been read yet".to_owned())));
        let task = Task {
            pocketbase,
            broker,
            metrics: metrics.clone(),
            failure: Arc::clone(&failure),
            cursor: 0,
            confirmed: 0,
            settled: settle,
            pull_interval: config.pull_interval,
        };
        tokio::spawn(task.run(posted, start));
        Self { intake, started, offered: Arc::default(), settled, failure, metrics }
    }

    /// Takes ascending events from a hook. Never waits: with the queue full they are dropped here, stay in the
    /// outbox and are read from there.
    pub fn offer(&self, events: Vec<Event>) {
        let count = events.len() as u64;
        if self.intake.try_send(events).is_ok() {
            self.offered.fetch_add(1, Ordering::Relaxed);
        } else {
            self.metrics.relay_events.with_label_values(&["dropped"]).inc_by(count);
        }
    }

    /// Returns once everything that was offered before is published, or left to the outbox after a failure.
    pub async fn settled(&self) {
        let offered = self.offered.load(Ordering::Relaxed);
        // An error means that the task is gone, as at the process's end.
        let _ = self.settled.clone().wait_for(|settled| *settled >= offered).await;
    }

    /// Returns once it is settled from which event on this gateway publishes. Whoever subscribes before could
    /// miss events that nobody publishes.
    pub async fn started(&self) {
        // An error means that the task is gone, as at the process's end.
        let _ = self.started.clone().wait_for(|started| *started).await;
    }

    /// Why the outbox cannot be followed at present, if it cannot.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Task {
    pocketbase: PocketBase,
    broker: Arc<dyn Broker>,
    metrics: Metrics,
    failure: Arc<Mutex<Option<String>>>,
    /// Everything up to here has been published, as far as this gateway knows.
    cursor: u64,
    confirmed: u64,
    settled: watch::Sender<u64>,
    pull_interval: Duration,
}

impl Task {
    async fn run(mut self, posted: mpsc::Receiver<Vec<Event>>, start: watch::Sender<bool>) {
        let mut pause = RETRY.start;
        while let Err(error) = self.find_start().await {
            self.fail(&error);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY.end);
            if posted.is_closed() {
                return;
            }
        }
        self.succeed();
        start.send_replace(true);
        tracing::info!(cursor = self.cursor, "following PocketBase's outbox");
        self.follow(posted).await;
    }

    /// The cursor that the gateways share; where there is none, everything so far is history that clients have
    /// loaded from PocketBase, and publishing begins with the next event.
    async fn find_start(&mut self) -> Result<(), RelayError> {
        let last = self.pocketbase.events(0, 1).await?.last;
        self.cursor = self.broker.begin(last).await?;
        Ok(())
    }

    async fn follow(mut self, mut posted: mpsc::Receiver<Vec<Event>>) {
        let mut pause = RETRY.start;
        let mut next_pull = Instant::now();
        // With the broker out of reach there is no point in taking what is posted: it stays in the outbox.
        let mut broker_down = false;
        let mut batches = Vec::new();
        loop {
            let result = tokio::select! {
                count = posted.recv_many(&mut batches, 64) => {
                    if count == 0 {
                        return;
                    }
                    let mut events: Vec<Event> = batches.drain(..).flatten().collect();
                    if broker_down {
                        self.metrics.relay_events.with_label_values(&["dropped"]).inc_by(events.len() as u64);
                        self.settled.send_modify(|settled| *settled += count as u64);
                        continue;
                    }
                    events.sort_unstable_by_key(|event| event.seq);
                    let taken = self.take_posted(events).await;
                    self.settled.send_modify(|settled| *settled += count as u64);
                    taken
                }
                () = tokio::time::sleep_until(next_pull) => {
                    next_pull = Instant::now() + self.pull_interval;
                    self.catch_up().await
                }
            };
            match result {
                Ok(()) => {
                    broker_down = false;
                    pause = RETRY.start;
                    self.succeed();
                }
                Err(error) => {
                    broker_down = matches!(error, RelayError::Broker(_));
                    self.fail(&error);
                    next_pull = Instant::now() + pause;
                    pause = (pause * 2).min(RETRY.end);
                }
            }
        }
    }

    /// Publishes what continues the cursor; reads the outbox if something before it is missing.
    async fn take_posted(&mut self, mut events: Vec<Event>) -> Result<(), RelayError> {
        events.dedup_by_key(|event| event.seq);
        self.publish_run(&mut events, "hook").await?;
        if events.is_empty() {
            return Ok(());
        }
        // Most often another gateway has published what is missing here.
        self.refresh_cursor().await?;
        self.publish_run(&mut events, "hook").await?;
        if events.is_empty() { Ok(()) } else { self.pull("gap").await }
    }

    /// What the timer does: notices what other gateways have done and what no hook has posted, and lets
    /// PocketBase trim its outbox.
    async fn catch_up(&mut self) -> Result<(), RelayError> {
        self.refresh_cursor().await?;
        self.pull("timer").await?;
        if self.cursor > self.confirmed {
            self.pocketbase.confirm(self.cursor).await?;
            self.confirmed = self.cursor;
        }
        Ok(())
    }

    async fn refresh_cursor(&mut self) -> Result<(), RelayError> {
        self.cursor = self.broker.begin(self.cursor).await?;
        Ok(())
    }

    /// Reads and publishes the outbox up to its end.
    async fn pull(&mut self, cause: &str) -> Result<(), RelayError> {
        self.metrics.relay_pulls.with_label_values(&[cause]).inc();
        loop {
            let page = self.pocketbase.events(self.cursor, PAGE).await?;
            let Some(first) = page.events.first().map(|event| event.seq) else { return Ok(()) };
            if first > self.cursor + 1 {
                tracing::error!(
                    cursor = self.cursor,
                    first,
                    "events are missing from PocketBase's outbox; going on behind them"
                );
                self.cursor = first - 1;
            }
            let mut events = page.events;
            self.publish_run(&mut events, "pull").await?;
            if !events.is_empty() {
                return Err(PocketBaseError::Unreadable(format!("the outbox has a gap after {}", self.cursor)).into());
            }
            if self.cursor >= page.last {
                return Ok(());
            }
        }
    }

    /// Publishes the leading events that continue the cursor without a gap, moves the cursor, and leaves the
    /// others in `events`, which ascend. What lies at or below the cursor is dropped.
    async fn publish_run(&mut self, events: &mut Vec<Event>, source: &str) -> Result<(), RelayError> {
        let repeats = events.iter().take_while(|event| event.seq <= self.cursor).count();
        let run = events[repeats..].iter().zip(self.cursor + 1..).take_while(|(event, seq)| event.seq == *seq).count();
        self.metrics.relay_events.with_label_values(&["repeat"]).inc_by(repeats as u64);
        let run: Vec<Event> = events.drain(..repeats + run).skip(repeats).collect();
        let Some(last) = run.last().map(|event| event.seq) else { return Ok(()) };

        let timer = self.metrics.publish_seconds.start_timer();
        let count = run.len() as u64;
        let entry = |seq, channel, data| Entry { seq, channel, data };
        let entries: Vec<Entry> = run
            .into_iter()
            .flat_map(|Event { seq, channels, data }| channels.into_iter().map(move |c| entry(seq, c, data.clone())))
            .collect();
        self.broker.publish(&entries).await?;
        // Only now: a crash in between publishes the run once more, which the broker drops by its numbers.
        self.cursor = self.broker.advance(last).await?;
        timer.observe_duration();
        self.metrics.relay_events.with_label_values(&[source]).inc_by(count);
        self.metrics.relay_cursor.set(i64::try_from(self.cursor).unwrap_or(i64::MAX));
        Ok(())
    }

    fn fail(&self, error: &RelayError) {
        if matches!(error, RelayError::Broker(_)) {
            self.metrics.broker_errors.with_label_values(&["relay"]).inc();
        }
        let before = self.set_failure(Some(error.to_string()));
        if before.as_deref() != Some(&error.to_string()) {
            tracing::warn!(%error, "relaying pauses; it goes on from where it stopped");
        }
    }

    fn succeed(&self) {
        if self.set_failure(None).is_some() {
            tracing::info!(cursor = self.cursor, "relaying works");
        }
    }

    fn set_failure(&self, failure: Option<String>) -> Option<String> {
        std::mem::replace(&mut *self.failure.lock().unwrap_or_else(PoisonError::into_inner), failure)
    }
}
