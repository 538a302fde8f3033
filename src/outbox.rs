//! The queue of frames on their way to one client, bounded in bytes.
//!
//! Anyone may push, from any thread and without waiting; the connection's task takes what is queued and writes
//! it. What it has taken counts until it is written, so the bound holds for all that waits for this client. A
//! client that reads too slowly fills its own queue and is disconnected (code 3008); nobody else notices.
//!
//! What a revocation forbids is taken out again ([`Outbox::withdraw`], [`Outbox::abort`]), also from the batch that is
//! being written: only what the socket has taken already still reaches the client.
//!
//! All queues together share one [`Budget`]. While it is used up, connections that hold more than [`SHARE`] are
//! disconnected as they are pushed to; those that read along never hold so much and are never touched.

use crate::protocol::codes::{self, Disconnect};
use bytes::Bytes;
use prometheus::IntGauge;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// What each queued frame costs beside its own bytes: its place in the queue, twice, since a growing queue doubles.
const FRAME_OVERHEAD: usize = 2 * size_of::<Bytes>();
/// What a connection may hold even while the budget of all is used up, in bytes: the largest message that
/// PocketBase sends (64 KiB, escaped) fits, so that nobody is disconnected for a single one.
pub const SHARE: usize = 128 * 1024;
/// How many bytes are taken at once, unless one frame alone is larger. Room in the queue comes back in such steps.
const TAKE: usize = 64 * 1024;
/// A batch that was written keeps room for this many frames; what grew beyond is given back.
const ROOM: usize = 64;

/// What all queues of the process may hold together. Clones share it.
#[derive(Clone)]
pub struct Budget {
    limit: i64,
    /// The counter itself, which is a single atomic integer, and its way to the operator.
    held: IntGauge,
}

impl Budget {
    /// `limit` in bytes; `held` is what they hold now, and starts at 0.
    pub fn new(limit: usize, held: IntGauge) -> Self {
        Self { limit: i64::try_from(limit).unwrap_or(i64::MAX), held }
    }

    fn is_used_up(&self) -> bool {
        self.held.get() >= self.limit
    }

    fn add(&self, bytes: usize) {
        self.held.add(bytes as i64);
    }

    fn give_back(&self, bytes: usize) {
        if bytes > 0 {
            self.held.sub(bytes as i64);
        }
    }
}

pub struct Outbox {
    limit: usize,
    budget: Budget,
    // Held for a push or a swap only: a std Mutex is enough.
    state: Mutex<State>,
    changed: Notify,
    /// Whether something of the taken batch was withdrawn; spares the writer the lock.
    withdrawn: AtomicBool,
}

#[derive(Default)]
struct State {
    frames: Vec<Bytes>,
    /// Bytes in `frames`, overhead included.
    queued: usize,
    /// Bytes in the batch that is being written.
    taken: usize,
    closed: Option<Disconnect>,
    /// Whether it was closed without waiting for what is queued.
    aborted: bool,
    /// How the frames begin that must not be written any more; of the taken batch alone.
    withdrawn: Vec<Bytes>,
    /// Channels of which a reply that is not written yet holds something, and whether it is in the taken batch.
    replies: Vec<(Arc<str>, bool)>,
}

impl Outbox {
    /// `limit`: how many bytes may wait for this client, frames and a small overhead for each.
    pub fn new(limit: usize, budget: Budget) -> Self {
        Self { limit, budget, state: Mutex::default(), changed: Notify::new(), withdrawn: AtomicBool::new(false) }
    }

    /// Queues a frame. Past the limit the connection is closed as slow and what was queued is dropped; the
    /// client recovers it after its reconnect. Returns whether the frame was taken.
    pub fn push(&self, frame: Bytes) -> bool {
        self.queue(self.lock(), frame, None)
    }

    /// Queues a frame unless that would take more than half of the queue, or of what each may hold while the budget of
    /// all is used up. Never closes the connection.
    pub fn push_if_roomy(&self, frame: Bytes) -> bool {
        let state = self.lock();
        let held = state.queued + state.taken + cost(&frame);
        held <= self.limit / 2 && self.has_room_for(held) && self.queue(state, frame, None)
    }

