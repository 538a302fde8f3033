//! Tasks that write to clients, one per thread of the runtime.
//!
//! A publication for a thousand clients does not wake a thousand tasks. Each [`Writer`] serves a share of the
//! connections. The writer gets the frame once, pushes the frame into the outboxes of the channel's subscribers in this
//! share ([`Recipients`]), and then writes each outbox with one system call. So each thread works on its own data.
//!
//! Frames that arrive for a client before the write leave in the same call. Frames that arrive within the hold after a
//! write leave together at the end of the hold, so that a busy channel costs fewer calls. The first frame after a pause
//! leaves at once.

use super::budget::Budget;
use crate::metrics::age;
use crate::protocol::frame::Frame;
use crate::tasks::{self, Task};
use parking_lot::{Mutex, MutexGuard};
use prometheus::Histogram;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

/// Writes before the task yields to other tasks of the thread: a fraction of a millisecond.
const TURN: usize = 32;

/// Queued frames of one client: an [`Outbox`](super::Outbox).
pub trait WriteTarget: Send + Sync {
    /// Writes the queued frames, and returns the bytes that left the queue, for the budget. `None`: the last write was
    /// after `quiet_since`, and nothing was done.
    fn write_if_due(&self, quiet_since: Option<Instant>, now: Instant) -> Option<usize>;
}

/// A channel's subscribers among the connections of one writer.
pub trait Recipients: Send + Sync {
    /// Pushes the frame of the publication at `offset` to the subscribers. Adds outboxes with frames to write to `due`.
    /// Returns the number of queued bytes.
    fn queue(&self, frame: &Frame, offset: u64, due: &mut Vec<Arc<dyn WriteTarget>>) -> usize;
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
        put(&mut inbox);
        drop(inbox);
        if was_empty {
            self.arrived.notify_one();
        }
    }

    async fn run(self: Arc<Self>, hold: Duration, latency: Histogram) {
        let (mut inbox, mut held, mut release) = (Inbox::default(), Vec::new(), None);
        let mut times = Vec::new();
        loop {
            match release {
                None => self.arrived.notified().await,
                Some(at) => tokio::select! {
                    () = self.arrived.notified() => {}
                    () = sleep_until(at) => {}
                },
            }
            let now = Instant::now();
            if release.is_some_and(|at| at <= now) {
                release = None;
                self.write(&mut held, None, now, &mut Vec::new()).await;
            }
            std::mem::swap(&mut inbox, &mut *self.inbox());
            times.extend(inbox.deliveries.iter().map(|delivery| delivery.at).filter(|at| *at > 0));
            self.queue(&mut inbox);
            self.write(&mut inbox.due, now.checked_sub(hold), now, &mut held).await;
            times.drain(..).for_each(|at| latency.observe(age(at)));
            if !held.is_empty() {
                release.get_or_insert(now + hold);
            }
        }
    }

    /// Pushes the frames of the queued publications into the outboxes.
    fn queue(&self, Inbox { deliveries, due }: &mut Inbox) {
        for Delivery { to, frame, offset, .. } in deliveries.drain(..) {
            self.budget.add(to.queue(&frame, offset, due));
        }
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

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock()
    }
}

#[cfg(test)]
impl Writer {
    /// Pushes the queued publications into the outboxes, in place of the task of an idle writer.
    pub fn deliver(&self) {
        let mut inbox = std::mem::take(&mut *self.inbox());
        self.queue(&mut inbox);
    }
}
