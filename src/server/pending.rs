//! Sockets that are no WebSocket yet: those that have sent nothing or half a request, and those that idle between
//! requests. Their number is bounded. Where one comes too many, the one that has waited longest is closed: honest
//! clients send their request at once, so it is those who hold sockets open for nothing that lose them, and never
//! those who come.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
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
        (Wait { pending: Arc::clone(self), number: AtomicU64::new(number), displaced }, made_room)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counted until its drop.
pub struct Wait {
    pending: Arc<Pending>,
    /// Written with the lock held.
    number: AtomicU64,
    displaced: Arc<Notify>,
}

impl Wait {
    /// This socket has brought a request, and waits no longer than one that comes just now.
    pub fn renew(&self) {
        let mut waiting = self.pending.lock();
        if let Some(displaced) = waiting.sockets.remove(&self.number.load(Ordering::Relaxed)) {
            let number = waiting.next;
            waiting.next += 1;
            waiting.sockets.insert(number, displaced);
            self.number.store(number, Ordering::Relaxed);
        }
    }

    /// Returns when this socket has to make room.
    pub async fn displaced(&self) {
        self.displaced.notified().await;
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.pending.lock().sockets.remove(self.number.get_mut());
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
        third.renew();
        let (fifth, _) = pending.enter();
        assert!(fourth.displaced().now_or_never().is_some(), "the third has brought a request since");
        second.renew();
        drop((second, third, fourth, fifth));
        assert!(pending.lock().sockets.is_empty());
    }
}
