//! Tasks that write to clients, one per thread of the runtime.
//!
//! A publication for a thousand clients does not wake a thousand tasks. Every [`Writer`] serves a share of the
//! connections. The writer gets the frame once, pushes the frame into the outboxes of the channel's subscribers in the
//! share ([`Recipients`]), and then writes every outbox with a single system call. So every thread works on its own data.
//! Queued publications of a channel, in a row, are pushed in a single pass over the subscribers.
//!
//! Frames for a client that arrive before the write leave in the same call. Frames within the hold after a write leave
//! together at the end of the hold, so a busy channel costs fewer calls. The first frame after a pause leaves at once.
//!
//! A writer that is behind pushes publications in portions of [`PORTION`] bytes, and writes every outbox after a portion.
//! So a client that reads without delay has a short queue, and a slow gateway does not disconnect the client as slow. The
//! next publications wait in the writer's inbox, as a single frame for the subscribers together, and the relay pauses
//! while a writer is late ([`Writers::lag`]).

use super::SHARE;
use super::budget::Budget;
use super::queue::cost;
use crate::log_lines::Seldom;
use crate::metrics::age;
use crate::protocol::frame::Frame;
use crate::tasks::{self, Task};
use parking_lot::{Mutex, MutexGuard};
use prometheus::Histogram;
use std::iter::Peekable;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::AbortOnDropHandle;

/// Writes before the task yields to other tasks of the thread: a fraction of a millisecond.
const TURN: usize = 32;

/// Bytes of publications, of all channels together, between two writes of an outbox. A portion after the frames of a
/// hold fits into [`SHARE`].
const PORTION: usize = SHARE / 2;

/// Maximum number of deliveries in a pass over the subscribers. A subscribe to the channel waits for the end of the pass.
const BATCH: usize = 16;

/// Queued bytes after which a pass updates the budget. Not after every outbox, since the writers share the counter.
pub const COUNTED: usize = 64 * 1024;

/// Pause after a portion, in which the connections' tasks refill sockets that were full. Clients that read 64 KiB per
/// millisecond stay connected, whatever arrives at once.
const PORTION_PAUSE: Duration = Duration::from_millis(1);

/// Lag from which on a writer counts as late.
pub const LATE: Duration = Duration::from_millis(500);

/// Queued frames of one client: an [`Outbox`](super::Outbox).
pub trait WriteTarget: Send + Sync {
    /// Writes the queued frames, and returns the bytes that left the queue, for the budget. `None`: the last write was
    /// after `quiet_since`, and nothing was done.
    fn write_if_due(&self, quiet_since: Option<Instant>, now: Instant) -> Option<usize>;
}

/// A channel's subscribers among the connections of one writer.
pub trait Recipients: Send + Sync {
    /// Pushes deliveries to these recipients, in order, to the subscribers. Adds outboxes with frames to write to `due`.
    /// Counts the queued bytes in the budget during the pass: late by [`COUNTED`] bytes at most.
    fn queue(&self, deliveries: &[Delivery], due: &mut Vec<Arc<dyn WriteTarget>>);
}

pub struct Writer {
    /// Shared by all writers.
    budget: Budget,
    // Held for a push or a swap.
    inbox: Mutex<Inbox>,
    arrived: Notify,
}

#[derive(Default)]
struct Inbox {
    deliveries: Vec<Delivery>,
    /// Outboxes with frames to write.
    due: Vec<Arc<dyn WriteTarget>>,
    /// Time of the first entry.
    since: Option<Instant>,
    /// Time of the first entry that the writer is working on.
    in_work: Option<Instant>,
}

/// A publication for the subscribers of one channel and one writer.
pub struct Delivery {
    pub to: Arc<dyn Recipients>,
    pub frame: Frame,
    /// The publication's offset in the channel.
    pub offset: u64,
    /// Time of the publication's outbox row in Unix milliseconds; 0: unknown.
    pub at: u64,
}

impl Delivery {
    /// Compares addresses alone: the same recipients may have several vtables.
    fn is_to(&self, recipients: &Arc<dyn Recipients>) -> bool {
        ptr::addr_eq(Arc::as_ptr(&self.to), Arc::as_ptr(recipients))
    }
}

