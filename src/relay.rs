//! Relays events from PocketBase's outbox to the broker, each event once and in order.
//!
//! The outbox is the log, and the hooks' posts are a fast path. The mark, kept in the broker, is the number of the last
//! published event. An event right after the mark is published at once, and an earlier event is a repeat. A later event
//! reveals a gap, and the relay reads the outbox. The relay also reads the outbox at the start, after a failure, and
//! every `pull_interval`. Each read begins with the event at the mark, so that the relay notices a replaced outbox
//! (PocketBase restored from a backup): then all channels start a new epoch, and clients are told to reload.
//!
//! Any number of gateways may relay at once: publishing is idempotent by sequence number, and a gateway publishes an
//! event after all earlier events, which are below the mark or published by the same gateway.
//!
//! [`machine`] decides on the next action, and this file executes the actions.

mod intake;
mod lag;
pub mod machine;
mod oddities;
mod reach;

use crate::access::changes::{Cause, Change};
use crate::backoff::Backoff;
use crate::broker::{Broker, BrokerError, Entry};
use crate::config::Config;
use crate::event::{ACCESS, Event, Events};
use crate::metrics::Metrics;
use crate::pocketbase::{PocketBase, PocketBaseError};
use crate::tasks::{self, Task};
use intake::{Intake, Posted};
use machine::{Action, Input, Machine, Note};
use oddities::Oddities;
use reach::Reach;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Longest time between two reads while the hooks post, in pull intervals.
const POSTPONED: u32 = 4;
/// Interval of reads while rows arrive by reads alone, as when the gateway that PocketBase's hooks post to is down.
const ALONE: Duration = Duration::from_millis(200);
/// Shortest and longest pause after a failure.
const RETRY: std::ops::Range<Duration> = Duration::from_millis(100)..Duration::from_secs(3);

