//! One updates channel on this node: takes in order what has come, settles with PocketBase who sees what now, and
//! hands out to each subscriber what is his.
//!
//! It goes batch by batch: whatever came while PocketBase was asked is the next one. What PocketBase answers is at
//! least as new as all of the batch, so of each record and user it is enough to compare before and after.
//!
//! Here: what comes, and where it waits. [`settled`] takes a batch, leaves it to [`inquiry`] to ask PocketBase, and
//! hands out.

mod inquiry;
mod settled;

use super::Told;
use crate::access::changes::Change;
use crate::connection::{Connection, ConnectionId};
use crate::metrics::Metrics;
use crate::pocketbase::PocketBase;
use crate::protocol::Payload;
use crate::protocol::codes::UnsubscribeCode;
use crate::protocol::frame::Frame;
use serde::Deserialize;
use settled::Settled;
use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, oneshot};
use tokio_util::task::AbortOnDropHandle;

/// What may wait while PocketBase is asked. Beyond that, subscribers are told to reload.
const INBOX: usize = 10_000;

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
    /// There was too much.
    Lost,
}

pub struct Join {
    pub connection: Arc<Connection>,
    /// What the client gets before anything of the channel.
    pub reply: Frame,
    pub joined: oneshot::Sender<()>,
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
    inputs: VecDeque<Input>,
    /// Who is subscribed or about to be. With nobody there, what comes is of no interest.
    wanted: HashSet<ConnectionId>,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Vec<Input> {
        self.lock().inputs.drain(..).collect()
    }
}

impl Stream {
    pub fn start(channel: &Arc<str>, pocketbase: PocketBase, metrics: Metrics) -> Self {
        let inbox = Arc::<Inbox>::default();
        let mut settled = Settled::new(channel, pocketbase, metrics);
        let waiting = Arc::clone(&inbox);
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                waiting.arrived.notified().await;
                let inputs = waiting.take();
                settled.settle(inputs, &waiting).await;
            }
        }));
        Self { inbox, _task: task }
    }

    /// Takes in what `input` gives, if anybody is there to hear of it.
    pub fn push(&self, input: impl FnOnce() -> Input) {
        let mut waiting = self.inbox.lock();
        if waiting.wanted.is_empty() {
            return;
        }
        let full = waiting.inputs.len() >= INBOX;
        if full {
            waiting.inputs.retain(|input| matches!(input, Input::Join(_) | Input::Leave(_)));
            waiting.inputs.push_front(Input::Lost);
        } else {
            waiting.inputs.push_back(input());
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
        waiting.inputs.push_back(Input::Join(join));
        self.inbox.arrived.notify_one();
    }

    pub fn leave(&self, connection: &Connection, code: Option<UnsubscribeCode>) {
        let mut waiting = self.inbox.lock();
        if waiting.wanted.remove(&connection.id) {
            let leave = Leave { user: Arc::clone(&connection.user), connection: connection.id, code };
            waiting.inputs.push_back(Input::Leave(leave));
            self.inbox.arrived.notify_one();
        }
    }
}
