//! A bounded table of those who have yet to say what they want: sockets that are no WebSocket yet
//! ([`crate::server`]'s `max_pending`), and WebSockets that have not sent their token yet ([`newcomers`]).
//!
//! When one more comes than the table holds, the entry that has waited longest is displaced. An honest client sends its
//! request or token at once, so whoever holds connections open for nothing loses them, and new clients always get in.
//!
//! [`newcomers`]: super::newcomers

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// How an entry is told that it has to make room.
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
    /// A std Mutex is enough: never held across an await.
    waiting: Mutex<Waiting<T>>,
}

struct Waiting<T> {
    /// Ascending, so the first entry has waited longest.
    next: u64,
    entries: BTreeMap<u64, Arc<T>>,
}

impl<T: Displace> Pending<T> {
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, waiting: Mutex::new(Waiting { next: 0, entries: BTreeMap::new() }) })
    }

    /// Adds an entry. Returns also whether another one was displaced.
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
    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An entry's place in the table, given back by its drop.
pub struct Wait<T> {
    pending: Arc<Pending<T>>,
    /// Written with the lock held.
    number: AtomicU64,
    entry: Arc<T>,
}

impl<T> Wait<T> {
    /// The entry has brought a request, and waits no longer than one that comes just now.
    pub fn renew(&self) {
        let mut waiting = self.pending.lock();
        if let Some(entry) = waiting.entries.remove(&self.number.load(Ordering::Relaxed)) {
            let number = waiting.next;
            waiting.next += 1;
            waiting.entries.insert(number, entry);
            self.number.store(number, Ordering::Relaxed);
        }
    }

    pub fn entry(&self) -> &T {
        &self.entry
    }
}

impl Wait<Notify> {
    /// Returns when this entry has to make room.
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
        assert!(!room, "the first has gone by itself");
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
