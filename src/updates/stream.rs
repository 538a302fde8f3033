//! One updates channel on this node: takes inputs in order, asks PocketBase about access, and delivers to subscribers.
//!
//! Work goes in batches: all inputs that arrive during a round of questions are the next batch. PocketBase's answers
//! are at least as new as the batch, so comparing the sight before and after the batch is enough.
//!
//! The whole sight of a user (all visible records: for a subscribe, or after a change of the account) is loaded in
//! pages beside the stream ([`loads`]), and settled in the batch after the last page; records that changed during the
//! load are asked about again. Until then delivery to this user is suspended, and the [`log`] keeps the events to
//! deliver later.
//!
//! Limits of memory: the inbox holds [`INBOX`] inputs and [`INBOX_BYTES`] of payloads, the log about as much; past
//! either limit, subscribers are told to reload. In addition, the inbox holds [`JOINS`] joins, and a leave for each.
//! The sights of all users together are limited too (see `verdicts`).
//!
//! This file has the inbox. [`settled`] settles a batch with the answers of [`inquiry`].

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

/// Limits of the inputs that wait for PocketBase's answers, in number and in payload bytes. Past either limit,
/// subscribers are told to reload.
const INBOX: usize = 10_000;
const INBOX_BYTES: usize = 32 * 1024 * 1024;
/// Limit of waiting joins. Past the limit, subscribes get the temporary error 100.
const JOINS: usize = 20_000;

/// Handle of the channel's task. The task ends when the handle is dropped.
pub struct Stream {
    inbox: Arc<Inbox>,
    _task: AbortOnDropHandle<()>,
}

pub enum Input {
    Join(Join),
    Leave(Leave),
    Change(Change),
    Event(Event),
    /// A regular recheck of everything, at low priority.
    Recheck,
    /// Inputs were lost.
    Lost,
}

pub struct Join {
    pub connection: Arc<Connection>,
    /// The subscribe reply, sent before any publication.
    pub reply: Frame,
    pub joined: oneshot::Sender<()>,
    /// Time of the subscribe command.
    pub at: Instant,
}

pub struct Leave {
    user: Arc<str>,
    connection: ConnectionId,
    /// Sent to the client in an unsubscribe push; `None`: the client unsubscribed by command.
    code: Option<UnsubscribeCode>,
}

/// A change of a guarded record.
pub struct Event {
    action: Action,
    record: Arc<str>,
    data: Payload,
    /// Users named in the record.
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
    /// Inputs with arrival times.
    inputs: VecDeque<(Instant, Input)>,
    /// Total size of queued payloads.
    bytes: usize,
    /// Joins among the inputs.
    joins: usize,
    /// Connections with a subscription or a pending subscribe.
    wanted: HashSet<ConnectionId>,
    /// True while sights are kept or loaded. Without sights and connections, inputs are dropped.
    is_needed: bool,
    /// Arrival of the oldest input of the current batch.
    settling: Option<Instant>,
    /// Start of the oldest pending load of a subscribed or subscribing user.
    unsettled: Option<Instant>,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Vec<Input> {
        let mut waiting = self.lock();
        (waiting.bytes, waiting.joins) = (0, 0);
        waiting.settling = waiting.inputs.front().map(|(at, _)| *at);
        waiting.inputs.drain(..).map(|(_, input)| input).collect()
    }
}

impl Waiting {
    /// Queued changes of whole accounts, or of everything.
    fn doubts(&self) -> impl Iterator<Item = &Change> {
        let changes = self.inputs.iter().filter_map(|(_, input)| match input {
            Input::Change(change) => Some(change),
            _ => None,
        });
        changes.filter(|change| change.channel.is_none())
    }

    fn push(&mut self, input: Input) {
        if let Input::Event(event) = &input {
            self.bytes += event.data.len();
        }
        self.inputs.push_back((Instant::now(), input));
    }

    /// Drops all inputs but joins and leaves.
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

    /// The age of the oldest unsettled input.
    pub fn behind(&self) -> Duration {
        let waiting = self.inbox.lock();
        let newest = waiting.inputs.front().map(|(at, _)| *at);
        let oldest = [newest, waiting.settling, waiting.unsettled].into_iter().flatten().min();
        oldest.map_or(Duration::ZERO, |oldest| oldest.elapsed())
    }

    /// Queues an input, unless the channel has no subscribers.
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
                tracing::error!(
                    %error,
                    "an event of a guarded record is unreadable; the subscribers of its updates channel get code 2500 \
                     and reload; see that hooks and gateway are of the same version"
                );
                Input::Lost
            }
        });
    }

    /// Queues a subscribe. Past [`JOINS`], the subscribe is dropped, and `joined` is closed without an answer.
    pub fn join(&self, join: Join) {
        let mut waiting = self.inbox.lock();
        if waiting.joins >= JOINS {
            return;
        }
        waiting.joins += 1;
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

#[cfg(test)]
#[path = "stream/loads_tests.rs"]
mod loads_tests;
