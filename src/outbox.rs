//! Queue of outgoing frames for one client, limited in bytes.
//!
//! Any thread may push, without waiting. The queued frames are written together, as far as the socket accepts them: by
//! the outbox's [`Writer`], or by the connection's own task while the task executes commands of the client
//! ([`Outbox::cork`]). The connection's task waits for room in a full socket. A client that reads too slowly fills only
//! its own queue and is disconnected (code 3008), without effect on other clients.
//!
//! A revocation removes queued frames ([`Outbox::withdraw`], [`Outbox::abort`]). The client still gets the bytes that
//! the socket has accepted, and the rest of a partly accepted frame.
//!
//! All queues share one [`Budget`]. While the budget is used up, a push that takes a queue past [`SHARE`] bytes ends
//! the connection. Clients that read without delay never have so much queued.

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

/// Bytes that a connection may hold while the shared budget is used up. The largest message from PocketBase (64 KiB,
/// escaped) fits, so that no client is disconnected for a single message.
pub const SHARE: usize = 128 * 1024;
/// Bytes that a full socket has to accept within `write_timeout`. A client with this progress stays connected,
/// regardless of the bytes still queued.
pub const STRIDE: usize = 32 * 1024;
/// Limit of unsent bytes in the kernel, per TCP connection. The default is up to 4 MiB for a client that does not read,
/// invisible to the limits and metrics of the queues. A ping waits behind at most this many bytes, and a slow line
/// (64 kbit/s) carries them in less than `pong_timeout`. Unix sockets are limited by their send buffer.
pub const KERNEL_BUFFER: usize = 64 * 1024;
/// Maximum number of frames per write.
const PARTS: usize = 64;

/// Destination of frames.
pub trait Wire: Send + Sync {
    /// Writes as many bytes as there is room for, without waiting. Returns the number of bytes written.
    fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize>;
}

impl Wire for ClientStream {
    /// Bypasses tokio until the socket is full: tokio would check the socket's readiness before each write.
    fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match send(self, parts) {
            // Repeated through tokio, so that tokio waits for room.
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
    /// Wakes the connection's task after a change of [`Standing`].
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// `None`: the client is gone.
    wire: Option<Arc<dyn Wire>>,
    frames: Queue,
    /// Written bytes of the first frame.
    written: usize,
    /// Bytes in `frames`, overhead included.
    queued: usize,
    /// True while the outbox is on the writer's list.
    is_due: bool,
    /// True while the connection's task is about to write.
    is_corked: bool,
    full: Option<Full>,
    last_write: Option<Instant>,
    closed: Option<Disconnect>,
    /// True if closed without writing the queued frames.
    aborted: bool,
}

/// Set after EWOULDBLOCK.
#[derive(Clone, Copy)]
struct Full {
    since: Instant,
    /// Bytes accepted since then.
    taken: usize,
}

/// State of the outbox, for the connection's task.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Standing {
    Open,
    /// The socket is full since this time: wait for room.
    Full(Instant),
    /// The connection has to end, with this reason; `None`: the client is gone.
    Over(Option<Disconnect>),
}

impl Outbox {
    /// `limit`: maximum bytes queued for this client, with a small overhead per frame.
    pub fn new(limit: usize, wire: Arc<dyn Wire>, writer: Arc<Writer>) -> Arc<Self> {
        let state = Mutex::new(State { wire: Some(wire), ..State::default() });
        Arc::new(Self { limit, writer, state, changed: Notify::new() })
    }

    /// Queues a frame. Past the limit, the connection is closed as slow and the queued frames are dropped; the client
    /// recovers after a reconnect. Returns false if the frame was not queued.
    pub fn push(self: &Arc<Self>, frame: Frame) -> bool {
        self.queue(self.lock(), Queued { frame, reply_of: None })
    }

    /// The writer of this outbox.
    pub fn writer(&self) -> &Arc<Writer> {
        &self.writer
    }

    /// For the writer: as [`Outbox::push`], without counting in the budget and without adding to the writer's list.
    /// Returns the bytes to count (0: not queued), and true if the outbox has to be added to the list.
    pub fn push_here(&self, frame: &Frame) -> (usize, bool) {
        self.take_in(&mut self.lock(), Queued { frame: frame.clone(), reply_of: None })
    }

