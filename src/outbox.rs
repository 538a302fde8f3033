//! The queue of frames on their way to one client, bounded in bytes.
//!
//! Anyone may push, from any thread and without waiting. What is queued is written as far as the socket takes it, all
//! in one go, either by the [`Writer`] that the outbox belongs to, or, while the connection's own task works for its
//! client ([`Outbox::cork`]), by that. Where the socket is full, the connection's task waits for it. A client that
//! reads too slowly fills its own queue and is disconnected (code 3008); nobody else notices.
//!
//! What a revocation forbids is taken out again ([`Outbox::withdraw`], [`Outbox::abort`]): only what the socket has
//! taken already still reaches the client, to the end of a frame that it has taken a part of.
//!
//! All queues together share one [`Budget`]. While it is used up, connections that hold more than [`SHARE`] are
//! disconnected as they are pushed to; those that read along never hold so much and are never touched.

mod budget;
mod queue;

use crate::protocol::codes::{self, Disconnect};
use crate::protocol::frame::Frame;
use crate::stream::ClientStream;
use crate::writer::Writer;
pub use budget::{Budget, Held};
use bytes::Bytes;
use queue::{Queue, Queued};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags};
use std::io::{self, ErrorKind, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::Interest;
use tokio::sync::Notify;
use tokio::time::Instant;

/// What a connection may hold even while the budget of all is used up, in bytes: the largest message that
/// PocketBase sends (64 KiB, escaped) fits, so that nobody is disconnected for a single one.
pub const SHARE: usize = 128 * 1024;
/// A client that takes so many bytes within `write_timeout` goes on, however much more is queued.
pub const STRIDE: usize = 32 * 1024;
/// Bound of unsent bytes in the kernel, per TCP connection. The default is up to 4 MiB for a client that does not read,
/// invisible to the limits and metrics of the queues. A ping is behind so much at most, so this is what a slow line
/// (64 kbit/s) carries in less than `pong_timeout`. Unix sockets are bounded by their send buffer.
pub const KERNEL_BUFFER: usize = 64 * 1024;
/// Frames that are written at once.
const PARTS: usize = 64;

/// Where frames go.
pub trait Wire: Send + Sync {
    /// Writes as much of it as there is room for, without waiting.
    fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize>;
}

impl Wire for ClientStream {
    /// Past tokio, which would look at what it knows of the socket before each write, until the socket is full.
    fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match send(self, parts) {
            // Once more before tokio's eyes, so that it waits for room.
            Err(Errno::WOULDBLOCK) => self.try_io(Interest::WRITABLE, || Ok(send(self, parts)?)),
            sent => Ok(sent?),
        }
    }
}

fn send(socket: &ClientStream, parts: &[IoSlice<'_>]) -> Result<usize, Errno> {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    match parts {
        [one] => rustix::net::send(socket, one, flags),
        several => rustix::net::sendmsg(socket, several, &mut SendAncillaryBuffer::default(), flags),
    }
}

pub struct Outbox {
    limit: usize,
    writer: Arc<Writer>,
    // Held for a push or for a write that does not wait: a std Mutex is enough.
    state: Mutex<State>,
    /// Something has changed that concerns the connection's task.
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// `None`: the client is gone.
    wire: Option<Arc<dyn Wire>>,
    frames: Queue,
    /// Bytes of the first frame that are written.
    written: usize,
    /// Bytes in `frames`, overhead included.
    queued: usize,
    /// The writer has it on its list.
    is_due: bool,
    /// The connection's task is about to write.
    is_corked: bool,
    full: Option<Full>,
    last_write: Option<Instant>,
    closed: Option<Disconnect>,
    /// Whether it was closed without waiting for what is queued.
    aborted: bool,
}

/// The socket takes no more.
#[derive(Clone, Copy)]
struct Full {
    since: Instant,
    /// Bytes that it has taken after all.
    taken: usize,
}

/// What the connection's task has to do for the outbox.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Standing {
    Open,
    /// To wait until the socket takes more; it has been full since then.
    Full(Instant),
    /// To end the connection, and to say why, unless the client is gone.
    Over(Option<Disconnect>),
}

impl Outbox {
    /// `limit`: how many bytes may wait for this client, frames and a small overhead for each.
    pub fn new(limit: usize, wire: Arc<dyn Wire>, writer: Arc<Writer>) -> Arc<Self> {
        let state = Mutex::new(State { wire: Some(wire), ..State::default() });
        Arc::new(Self { limit, writer, state, changed: Notify::new() })
    }

    /// Queues a frame. Past the limit the connection is closed as slow and what was queued is dropped; the
    /// client recovers it after its reconnect. Returns whether the frame was taken.
    pub fn push(self: &Arc<Self>, frame: Frame) -> bool {
        self.queue(self.lock(), Queued { frame, reply_of: None })
    }