/// Takes the next delivery into `batch`, whatever its size, and the deliveries to the same recipients behind the first:
/// at most [`BATCH`], as far as a portion has room beside `pushed` bytes. Returns the size of the batch in a queue.
fn next_batch(
    waiting: &mut Peekable<impl Iterator<Item = Delivery>>,
    pushed: usize,
    batch: &mut Vec<Delivery>,
) -> usize {
    let Some(first) = waiting.next() else { return 0 };
    let (to, mut size) = (Arc::clone(&first.to), cost(&first.frame));
    batch.push(first);
    while batch.len() < BATCH {
        let fits = |next: &Delivery| next.is_to(&to) && pushed + size + cost(&next.frame) <= PORTION;
        let Some(next) = waiting.next_if(fits) else { break };
        size += cost(&next.frame);
        batch.push(next);
    }
    size
}

/// All writers of the process. Dropping this value ends their tasks.
pub struct Writers {
    writers: Vec<Arc<Writer>>,
    next: AtomicUsize,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl Writers {
    /// Starts one writer per thread of the runtime. `latency`: seconds from a publication's outbox row to the sockets.
    pub fn start(hold: Duration, budget: &Budget, latency: &Histogram) -> Self {
        let threads = Handle::current().metrics().num_workers();
        let writers: Vec<Arc<Writer>> = (0..threads).map(|_| Writer::idle(budget.clone())).collect();
        let run = |writer: &Arc<Writer>| tasks::spawn(Task::Writer, Arc::clone(writer).run(hold, latency.clone()));
        Self { _tasks: writers.iter().map(run).collect(), writers, next: AtomicUsize::new(0) }
    }

    /// Assigns a writer to a new connection, in turn.
    pub fn next(&self) -> Arc<Writer> {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        Arc::clone(&self.writers[next % self.writers.len()])
    }

    /// Age of the oldest frame without an attempt to write. Frames for full sockets, and the hold, do not count: slow
    /// clients make no writer late.
    pub fn lag(&self, now: Instant) -> Duration {
        let oldest = self.writers.iter().filter_map(|writer| writer.oldest()).min();
        oldest.map_or(Duration::ZERO, |oldest| now.saturating_duration_since(oldest))
    }

    /// Writers without tasks, for tests.
    #[cfg(test)]
    pub fn idle(writer: &Arc<Writer>) -> Self {
        Self { writers: vec![Arc::clone(writer)], next: AtomicUsize::new(0), _tasks: Vec::new() }
    }
}

impl Writer {
    /// A writer without a task.
    pub fn idle(budget: Budget) -> Arc<Self> {
        Arc::new(Self { budget, inbox: Mutex::default(), arrived: Notify::new() })
    }

    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Adds an outbox to the list. The outbox must not be on the list already.
    pub fn add(&self, outbox: Arc<dyn WriteTarget>) {
        self.put(|inbox| inbox.due.push(outbox));
    }

    /// Queues a publication for its recipients, after all earlier publications.
    pub fn hand(&self, delivery: Delivery) {
        self.put(|inbox| inbox.deliveries.push(delivery));
    }

    fn put(&self, put: impl FnOnce(&mut Inbox)) {
        let mut inbox = self.inbox();
        let was_empty = inbox.due.is_empty() && inbox.deliveries.is_empty();
        if was_empty {
            inbox.since = Some(Instant::now());
        }
        put(&mut inbox);
        drop(inbox);
        if was_empty {
            self.arrived.notify_one();
        }
    }

