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
mod send_buffer;
mod wire;
pub mod writer;

use crate::protocol::Reply;
use crate::protocol::codes::{self, Disconnect};
use crate::protocol::encode::{self, Push};
use crate::protocol::format::Format;
use crate::protocol::frame::Frame;
pub use budget::{Budget, Reservation};
use parking_lot::{Mutex, MutexGuard};
use queue::{Queued, cost};
pub use send_buffer::STRIDE;
use send_buffer::SendBuffer;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;
pub use wire::Wire;
use writer::{WriteTarget, Writer};

/// Bytes that a connection may hold while the shared budget is used up. The largest message from PocketBase (64 KiB,
/// escaped) fits, so that no client is disconnected for a single message.
pub const SHARE: usize = 128 * 1024;
/// Limit of unsent bytes in the kernel, per TCP connection. The default is up to 4 MiB for a client that does not read,
/// invisible to the limits and metrics of the queues. A ping waits behind at most this many bytes, and a slow line
/// (64 kbit/s) carries them in less than `pong_timeout`. Unix sockets are limited by their send buffer.
pub const KERNEL_BUFFER: usize = 64 * 1024;

pub struct Outbox {
    // 32 bits, so that limit and format share a word: every open connection holds an outbox.
    limit: u32,
    format: Format,
    writer: Arc<Writer>,
    // Held for a push or for a write that does not wait.
    inner: Mutex<OutboxInner>,
    /// Wakes the connection's task after a change of [`OutboxState`].
    changed: Notify,
}

struct OutboxInner {
    unsent: SendBuffer,
    /// True while the outbox is on the writer's list.
    is_due: bool,
    /// True while the connection's task is about to write.
    is_corked: bool,
    /// Boxed, since most connections are open.
    closed: Option<Box<Disconnect>>,
    /// True if closed without writing the queued frames.
    aborted: bool,
}

/// State of the outbox, for the connection's task.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OutboxState {
    Open,
    /// The socket is full since this time: wait for room.
    Full(Instant),
    /// The connection has to end, with this reason; `None`: the client is gone.
    Over(Option<Disconnect>),
}

impl Outbox {
    /// `limit`: maximum bytes queued for this client, with a small overhead per frame; `format`: of all frames.
    pub fn new(limit: usize, format: Format, wire: Arc<dyn Wire>, writer: Arc<Writer>) -> Arc<Self> {
        let unsent = SendBuffer::new(wire);
        let inner = Mutex::new(OutboxInner { unsent, is_due: false, is_corked: false, closed: None, aborted: false });
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        Arc::new(Self { limit, format, writer, inner, changed: Notify::new() })
    }

    /// Queues a frame. Past the limit, the connection is closed as slow and the queued frames are dropped; the client
    /// recovers after a reconnect. Returns false if the frame was not queued.
    pub fn push(self: &Arc<Self>, frame: Frame) -> bool {
        self.queue(self.lock(), Queued { frame, reply_of: None })
    }

    /// Queues the reply to a command.
    pub fn reply(self: &Arc<Self>, id: u32, reply: &Reply) -> bool {
        self.push(encode::reply(self.format, id, reply))
    }

    /// Queues a push that no other client gets.
    pub fn push_alone(self: &Arc<Self>, channel: &str, push: &Push<'_>) -> bool {
        self.push(encode::push(self.format, channel, push))
    }

    /// The format of all frames.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The writer of this outbox.
    pub fn writer(&self) -> &Arc<Writer> {
        &self.writer
    }

