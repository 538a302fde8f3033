//! Bounded table of connections before their first request: sockets before the WebSocket handshake (`max_pending`), and
//! WebSockets before the token ([`newcomers`](super::newcomers)).
//!
//! Past the limit, a new entry displaces the oldest. Honest clients send the request or token at once, hence connections
//! held open for nothing are closed, and new clients get in.

use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Notify;

/// Notification of a displaced entry.
pub trait Displace {
    fn displace(&self);
}

impl Displace for Notify {
    fn displace(&self) {
        self.notify_one();
    }
}

pub struct Pending<T> {
    limit: usize,
    /// A blocking mutex is enough: never held across an await.
    waiting: Mutex<PendingEntries<T>>,
}

struct PendingEntries<T> {
    /// Number of the next entry. Numbers ascend: the first entry is the oldest.
    next: u64,
    entries: BTreeMap<u64, Arc<T>>,
}

impl<T: Displace> Pending<T> {
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, waiting: Mutex::new(PendingEntries { next: 0, entries: BTreeMap::new() }) })
    }

    /// Adds an entry. Returns the place, and whether the oldest entry was displaced.
    pub fn enter(self: &Arc<Self>, entry: T) -> (Wait<T>, bool) {
        let entry = Arc::new(entry);
        let mut waiting = self.lock();
        let number = waiting.next;
        waiting.next += 1;
        waiting.entries.insert(number, Arc::clone(&entry));
        let first = if waiting.entries.len() > self.limit { waiting.entries.pop_first() } else { None };
        drop(waiting);
        let made_room = first.map(|(_, first)| first.displace()).is_some();
        (Wait { pending: Arc::clone(self), number: AtomicU64::new(number), entry }, made_room)
    }
}

impl<T> Pending<T> {
    fn lock(&self) -> MutexGuard<'_, PendingEntries<T>> {
        self.waiting.lock()
    }
}

/// Place in the table, given back by drop.
pub struct Wait<T> {
    pending: Arc<Pending<T>>,
    /// Written with the lock held.
    number: AtomicU64,
    entry: Arc<T>,
}

impl<T> Wait<T> {
    /// Makes the entry the newest, after a request.
    pub fn renew(&self) {
        let mut waiting = self.pending.lock();
        if let Some(entry) = waiting.entries.remove(&self.number.load(Ordering::Relaxed)) {
            let number = waiting.next;
            waiting.next += 1;
            waiting.entries.insert(number, entry);
            self.number.store(number, Ordering::Relaxed);
        }
    }

    /// Takes the entry out of the table before the drop of the place: it is not displaced any more.
    pub fn keep(&self) {
        self.pending.lock().entries.remove(&self.number.load(Ordering::Relaxed));
    }

    pub fn entry(&self) -> &T {
        &self.entry
    }
}

impl Wait<Notify> {
    /// Waits for displacement.
    pub async fn displaced(&self) {
        self.entry.notified().await;
    }
}

impl<T> Drop for Wait<T> {
    fn drop(&mut self) {
        self.pending.lock().entries.remove(self.number.get_mut());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn the_longest_waiting_makes_room() {
        let pending = Pending::<Notify>::new(2);
        let enter = || pending.enter(Notify::new());
        let ((first, _), (second, room)) = (enter(), enter());
        assert!(!room);
        drop(first);
        let (third, room) = enter();
        assert!(!room, "the first has left the table already");
        let (fourth, room) = enter();
        assert!(room);
        assert!(second.displaced().now_or_never().is_some());
        assert!(third.displaced().now_or_never().is_none() && fourth.displaced().now_or_never().is_none());
        third.renew();
        let (fifth, _) = enter();
        assert!(fourth.displaced().now_or_never().is_some(), "the third has brought a request since");
        second.renew();
        drop((second, third, fourth, fifth));
        assert!(pending.lock().entries.is_empty());
    }
}