    /// Queues a frame, unless the queue would then hold more than half of the limit, or more than [`SHARE`] while the
    /// budget is used up. Never closes the connection.
    pub fn push_if_roomy(self: &Arc<Self>, frame: Frame) -> bool {
        let state = self.lock();
        let queued = Queued { frame, reply_of: None };
        let held = state.queued + queued.cost();
        held <= self.limit / 2 && self.has_room_for(held) && self.queue(state, queued)
    }

    /// Whether `bytes` more would be queued without ending the connection. Also true if the connection is ending.
    pub fn has_room(&self, bytes: usize) -> bool {
        let state = self.lock();
        state.closed.is_some() || state.wire.is_none() || self.has_room_for(state.queued + bytes)
    }

    /// Whether the queue holds more than half of the limit.
    pub fn is_half_full(&self) -> bool {
        self.lock().queued > self.limit / 2
    }

    /// As [`Outbox::push`], for a reply with data for the channel's subscribers only.
    pub fn push_reply_of(self: &Arc<Self>, channel: &Arc<str>, frame: Frame) -> bool {
        self.queue(self.lock(), Queued { frame, reply_of: Some(Arc::clone(channel)) })
    }

    /// As [`Outbox::push`], for frames about the connection itself: also queued after [`Outbox::close`], while the
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

    /// Whether this connection may hold `held` bytes. The shared budget counts only past [`SHARE`].
    fn has_room_for(&self, held: usize) -> bool {
        held <= self.limit && (held <= SHARE || !self.budget().is_used_up())
    }

    /// Ends the connection without writing the queued frames.
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

    /// Removes the queued frames of a channel, which start with `begin`. If a reply with the channel's data is not
    /// written yet, ends the connection instead, and the client reconnects: a reply cannot be removed alone.
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

    /// Ends the connection after the queued frames are written. The first reason is kept.
    pub fn close(&self, reason: Disconnect) {
        self.lock().closed.get_or_insert(reason);
        self.changed.notify_one();
    }

    /// Defers the write of later frames to [`Outbox::uncork`].
    pub fn cork(&self) {
        self.lock().is_corked = true;
    }

    /// Writes the queued frames. Later frames are written by the writer again.
    pub fn uncork(&self) {
        let mut state = self.lock();
        state.is_corked = false;
        self.budget().give_back(self.write(&mut state, Instant::now));
    }

    /// Writes the queued frames.
    pub fn flush(&self) {
        self.budget().give_back(self.write(&mut self.lock(), Instant::now));
    }

    /// For the writer: writes the queued frames, and returns the bytes that left the queue, for the budget. `None`: the
    /// last write was after `quiet_since`, and nothing was done.
    pub fn write_if_due(&self, quiet_since: Option<Instant>, now: Instant) -> Option<usize> {
        let mut state = self.lock();
        if quiet_since.is_some_and(|since| state.last_write.is_some_and(|last| last > since)) {
            return None;
        }
        state.is_due = false;
        // A full socket is left to the connection's task.
        Some(if state.full.is_none() { self.write(&mut state, || now) } else { 0 })
    }

    /// Returns the bytes that left the queue.
    fn write(&self, state: &mut State, now: impl Fn() -> Instant) -> usize {
        let before = state.queued;
        if state.write(now) {
            self.changed.notify_one();
        }
        before - state.queued
    }

    /// The current state, for the connection's task.
    pub fn standing(&self) -> Standing {
        let state = self.lock();
        match (state.closed, state.full) {
            _ if state.wire.is_none() => Standing::Over(None),
            (Some(reason), _) if state.aborted || state.frames.is_empty() => Standing::Over(Some(reason)),
            (_, Some(full)) => Standing::Full(full.since),
            _ => Standing::Open,
        }
    }

    /// Waits for a possible change of [`Outbox::standing`]. Safe to cancel.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Releases the socket, even while the outbox is still in use.
    pub fn hang_up(&self) {
        let mut state = self.lock();
        self.budget().give_back(state.queued);
        state.hang_up();
    }

    /// True if nothing is left to write.
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

    /// Writes until the queue is empty or the socket is full. Returns true if the connection's task has to be woken.
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

    /// Accounts for `bytes` written bytes.
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

    /// Keeps a partly written first frame, which has to be completed, and drops all other frames.
    fn drop_all_but_begun(&mut self) {
        let mut begun = self.written > 0;
        self.queued -= self.frames.drop_unless(|_| std::mem::take(&mut begun));
    }
}

#[cfg(test)]
#[path = "outbox/outbox_tests.rs"]
mod tests;
