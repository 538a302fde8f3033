//! One updates channel on this node: takes inputs in order, settles with PocketBase who may view what now, and delivers
//! to each subscriber what is theirs.
//!
//! It goes batch by batch: all inputs that came while PocketBase was asked are the next batch. PocketBase's answers are
//! at least as new as all of the batch, so of each record and user it is enough to compare before and after.
//!
//! The whole sight of a user (all records that they may view: for a subscribe, or when anything about the account has
//! changed) is read beside that, page by page ([`loads`]), and settled with the batch that follows its last page:
//! records that have changed since it began are then asked about once more. Meanwhile nothing is delivered to this
//! user, and the [`log`] keeps what has to be delivered afterwards.
//!
//! Bounds of memory: the inbox holds [`INBOX`] inputs and [`INBOX_BYTES`] of payloads, the log about as much; past
//! either, subscribers are told to reload. The sights of all users together are bounded too (see `verdicts`).
//!
//! Here: the inbox. [`settled`] takes a batch, leaves it to [`inquiry`] to ask PocketBase, and delivers.

mod inquiry;
mod loads;
mod log;
mod questions;
mod settled;

use super::Told;
use super::source::Source;
use crate::access::changes::Change;
use crate::connection::{Connection, ConnectionId};
use crate::metrics::Metrics;
use crate::protocol::Payload;
use crate::protocol::codes::UnsubscribeCode;
use crate::protocol::frame::Frame;
use inquiry::Inquiry;
pub use inquiry::Turns;
use serde::Deserialize;
use settled::Settled;
use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// Inputs that may wait while PocketBase is asked, and bytes of their payloads. Past that, subscribers are told to
/// reload.
const INBOX: usize = 10_000;
const INBOX_BYTES: usize = 32 * 1024 * 1024;

/// Feeds the channel's task, which ends with it.
pub struct Stream {
    inbox: Arc<Inbox>,
    _task: AbortOnDropHandle<()>,
}

pub enum Input {
    Join(Join),
    Leave(Leave),
    Change(Change),
    Event(Event),
    /// Everything is to be looked at anew, without haste.
    Recheck,
    /// Inputs were lost.
    Lost,
}

pub struct Join {
    pub connection: Arc<Connection>,
    /// What the client gets before anything of the channel.
    pub reply: Frame,
    pub joined: oneshot::Sender<()>,
    /// When it was asked for.
    pub at: Instant,
}

pub struct Leave {
    user: Arc<str>,
    connection: ConnectionId,
    /// Told to the client, if there is one.
    code: Option<UnsubscribeCode>,
}

/// What happened to a guarded record.
pub struct Event {
    action: Action,
    record: Arc<str>,
    data: Payload,
    /// The users whom the record names.
    users: Vec<String>,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Action {
    Create,
    Update,
    Delete,
}

/// A std Mutex is enough: held for a push or a swap.
#[derive(Default)]
struct Inbox {
    state: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Default)]
struct Waiting {
    /// Each with the time of its arrival.
    inputs: VecDeque<(Instant, Input)>,
    /// Of their payloads.
    bytes: usize,
    /// Connections that are subscribed or about to be.
    wanted: HashSet<ConnectionId>,
    /// Whether sights are kept or read, for whomever. Otherwise, and with nobody wanted, inputs are of no interest.
    is_needed: bool,
    /// The arrival of the oldest input of the batch at hand.
    settling: Option<Instant>,
    /// Since when the users have waited whose sight is being read.
    unsettled: Option<Instant>,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Vec<Input> {
        let mut waiting = self.lock();
        waiting.bytes = 0;
        waiting.settling = waiting.inputs.front().map(|(at, _)| *at);
        waiting.inputs.drain(..).map(|(_, input)| input).collect()
    }
}

impl Waiting {
    fn push(&mut self, input: Input) {
        if let Input::Event(event) = &input {
            self.bytes += event.data.len();
        }
        self.inputs.push_back((Instant::now(), input));
    }

    /// Gives up what is there, but for who comes and goes.
    fn lose(&mut self) {
        self.inputs.retain(|(_, input)| matches!(input, Input::Join(_) | Input::Leave(_)));
        self.bytes = 0;
        self.inputs.push_front((Instant::now(), Input::Lost));
    }
}

impl Stream {
    pub fn start(channel: &Arc<str>, source: Arc<dyn Source>, turns: Turns, metrics: Metrics) -> Self {
        let inbox = Arc::<Inbox>::default();
        let mut settled = Settled::new(channel, Inquiry::new(channel, source, turns), metrics);
        let waiting = Arc::clone(&inbox);
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = waiting.arrived.notified() => {}
                    () = settled.due() => {}
                }
                let inputs = waiting.take();
                settled.settle(inputs, &waiting).await;
                waiting.lock().settling = None;
            }
        }));
        Self { inbox, _task: task }
    }

    /// The age of the oldest input that has not been settled yet.
    pub fn behind(&self) -> Duration {
        let waiting = self.inbox.lock();
        let newest = waiting.inputs.front().map(|(at, _)| *at);
        let oldest = [newest, waiting.settling, waiting.unsettled].into_iter().flatten().min();
        oldest.map_or(Duration::ZERO, |oldest| oldest.elapsed())
    }

    /// Takes in what `input` gives, if anybody is there to hear of it.
    pub fn push(&self, input: impl FnOnce() -> Input) {
        let mut waiting = self.inbox.lock();
        if waiting.wanted.is_empty() && !waiting.is_needed {
            return;
        }
        if waiting.inputs.len() >= INBOX || waiting.bytes >= INBOX_BYTES {
            waiting.lose();
        } else {
            waiting.push(input());
        }
        self.inbox.arrived.notify_one();
    }

    pub fn event(&self, told: &Told, data: &Payload) {
        #[derive(Deserialize)]
        struct Record {
            id: Arc<str>,
        }
        #[derive(Deserialize)]
        struct Data {
            action: Action,
            record: Record,
        }
        self.push(|| match serde_json::from_slice::<Data>(data.as_bytes()) {
            Ok(Data { action, record: Record { id: record } }) => {
                Input::Event(Event { action, record, data: data.clone(), users: told.users.clone() })
            }
            Err(error) => {
                tracing::error!(%error, "an event of a guarded record is unreadable");
                Input::Lost
            }
        });
    }

    pub fn join(&self, join: Join) {
        let mut waiting = self.inbox.lock();
        waiting.wanted.insert(join.connection.id);
        waiting.push(Input::Join(join));
        self.inbox.arrived.notify_one();
    }

    pub fn leave(&self, connection: &Connection, code: Option<UnsubscribeCode>) {
        let mut waiting = self.inbox.lock();
        if waiting.wanted.remove(&connection.id) {
            let leave = Leave { user: Arc::clone(&connection.user), connection: connection.id, code };
            waiting.push(Input::Leave(leave));
            self.inbox.arrived.notify_one();
        }
    }
}

#[cfg(test)]
#[path = "stream/stream_tests.rs"]
mod tests;
