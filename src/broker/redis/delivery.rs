//! What has come in over the subscribing links, handed to the sink in its order.

use super::subscriber::State;
use super::wire::{self, Message};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::sync::mpsc;

/// Messages received and not yet handed over; past either bound they are dropped, which is a gap. Memory is taken
/// only for those that are there.
const MAX_MESSAGES: usize = 65_536;
const MAX_BYTES: usize = 64 << 20;

/// Filled by the connections, which must never wait: Redis cuts off who reads too slowly.
pub struct Queue {
    sender: mpsc::Sender<Live>,
    waiting: Arc<Waiting>,
}

pub struct Delivery {
    receiver: mpsc::Receiver<Live>,
    waiting: Arc<Waiting>,
}

#[derive(Default)]
struct Waiting {
    bytes: AtomicUsize,
    overflowed: AtomicBool,
}

struct Live {
    /// The pub/sub channel.
    name: String,
    message: Vec<u8>,
}

pub fn queue() -> (Queue, Delivery) {
    let (sender, receiver) = mpsc::channel(MAX_MESSAGES);
    let waiting = Arc::new(Waiting::default());
    (Queue { sender, waiting: Arc::clone(&waiting) }, Delivery { receiver, waiting })
}

impl Queue {
    pub fn push(&self, name: String, message: Vec<u8>) {
        let size = name.len() + message.len();
        let fits = self.waiting.bytes.fetch_add(size, Ordering::AcqRel) + size <= MAX_BYTES;
        if !fits || self.sender.try_send(Live { name, message }).is_err() {
            self.waiting.bytes.fetch_sub(size, Ordering::AcqRel);
            self.waiting.overflowed.store(true, Ordering::Release);
        }
    }
}

impl Delivery {
    /// The one task that hands messages over, which keeps the order in which each connection brought them.
    pub async fn run(mut self, state: Arc<State>) {
        while let Some(Live { name, message }) = self.receiver.recv().await {
            let size = name.len() + message.len();
            hand_over(&name, message.into(), &state);
            self.waiting.bytes.fetch_sub(size, Ordering::AcqRel);
            // Not before there is room again: each further loss would be another gap.
            if self.receiver.len() <= MAX_MESSAGES / 2
                && self.waiting.bytes.load(Ordering::Acquire) <= MAX_BYTES / 2
                && self.waiting.overflowed.swap(false, Ordering::AcqRel)
            {
                tracing::warn!("publications came faster than they were handed on; some were dropped");
                state.gap();
            }
        }
    }
}

fn hand_over(live: &str, message: Bytes, state: &State) {
    let Some(sink) = state.sink() else { return };
    let Some(channel) = state.keys.channel(live) else { return };
    match wire::read(&message) {
        Some(Message::Publication { epoch, publication }) => sink.publication(&channel, &epoch, publication),
        Some(Message::Signal(publication)) => sink.signal(&channel, publication),
        Some(Message::Movement(movement, info)) => sink.movement(&channel, movement, info),
        Some(Message::Status(state)) => sink.status(&channel, state),
        None => tracing::warn!(
            channel_bytes = channel.len(),
            message_bytes = message.len(),
            "something unreadable was published into a channel's place in Redis; it is ignored"
        ),
    }
}