    /// Who writes to it.
    pub fn writer(&self) -> &Arc<Writer> {
        &self.writer
    }

    /// For the writer: as [`Outbox::push`], but counts nothing and puts nothing on its list. Returns the bytes to be
    /// counted, if the frame was taken, and whether the outbox belongs on the list now.
    pub fn push_here(&self, frame: &Frame) -> (usize, bool) {
        self.take_in(&mut self.lock(), Queued { frame: frame.clone(), reply_of: None })
    }

    /// Queues a frame unless that would take more than half of the queue, or of what each may hold while the budget of
    /// all is used up. Never closes the connection.
    pub fn push_if_roomy(self: &Arc<Self>, frame: Frame) -> bool {
        let state = self.lock();
        let queued = Queued { frame, reply_of: None };
        let held = state.queued + queued.cost();
        held <= self.limit / 2 && self.has_room_for(held) && self.queue(state, queued)
    }

    /// Whether more than half of what this connection may hold waits to be written.
    pub fn is_half_full(&self) -> bool {
        self.lock().queued > self.limit / 2
    }

    /// As [`Outbox::push`], for a reply that holds what only the channel's subscribers may see.
    pub fn push_reply_of(self: &Arc<Self>, channel: &Arc<str>, frame: Frame) -> bool {
        self.queue(self.lock(), Queued { frame, reply_of: Some(Arc::clone(channel)) })
    }

    /// As [`Outbox::push`], for what belongs to the connection itself: also after it was closed, for as long as the
    /// client is there.
    pub fn push_last(self: &Arc<Self>, frame: Frame) {
        let mut state = self.lock();
        let queued = Queued { frame, reply_of: None };
        if state.closed.is_none() {
            self.queue(state, queued);
        } else if state.wire.is_some() {
            self.budget().add(queued.cost());
            state.add(queued);
        }
    }

    fn queue(self: &Arc<Self>, mut state: MutexGuard<'_, State>, queued: Queued) -> bool {
        let (size, becomes_due) = self.take_in(&mut state, queued);
        drop(state);
        self.budget().add(size);
        if becomes_due {
            self.writer.add(Arc::clone(self));
        }
        size > 0
    }

    fn take_in(&self, state: &mut State, queued: Queued) -> (usize, bool) {
        if state.closed.is_some() {
            return (0, false);
        }
        let size = queued.cost();
        if !self.has_room_for(state.queued + size) {
            self.end_now(state, codes::SLOW);
            return (0, false);
        }
        state.add(queued);
        let becomes_due = !state.is_due && !state.is_corked && state.full.is_none();
        state.is_due |= becomes_due;
        (size, becomes_due)
    }

    /// Whether this connection may hold so many bytes. What all hold is looked at only where this one holds much.
    fn has_room_for(&self, held: usize) -> bool {
        held <= self.limit && (held <= SHARE || !self.budget().is_used_up())
    }

    /// Ends the connection without writing what is queued.
    pub fn abort(&self, reason: Disconnect) {
        self.end_now(&mut self.lock(), reason);
    }

    fn end_now(&self, state: &mut State, reason: Disconnect) {
        if !state.aborted {
            let before = state.queued;
            state.drop_all_but_begun();
            self.budget().give_back(before - state.queued);
            (state.closed, state.aborted) = (Some(reason), true);
        }
        self.changed.notify_one();
    }

    /// Takes back what is queued of a channel, whose frames `begin` so. Where a reply that holds something of it is
    /// not written yet, the connection ends, to be opened anew: a reply cannot be taken back by itself.
    pub fn withdraw(&self, channel: &str, begin: &Bytes) {
        let mut state = self.lock();
        if state.frames.iter().any(|queued| queued.reply_of.as_deref() == Some(channel)) {
            self.end_now(&mut state, codes::ACCESS_CHANGED);
            return;
        }
        let before = state.queued;
        let mut begun = state.written > 0;
        state.queued -=
            state.frames.drop_unless(|it| std::mem::take(&mut begun) || !it.frame.text().starts_with(begin));
        self.budget().give_back(before - state.queued);
    }

    /// Ends the connection once what is queued has been written. The first reason stands.
    pub fn close(&self, reason: Disconnect) {
        self.lock().closed.get_or_insert(reason);
        self.changed.notify_one();
    }

    /// From now on what is pushed waits for [`Outbox::uncork`].
    pub fn cork(&self) {
        self.lock().is_corked = true;
    }

    /// Writes what is queued; from now on the writer does.
    pub fn uncork(&self) {
        let mut state = self.lock();
        state.is_corked = false;
        self.budget().give_back(self.write(&mut state, Instant::now));
    }

