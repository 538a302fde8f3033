//! Queue of batches posted by the hooks, bounded in number and bytes. Batches past the bounds are dropped: the relay
//! reads the events from PocketBase's outbox.

use crate::event::Events;
use std::sync::Arc;
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
}

/// Consumer's end.
pub struct Posted(mpsc::Receiver<Batch>);

struct Batch {
    events: Events,
    _room: OwnedSemaphorePermit,
}

pub fn queue() -> (Intake, Posted) {
    let (batches, posted) = mpsc::channel(BATCHES);
    (Intake { batches, room: Arc::new(Semaphore::new(BYTES)) }, Posted(posted))
}

impl Intake {
    /// Queues a batch from a body of `bytes` bytes. Returns false for a full queue.
    pub fn offer(&self, events: Events, bytes: usize) -> bool {
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
        let Batch { events: mut first, .. } = self.0.recv().await?;
        let mut count = 1;
        while count <= JOINED {
            let Ok(Batch { events: more, .. }) = self.0.try_recv() else { break };
            count += 1;
            if more.boot == first.boot {
                first.events.extend(more.events);
            }
        }
        first.events.sort_by_key(|event| event.seq);
        first.events.dedup_by_key(|event| event.seq);
        Some((first, count))
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
