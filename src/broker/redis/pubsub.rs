//! One connection that does nothing but subscribe, in RESP3, over the parser of the `redis` crate.
//!
//! That crate's own connections take a `sunsubscribe` that nobody asked for, as a node of a cluster sends it when a
//! slot has moved away, for the answer to another command. So what is subscribed to is kept here as Redis confirms
//! it, and a PING behind each request says when all of it has been acted on.

use super::address::{Endpoint, Reader, Writer};
use super::delivery::Queue;
use super::slots;
use super::subscriber::BySlot;
use crate::tasks::{self, Task};
use redis::{Cmd, PushKind, Value, parse_redis_value_async};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

/// To connect, and for each answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes read from the socket at once.
const READ_BUFFER: usize = 64 * 1024;

pub struct PubSub {
    writer: Writer,
    shared: Arc<Shared>,
    pings: u64,
    _reader: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Shared {
    /// A std Mutex is enough: never held across an await.
    seen: Mutex<Seen>,
    /// For the one owner of the connection.
    changed: Notify,
}

#[derive(Default)]
struct Seen {
    /// What is subscribed to, by its name in Redis.
    on: BySlot,
    /// What has been asked to end.
    leaving: HashSet<String>,
    /// Redis has ended a subscription by itself.
    moved: bool,
    /// The last error that it has answered.
    refused: Option<String>,
    /// The last PING that it has answered.
    answered: u64,
    /// Why nothing will come any more.
    ended: Option<String>,
}

impl PubSub {
    /// Messages go into `queue`.
    pub async fn connect(endpoint: Endpoint, queue: Arc<Queue>) -> Result<Self, String> {
        let connected = timeout(ANSWER_TIMEOUT, endpoint.connect()).await;
        let (reader, writer) = connected.map_err(|_| silent())??.split();
        let shared = Arc::new(Shared::default());
        let reader = tasks::spawn_owned(Task::RedisReader, read(reader, Arc::clone(&shared), queue));
        let mut connection = Self { writer, shared, pings: 0, _reader: reader };
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

    /// Sends commands, and waits until Redis has acted on all of them. Returns the last error that it answered.
    pub async fn exchange(&mut self, commands: &[Cmd]) -> Result<Option<String>, String> {
        self.pings += 1;
        let mut bytes: Vec<u8> = commands.iter().flat_map(Cmd::get_packed_command).collect();
        bytes.extend(redis::cmd("PING").arg(self.pings).get_packed_command());
        self.seen().refused = None;
        let exchanged = async {
            self.writer.write_all(&bytes).await.map_err(|error| error.to_string())?;
            // What TLS has encrypted may wait in its own buffer.
            self.writer.flush().await.map_err(|error| error.to_string())?;
            loop {
                {
                    let mut seen = self.seen();
                    if seen.answered >= self.pings {
                        return Ok(seen.refused.take());
                    }
                    if let Some(reason) = &seen.ended {
                        // Such as that it wants a password, after which it may close.
                        return Err(seen.refused.clone().unwrap_or_else(|| reason.clone()));
                    }
                    // A connection that may not even say hello gets no answer to its PING.
                    if let Some(refused) = seen.refused.as_ref().filter(|_| self.pings == 1) {
                        return Err(refused.clone());
                    }
                }
                self.shared.changed.notified().await;
            }
        };
        timeout(ANSWER_TIMEOUT, exchanged).await.unwrap_or_else(|_| Err(silent()))
    }

    /// Notes that these are about to be unsubscribed from.
    pub fn leave(&self, names: &[String]) {
        self.seen().leaving.extend(names.iter().cloned());
    }

    /// All that was asked has been answered: what ends from now on ends by itself.
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

    /// Waits until Redis has ended a subscription by itself, or the connection has ended, which is an error.
    pub async fn disturbed(&self) -> Result<(), String> {
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
            self.shared.changed.notified().await;
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.shared.seen()
    }
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, value: Value, queue: &Queue) {
        let (kind, data) = match value {
            Value::Push { kind, data } => (kind, data),
            Value::ServerError(error) => {
                self.seen().refused = Some(error.to_string());
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

async fn read(reader: Reader, shared: Arc<Shared>, queue: Arc<Queue>) {
    let mut reader = BufReader::with_capacity(READ_BUFFER, reader);
    let mut decoder = Default::default();
    let reason = loop {
        match parse_redis_value_async(&mut decoder, &mut reader).await {
            Ok(value) => shared.take(value, &queue),
            Err(error) => break error.to_string(),
        }
    };
    shared.seen().ended = Some(reason);
    shared.changed.notify_one();
}

fn silent() -> String {
    "it did not answer in time".into()
}