    /// As [`Outbox::push`], for a reply that holds what only the channel's subscribers may see.
    pub fn push_reply_of(&self, channel: &Arc<str>, frame: Bytes) -> bool {
        self.queue(self.lock(), frame, Some(channel))
    }

    fn queue(&self, mut state: MutexGuard<'_, State>, frame: Bytes, reply_of: Option<&Arc<str>>) -> bool {
        if state.closed.is_some() {
            return false;
        }
        let first = state.frames.is_empty();
        let size = cost(&frame);
        let fits = self.has_room_for(state.queued + state.taken + size);
        if fits {
            self.budget.add(size);
            state.queued += size;
            state.frames.push(frame);
            state.replies.extend(reply_of.map(|channel| (Arc::clone(channel), false)));
        } else {
            self.end_now(&mut state, codes::SLOW);
        }
        drop(state);
        if first || !fits {
            self.changed.notify_one();
        }
        fits
    }

    /// Whether this connection may hold so many bytes. What all hold is looked at only where this one holds much.
    fn has_room_for(&self, held: usize) -> bool {
        held <= self.limit && (held <= SHARE || !self.budget.is_used_up())
    }

    /// Ends the connection without writing what is queued.
    pub fn abort(&self, reason: Disconnect) {
        self.end_now(&mut self.lock(), reason);
        self.changed.notify_one();
    }

    fn end_now(&self, state: &mut State, reason: Disconnect) {
        if !state.aborted {
            self.budget.give_back(state.queued);
            // What is taken stays counted for as long as the writer holds it.
            *state = State { closed: Some(reason), aborted: true, taken: state.taken, ..State::default() };
        }
    }

    /// Takes back what is queued of a channel, whose frames `begin` so. Where a reply that holds something of it is
    /// not written yet, the connection ends, to be opened anew: a reply cannot be taken back by itself.
    pub fn withdraw(&self, channel: &str, begin: Bytes) {
        let mut state = self.lock();
        if state.replies.iter().any(|(of, _)| **of == *channel) {
            self.end_now(&mut state, codes::ACCESS_CHANGED);
            self.changed.notify_one();
            return;
        }
        let before = state.queued;
        let State { frames, queued, .. } = &mut *state;
        frames.retain(|frame| {
            let stays = !frame.starts_with(&begin);
            if !stays {
                *queued -= cost(frame);
            }
            stays
        });
        self.budget.give_back(before - state.queued);
        if state.taken > 0 {
            state.withdrawn.push(begin);
            self.withdrawn.store(true, Ordering::Release);
        }
    }

    /// Whether a frame of the taken batch has been withdrawn since.
    pub fn is_withdrawn(&self, frame: &Bytes) -> bool {
        self.withdrawn.load(Ordering::Acquire) && self.lock().withdrawn.iter().any(|begin| frame.starts_with(begin))
    }

    /// Ends the connection once what is queued has been written. The first reason stands.
    pub fn close(&self, reason: Disconnect) {
        self.lock().closed.get_or_insert(reason);
        self.changed.notify_one();
    }

    /// Appends queued frames to `batch`, waiting until there is one. To call it again says that the
    /// batch before has been written. Once the queue is empty and closed, returns why. Safe to cancel: nothing is
    /// taken before it returns.
    pub async fn take(&self, batch: &mut Vec<Bytes>) -> Result<(), Disconnect> {
        batch.shrink_to(ROOM);
        loop {
            {
                let mut state = self.lock();
                self.budget.give_back(std::mem::take(&mut state.taken));
                if !state.withdrawn.is_empty() {
                    state.withdrawn.clear();
                    self.withdrawn.store(false, Ordering::Release);
                }
                state.replies.retain(|(_, taken)| !taken);
                if !state.frames.is_empty() {
                    state.hand_over(batch);
                    return Ok(());
                }
                if let Some(reason) = state.closed {
                    return Err(reason);
                }
            }
            self.changed.notified().await;
        }
    }