    /// Writes what is queued.
    pub fn flush(&self) {
        self.budget().give_back(self.write(&mut self.lock(), Instant::now));
    }

    /// For the writer: writes what is queued and returns the bytes that are queued no longer, for it to count; or
    /// `None` if something was written after `quiet_since`.
    pub fn write_if_due(&self, quiet_since: Option<Instant>, now: Instant) -> Option<usize> {
        let mut state = self.lock();
        if quiet_since.is_some_and(|since| state.last_write.is_some_and(|last| last > since)) {
            return None;
        }
        state.is_due = false;
        // The connection's task waits for a full one.
        Some(if state.full.is_none() { self.write(&mut state, || now) } else { 0 })
    }

    /// Returns the bytes that are queued no longer.
    fn write(&self, state: &mut State, now: impl Fn() -> Instant) -> usize {
        let before = state.queued;
        if state.write(now) {
            self.changed.notify_one();
        }
        before - state.queued
    }

    /// What there is to do for the connection's task.
    pub fn standing(&self) -> Standing {
        let state = self.lock();
        match (state.closed, state.full) {
            _ if state.wire.is_none() => Standing::Over(None),
            (Some(reason), _) if state.aborted || state.frames.is_empty() => Standing::Over(Some(reason)),
            (_, Some(full)) => Standing::Full(full.since),
            _ => Standing::Open,
        }
    }

    /// Returns once [`Outbox::standing`] may have changed. Safe to cancel.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Lets go of the socket, whoever still holds the outbox.
    pub fn hang_up(&self) {
        let mut state = self.lock();
        self.budget().give_back(state.queued);
        state.hang_up();
    }

    /// Whether there is nothing to write any more.
    pub fn is_empty(&self) -> bool {
        let state = self.lock();
        state.wire.is_none() || state.frames.is_empty()
    }

    fn budget(&self) -> &Budget {
        &self.writer.budget
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        let queued = self.lock().queued;
        self.budget().give_back(queued);
    }
}

impl State {
    fn add(&mut self, queued: Queued) {
        self.queued += queued.cost();
        self.frames.push(queued);
    }

    /// Writes until nothing is left or the socket is full. Returns whether the connection's task has to know.
    fn write(&mut self, now: impl Fn() -> Instant) -> bool {
        let was_full = self.full.is_some();
        if self.frames.is_empty() {
            return false;
        }
        while !self.frames.is_empty() {
            match self.write_some() {
                Ok(bytes) => self.advance(bytes, &now),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.full.get_or_insert_with(|| Full { since: now(), taken: 0 });
                    return !was_full;
                }
                Err(_) => {
                    self.hang_up();
                    return true;
                }
            }
        }
        self.full = None;
        self.last_write = Some(now());
        was_full || self.closed.is_some()
    }

    fn write_some(&self) -> io::Result<usize> {
        let wire = self.wire.as_deref().ok_or(ErrorKind::NotConnected)?;
        let begun = |queued: &'_ Queued| self.written.min(queued.frame.len());
        let written = match self.frames.only() {
            Some(one) => wire.write(&[IoSlice::new(&one.frame.as_bytes()[begun(one)..])]),
            None => {
                let mut parts = [IoSlice::new(&[]); PARTS];
                let mut count = 0;
                for (part, queued) in parts.iter_mut().zip(self.frames.iter()) {
                    *part = IoSlice::new(&queued.frame.as_bytes()[if count == 0 { begun(queued) } else { 0 }..]);
                    count += 1;
                }
                wire.write(&parts[..count])
            }
        };
        match written? {
            0 => Err(ErrorKind::WriteZero.into()),
            bytes => Ok(bytes),
        }
    }

    /// So many bytes more are written.
    fn advance(&mut self, bytes: usize, now: &impl Fn() -> Instant) {
        if let Some(full) = &mut self.full {
            full.taken += bytes;
            if full.taken >= STRIDE {
                *full = Full { since: now(), taken: 0 };
            }
        }
        self.written += bytes;
        while let Some(first) = self.frames.pop_if(|first| first.frame.len() <= self.written) {
            self.written -= first.frame.len();
            self.queued -= first.cost();
        }
    }

    fn hang_up(&mut self) {
        (self.wire, self.written) = (None, 0);
        self.drop_all_but_begun();
    }

    /// A frame of which the client has a part has to be finished.
    fn drop_all_but_begun(&mut self) {
        let mut begun = self.written > 0;
        self.queued -= self.frames.drop_unless(|_| std::mem::take(&mut begun));
    }
}

#[cfg(test)]
#[path = "outbox/outbox_tests.rs"]
mod tests;
