//! Delivery of received messages: a bounded queue between the subscription links and the sink.

use super::subscriber::RedisSubscriber;
use super::wire::{self, Message};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::sync::mpsc;

/// Limits of the queue. Above either limit, all messages are dropped until the queue is half empty, and the sink gets a
/// gap before any later message: a publication is never missing without a gap before its successor. Memory is allocated
/// only for queued messages.
const MAX_MESSAGES: usize = 65_536;
const MAX_BYTES: usize = 64 << 20;

/// The queue between the connections and the sink. The connections must never wait: Redis disconnects slow readers.
pub struct MessageQueue {
    sender: mpsc::Sender<Live>,
    waiting: Arc<QueuedAmount>,
}

pub struct MessageDelivery {
    receiver: mpsc::Receiver<Live>,
    waiting: Arc<QueuedAmount>,
}

#[derive(Default)]
struct QueuedAmount {
    bytes: AtomicUsize,
    overflowed: AtomicBool,
}

struct Live {
    /// The pub/sub channel.
    name: String,
    message: Vec<u8>,
}

pub fn queue() -> (MessageQueue, MessageDelivery) {
    let (sender, receiver) = mpsc::channel(MAX_MESSAGES);
    let waiting = Arc::new(QueuedAmount::default());
    (MessageQueue { sender, waiting: Arc::clone(&waiting) }, MessageDelivery { receiver, waiting })
}

impl MessageQueue {
    pub fn push(&self, name: String, message: Vec<u8>) {
        let size = name.len() + message.len();
        let fits = self.waiting.bytes.fetch_add(size, Ordering::AcqRel) + size <= MAX_BYTES;
        let dropping = self.waiting.overflowed.load(Ordering::Acquire);
        if dropping || !fits || self.sender.try_send(Live { name, message }).is_err() {
            self.waiting.bytes.fetch_sub(size, Ordering::AcqRel);
            if !self.waiting.overflowed.swap(true, Ordering::AcqRel) {
                // Wakes the delivery task, in case the queue is empty by now. The name belongs to no channel.
                let _ = self.sender.try_send(Live { name: String::new(), message: Vec::new() });
            }
        }
    }
}

impl MessageDelivery {
    /// Delivers messages for as long as the broker lives, as a single task, which keeps each connection's order.
    pub async fn run(mut self, state: Arc<RedisSubscriber>) {
        while let Some(Live { name, message }) = self.receiver.recv().await {
            let size = name.len() + message.len();
            hand_over(&name, message.into(), &state);
            self.waiting.bytes.fetch_sub(size, Ordering::AcqRel);
            // Wait until there is room: a loss directly after the gap would need another gap.
            if self.receiver.len() <= MAX_MESSAGES / 2
                && self.waiting.bytes.load(Ordering::Acquire) <= MAX_BYTES / 2
                && self.waiting.overflowed.swap(false, Ordering::AcqRel)
            {
                tracing::warn!("dropped messages from Redis: delivery was too slow; the history fills the gap");
                state.gap();
            }
        }
    }
}

fn hand_over(live: &str, message: Bytes, state: &RedisSubscriber) {
    let Some(sink) = state.sink() else { return };
    let Some(channel) = state.keys.channel(live) else { return };
    match wire::read(&message) {
        Some(Message::Publication { epoch, publication, after }) => {
            sink.publication(&channel, &epoch, publication, after.as_ref());
        }
        Some(Message::Signal(publication)) => sink.signal(&channel, publication),
        Some(Message::Movement(movement, info)) => sink.movement(&channel, movement, info),
        Some(Message::Node(message)) => sink.message(message),
        Some(Message::Status(state)) => sink.status(&channel, state),
        None => tracing::warn!(
            channel_bytes = channel.len(),
            message_bytes = message.len(),
            "ignored an unreadable message from Redis; does another program publish under `redis_prefix`?"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::keys::Keys;
    use super::*;
    use crate::broker::{Sink, status_store};
    use crate::protocol::{ClientInfo, Movement, Position, Publication};
    use parking_lot::Mutex;
    use std::sync::Weak;

    /// The offsets of publications, and 0 for a gap.
    #[derive(Default)]
    struct Log(Mutex<Vec<u64>>);

    impl Log {
        fn note(&self, offset: u64) {
            self.0.lock().push(offset);
        }
    }

    impl Sink for Log {
        fn publication(&self, _: &str, _: &str, publication: Publication, _: Option<&Position>) {
            self.note(publication.offset);
        }
        fn signal(&self, _: &str, _: Publication) {}
        fn movement(&self, _: &str, _: Movement, _: ClientInfo) {}
        fn status(&self, _: &str, _: status_store::UserStatus) {}
        fn gap(&self) {
            self.note(0);
        }
    }

    /// A large message is dropped for lack of room. A later, smaller message would fit, but must not arrive before the
    /// gap: the dropped message may have revoked a subscriber's access.
    #[tokio::test]
    async fn nothing_that_follows_a_dropped_message_is_handed_over_before_the_gap() {
        let state = Arc::new(RedisSubscriber::new(Keys::new("p")));
        let log = Arc::new(Log::default());
        let sink: Arc<dyn Sink> = log.clone();
        let sink: Weak<dyn Sink> = Arc::downgrade(&sink);
        state.set_sink(sink).unwrap();
        let (queue, delivery) = queue();
        let push = |offset: u64, size: usize| {
            queue.push(state.keys.live("c"), format!("p{offset}:e:0:\"{}\"", " ".repeat(size)).into_bytes());
        };
        push(1, MAX_BYTES / 10 * 4);
        push(2, MAX_BYTES / 10 * 7);
        // More than half, so that the gap is not reported right after the first delivery.
        push(3, MAX_BYTES / 20 * 11);
        let running = tokio::spawn(delivery.run(Arc::clone(&state)));
        while !log.0.lock().contains(&0) {
            tokio::task::yield_now().await;
        }
        push(4, 1);
        drop(queue);
        running.await.unwrap();
        assert_eq!(*log.0.lock(), [1, 0, 4]);
    }
}
