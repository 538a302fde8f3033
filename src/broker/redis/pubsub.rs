//! A connection for subscriptions only, in RESP3, with the parser of the `redis` crate.
//!
//! A cluster node sends an unrequested `sunsubscribe` when a slot has moved away; the connections of the `redis` crate
//! mistake such a push for the answer to another command. Hence this module records subscriptions as Redis confirms
//! them, and sends a PING behind each request: the PING's answer shows that Redis has carried out the request.

use super::address::{Endpoint, SocketReader, SocketWriter};
use super::delivery::MessageQueue;
use super::error::LinkError;
use super::slots;
use super::subscriber::BySlot;
use crate::tasks::{self, Task};
use parking_lot::{Mutex, MutexGuard};
use redis::{Cmd, PushKind, Value, parse_redis_value_async};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

/// Limit for connecting, and for each answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes per read from the socket.
const READ_BUFFER: usize = 64 * 1024;

pub struct PubSub {
    writer: SocketWriter,
    state: Arc<ReaderState>,
    pings: u64,
    _reader: AbortOnDropHandle<()>,
}

/// State of a connection, between the reading task and the owner.
#[derive(Default)]
struct ReaderState {
    /// Never held across an await.
    seen: Mutex<Seen>,
    /// Wakes the owner of the connection.
    changed: Notify,
}

#[derive(Default)]
struct Seen {
    /// Confirmed subscriptions, by the name in Redis.
    on: BySlot,
    /// Subscriptions that this gateway is ending.
    leaving: HashSet<String>,
    /// True after Redis has ended a subscription unasked.
    moved: bool,
    /// The last error reply.
    refused: Option<LinkError>,
    /// Number of the last answered PING.
    answered: u64,
    /// Why the connection has ended.
    ended: Option<LinkError>,
}

impl PubSub {
    /// Connects and logs in. Received messages go into `queue`.
    pub async fn connect(endpoint: Endpoint, queue: Arc<MessageQueue>) -> Result<Self, LinkError> {
        let connected = timeout(ANSWER_TIMEOUT, endpoint.connect()).await;
        let (reader, writer) = connected.map_err(|_| LinkError::Silent)??.split();
        let state = Arc::new(ReaderState::default());
        let reader = tasks::spawn(Task::RedisReader, read(reader, Arc::clone(&state), queue));
        let mut connection = Self { writer, state, pings: 0, _reader: reader };
        let mut hello = redis::cmd("HELLO");
        hello.arg(3);
        let login = &endpoint.login;
        if let Some(password) = login.password() {
            hello.arg("AUTH").arg(login.username().unwrap_or("default")).arg(password);
        }
        match connection.exchange(&[hello]).await? {
            Some(refused) => Err(refused),
            None => Ok(connection),
        }
    }

    /// Sends commands and waits until Redis has carried out all of them. Returns the last error reply.
    pub async fn exchange(&mut self, commands: &[Cmd]) -> Result<Option<LinkError>, LinkError> {
        self.pings += 1;
        let mut bytes: Vec<u8> = commands.iter().flat_map(Cmd::get_packed_command).collect();
        bytes.extend(redis::cmd("PING").arg(self.pings).get_packed_command());
        self.seen().refused = None;
        let exchanged = async {
            let ended = |error: std::io::Error| LinkError::Connection(error.to_string());
            self.writer.write_all(&bytes).await.map_err(ended)?;
            // TLS may hold encrypted bytes in a buffer.
            self.writer.flush().await.map_err(ended)?;
            loop {
                {
                    let mut seen = self.seen();
                    if seen.answered >= self.pings {
                        return Ok(seen.refused.take());
                    }
                    if let Some(reason) = &seen.ended {
                        // Redis may send an error, such as a missing password, and then close.
                        return Err(seen.refused.clone().unwrap_or_else(|| reason.clone()));
                    }
                    // After a refused HELLO, the PING gets no usable answer.
                    if let Some(refused) = seen.refused.as_ref().filter(|_| self.pings == 1) {
                        return Err(refused.clone());
                    }
                }
                self.state.changed.notified().await;
            }
        };
        timeout(ANSWER_TIMEOUT, exchanged).await.unwrap_or(Err(LinkError::Silent))
    }

    /// Marks subscriptions that are about to be ended.
    pub fn leave(&self, names: &[String]) {
        self.seen().leaving.extend(names.iter().cloned());
    }

    /// Ends the marking, after the answers: from now on, Redis ends subscriptions unasked only.
    pub fn left(&self) {
        self.seen().leaving.clear();
    }

    pub fn is_on(&self, name: &str) -> bool {
        self.seen().on.contains(slots::of_key(name.as_bytes()), name)
    }

    pub fn on(&self, slot: u16) -> HashSet<String> {
        self.seen().on.of(slot).cloned().collect()
    }

    /// Whether the slots have at least these numbers of subscriptions.
    pub fn has_at_least(&self, counts: impl IntoIterator<Item = (u16, usize)>) -> bool {
        self.seen().on.has_at_least(counts)
    }

    /// Waits until Redis ends a subscription unasked. Fails when the connection ends.
    pub async fn disturbed(&self) -> Result<(), LinkError> {
        loop {
            {
                let mut seen = self.seen();
                if let Some(reason) = &seen.ended {
                    return Err(reason.clone());
                }
                if std::mem::take(&mut seen.moved) {
                    return Ok(());
                }
            }
            self.state.changed.notified().await;
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.state.seen()
    }
}

impl ReaderState {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock()
    }

    fn take(&self, value: Value, queue: &MessageQueue) {
        let (kind, data) = match value {
            Value::Push { kind, data } => (kind, data),
            Value::ServerError(error) => {
                self.seen().refused = Some(LinkError::of_reply(&error));
                return self.changed.notify_one();
            }
            Value::BulkString(text) => {
                let number = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
                self.seen().answered = number.unwrap_or_default();
                return self.changed.notify_one();
            }
            _ => return,
        };
        let mut data = data.into_iter();
        let Some(Value::BulkString(name)) = data.next() else { return };
        let Ok(name) = String::from_utf8(name) else { return };
        match kind {
            PushKind::Message | PushKind::SMessage => {
                if let Some(Value::BulkString(message)) = data.next() {
                    queue.push(name, message);
                }
            }
            PushKind::Subscribe | PushKind::SSubscribe => {
                let slot = slots::of_key(name.as_bytes());
                self.seen().on.insert(slot, &name);
            }
            PushKind::Unsubscribe | PushKind::SUnsubscribe => {
                let mut seen = self.seen();
                seen.on.remove(slots::of_key(name.as_bytes()), &name);
                if !seen.leaving.remove(&name) {
                    seen.moved = true;
                    self.changed.notify_one();
                }
            }
            _ => {}
        }
    }
}

async fn read(reader: SocketReader, state: Arc<ReaderState>, queue: Arc<MessageQueue>) {
    let mut reader = BufReader::with_capacity(READ_BUFFER, reader);
    let mut decoder = Default::default();
    let reason = loop {
        match parse_redis_value_async(&mut decoder, &mut reader).await {
            Ok(value) => state.take(value, &queue),
            Err(error) => break error.into(),
        }
    };
    state.seen().ended = Some(reason);
    state.changed.notify_one();
}
