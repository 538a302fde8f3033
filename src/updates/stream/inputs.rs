//! Bounded queue of a stream's inputs: access changes, events, subscribes.

use crate::connection::{Connection, ConnectionId};
use crate::event::Change;
use crate::protocol::Payload;
use crate::protocol::codes::UnsubscribeCode;
use crate::protocol::frame::Frame;
use parking_lot::{Mutex, MutexGuard};
use serde::Deserialize;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

/// Limits of the inputs that wait for PocketBase's answers, in number and in payload bytes. Past either limit,
/// subscribers are told to reload.
pub(super) const INPUTS: usize = 10_000;
pub(super) const INPUT_BYTES: usize = 32 * 1024 * 1024;
/// Limit of queued subscribes. Past the limit, subscribes get the temporary error 100.
pub(super) const SUBSCRIBES: usize = 20_000;

pub enum StreamInput {
    Subscribe(SubscribeRequest),
    Unsubscribe(UnsubscribeRequest),
    Change(Change),
    Event(RecordEvent),
    /// A regular recheck of everything, at low priority.
    Recheck,
    /// Inputs were lost.
    Lost,
}

pub struct SubscribeRequest {
    pub connection: Arc<Connection>,
    /// The subscribe reply, sent before any publication.
    pub reply: Frame,
    pub accepted: oneshot::Sender<()>,
    /// Time of the subscribe command.
    pub at: Instant,
}

pub struct UnsubscribeRequest {
    pub(super) user: Arc<str>,
    pub(super) connection: ConnectionId,
    /// Sent to the client in an unsubscribe push; `None`: the client unsubscribed by command.
    pub(super) code: Option<UnsubscribeCode>,
}

/// A change of a guarded record.
pub struct RecordEvent {
    pub(super) action: RecordAction,
    pub(super) record: Arc<str>,
    pub(super) data: Payload,
    /// Users named in the record.
    pub(super) users: Vec<String>,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(super) enum RecordAction {
    Create,
    Update,
    Delete,
}

/// The lock is held for a push or a swap.
#[derive(Default)]
pub(super) struct InputQueue {
    queued: Mutex<QueuedInputs>,
    arrived: Notify,
}

#[derive(Default)]
pub(super) struct QueuedInputs {
    /// Inputs with arrival times.
    inputs: VecDeque<(Instant, StreamInput)>,
    /// Total size of queued payloads.
    bytes: usize,
    /// Subscribes among the inputs.
    subscribes: usize,
    /// Connections with a subscription or a pending subscribe.
    pub(super) wanted: HashSet<ConnectionId>,
    /// True while visible records are kept or loaded. Without such records and without connections, inputs are dropped.
    pub(super) is_needed: bool,
    /// Arrival of the oldest input of the current batch.
    processing: Option<Instant>,
    /// Start of the oldest pending load of a subscribed or subscribing user.
    pub(super) loading: Option<Instant>,
}

impl InputQueue {
    pub fn lock(&self) -> MutexGuard<'_, QueuedInputs> {
        self.queued.lock()
    }

    /// Returns when inputs may have arrived. Safe to cancel.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// Takes the next batch. [`InputQueue::processed`] ends the batch.
    pub fn take(&self) -> Vec<StreamInput> {
        let mut queued = self.lock();
        (queued.bytes, queued.subscribes) = (0, 0);
        queued.processing = queued.inputs.front().map(|(at, _)| *at);
        queued.inputs.drain(..).map(|(_, input)| input).collect()
    }

    pub fn processed(&self) {
        self.lock().processing = None;
    }

    /// The age of the oldest unprocessed input.
    pub fn behind(&self) -> Duration {
        let queued = self.lock();
        let newest = queued.inputs.front().map(|(at, _)| *at);
        let oldest = [newest, queued.processing, queued.loading].into_iter().flatten().min();
        oldest.map_or(Duration::ZERO, |oldest| oldest.elapsed())
    }

    /// Queues an input, unless the channel has no subscribers.
    pub fn push(&self, input: impl FnOnce() -> StreamInput) {
        let mut queued = self.lock();
        if queued.wanted.is_empty() && !queued.is_needed {
            return;
        }
        if queued.inputs.len() >= INPUTS || queued.bytes >= INPUT_BYTES {
            queued.lose();
        } else {
            queued.push(input());
        }
        self.arrived.notify_one();
    }

    /// Queues a subscribe. Past [`SUBSCRIBES`], the request is dropped, and `accepted` is closed without an answer.
    pub fn subscribe(&self, request: SubscribeRequest) {
        let mut queued = self.lock();
        if queued.subscribes >= SUBSCRIBES {
            return;
        }
        queued.subscribes += 1;
        queued.wanted.insert(request.connection.id);
        queued.push(StreamInput::Subscribe(request));
        self.arrived.notify_one();
    }

    pub fn unsubscribe(&self, connection: &Connection, code: Option<UnsubscribeCode>) {
        let mut queued = self.lock();
        if queued.wanted.remove(&connection.id) {
            let request = UnsubscribeRequest { user: Arc::clone(&connection.user), connection: connection.id, code };
            queued.push(StreamInput::Unsubscribe(request));
            self.arrived.notify_one();
        }
    }
}

impl QueuedInputs {
    /// Queued changes of whole accounts, or of everything.
    pub fn account_changes(&self) -> impl Iterator<Item = &Change> {
        let changes = self.inputs.iter().filter_map(|(_, input)| match input {
            StreamInput::Change(change) => Some(change),
            _ => None,
        });
        changes.filter(|change| change.channel.is_none())
    }

    fn push(&mut self, input: StreamInput) {
        if let StreamInput::Event(event) = &input {
            self.bytes += event.data.len();
        }
        self.inputs.push_back((Instant::now(), input));
    }

    /// Drops all inputs but subscribes and unsubscribes.
    fn lose(&mut self) {
        self.inputs.retain(|(_, input)| matches!(input, StreamInput::Subscribe(_) | StreamInput::Unsubscribe(_)));
        self.bytes = 0;
        self.inputs.push_front((Instant::now(), StreamInput::Lost));
    }
}