    async fn run(self: Arc<Self>, hold: Duration, latency: Histogram) {
        let mut round = Round::default();
        let (mut deliveries, mut batch, mut times) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            match round.release {
                None => self.arrived.notified().await,
                Some(at) => tokio::select! {
                    () = self.arrived.notified() => {}
                    () = sleep_until(at) => {}
                },
            }
            let now = Instant::now();
            if round.release.is_some_and(|at| at <= now) {
                self.write_held(&mut round, now).await;
            }
            self.take(&mut deliveries, &mut round.due);
            times.extend(deliveries.iter().map(|delivery| delivery.at).filter(|at| *at > 0));
            let mut waiting = deliveries.drain(..).peekable();
            while let Some(next) = waiting.peek() {
                if round.pushed > 0 && round.pushed + cost(&next.frame) > PORTION {
                    let now = Instant::now();
                    // Replies and pings do not wait for the later portions.
                    round.due.append(&mut self.inbox().due);
                    self.write(&mut round.due, None, now, &mut Vec::new()).await;
                    self.write_held(&mut round, now).await;
                    sleep(PORTION_PAUSE).await;
                }
                round.pushed += next_batch(&mut waiting, round.pushed, &mut batch);
                batch[0].to.queue(&batch, &mut round.due);
                batch.clear();
            }
            drop(waiting);
            self.write(&mut round.due, now.checked_sub(hold), now, &mut round.held).await;
            times.drain(..).for_each(|at| latency.observe(age(at)));
            if round.held.is_empty() {
                round.pushed = 0;
            } else {
                round.release.get_or_insert(now + hold);
            }
            self.finish();
        }
    }

    /// Takes the queued entries.
    fn take(&self, deliveries: &mut Vec<Delivery>, due: &mut Vec<Arc<dyn WriteTarget>>) {
        let mut inbox = self.inbox();
        std::mem::swap(deliveries, &mut inbox.deliveries);
        std::mem::swap(due, &mut inbox.due);
        inbox.in_work = inbox.since.take();
    }

    /// Ends the work on the entries of [`Writer::take`], and logs a large lag.
    fn finish(&self) {
        static LOG: LazyLock<Seldom> = LazyLock::new(Seldom::default);
        let lag = self.inbox().in_work.take().map_or(Duration::ZERO, |since| since.elapsed());
        if lag >= LATE && LOG.passes() {
            tracing::warn!(
                lag_ms = lag.as_millis(),
                "messages waited for this gateway's CPU and arrive late; nothing is lost; give the gateway more CPU, or \
                 add a gateway"
            );
        }
    }

    /// Writes the outboxes that the hold has kept back.
    async fn write_held(&self, round: &mut Round, now: Instant) {
        (round.release, round.pushed) = (None, 0);
        self.write(&mut round.held, None, now, &mut Vec::new()).await;
    }

    /// Writes the outboxes in `due`. Outboxes with a write after `quiet_since` move to `held` instead.
    async fn write(
        &self,
        due: &mut Vec<Arc<dyn WriteTarget>>,
        quiet_since: Option<Instant>,
        now: Instant,
        held: &mut Vec<Arc<dyn WriteTarget>>,
    ) {
        let mut written = 0;
        for (i, outbox) in due.drain(..).enumerate() {
            match outbox.write_if_due(quiet_since, now) {
                Some(bytes) => written += bytes,
                None => held.push(outbox),
            }
            if i % TURN == TURN - 1 {
                self.budget.give_back(std::mem::take(&mut written));
                yield_now().await;
            }
        }
        self.budget.give_back(written);
    }

    /// Time of the oldest entry without a write.
    fn oldest(&self) -> Option<Instant> {
        let inbox = self.inbox();
        inbox.in_work.or(inbox.since)
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock()
    }
}

/// State of a writer's task between two writes.
#[derive(Default)]
struct Round {
    /// Outboxes with frames to write now.
    due: Vec<Arc<dyn WriteTarget>>,
    /// Outboxes with frames to write at `release`.
    held: Vec<Arc<dyn WriteTarget>>,
    release: Option<Instant>,
    /// Bytes of publications pushed since the last write of the outboxes.
    pushed: usize,
}

#[cfg(test)]
impl Writer {
    /// Pushes the queued publications into the outboxes, in place of the task of an idle writer.
    pub fn deliver(&self) {
        let (mut deliveries, mut due, mut batch) = (Vec::new(), Vec::new(), Vec::new());
        self.take(&mut deliveries, &mut due);
        let mut waiting = deliveries.into_iter().peekable();
        while next_batch(&mut waiting, 0, &mut batch) > 0 {
            batch[0].to.queue(&batch, &mut due);
            batch.clear();
        }
        self.finish();
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