    /// For the writer: as [`Outbox::push`] for all frames together, without counting in the budget and without adding to
    /// the writer's list. Returns the bytes to count (0: nothing queued), and true if the outbox has to be added to the list.
    pub fn push_here<'a>(&self, frames: impl Iterator<Item = &'a Frame> + Clone) -> (usize, bool) {
        let size = frames.clone().map(cost).sum();
        if size == 0 {
            return (0, false);
        }
        let queued = frames.map(|frame| Queued { frame: frame.clone(), reply_of: None });
        self.take_in(&mut self.lock(), size, queued)
    }

    /// Queues a frame, unless the queue would then hold more than half of the limit, or more than [`SHARE`] while the
    /// budget is used up. Never closes the connection.
    pub fn push_if_roomy(self: &Arc<Self>, frame: Frame) -> bool {
        let inner = self.lock();
        let queued = Queued { frame, reply_of: None };
        let held = inner.unsent.queued() + queued.cost();
        held <= self.limit() / 2 && self.has_room_for(held) && self.queue(inner, queued)
    }

    /// Whether `bytes` more would be queued without ending the connection. Also true if the connection is ending.
    pub fn has_room(&self, bytes: usize) -> bool {
        let inner = self.lock();
        inner.closed.is_some() || inner.unsent.is_gone() || self.has_room_for(inner.unsent.queued() + bytes)
    }

    /// Whether the queue holds more than half of the limit.
    pub fn is_half_full(&self) -> bool {
        self.lock().unsent.queued() > self.limit() / 2
    }

    /// As [`Outbox::push`], for a reply with data for the channel's subscribers only.
    pub fn push_reply_of(self: &Arc<Self>, channel: &Arc<str>, frame: Frame) -> bool {
        self.queue(self.lock(), Queued { frame, reply_of: Some(Arc::clone(channel)) })
    }

    /// Queues a reply, with data of the channel `reply_of` if given, and the pushes that belong to it. The limits are
    /// checked once for all frames: a budget that the first frames use up does not end the connection at the next.
    pub fn push_reply_with(self: &Arc<Self>, reply_of: Option<&Arc<str>>, reply: Frame, pushes: Vec<Frame>) -> bool {
        let reply = Queued { frame: reply, reply_of: reply_of.map(Arc::clone) };
        let pushes = pushes.into_iter().map(|frame| Queued { frame, reply_of: None });
        let frames: Vec<Queued> = std::iter::once(reply).chain(pushes).collect();
        self.queue_all(self.lock(), frames.iter().map(Queued::cost).sum(), frames)
    }

    /// As [`Outbox::push`], for frames about the connection itself: also queued after [`Outbox::close`], while the
    /// client is there.
    pub fn push_last(self: &Arc<Self>, frame: Frame) {
        let mut inner = self.lock();
        let queued = Queued { frame, reply_of: None };
        if inner.closed.is_none() {
            self.queue(inner, queued);
        } else if !inner.unsent.is_gone() {
            self.budget().add(queued.cost());
            inner.unsent.add(queued);
        }
    }

    fn queue(self: &Arc<Self>, inner: MutexGuard<'_, OutboxInner>, queued: Queued) -> bool {
        self.queue_all(inner, queued.cost(), [queued])
    }

    /// `size`: cost of all frames.
    fn queue_all(
        self: &Arc<Self>,
        mut inner: MutexGuard<'_, OutboxInner>,
        size: usize,
        frames: impl IntoIterator<Item = Queued>,
    ) -> bool {
        let (size, becomes_due) = self.take_in(&mut inner, size, frames);
        drop(inner);
        self.budget().add(size);
        if becomes_due {
            self.writer.add(Arc::clone(self) as Arc<dyn WriteTarget>);
        }
        size > 0
    }

    fn take_in(&self, inner: &mut OutboxInner, size: usize, frames: impl IntoIterator<Item = Queued>) -> (usize, bool) {
        if inner.closed.is_some() {
            return (0, false);
        }
        let held = inner.unsent.queued() + size;
        if !self.has_room_for(held) {
            if held <= self.limit() {
                self.budget().warn();
            }
            self.end_now(inner, codes::SLOW);
            return (0, false);
        }
        frames.into_iter().for_each(|queued| inner.unsent.add(queued));
        let becomes_due = !inner.is_due && !inner.is_corked && inner.unsent.full_since().is_none();
        inner.is_due |= becomes_due;
        (size, becomes_due)
    }

    /// Whether this connection may hold `held` bytes. The shared budget counts only past [`SHARE`].
    fn has_room_for(&self, held: usize) -> bool {
        held <= self.limit() && (held <= SHARE || !self.budget().is_used_up())
    }

    /// Ends the connection without writing the queued frames.
    pub fn abort(&self, reason: Disconnect) {
        self.end_now(&mut self.lock(), reason);
    }

    fn end_now(&self, inner: &mut OutboxInner, reason: Disconnect) {
        if !inner.aborted {
            let before = inner.unsent.queued();
            inner.unsent.drop_all_but_begun();
            self.budget().give_back(before - inner.unsent.queued());
            (inner.closed, inner.aborted) = (Some(Box::new(reason)), true);
        }
        self.changed.notify_one();
    }

    /// Removes the queued pushes of a channel. If a reply with the channel's data is not written yet, ends the connection
    /// instead, and the client reconnects: a reply cannot be removed alone.
    pub fn withdraw(&self, channel: &str) {
        let mut inner = self.lock();
        if inner.unsent.has_reply_of(channel) {
            self.end_now(&mut inner, codes::ACCESS_CHANGED);
            return;
        }
        let before = inner.unsent.queued();
        inner.unsent.drop_if(self.format.pushes_of(channel));
        self.budget().give_back(before - inner.unsent.queued());
    }

    /// Ends the connection after the queued frames are written. The first reason is kept.
    pub fn close(&self, reason: Disconnect) {
        self.lock().closed.get_or_insert_with(|| Box::new(reason));
        self.changed.notify_one();
    }

    /// Defers the write of later frames to [`Outbox::uncork`].
    pub fn cork(&self) {
        self.lock().is_corked = true;
    }

    /// Writes the queued frames. Later frames are written by the writer again.
    pub fn uncork(&self) {
        let mut inner = self.lock();
        inner.is_corked = false;
        self.budget().give_back(self.write(&mut inner, Instant::now));
        // A frame of several commands leaves room for as many replies, which an idle client never needs again.
        inner.unsent.release();
    }

    /// Writes the queued frames.
    pub fn flush(&self) {
        self.budget().give_back(self.write(&mut self.lock(), Instant::now));
    }

    /// Returns the bytes that left the queue.
    fn write(&self, inner: &mut OutboxInner, now: impl Fn() -> Instant) -> usize {
        let before = inner.unsent.queued();
        let socket_changed = inner.unsent.write(now);
        let is_finished = inner.closed.is_some() && before > 0 && inner.unsent.is_empty();
        if socket_changed || is_finished {
            self.changed.notify_one();
        }
        before - inner.unsent.queued()
    }

    /// The current state, for the connection's task.
    pub fn state(&self) -> OutboxState {
        let inner = self.lock();
        match (inner.closed.as_deref().copied(), inner.unsent.full_since()) {
            _ if inner.unsent.is_gone() => OutboxState::Over(None),
            (Some(reason), _) if inner.aborted || inner.unsent.is_empty() => OutboxState::Over(Some(reason)),
            (_, Some(since)) => OutboxState::Full(since),
            _ => OutboxState::Open,
        }
    }

    /// Waits for a possible change of [`Outbox::state`]. Safe to cancel.
    pub fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Releases the socket, even while the outbox is still in use.
    pub fn hang_up(&self) {
        let mut inner = self.lock();
        self.budget().give_back(inner.unsent.queued());
        inner.unsent.hang_up();
    }

    /// True if nothing is left to write.
    pub fn is_empty(&self) -> bool {
        let inner = self.lock();
        inner.unsent.is_gone() || inner.unsent.is_empty()
    }

    /// The shared budget.
    pub fn budget(&self) -> &Budget {
        self.writer.budget()
    }

    fn limit(&self) -> usize {
        self.limit as usize
    }

    fn lock(&self) -> MutexGuard<'_, OutboxInner> {
        self.inner.lock()
    }
}

impl WriteTarget for Outbox {
    fn write_if_due(&self, quiet_since: Option<Instant>, now: Instant) -> Option<usize> {
        let mut inner = self.lock();
        if quiet_since.is_some_and(|since| inner.unsent.last_write().is_some_and(|last| last > since)) {
            return None;
        }
        inner.is_due = false;
        // A full socket is left to the connection's task.
        Some(if inner.unsent.full_since().is_none() { self.write(&mut inner, || now) } else { 0 })
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        let queued = self.lock().unsent.queued();
        self.budget().give_back(queued);
    }
}

#[cfg(test)]
mod tests;
