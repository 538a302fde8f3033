//! Inboxes of this node's streams. A client of a stream receives replies over an HTTP response without end, and sends
//! commands by separate HTTP requests, to this node or to another. The commands wait in the inbox of the session.
//!
//! A stream's session has a random name. The name is a secret between the gateway and the client: a request with the
//! name sends commands as the client. Names appear in the reply to `connect`, and neither in logs nor in metrics. A node
//! forwards commands for a session of another node through the broker, as [`Parcel`]s.

use crate::hub::Mailbox;
use crate::protocol::StreamAddress;
use crate::protocol::decode::ClientFrame;
use crate::protocol::format::Encoding;
use bytes::Bytes;
use dashmap::DashMap;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tungstenite::Utf8Bytes;

/// Maximum bytes of commands waiting in an inbox. A frame is accepted while there is room, whatever the frame's size up
/// to `max_frame_size`.
const INBOX: usize = 16 * 1024;
/// Cost of a waiting frame in addition to the frame's bytes.
const WAITING: usize = 64;
/// Length of a session's and a node's name, in random bytes.
const NAME: usize = 16;

/// Name of a session: 128 random bits. Without `Debug`, so that the name is never printed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionName([u8; NAME]);

impl SessionName {
    fn random() -> Self {
        Self(crate::random::bytes())
    }

    /// `None`: not the name of any session.
    pub fn parse(text: &str) -> Option<Self> {
        crate::hex::decode(text).map(Self)
    }
}

/// Register of the inboxes, by session.
pub struct Inboxes {
    node: String,
    sessions: DashMap<SessionName, Arc<Inbox>, foldhash::fast::RandomState>,
}

/// Why commands were not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undeliverable {
    /// This node has no session with the name, or no longer.
    UnknownSession,
    /// Too many commands are waiting.
    Full,
    /// Not in the session's encoding.
    Malformed,
}

impl Default for Inboxes {
    fn default() -> Self {
        Self { node: crate::random::token::<NAME>(), sessions: DashMap::default() }
    }
}

impl Inboxes {
    /// Name of this node: random, and new with each start.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Opens the inbox of a new stream.
    pub fn open(self: &Arc<Self>, encoding: Encoding) -> InboxHandle {
        let name = SessionName::random();
        let inbox = Arc::new(Inbox { encoding, waiting: Mutex::default() });
        self.sessions.insert(name, Arc::clone(&inbox));
        InboxHandle { name, inbox, all: Arc::clone(self) }
    }

    /// Delivers commands to a session of this node.
    pub fn deliver(&self, name: SessionName, commands: Bytes) -> Result<(), Undeliverable> {
        let inbox = self.sessions.get(&name).map(|found| Arc::clone(&found));
        inbox.ok_or(Undeliverable::UnknownSession)?.push(commands)
    }

    /// Number of open inboxes.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Mailbox for Inboxes {
    /// Delivers commands from another node. The client's request is answered already, so the connection ends if the inbox
    /// has no room.
    fn message(&self, message: Bytes) {
        let Some(Parcel { session, commands }) = Parcel::read(message) else {
            tracing::warn!(
                "ignored an unreadable message to this node; does another program publish under `redis_prefix`?"
            );
            return;
        };
        let Some(inbox) = self.sessions.get(&session).map(|found| Arc::clone(&found)) else { return };
        if inbox.push(commands).is_err() {
            inbox.overflow();
        }
    }
}

/// Commands for a session of another node.
pub struct Parcel {
    pub session: SessionName,
    pub commands: Bytes,
}

impl Parcel {
    /// The parcel as a message of the broker: the session's name and the commands.
    pub fn message(&self) -> Bytes {
        [&self.session.0[..], &self.commands].concat().into()
    }

    fn read(mut message: Bytes) -> Option<Self> {
        let (name, _) = message.split_first_chunk::<NAME>()?;
        let session = SessionName(*name);
        Some(Self { session, commands: message.split_off(NAME) })
    }
}

/// Frames of one client, in order of arrival. [`INBOX`] limits the bytes.
struct Inbox {
    encoding: Encoding,
    // Held for a push or a take.
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    frames: VecDeque<ClientFrame>,
    /// Bytes in `frames`, plus [`WAITING`] per frame.
    held: usize,
    has_overflowed: bool,
    reader: Option<Waker>,
}

/// Content of an inbox.
pub enum Received {
    Frame(ClientFrame),
    /// Commands were lost, and the connection has to end.
    Overflow,
}

impl Inbox {
    fn push(&self, commands: Bytes) -> Result<(), Undeliverable> {
        let frame = match self.encoding {
            Encoding::Protobuf => ClientFrame::Protobuf(commands),
            Encoding::Json => match Utf8Bytes::try_from(commands) {
                Ok(text) => ClientFrame::Json(text),
                Err(_) => return Err(Undeliverable::Malformed),
            },
        };
        let mut waiting = self.waiting.lock();
        if waiting.held >= INBOX {
            return Err(Undeliverable::Full);
        }
        waiting.held += frame.len() + WAITING;
        waiting.frames.push_back(frame);
        waiting.wake();
        Ok(())
    }

    fn overflow(&self) {
        let mut waiting = self.waiting.lock();
        waiting.has_overflowed = true;
        waiting.wake();
    }

    fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Received> {
        let mut waiting = self.waiting.lock();
        if let Some(frame) = waiting.frames.pop_front() {
            waiting.held -= frame.len() + WAITING;
            if waiting.frames.is_empty() {
                // An idle stream holds no room for frames.
                waiting.frames = VecDeque::new();
            }
            return Poll::Ready(Received::Frame(frame));
        }
        if waiting.has_overflowed {
            return Poll::Ready(Received::Overflow);
        }
        if !waiting.reader.as_ref().is_some_and(|reader| reader.will_wake(cx.waker())) {
            waiting.reader = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Waiting {
    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

/// The inbox of a stream, open until the drop.
pub struct InboxHandle {
    name: SessionName,
    inbox: Arc<Inbox>,
    all: Arc<Inboxes>,
}

impl InboxHandle {
    /// The session's address, for the client.
    pub fn address(&self) -> StreamAddress {
        StreamAddress { node: self.all.node.clone(), session: crate::hex::encode(&self.name.0) }
    }

    /// Delivers the commands of the request that opens the stream.
    pub fn begin(&self, commands: Bytes) -> Result<(), Undeliverable> {
        self.inbox.push(commands)
    }

    pub fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Received> {
        self.inbox.poll_next(cx)
    }
}

impl Drop for InboxHandle {
    fn drop(&mut self) {
        self.all.sessions.remove(&self.name);
    }
}

impl fmt::Debug for InboxHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InboxHandle").finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "inboxes_tests.rs"]
mod tests;
