//! The tasks that write to clients, one for each core.
//!
//! A publication for a thousand clients wakes no thousand tasks: it is put into their outboxes, and each
//! [`Writer`] goes through its share of them and writes what is queued, one system call for each client. What comes
//! for a client while others are written to leaves in the same call; and so does what comes within the hold after a
//! write, so that a room in which much happens costs fewer calls. The first after a pause leaves at once.

use crate::outbox::Outbox;
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

/// The outboxes that have something to write.
#[derive(Default)]
pub struct Writer {
    // Held for a push or a swap: a std Mutex is enough.
    due: Mutex<Vec<Arc<Outbox>>>,
    arrived: Notify,
}

/// All writers of the process; they end when this is dropped.
pub struct Writers {
    writers: Vec<Arc<Writer>>,
    next: AtomicUsize,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl Writers {
    /// One for each of the runtime's threads.
    pub fn start(hold: Duration) -> Self {
        let threads = Handle::current().metrics().num_workers();
        let writers: Vec<Arc<Writer>> = (0..threads).map(|_| Arc::default()).collect();
        let run = |writer: &Arc<Writer>| AbortOnDropHandle::new(tokio::spawn(Arc::clone(writer).run(hold)));
        Self { _tasks: writers.iter().map(run).collect(), writers, next: AtomicUsize::new(0) }
    }

    /// The writer of one more connection.
    pub fn next(&self) -> Arc<Writer> {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        Arc::clone(&self.writers[next % self.writers.len()])
    }
}

impl Writer {
    /// Puts an outbox on the list. It must not be there already.
    pub fn add(&self, outbox: Arc<Outbox>) {
        let mut due = self.due();
        let first = due.is_empty();
        due.push(outbox);
        drop(due);
        if first {
            self.arrived.notify_one();
        }
    }

    async fn run(self: Arc<Self>, hold: Duration) {
        let (mut batch, mut held, mut release) = (Vec::new(), Vec::new(), None);
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
                write(&mut held, None, now, &mut Vec::new()).await;
            }
            std::mem::swap(&mut batch, &mut *self.due());
            write(&mut batch, now.checked_sub(hold), now, &mut held).await;
            if !held.is_empty() {
                release.get_or_insert(now + hold);
            }
        }
    }

    fn due(&self) -> MutexGuard<'_, Vec<Arc<Outbox>>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes what these have queued; those that were written to after `quiet_since` become `held`.
async fn write(due: &mut Vec<Arc<Outbox>>, quiet_since: Option<Instant>, now: Instant, held: &mut Vec<Arc<Outbox>>) {
    for (i, outbox) in due.drain(..).enumerate() {
        if !outbox.write_if_due(quiet_since, now) {
            held.push(outbox);
        }
        if i % TURN == TURN - 1 {
            yield_now().await;
        }
    }
}
