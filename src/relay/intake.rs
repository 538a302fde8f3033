//! Queue of batches posted by the hooks, bounded in number and bytes. Batches past the bounds are dropped: the relay
//! reads the events from PocketBase's outbox.

use crate::event::{Event, Events};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
    urgent: Arc<AtomicBool>,
}

/// Consumer's end.
pub struct Posted {
    batches: mpsc::Receiver<Batch>,
    /// See [`Posted::urgent`].
    urgent: Arc<AtomicBool>,
}

struct Batch {
    events: Events,
    _room: OwnedSemaphorePermit,
}

pub fn queue() -> (Intake, Posted) {
    let (batches, posted) = mpsc::channel(BATCHES);
    let urgent = Arc::<AtomicBool>::default();
    let intake = Intake { batches, room: Arc::new(Semaphore::new(BYTES)), urgent: Arc::clone(&urgent) };
    (intake, Posted { batches: posted, urgent })
}

impl Intake {
    /// Queues a batch from a body of `bytes` bytes. Returns false for a full queue.
    pub fn offer(&self, events: Events, bytes: usize) -> bool {
        if events.events.iter().any(Event::changes_access) {
            self.urgent.store(true, Ordering::Release);
        }
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).try_acquire_many_owned(bytes).ok();
        room.is_some_and(|room| self.batches.try_send(Batch { events, _room: room }).is_ok())
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

    /// True from the offer of an access change, also of a dropped one, until the queue is empty.
    pub fn urgent(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.urgent)
    }

    /// Notes that all events read so far are published. An access change that is still queued is found in its run.
    pub fn settle(&self) {
        if self.batches.is_empty() {
            self.urgent.store(false, Ordering::Release);
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
}
