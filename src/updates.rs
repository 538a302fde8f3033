//! Updates channels, such as `room-updates`: each user gets the events of the visible records of a guard collection,
//! and no events of other records.
//!
//! Record changes arrive through the [control](crate::control) channel, in one order with the access changes: one
//! broker message per event, however many users may view the record. Each updates channel has a [`stream`], which keeps
//! the records visible to each of this node's subscribers ([`visibility`]). The stream takes the inputs, asks PocketBase
//! ([`source`]) about records and users with a possible change of access, and delivers after the answers. So no client
//! gets an event of a record while access to the record is in doubt. A user who may no longer view a record gets the
//! record's id only.
//!
//! Clients have no history, since a client's missed events depend on the user's access at that time. A client that
//! subscribes again gets `recovered: false`, and reloads.

pub mod source;
mod stream;
mod visibility;

use crate::connection::Connection;
use crate::event::Change;
use crate::event::UpdatesRoute;
use crate::metrics::Metrics;
use crate::protocol::Payload;
use crate::protocol::codes::UnsubscribeCode;
use crate::protocol::frame::Frame;
use dashmap::DashMap;
use source::Source;
use std::sync::Arc;
use std::time::Duration;
use stream::{CallLimits, Stream, StreamInput, SubscribeRequest};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

/// Age of the oldest unprocessed input from which on a channel counts as behind.
const BEHIND: Duration = Duration::from_secs(5);

pub struct Updates {
    source: Arc<dyn Source>,
    limits: CallLimits,
    /// Only channels that PocketBase has confirmed, so the number is small.
    streams: DashMap<Arc<str>, Stream, foldhash::fast::RandomState>,
    metrics: Metrics,
}

impl Updates {
    pub fn new(source: Arc<dyn Source>, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self { source, limits: CallLimits::default(), streams: DashMap::default(), metrics })
    }

    /// Queues an access change. Called in the order of the outbox, together with [`Updates::event`].
    pub fn change(&self, change: &Change) {
        for stream in &self.streams {
            stream.push(|| StreamInput::Change(change.clone()));
        }
    }

    /// Queues an event of a guarded record.
    pub fn event(&self, route: &UpdatesRoute, data: &Payload) {
        for channel in &route.channels {
            if let Some(stream) = self.streams.get(channel.as_str()) {
                stream.event(route, data);
            }
        }
    }

    /// Rechecks all access, for rules whose result changes without an access change, such as rules that depend on the
    /// time. Delivery goes on meanwhile.
    pub fn recheck(&self) {
        for stream in &self.streams {
            stream.push(|| StreamInput::Recheck);
        }
    }

    /// Tells all subscribers to reload, after a loss of access changes or events.
    pub fn lost(&self) {
        for stream in &self.streams {
            stream.push(|| StreamInput::Lost);
        }
    }

    /// Updates the metric `updates_behind` of each channel.
    pub fn report(&self) {
        for stream in &self.streams {
            self.metrics.updates_behind.with_label_values(&[&**stream.key()]).set(stream.behind().as_secs_f64());
        }
    }

    /// All updates channels of this node, with their numbers of subscribers.
    pub fn sizes(&self) -> Vec<(Arc<str>, usize)> {
        self.streams.iter().map(|stream| (Arc::clone(stream.key()), stream.subscribers())).collect()
    }

    /// Channels with an oldest unprocessed input of at least [`BEHIND`], with the age of that input.
    pub fn behind(&self) -> Vec<(Arc<str>, Duration)> {
        let all = self.streams.iter().map(|stream| (Arc::clone(stream.key()), stream.behind()));
        all.filter(|(_, age)| *age >= BEHIND).collect()
    }

    /// Subscribes to a channel that PocketBase has confirmed. `reply` is sent before the first publication. Requires a
    /// live watched channel. Returns false if the subscribe was refused or not done by `deadline`.
    pub async fn subscribe(
        &self,
        channel: &Arc<str>,
        connection: &Arc<Connection>,
        reply: Frame,
        deadline: Instant,
    ) -> bool {
        let (accepted, mut answer) = oneshot::channel();
        let request = SubscribeRequest { connection: Arc::clone(connection), reply, accepted, at: Instant::now() };
        self.streams
            .entry(Arc::clone(channel))
            .or_insert_with(|| {
                Stream::start(channel, Arc::clone(&self.source), self.limits.clone(), self.metrics.clone())
            })
            .subscribe(request);
        match timeout_at(deadline, &mut answer).await {
            Ok(answer) => answer.is_ok(),
            Err(_) => {
                // The subscribe may have succeeded at the last moment.
                answer.close();
                answer.try_recv().is_ok()
            }
        }
    }

    /// Ends a subscription or cancels a subscribe in progress.
    pub fn unsubscribe(&self, channel: &str, connection: &Connection) {
        if let Some(stream) = self.streams.get(channel) {
            stream.unsubscribe(connection, None);
        }
    }

    /// Ends a subscription with an unsubscribe push to the client.
    pub fn end(&self, channel: &str, connection: &Connection, code: UnsubscribeCode) {
        if let Some(stream) = self.streams.get(channel)
            && connection.channels().remove(channel)
        {
            stream.unsubscribe(connection, Some(code));
        }
    }
}