    /// Returns once the connection has to end at once, and why, for a writer that is stuck in a write. Safe to
    /// cancel.
    pub async fn aborted(&self) -> Disconnect {
        loop {
            if let State { closed: Some(reason), aborted: true, .. } = &*self.lock() {
                return *reason;
            }
            self.changed.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        let state = self.lock();
        self.budget.give_back(state.queued + state.taken);
    }
}

impl State {
    /// Everything, or as many frames from the front as make up one batch.
    fn hand_over(&mut self, batch: &mut Vec<Bytes>) {
        let mut frames = self.frames.len();
        self.taken = self.queued;
        if self.queued > TAKE {
            (frames, self.taken) = (1, cost(&self.frames[0]));
            while let Some(next) = self.frames.get(frames).map(cost)
                && self.taken + next <= TAKE
            {
                self.taken += next;
                frames += 1;
            }
        }
        self.queued -= self.taken;
        batch.extend(self.frames.drain(..frames));
        if self.frames.is_empty() {
            self.frames.shrink_to(ROOM);
            self.replies.iter_mut().for_each(|(_, taken)| *taken = true);
        }
    }
}

fn cost(frame: &Bytes) -> usize {
    frame.len() + FRAME_OVERHEAD
}

#[cfg(test)]
impl Outbox {
    /// One with a budget of its own that is never used up.
    pub fn alone(limit: usize) -> Self {
        Self::new(limit, Budget::new(usize::MAX, IntGauge::new("held", "for a test").unwrap()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(size: usize) -> Bytes {
        vec![b'x'; size - FRAME_OVERHEAD].into()
    }

    async fn take(outbox: &Outbox) -> Result<Vec<Bytes>, Disconnect> {
        let mut batch = Vec::new();
        outbox.take(&mut batch).await.map(|()| batch)
    }

    /// Two connections that may hold a mebibyte each and 300 KiB together.
    fn pair() -> (Outbox, Outbox, IntGauge) {
        let held = IntGauge::new("held", "for a test").unwrap();
        let budget = Budget::new(300 * 1024, held.clone());
        (Outbox::new(1 << 20, budget.clone()), Outbox::new(1 << 20, budget), held)
    }

    #[tokio::test]
    async fn frames_come_out_in_order_and_together() {
        let outbox = Outbox::alone(1000);
        for frame in ["a", "b", "c"] {
            assert!(outbox.push(frame.into()));
        }
        assert_eq!(take(&outbox).await.unwrap(), ["a", "b", "c"]);
    }

    #[tokio::test]
    async fn what_was_queued_before_a_close_is_still_written() {
        let outbox = Outbox::alone(1000);
        outbox.push("last words".into());
        outbox.close(codes::SHUTDOWN);
        assert!(!outbox.push("too late".into()));
        assert_eq!(take(&outbox).await.unwrap(), ["last words"]);
        assert_eq!(take(&outbox).await, Err(codes::SHUTDOWN));
    }

    #[tokio::test]
    async fn a_full_queue_closes_as_slow_and_frees_its_memory() {
        let (outbox, _, held) = pair();
        assert!(outbox.push(frame(1 << 18)));
        assert!(!outbox.push(frame(1 << 20)));
        assert_eq!(held.get(), 0);
        assert_eq!(outbox.aborted().await, codes::SLOW);
        assert_eq!(take(&outbox).await, Err(codes::SLOW));
    }

    #[tokio::test]
    async fn what_gives_way_takes_half_of_the_room_and_closes_nothing() {
        let (outbox, other, held) = pair();
        assert!(outbox.push(frame(1 << 18)));
        assert!(outbox.push_if_roomy(frame(1 << 10)));
        assert!(!outbox.push_if_roomy(frame(1 << 18)), "more than half of the mebibyte");
        assert!(other.push(frame(SHARE - 1000)));
        assert!(!other.push_if_roomy(frame(2000)), "the budget of both is used up");
        assert!(other.push_if_roomy(frame(500)));
        assert_eq!(held.get(), (1 << 18) + (1 << 10) + SHARE as i64 - 500);
    }

    #[tokio::test]
    async fn what_is_withdrawn_is_not_written_wherever_it_waits() {
        let (outbox, _, held) = pair();
        for frame in ["a1", "b1", "a2"] {
            assert!(outbox.push(frame.into()));
        }
        let batch = take(&outbox).await.unwrap();
        assert!(outbox.push("a3".into()) && outbox.push("b2".into()));
        assert!(!batch.iter().any(|frame| outbox.is_withdrawn(frame)));
        outbox.withdraw("a", "a".into());
        assert!(outbox.push("a, after it came back".into()));
        let left: Vec<_> = batch.iter().filter(|frame| !outbox.is_withdrawn(frame)).collect();
        assert_eq!(left, ["b1"]);
        let next = take(&outbox).await.unwrap();
        assert_eq!(next, ["b2", "a, after it came back"]);
        assert!(!next.iter().any(|frame| outbox.is_withdrawn(frame)));
        assert_eq!(held.get(), next.iter().map(|frame| cost(frame) as i64).sum::<i64>());
    }

    #[tokio::test]
    async fn a_reply_that_is_withdrawn_ends_the_connection_while_it_waits() {
        let channel: Arc<str> = "a".into();
        for taken in [false, true] {
            let (outbox, _, held) = pair();
            assert!(outbox.push_reply_of(&channel, "reply".into()));
            if taken {
                take(&outbox).await.unwrap();
            }
            outbox.withdraw("b", "b".into());
            assert!(outbox.push("c".into()));
            outbox.withdraw("a", "a".into());
            assert_eq!(outbox.aborted().await, codes::ACCESS_CHANGED);
            assert_eq!(take(&outbox).await, Err(codes::ACCESS_CHANGED));
            assert_eq!(held.get(), 0);
        }
        let outbox = Outbox::alone(1000);
        assert!(outbox.push_reply_of(&channel, "reply".into()));
        take(&outbox).await.unwrap();
        assert!(outbox.push("next".into()));
        take(&outbox).await.unwrap();
        outbox.withdraw("a", "a".into());
        assert!(outbox.push("the reply was written, and nothing ends".into()));
    }

    #[tokio::test]
    async fn what_is_taken_counts_until_it_is_written() {
        let outbox = Outbox::alone(1000);
        for _ in 0..10 {
            assert!(outbox.push(frame(600)));
            take(&outbox).await.unwrap();
            assert!(outbox.push(frame(400)));
            take(&outbox).await.unwrap();
        }
        assert!(outbox.push(frame(600)), "600 and the 400 that are being written");
        assert!(!outbox.push(frame(100)));
    }

    #[tokio::test]
    async fn a_long_queue_is_taken_in_steps_and_room_comes_back_with_each() {
        let outbox = Outbox::alone(1 << 20);
        let number = |i: usize| Bytes::from(format!("{i:01000}"));
        let mut pushed = 0;
        while pushed < 900 {
            assert!(outbox.push(number(pushed)));
            pushed += 1;
        }
        let mut taken = 0;
        while taken < 900 {
            let batch = take(&outbox).await.unwrap();
            assert!(batch.iter().map(cost).sum::<usize>() <= TAKE);
            for frame in batch {
                assert_eq!(frame, number(taken));
                taken += 1;
            }
            // A client that reads along, however far behind, goes on getting what comes.
            assert!(outbox.push(number(pushed)));
            pushed += 1;
        }
        assert!(outbox.push(frame(900 * 1024)), "a frame larger than a batch leaves alone");
        while taken < pushed {
            taken += take(&outbox).await.unwrap().len();
        }
        assert_eq!(take(&outbox).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_budget_that_is_used_up_ends_who_holds_much_and_nobody_else() {
        let (hoarder, reader, held) = pair();
        for _ in 0..3 {
            assert!(hoarder.push(frame(100 * 1024)));
        }
        assert_eq!(held.get(), 300 * 1024);
        assert!(reader.push(frame(SHARE)), "a single message always has room");
        assert!(!hoarder.push(frame(100)));
        assert_eq!(held.get(), SHARE as i64);
        take(&reader).await.unwrap();
        assert!(reader.push(frame(SHARE)), "with the hoarder gone there is room again");
        drop((hoarder, reader));
        assert_eq!(held.get(), 0);
    }
}
