//! One updates channel on this node: takes inputs in order, asks PocketBase about access, and delivers to subscribers.
//!
//! Work goes in batches: all inputs that arrive during a round of access checks are the next batch. PocketBase's
//! answers are at least as new as the batch, so comparing a user's visible records before and after the batch is
//! enough.
//!
//! All visible records of a user (for a subscribe, or after a change of the account) are loaded in pages beside the
//! stream ([`loads`]), and applied in the batch after the last page; records that changed during the load are checked
//! again. Until then delivery to this user is suspended, and the [`log`] keeps the events to deliver later.
//!
//! Limits of memory: the queue of inputs holds [`INPUTS`](inputs::INPUTS) inputs and
//! [`INPUT_BYTES`](inputs::INPUT_BYTES) of payloads, the log about as much; past either limit, subscribers are told to
//! reload. In addition, the queue holds [`SUBSCRIBES`](inputs::SUBSCRIBES) subscribes, and an unsubscribe for each. The
//! visible records of all users together are limited too (see `verdicts`).
//!
//! This file has the channel's task and its handle. [`state`] processes a batch with the answers of [`queries`].

mod inputs;
mod loads;
mod log;
mod open_checks;
mod queries;
mod shared_publication;
mod state;

use super::source::Source;
use crate::connection::Connection;
use crate::event::UpdatesRoute;
use crate::metrics::Metrics;
use crate::protocol::Payload;
use crate::protocol::codes::UnsubscribeCode;
use inputs::{InputQueue, RecordAction, RecordEvent};
pub use inputs::{StreamInput, SubscribeRequest};
pub use queries::CallLimits;
use queries::Queries;
use serde::Deserialize;
use state::StreamState;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;

/// Handle of the channel's task. The task ends when the handle is dropped.
pub struct Stream {
    queue: Arc<InputQueue>,
    _task: AbortOnDropHandle<()>,
}

impl Stream {
    pub fn start(channel: &Arc<str>, source: Arc<dyn Source>, limits: CallLimits, metrics: Metrics) -> Self {
        let queue = Arc::<InputQueue>::default();
        let mut state = StreamState::new(channel, Queries::new(channel, source, limits), metrics);
        let queued = Arc::clone(&queue);
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = queued.arrived() => {}
                    () = state.work() => {}
                }
                let inputs = queued.take();
                state.process(inputs, &queued).await;
                queued.processed();
            }
        }));
        Self { queue, _task: task }
    }

    /// The age of the oldest unprocessed input.
    pub fn behind(&self) -> Duration {
        self.queue.behind()
    }

    /// Number of connections with a subscription or a pending subscribe.
    pub fn subscribers(&self) -> usize {
        self.queue.lock().wanted.len()
    }

    /// Queues an input, unless the channel has no subscribers.
    pub fn push(&self, input: impl FnOnce() -> StreamInput) {
        self.queue.push(input);
    }

    pub fn event(&self, route: &UpdatesRoute, data: &Payload) {
        #[derive(Deserialize)]
        struct RecordId {
            id: Arc<str>,
        }
        #[derive(Deserialize)]
        struct EventData {
            action: RecordAction,
            record: RecordId,
        }
        self.push(|| match serde_json::from_slice::<EventData>(data.as_bytes()) {
            Ok(EventData { action, record: RecordId { id: record } }) => {
                StreamInput::Event(RecordEvent { action, record, data: data.clone(), users: route.users.clone() })
            }
            Err(error) => {
                tracing::error!(
                    %error,
                    "an event of a guarded record is unreadable; the subscribers of its updates channel get code 2500 \
                     and reload; see that hooks and gateway are of the same version"
                );
                StreamInput::Lost
            }
        });
    }

    /// Queues a subscribe. With too many queued subscribes, the request is dropped, and `accepted` is closed without an
    /// answer.
    pub fn subscribe(&self, request: SubscribeRequest) {
        self.queue.subscribe(request);
    }

    pub fn unsubscribe(&self, connection: &Connection, code: Option<UnsubscribeCode>) {
        self.queue.unsubscribe(connection, code);
    }
}

#[cfg(test)]
mod loads_tests;
#[cfg(test)]
mod model_tests;
