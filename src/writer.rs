//! The tasks that write to clients, one for each of the runtime's threads.
//!
//! A publication for a thousand clients wakes no thousand tasks. Each [`Writer`] has its share of the connections. It
//! is handed the frame once, puts it into the outboxes of those of its own that listen ([`Audience`]), and then goes
//! through them and writes what is queued, one system call for each client: what a thread touches stays its own.
//!
//! What has come meanwhile for a client leaves in the same call; and so does what comes within the hold after a write,
//! so that a room in which much happens costs fewer calls. The first after a pause leaves at once.

use crate::metrics::age;
use crate::outbox::{Budget, Outbox};
use crate::protocol::frame::Frame;
use crate::tasks::{self, Task};
use prometheus::Histogram;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

/// Writes after which others on the same thread get their turn: a fraction of a millisecond.
const TURN: usize = 32;

/// Those of a writer's connections that listen to a channel.
pub trait Audience: Send + Sync {
    /// Puts the frame of the publication with this offset into the outbox of each that wants it. Adds those that are to
    /// be written to `due`; returns the bytes that are queued now.
    fn queue(&self, frame: &Frame, offset: u64, due: &mut Vec<Arc<Outbox>>) -> usize;
}

pub struct Writer {
    /// Shared by all of them.
    pub budget: Budget,
    // Held for a push or a swap: a std Mutex is enough.
    inbox: Mutex<Inbox>,
    arrived: Notify,
}

#[derive(Default)]
struct Inbox {
    deliveries: Vec<Delivery>,
    /// Outboxes that have something to write.
    due: Vec<Arc<Outbox>>,
}

/// A publication for the subscribers of one channel that belong to one writer.
pub struct Delivery {
    pub to: Arc<dyn Audience>,
    pub frame: Frame,
    /// The publication's number in the channel.
    pub offset: u64,
    /// Time of the publication's outbox row in Unix milliseconds; 0: unknown.
    pub at: u64,
}

/// All writers of the process; they end when this is dropped.
pub struct Writers {
    writers: Vec<Arc<Writer>>,
    next: AtomicUsize,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl Writers {
    /// One for each of the runtime's threads. `latency`: seconds from a publication's outbox row to the sockets.
    pub fn start(hold: Duration, budget: &Budget, latency: &Histogram) -> Self {
        let threads = Handle::current().metrics().num_workers();
        let writers: Vec<Arc<Writer>> = (0..threads).map(|_| Writer::idle(budget.clone())).collect();
        let run =
            |writer: &Arc<Writer>| tasks::spawn_owned(Task::Writer, Arc::clone(writer).run(hold, latency.clone()));
        Self { _tasks: writers.iter().map(run).collect(), writers, next: AtomicUsize::new(0) }
    }

    /// The writer of one more connection.
    pub fn next(&self) -> Arc<Writer> {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        Arc::clone(&self.writers[next % self.writers.len()])
    }
}

impl Writer {
    /// One that does nothing by itself.
    pub fn idle(budget: Budget) -> Arc<Self> {
        Arc::new(Self { budget, inbox: Mutex::default(), arrived: Notify::new() })
    }

    /// Puts an outbox on the list. It must not be there already.
    pub fn add(&self, outbox: Arc<Outbox>) {
        self.put(|inbox| inbox.due.push(outbox));
    }

    /// Hands a publication to an audience, after all that were handed over before.
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

    /// Puts what was handed over into outboxes.
    fn queue(&self, Inbox { deliveries, due }: &mut Inbox) {
        for Delivery { to, frame, offset, .. } in deliveries.drain(..) {
            self.budget.add(to.queue(&frame, offset, due));
        }
    }

    /// Writes what these have queued; those that were written to after `quiet_since` become `held`.
    async fn write(
        &self,
        due: &mut Vec<Arc<Outbox>>,
        quiet_since: Option<Instant>,
        now: Instant,
        held: &mut Vec<Arc<Outbox>>,
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
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl Writer {
    /// Does for an idle one what its task would do first.
    pub fn deliver(&self) {
        let mut inbox = std::mem::take(&mut *self.inbox());
        self.queue(&mut inbox);
    }
}
