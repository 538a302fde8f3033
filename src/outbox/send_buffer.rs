//! Unsent frames of one client, with the progress of their write.

use super::queue::{Queue, Queued};
use super::wire::Wire;
use crate::protocol::frame::Frame;
use std::io::{self, ErrorKind, IoSlice};
use std::sync::Arc;
use tokio::time::Instant;

/// Bytes that a full socket has to accept within `write_timeout`. A client with this progress stays connected,
/// regardless of the bytes still queued.
pub const STRIDE: usize = 32 * 1024;
/// Maximum number of frames per write.
const PARTS: usize = 64;

#[derive(Default)]
pub(super) struct SendBuffer {
    /// `None`: the client is gone.
    wire: Option<Arc<dyn Wire>>,
    frames: Queue,
    /// Written bytes of the first frame.
    written: usize,
    /// Bytes in `frames`, overhead included.
    queued: usize,
    /// Boxed, since few sockets are full at a time.
    full: Option<Box<Full>>,
    last_write: Option<Instant>,
}

/// Set after EWOULDBLOCK.
struct Full {
    since: Instant,
    /// Bytes accepted since then.
    taken: usize,
}

impl SendBuffer {
    pub fn new(wire: Arc<dyn Wire>) -> Self {
        Self { wire: Some(wire), ..Self::default() }
    }

    /// Whether the client is gone.
    pub fn is_gone(&self) -> bool {
        self.wire.is_none()
    }

    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Queued bytes, overhead included.
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// Since when the socket is full, without enough progress.
    pub fn full_since(&self) -> Option<Instant> {
        self.full.as_ref().map(|full| full.since)
    }

    pub fn last_write(&self) -> Option<Instant> {
        self.last_write
    }

    /// Whether a reply with data of this channel is not written yet.
    pub fn has_reply_of(&self, channel: &str) -> bool {
        self.frames.iter().any(|queued| queued.reply_of.as_deref() == Some(channel))
    }

    /// The queued frames, in order.
    #[cfg(test)]
    pub fn frames(&self) -> impl Iterator<Item = &Frame> {
        self.frames.iter().map(|queued| &queued.frame)
    }

    pub fn add(&mut self, queued: Queued) {
        self.queued += queued.cost();
        self.frames.push(queued);
    }

    /// Writes until the queue is empty or the socket is full. Returns true if the
    /// socket has become full, has room again, or has failed.
    pub fn write(&mut self, now: impl Fn() -> Instant) -> bool {
        let was_full = self.full.is_some();
        if self.frames.is_empty() {
            return false;
        }
        while !self.frames.is_empty() {
            match self.write_some() {
                Ok(bytes) => self.advance(bytes, &now),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.full.get_or_insert_with(|| Box::new(Full { since: now(), taken: 0 }));
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
        was_full
    }

    /// Frees the queue's room if the queue is empty.
    pub fn release(&mut self) {
        self.frames.release();
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
                **full = Full { since: now(), taken: 0 };
            }
        }
        self.written += bytes;
        while let Some(first) = self.frames.pop_if(|first| first.frame.len() <= self.written) {
            self.written -= first.frame.len();
            self.queued -= first.cost();
        }
    }

    /// Releases the socket, and drops all frames.
    pub fn hang_up(&mut self) {
        (self.wire, self.written) = (None, 0);
        self.drop_all_but_begun();
    }

    /// Drops the frames for which `is` returns true, except a partly written frame.
    pub fn drop_if(&mut self, is: impl Fn(&Frame) -> bool) {
        let mut begun = self.written > 0;
        self.queued -= self.frames.drop_unless(|it| std::mem::take(&mut begun) || !is(&it.frame));
    }

    /// Keeps a partly written first frame, which has to be completed, and drops all other frames.
    pub fn drop_all_but_begun(&mut self) {
        let mut begun = self.written > 0;
        self.queued -= self.frames.drop_unless(|_| std::mem::take(&mut begun));
    }
}
