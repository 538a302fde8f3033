//! Driver of the relay: executes the actions of [`Machine`], and returns the outcomes.

use super::hook_monitor::HookMonitor;
use super::incomplete::{self, IncompleteEvents};
use super::intake::{Posted, Urgency};
use super::lag;
use super::machine::{Action, Input, Machine, Note};
use super::schedule::ReadSchedule;
use crate::broker::{Broker, BrokerError, Entry, Mark};
use crate::channel::CONTROL;
use crate::control;
use crate::event::Event;
use crate::event::{Cause, Change};
use crate::metrics::Metrics;
use crate::outbox::writer::{LATE, Writers};
use crate::pocketbase::{PocketBase, PocketBaseError, version};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Pause between two looks at the writers' lag.
const LAG_PAUSE: Duration = Duration::from_millis(5);
/// Name reserved by a confirmation.
const CONFIRMATION: &str = "confirmation of outbox rows";
/// Longest wait for the writers before a publish: unread rows may hold access changes.
const LAG_WAIT: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
enum RelayError {
    #[error(transparent)]
    PocketBase(#[from] PocketBaseError),
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

/// Executes the machine's actions.
pub(super) struct Driver {
    pub machine: Machine,
    pub pocketbase: PocketBase,
    pub broker: Arc<dyn Broker>,
    /// Writers of this gateway's clients, for which publishing waits. `None` with Redis, where other gateways would
    /// publish meanwhile.
    pub writers: Option<Arc<Writers>>,
    pub urgency: Arc<Urgency>,
    pub metrics: Metrics,
    pub incomplete: IncompleteEvents,
    pub failure: Arc<Mutex<Option<String>>>,
    pub warnings: Arc<Mutex<Vec<String>>>,
    pub hook_monitor: HookMonitor,
    pub start: watch::Sender<bool>,
    pub processed: watch::Sender<u64>,
    /// True if the last input led to new publications.
    pub has_published: bool,
    /// The shared mark, if the last publish has moved the mark as well.
    pub advanced: Option<Mark>,
    /// The last logged difference of versions.
    pub mismatch: Option<String>,
    /// Number of the shared mark at the last look.
    pub seen: u64,
    /// Shortest time between two confirmations of any gateways: less than the interval of reads.
    pub confirm_pause: Duration,
}

impl Driver {
    pub async fn run(mut self, mut posted: Posted, pull_interval: Duration) {
        let mut schedule = ReadSchedule::new(pull_interval, Instant::now());
        // While the broker is unreachable, posted events are dropped, and read from the outbox later.
        let mut broker_down = false;
        loop {
            let mut batches = 0;
            let input = tokio::select! {
                taken = posted.next() => match taken {
                    None => return,
                    Some((events, count)) if broker_down => {
                        self.metrics.count_events("dropped", events.events.len());
                        if events.events.iter().any(Event::changes_access) {
                            self.urgency.dropped();
                        }
                        self.processed.send_modify(|processed| *processed += count);
                        continue;
                    }
                    Some((events, count)) => {
                        batches = count;
                        Input::Posted(events)
                    }
                },
                () = tokio::time::sleep_until(schedule.next()) => {
                    if self.is_relayed_elsewhere().await && schedule.defer(Instant::now()) {
                        continue;
                    }
                    schedule.begin_read(Instant::now());
                    self.metrics.relay_pulls.with_label_values(&["timer"]).inc();
                    Input::Tick
                }
            };
            let is_posted = matches!(input, Input::Posted(_));
            if is_posted {
                // After a gap, the machine reads at once.
                schedule.postpone(Instant::now());
            }
            self.has_published = false;
            let result = self.execute(input).await;
            if is_posted {
                schedule.end_post();
            } else {
                let alone = self.hook_monitor.is_failing() || self.has_published;
                schedule.end_read(alone, Instant::now());
            }
            self.processed.send_modify(|processed| *processed += batches);
            match result {
                Ok(()) => {
                    broker_down = false;
                    schedule.succeed();
                    posted.settle(!is_posted);
                    if self.urgency.has_dropped() {
                        schedule.hurry(Instant::now());
                    }
                    self.succeed();
                }
                Err(error) => {
                    broker_down = matches!(error, RelayError::Broker(_));
                    self.fail(&error);
                    schedule.fail(Instant::now());
                }
            }
        }
    }

    /// Whether another gateway has moved the shared mark since the last call, and no post of PocketBase's hooks has failed.
    /// The posts then arrive at the other gateway, and a read of the outbox would mostly return events that are being
    /// published there.
    async fn is_relayed_elsewhere(&mut self) -> bool {
        let Some(own) = self.machine.mark() else { return false };
        let Ok(mark) = self.broker.begin(own).await else { return false };
        let moved = std::mem::replace(&mut self.seen, mark.seq) < mark.seq;
        moved
            && (mark.generation, mark.boot) == (own.generation, own.boot)
            && mark.seq > own.seq
            && !self.hook_monitor.is_failing()
            && !self.urgency.has_dropped()
    }

    /// Feeds an input to the machine, and executes the resulting actions.
    async fn execute(&mut self, input: Input) -> Result<(), RelayError> {
        let mut next = self.machine.step(input);
        while let Some(action) = next {
            let done = self.execute_action(action).await;
            let failed = done.as_ref().err().is_some();
            next = self.machine.step(done.as_ref().map_or(Input::Failed, Clone::clone));
            self.report();
            if failed {
                done?;
            }
        }
        Ok(())
    }

    async fn execute_action(&mut self, action: Action) -> Result<Input, RelayError> {
        Ok(match action {
            Action::Begin(mark) => Input::Mark(self.broker.begin(mark).await?),
            Action::Advance(mark) => Input::Mark(match self.advanced.take() {
                Some(mark) => mark,
                None => self.broker.advance(mark).await?,
            }),
            Action::Restart(mark) => Input::Mark(self.broker.restart(mark).await?),
            Action::Read { after, limit } => {
                let asked = Instant::now();
                let mut page = self.pocketbase.events(after, limit).await?;
                self.metrics.pocketbase_up.set(1);
                lag::read(&self.metrics, &page, self.machine.mark().map_or(0, |mark| mark.seq));
                self.note_version(page.version.as_deref());
                self.note_warnings(std::mem::take(&mut page.problems));
                if let Some(delivery) = page.delivery.take() {
                    self.hook_monitor.reported(delivery, asked);
                }
                Input::Page(page)
            }
            Action::Publish { run, mark } => {
                if !run.iter().any(Event::changes_access) {
                    self.wait_for_writers().await;
                }
                let (deleted, incomplete) = (deleted(&run), incomplete::of(&run));
                let timer = self.metrics.publish_seconds.start_timer();
                let published = if deleted.is_empty() {
                    self.broker.publish_and_advance(&entries(run), mark).await
                } else {
                    self.broker.publish(&entries(run)).await.map(|new| (new, None))
                };
                timer.observe_duration();
                match published {
                    Err(BrokerError::Conflict) => Input::Conflict,
                    published => {
                        let (new, advanced) = published?;
                        self.has_published |= new > 0;
                        self.advanced = advanced;
                        // The mark moves afterwards: a failure here repeats the whole run.
                        for (channel, seq) in deleted {
                            self.broker.forget(&channel, seq).await?;
                        }
                        self.incomplete.note(&incomplete);
                        Input::Published
                    }
                }
            }
            // A single confirmation in an interval is enough. The remaining gateways try again with the next read.
            Action::Confirm(_) if !self.broker.claim(CONFIRMATION, self.confirm_pause).await? => {
                Input::Confirmed { more: true }
            }
            Action::Confirm(seq) => Input::Confirmed { more: self.pocketbase.confirm(seq).await? },
        })
    }

    /// Waits while the writers are late, at most [`LAG_WAIT`], so that clients are served before more is published.
    /// Meanwhile posted events wait in the intake, and past its limit in PocketBase's outbox. Posted access changes, and
    /// the events before them, do not wait.
    async fn wait_for_writers(&self) {
        let Some(writers) = &self.writers else { return };
        let began = Instant::now();
        let mut now = began;
        while now - began < LAG_WAIT && writers.lag(now) >= LATE && !self.urgency.is_urgent() {
            tokio::time::sleep(LAG_PAUSE).await;
            self.metrics.relay_paused_seconds.inc_by(now.elapsed().as_secs_f64());
            now = Instant::now();
        }
    }

    /// Logs a difference between the versions of the hooks and of this gateway, once until the difference changes.
    fn note_version(&mut self, hooks: Option<&str>) {
        let now = version::mismatch(hooks);
        if let Some(mismatch) = now.as_ref().filter(|_| now != self.mismatch) {
            tracing::warn!("{mismatch}");
        }
        self.mismatch = now;
    }

    /// Stores PocketBase's warnings about the config, and logs each change.
    fn note_warnings(&self, now: Vec<String>) {
        let mut warnings = self.warnings.lock();
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
        if self.replace_failure(Some(text.clone())).as_ref() != Some(&text) {
            tracing::warn!(%error, "relaying of PocketBase's events paused; no event is lost, retrying within 3 s");
        }
    }

    fn succeed(&self) {
        if self.replace_failure(None).is_some() {
            tracing::info!(seq = self.machine.mark().map(|mark| mark.seq), "relaying of PocketBase's events works");
        }
    }

    fn replace_failure(&self, failure: Option<String>) -> Option<String> {
        std::mem::replace(&mut *self.failure.lock(), failure)
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

pub(super) fn entries(run: Vec<Event>) -> Vec<Entry> {
    let each = |event: Event| {
        let Event { seq, at, .. } = event;
        let one = move |channel, data| Entry { seq, at, channel, data, barrier: false };
        // The access changes come first: a user who loses access by this event does not get the event.
        let barrier = event.access.is_some();
        let control = control::message::of_event(&event);
        let control = control.map(|message| Entry { barrier, ..one(CONTROL.to_owned(), message) });
        let Event { channels, data, .. } = event;
        control.into_iter().chain(channels.into_iter().map(move |channel| one(channel, data.clone())))
    };
    run.into_iter().flat_map(each).collect()
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
