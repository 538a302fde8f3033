//! The queue of frames on their way to one client, bounded in bytes.
//!
//! Anyone may push, from any thread and without waiting; the connection's task takes everything that is queued
//! and writes it at once. A client that reads too slowly fills its own queue and is disconnected (code 3008);
//! nobody else notices.

use crate::protocol::codes::{self, Disconnect};
use bytes::Bytes;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// What each queued frame costs beside its own bytes: its place in the queue.
const FRAME_OVERHEAD: usize = 32;

pub struct Outbox {
    limit: usize,
    // Held for a push or a swap only: a std Mutex is enough.
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    frames: Vec<Bytes>,
    bytes: usize,
    closed: Option<Disconnect>,
}

impl Outbox {
    /// `limit`: how many bytes may wait, frames and a small overhead for each.
    pub fn new(limit: usize) -> Self {
        Self { limit, state: Mutex::default(), changed: Notify::new() }
    }

    /// Queues a frame. Past the limit the connection is closed as slow and what was queued is dropped; the
    /// client recovers it after its reconnect. Returns whether the frame was taken.
    pub fn push(&self, frame: Bytes) -> bool {
        let mut state = self.lock();
        if state.closed.is_some() {
            return false;
        }
        let first = state.frames.is_empty();
        state.bytes += frame.len() + FRAME_OVERHEAD;
        if state.bytes > self.limit {
            *state = State { closed: Some(codes::SLOW), ..State::default() };
        } else {
            state.frames.push(frame);
        }
        let taken = state.closed.is_none();
        drop(state);
        if first || !taken {
            self.changed.notify_one();
        }
        taken
    }

    /// Ends the connection once what is queued has been written. The first reason stands.
    pub fn close(&self, reason: Disconnect) {
        self.lock().closed.get_or_insert(reason);
        self.changed.notify_one();
    }

    /// Moves all queued frames into `batch`, waiting until there is one. Once the queue is empty and closed,
    /// returns why. Safe to cancel: nothing is taken before it returns.
    pub async fn take(&self, batch: &mut Vec<Bytes>) -> Result<(), Disconnect> {
        loop {
            {
                let mut state = self.lock();
                if !state.frames.is_empty() {
                    batch.append(&mut state.frames);
                    state.bytes = 0;
                    return Ok(());
                }
                if let Some(reason) = state.closed {
                    return Err(reason);
                }
            }
            self.changed.notified().await;
        }
    }

    /// Returns once the queue has overflowed, for a writer that is stuck in a write. Safe to cancel.
    pub async fn overflowed(&self) {
        loop {
            if self.lock().closed == Some(codes::SLOW) {
                return;
            }
            self.changed.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_come_out_in_order_and_together() {
        let outbox = Outbox::new(1000);
        for frame in ["a", "b", "c"] {
            assert!(outbox.push(frame.into()));
        }
        let mut batch = Vec::new();
        outbox.take(&mut batch).await.unwrap();
        assert_eq!(batch, ["a", "b", "c"]);
    }

    #[tokio::test]
    async fn what_was_queued_before_a_close_is_still_written() {
        let outbox = Outbox::new(1000);
        outbox.push("last words".into());
        outbox.close(codes::SHUTDOWN);
        assert!(!outbox.push("too late".into()));
        let mut batch = Vec::new();
        assert_eq!(outbox.take(&mut batch).await, Ok(()));
        assert_eq!(outbox.take(&mut batch).await, Err(codes::SHUTDOWN));
        assert_eq!(batch, ["last words"]);
    }

    #[tokio::test]
    async fn a_full_queue_closes_as_slow_and_frees_its_memory() {
        let outbox = Outbox::new(100);
        assert!(outbox.push(vec![b'x'; 60].into()));
        assert!(!outbox.push(vec![b'y'; 60].into()));
        outbox.overflowed().await;
        assert_eq!(outbox.take(&mut Vec::new()).await, Err(codes::SLOW));
    }

    #[tokio::test]
    async fn bytes_are_counted_anew_after_they_were_taken() {
        let outbox = Outbox::new(100);
        for _ in 0..10 {
            assert!(outbox.push(vec![b'x'; 60].into()));
            outbox.take(&mut Vec::new()).await.unwrap();
        }
    }
}
