//! Sockets that are no WebSocket yet: those that have sent nothing or half a request, and those that idle between
//! requests. Their number is bounded. Where one comes too many, the one that has waited longest is closed: honest
//! clients send their request at once, so it is those who hold sockets open for nothing that lose them, and never
//! those who come.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

pub struct Pending {
    limit: usize,
    /// A std Mutex is enough: never held across an await.
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// Ascending, so the first has waited longest.
    next: u64,
    sockets: BTreeMap<u64, Arc<Notify>>,
}

impl Pending {
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, waiting: Mutex::default() })
    }

    /// One more socket; returns also whether another one was told to make room.
    pub fn enter(self: &Arc<Self>) -> (Wait, bool) {
        let displaced = Arc::new(Notify::new());
        let mut waiting = self.lock();
        let number = waiting.next;
        waiting.next += 1;
        waiting.sockets.insert(number, Arc::clone(&displaced));
        let first = if waiting.sockets.len() > self.limit { waiting.sockets.pop_first() } else { None };
        drop(waiting);
        let made_room = first.map(|(_, first)| first.notify_one()).is_some();
        (Wait { pending: Arc::clone(self), number, displaced }, made_room)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counted until its drop.
pub struct Wait {
    pending: Arc<Pending>,
    number: u64,
    displaced: Arc<Notify>,
}

impl Wait {
    /// Returns when this socket has to make room.
    pub async fn displaced(&self) {
        self.displaced.notified().await;
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.pending.lock().sockets.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn the_longest_waiting_makes_room() {
        let pending = Pending::new(2);
        let ((first, _), (second, room)) = (pending.enter(), pending.enter());
        assert!(!room);
        drop(first);
        let (third, room) = pending.enter();
        assert!(!room, "the first has gone by itself");
        let (fourth, room) = pending.enter();
        assert!(room);
        assert!(second.displaced().now_or_never().is_some());
        assert!(third.displaced().now_or_never().is_none() && fourth.displaced().now_or_never().is_none());
        drop((second, third, fourth));
        assert!(pending.lock().sockets.is_empty());
    }
}
