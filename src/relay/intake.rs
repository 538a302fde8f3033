//! Queue of batches posted by the hooks, bounded in number and bytes. Batches past the bounds are dropped: the relay
//! reads the events from PocketBase's outbox.

use crate::event::{Event, Events};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Maximum number of queued batches.
const BATCHES: usize = 1024;
/// Maximum size of the bodies of queued batches, in bytes.
const BYTES: usize = 64 << 20;
/// Maximum number of further batches in a publish call.
const JOINED: u64 = 64;

/// Producer's end. Clones share the queue.
#[derive(Clone)]
pub struct Intake {
    batches: mpsc::Sender<Batch>,
    /// Free bytes.
    room: Arc<Semaphore>,
    urgency: Arc<Urgency>,
}

/// Consumer's end.
pub struct Posted {
    batches: mpsc::Receiver<Batch>,
    urgency: Arc<Urgency>,
}

/// Access changes that were posted and are not published yet: publishing them waits for no writer.
#[derive(Default)]
pub struct Urgency {
    /// True from the offer of an access change until [`Posted::settle`].
    is_urgent: AtomicBool,
    /// True if an access change was dropped: it is in the outbox alone.
    has_dropped: AtomicBool,
}

impl Urgency {
    pub fn is_urgent(&self) -> bool {
        self.is_urgent.load(Relaxed)
    }

    /// Notes an access change that is in the outbox alone.
    pub fn dropped(&self) {
        self.is_urgent.store(true, Relaxed);
        self.has_dropped.store(true, Relaxed);
    }

    /// Whether an access change is in the outbox alone.
    pub fn has_dropped(&self) -> bool {
        self.has_dropped.load(Relaxed)
    }
}

struct Batch {
    events: Events,
    _room: OwnedSemaphorePermit,
}

pub fn queue() -> (Intake, Posted) {
    let (batches, posted) = mpsc::channel(BATCHES);
    let urgency = Arc::<Urgency>::default();
    let intake = Intake { batches, room: Arc::new(Semaphore::new(BYTES)), urgency: Arc::clone(&urgency) };
    (intake, Posted { batches: posted, urgency })
}

impl Intake {
    /// Queues a batch from a body of `bytes` bytes. Returns false for a full queue.
    pub fn offer(&self, events: Events, bytes: usize) -> bool {
        let changes_access = events.events.iter().any(Event::changes_access);
        if changes_access {
            self.urgency.is_urgent.store(true, Relaxed);
        }
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).try_acquire_many_owned(bytes).ok();
        let is_queued = room.is_some_and(|room| self.batches.try_send(Batch { events, _room: room }).is_ok());
        if changes_access && !is_queued {
            self.urgency.dropped();
        }
        is_queued
    }
}

impl Posted {
    /// Returns the next batch, merged with queued batches of the same run of PocketBase, and the number of batches
    /// taken. Batches of another run are dropped; the relay reads the events from the outbox. `None` after the drop of
    /// the last [`Intake`]. Safe to cancel.
    pub async fn next(&mut self) -> Option<(Events, u64)> {
        let Batch { events: mut first, .. } = self.batches.recv().await?;
        let mut count = 1;
        while count <= JOINED {
            let Ok(Batch { events: more, .. }) = self.batches.try_recv() else { break };
            count += 1;
            if more.boot == first.boot {
                first.events.extend(more.events);
            }
        }
        first.events.sort_by_key(|event| event.seq);
        first.events.dedup_by_key(|event| event.seq);
        Some((first, count))
    }

    pub fn urgency(&self) -> Arc<Urgency> {
        Arc::clone(&self.urgency)
    }

    /// Notes that the batches taken so far are published, and with `is_read` also all rows of the outbox. An access change
    /// that arrives meanwhile is found in its own run.
    pub fn settle(&self, is_read: bool) {
        // A drop fills the queue, so an empty queue has dropped nothing since the read began.
        if !self.batches.is_empty() {
            return;
        }
        let has_dropped = self.urgency.has_dropped.fetch_and(!is_read, Relaxed);
        if is_read || !has_dropped {
            self.urgency.is_urgent.store(false, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn the_queue_is_bounded_in_batches_and_bytes() {
        let (intake, mut posted) = queue();
        let offered = |bytes| intake.offer(Events::default(), bytes);
        assert!(offered(BYTES - 10) && offered(10));
        assert!(!offered(1), "the bytes are used up");
        let taken = posted.next().now_or_never().flatten().map(|(_, count)| count);
        assert_eq!(taken, Some(2));
        assert!(!offered(BYTES + 1), "no body is larger than the queue");
        assert!((0..BATCHES).all(|_| offered(1)) && !offered(1), "so many batches");
        let joined = posted.next().now_or_never().flatten().map(|(_, count)| count);
        assert_eq!(joined, Some(JOINED + 1));
    }

    #[test]
    fn a_dropped_access_change_is_urgent_until_the_outbox_is_read() {
        let (intake, mut posted) = queue();
        let urgency = posted.urgency();
        let change = || {
            Events::parse(br#"{"boot":"b","events":[{"seq":1,"channels":[],"data":1,"access":[{"cause":"rules"}]}]}"#)
        };
        assert!(intake.offer(Events::default(), 1) && !urgency.is_urgent());
        assert!(intake.offer(change().unwrap(), 1) && urgency.is_urgent());
        posted.settle(true);
        assert!(urgency.is_urgent(), "still queued");
        posted.next().now_or_never().flatten().unwrap();
        posted.settle(false);
        assert!(!urgency.is_urgent());

        assert!(!intake.offer(change().unwrap(), BYTES + 1));
        posted.settle(false);
        assert!(urgency.is_urgent(), "in the outbox alone");
        posted.settle(true);
        assert!(!urgency.is_urgent());
    }
}