#[derive(Debug, thiserror::Error)]
enum RelayError {
    #[error(transparent)]
    PocketBase(#[from] PocketBaseError),
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

/// Handle of the relay: takes events from the hooks, and reports the relay's state.
#[derive(Clone)]
pub struct Relay {
    intake: Intake,
    started: watch::Receiver<bool>,
    /// Number of batches taken from the hooks.
    offered: Arc<AtomicU64>,
    /// Number of processed batches.
    settled: watch::Receiver<u64>,
    failure: Arc<Mutex<Option<String>>>,
    warnings: Arc<Mutex<Vec<String>>>,
    reach: Reach,
    metrics: Metrics,
}

impl Relay {
    /// Starts the relay's task, which ends when the last handle is dropped.
    pub fn start(config: &Config, pocketbase: PocketBase, broker: Arc<dyn Broker>, metrics: Metrics) -> Self {
        let (intake, posted) = intake::queue();
        let (start, started) = watch::channel(false);
        let (settle, settled) = watch::channel(0);
        let failure = Arc::new(Mutex::new(Some("the outbox has not been read yet".to_owned())));
        let warnings = Arc::<Mutex<Vec<String>>>::default();
        let reach = Reach::new(pocketbase.clone(), metrics.clone());
        let driver = Driver {
            machine: Machine::default(),
            pocketbase,
            broker,
            oddities: Oddities::new(metrics.clone()),
            metrics: metrics.clone(),
            failure: Arc::clone(&failure),
            warnings: Arc::clone(&warnings),
            reach: reach.clone(),
            start,
            settled: settle,
            has_published: false,
        };
        tasks::spawn(Task::Relay, driver.run(posted, config.pull_interval));
        Self { intake, started, offered: Arc::default(), settled, failure, warnings, reach, metrics }
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

    /// Waits until all batches offered before are published, or left to the outbox after a failure.
    pub async fn settled(&self) {
        let offered = self.offered.load(Ordering::Relaxed);
        // An error: the task has ended, as at the process's end.
        let _ = self.settled.clone().wait_for(|settled| *settled >= offered).await;
    }

    /// Waits until the relay knows its first event to publish. A client that subscribes earlier could miss events
    /// before that event, which are never published.
    pub async fn started(&self) {
        // An error: the task has ended, as at the process's end.
        let _ = self.started.clone().wait_for(|started| *started).await;
    }

    /// The current failure to follow the outbox, if any.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sentences about partial failures: parts of `gateway.config.js` that are missing in PocketBase's schema, and
    /// hooks that do not reach the gateway.
    pub fn warnings(&self) -> Vec<String> {
        let config = self.warnings.lock().unwrap_or_else(PoisonError::into_inner).clone();
        config.into_iter().chain(self.reach.warning()).collect()
    }
}

/// Executes the machine's actions.
struct Driver {
    machine: Machine,
    pocketbase: PocketBase,
    broker: Arc<dyn Broker>,
    metrics: Metrics,
    oddities: Oddities,
    failure: Arc<Mutex<Option<String>>>,
    warnings: Arc<Mutex<Vec<String>>>,
    reach: Reach,
    start: watch::Sender<bool>,
    settled: watch::Sender<u64>,
    /// True if the last input led to new publications.
    has_published: bool,
}

impl Driver {
    async fn run(mut self, mut posted: Posted, pull_interval: Duration) {
        let mut backoff = Backoff::new(RETRY);
        let (mut next_tick, mut last_tick) = (Instant::now(), Instant::now());
        let mut interval = pull_interval;
        // While the broker is unreachable, posted events are dropped, and read from the outbox later.
        let mut broker_down = false;
        loop {
            let mut batches = 0;
            let input = tokio::select! {
                taken = posted.next() => match taken {
                    None => return,
                    Some((events, count)) if broker_down => {
                        self.metrics.count_events("dropped", events.events.len());
                        self.settled.send_modify(|settled| *settled += count);
                        continue;
                    }
                    Some((events, count)) => {
                        batches = count;
                        Input::Posted(events)
                    }
                },
                () = tokio::time::sleep_until(next_tick) => {
                    last_tick = Instant::now();
                    self.metrics.relay_pulls.with_label_values(&["timer"]).inc();
                    Input::Tick
                }
            };
            let is_posted = matches!(input, Input::Posted(_));
            if is_posted && backoff.is_reset() {
                // Postpones the next read, which would return rows that are on their way in the next post. After a gap,
                // the machine reads at once.
                let latest = last_tick + POSTPONED * pull_interval;
                next_tick = next_tick.max(latest.min(Instant::now() + pull_interval));
            }
            self.has_published = false;
            let result = self.carry_out(input).await;
            if is_posted {
                interval = pull_interval;
            } else {
                let alone = self.reach.is_failing() || self.has_published;
                interval = if alone { ALONE } else { 2 * interval }.min(pull_interval);
                // Keeps a pause between reads of a slow PocketBase.
                next_tick = (last_tick + interval).max(Instant::now() + ALONE.min(interval));
            }
            self.settled.send_modify(|settled| *settled += batches);
            match result {
                Ok(()) => {
                    broker_down = false;
                    backoff.reset();
                    self.succeed();
                }
                Err(error) => {
                    broker_down = matches!(error, RelayError::Broker(_));
                    self.fail(&error);
                    next_tick = Instant::now() + backoff.pause();
                }
            }
        }
    }

    /// Feeds one input to the machine, and executes all actions that follow.
    async fn carry_out(&mut self, input: Input) -> Result<(), RelayError> {
        let mut next = self.machine.step(input);
        while let Some(action) = next {
            let done = self.act(action).await;
            let failed = done.as_ref().err().is_some();
            next = self.machine.step(done.as_ref().map_or(Input::Failed, Clone::clone));
            self.report();
            if failed {
                done?;
            }
        }
        Ok(())
    }

    async fn act(&mut self, action: Action) -> Result<Input, RelayError> {
        Ok(match action {
            Action::Begin(mark) => Input::Mark(self.broker.begin(mark).await?),
            Action::Advance(mark) => Input::Mark(self.broker.advance(mark).await?),
            Action::Restart(mark) => Input::Mark(self.broker.restart(mark).await?),
            Action::Read { after, limit } => {
                let mut page = self.pocketbase.events(after, limit).await?;
                self.metrics.pocketbase_up.set(1);
                lag::read(&self.metrics, &page, self.machine.mark().map_or(0, |mark| mark.seq));
                self.note_warnings(std::mem::take(&mut page.problems));
                if let Some(delivery) = page.delivery.take() {
                    self.reach.reported(delivery);
                }
                Input::Page(page)
            }
            Action::Publish(run) => {
                let (deleted, odd) = (deleted(&run), oddities::of(&run));
                let timer = self.metrics.publish_seconds.start_timer();
                let published = self.broker.publish(&entries(run)).await;
                timer.observe_duration();
                match published {
                    Err(BrokerError::Conflict) => Input::Conflict,
                    published => {
                        self.has_published |= published? > 0;
                        // The mark moves afterwards: a failure here repeats the whole run.
                        for (channel, seq) in deleted {
                            self.broker.forget(&channel, seq).await?;
                        }
                        self.oddities.note(&odd);
                        Input::Published
                    }
                }
            }
            Action::Confirm(seq) => Input::Confirmed { more: self.pocketbase.confirm(seq).await? },
        })
    }

    /// Stores PocketBase's warnings about the config, and logs each change.
    fn note_warnings(&self, now: Vec<String>) {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if *warnings == now {
            return;
        }
        for warning in now.iter().filter(|warning| !warnings.contains(warning)) {
            tracing::warn!("gateway.config.js: {warning}");
        }
        if now.is_empty() {
            tracing::info!("gateway.config.js fits PocketBase's schema again");
        }
        self.metrics.config_problems.set(i64::try_from(now.len()).unwrap_or(i64::MAX));
        *warnings = now;
    }

    /// Passes the machine's notes to metrics and logs.
    fn report(&mut self) {
        for note in self.machine.notes() {
            match note {
                Note::Repeats(count) => self.metrics.count_events("repeat", count),
                Note::Published { count, pulled } => {
                    self.metrics.count_events(if pulled { "pull" } else { "hook" }, count);
                }
                Note::Gap => self.metrics.relay_pulls.with_label_values(&["gap"]).inc(),
                Note::Diverged => {
                    self.metrics.relay_restarts.inc();
                    tracing::error!(
                        "PocketBase's outbox does not continue the outbox relayed so far, as after a restore from a \
                         backup; all channels start a new epoch, and clients are told to reload"
                    );
                }
            }
        }
        let Some(mark) = self.machine.mark() else { return };
        self.metrics.relay_cursor.set(i64::try_from(mark.seq).unwrap_or(i64::MAX));
        if !self.start.send_replace(true) {
            tracing::info!(seq = mark.seq, generation = mark.generation, "following PocketBase's outbox");
        }
    }

    fn fail(&self, error: &RelayError) {
        if matches!(error, RelayError::PocketBase(_)) {
            self.metrics.pocketbase_up.set(0);
        }
        if matches!(error, RelayError::Broker(_)) {
            self.metrics.broker_errors.with_label_values(&["relay"]).inc();
        }
        let text = error.to_string();
        if self.set_failure(Some(text.clone())).as_ref() != Some(&text) {
            tracing::warn!(%error, "relaying of PocketBase's events paused; no event is lost, retrying within 3 s");
        }
    }

    fn succeed(&self) {
        if self.set_failure(None).is_some() {
            tracing::info!(seq = self.machine.mark().map(|mark| mark.seq), "relaying of PocketBase's events works");
        }
    }

    fn set_failure(&self, failure: Option<String>) -> Option<String> {
        std::mem::replace(&mut *self.failure.lock().unwrap_or_else(PoisonError::into_inner), failure)
    }
}

/// Channels of guarded records that these events deleted, with the events' numbers. PocketBase lets clients choose the
/// id of a new record: a later record with the same id may be another user's, and must not inherit the history.
fn deleted(run: &[Event]) -> Vec<(String, u64)> {
    let of = |event: &Event| {
        let changes = event.access.as_ref().map(|access| serde_json::from_slice::<Vec<Change>>(access.as_bytes()));
        let changes = changes.and_then(Result::ok).unwrap_or_default();
        let deleted = changes.into_iter().filter(|change| change.cause == Cause::Deleted);
        deleted.filter_map(|change| change.channel).map(|channel| (channel, event.seq)).collect::<Vec<_>>()
    };
    run.iter().flat_map(of).collect()
}

fn entries(run: Vec<Event>) -> Vec<Entry> {
    let each = |event: Event| {
        let Event { seq, at, .. } = event;
        let one = move |channel, data| Entry { seq, at, channel, data, barrier: false };
        // The access changes come first: a user who loses access by this event does not get the event.
        let barrier = event.access.is_some();
        let notice = event.notice().map(|notice| Entry { barrier, ..one(ACCESS.to_owned(), notice) });
        let Event { channels, data, .. } = event;
        notice.into_iter().chain(channels.into_iter().map(move |channel| one(channel, data.clone())))
    };
    run.into_iter().flat_map(each).collect()
}

#[cfg(test)]
#[path = "relay/rows_tests.rs"]
mod tests;
