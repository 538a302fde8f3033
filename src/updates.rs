//! Channels of updates, such as `room-updates`: each user is told of all records of a guard collection that they may
//! view, and of none other.
//!
//! Changes of the records come through the hub's watched channel, beside the changes of access and in one order with
//! them: one message of the broker for each event, however many may view the record. Each updates channel has a
//! [`stream`], which knows the records that each of this node's subscribers may view ([`sight`]). It takes the inputs,
//! asks PocketBase ([`source`]) about those records and users whose access may have changed, and only then delivers: so
//! nobody gets an event of a record whose access is in doubt. Who may no longer view a record gets no more than its id.
//!
//! There is no history for clients: what a client has missed depends on what its user could see meanwhile. Whoever
//! subscribes again is told `recovered: false`, and reloads.

mod sight;
pub mod source;
mod stream;

use crate::access::changes::Change;
use crate::connection::Connection;
use crate::metrics::Metrics;
use crate::protocol::Payload;
use crate::protocol::codes::UnsubscribeCode;
use crate::protocol::frame::Frame;
use dashmap::DashMap;
use serde::Deserialize;
use source::Source;
use std::sync::Arc;
use std::time::Duration;
use stream::{Input, Join, Stream, Turns};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

/// From this age of its oldest unsettled input on, a channel counts as behind.
const BEHIND: Duration = Duration::from_secs(5);

/// What the hooks say of a change of a guarded record.
#[derive(Deserialize)]
pub struct Told {
    /// The updates channels that tell of it.
    pub channels: Vec<String>,
    /// The users whom it names, before or after the change.
    pub users: Vec<String>,
}

pub struct Updates {
    source: Arc<dyn Source>,
    turns: Turns,
    /// Few: only channels that PocketBase has confirmed.
    streams: DashMap<Arc<str>, Stream, foldhash::fast::RandomState>,
    metrics: Metrics,
}

impl Updates {
    pub fn new(source: Arc<dyn Source>, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self { source, turns: Turns::default(), streams: DashMap::default(), metrics })
    }

    /// Takes in what may have changed who sees what. Called in the order of the outbox, as is [`Updates::event`].
    pub fn change(&self, change: &Change) {
        for stream in &self.streams {
            stream.push(|| Input::Change(change.clone()));
        }
    }

    /// Takes in what has happened to a guarded record.
    pub fn event(&self, told: &Told, data: &Payload) {
        for channel in &told.channels {
            if let Some(stream) = self.streams.get(channel.as_str()) {
                stream.event(told, data);
            }
        }
    }

    /// Looks at everything anew, for what no change tells of, such as the time. Events go on meanwhile.
    pub fn recheck(&self) {
        for stream in &self.streams {
            stream.push(|| Input::Recheck);
        }
    }

    /// Changes or events were lost: all subscribers are told to reload.
    pub fn lost(&self) {
        for stream in &self.streams {
            stream.push(|| Input::Lost);
        }
    }

    /// Sets the metric of how far each channel is behind.
    pub fn report(&self) {
        for stream in &self.streams {
            self.metrics.updates_behind.with_label_values(&[&**stream.key()]).set(stream.behind().as_secs_f64());
        }
    }

    /// The channels that are too far behind, with the age of their oldest unsettled input.
    pub fn behind(&self) -> Vec<(Arc<str>, Duration)> {
        let all = self.streams.iter().map(|stream| (Arc::clone(stream.key()), stream.behind()));
        all.filter(|(_, age)| *age >= BEHIND).collect()
    }

    /// Subscribes to a channel that PocketBase has confirmed; `reply` is what the client gets before anything of it.
    /// The hub's watched channel must be live. Returns whether that was done before `deadline`.
    pub async fn subscribe(
        &self,
        channel: &Arc<str>,
        connection: &Arc<Connection>,
        reply: Frame,
        deadline: Instant,
    ) -> bool {
        let (joined, mut answer) = oneshot::channel();
        let join = Join { connection: Arc::clone(connection), reply, joined, at: Instant::now() };
        self.streams
            .entry(Arc::clone(channel))
            .or_insert_with(|| {
                Stream::start(channel, Arc::clone(&self.source), self.turns.clone(), self.metrics.clone())
            })
            .join(join);
        match timeout_at(deadline, &mut answer).await {
            Ok(answer) => answer.is_ok(),
            Err(_) => {
                // It may have been done in this very moment.
                answer.close();
                answer.try_recv().is_ok()
            }
        }
    }

    /// The counterpart, also for a subscribe that is still under way.
    pub fn unsubscribe(&self, channel: &str, connection: &Connection) {
        if let Some(stream) = self.streams.get(channel) {
            stream.leave(connection, None);
        }
    }

    /// Ends a subscription from the server's side.
    pub fn end(&self, channel: &str, connection: &Connection, code: UnsubscribeCode) {
        if let Some(stream) = self.streams.get(channel)
            && connection.channels().remove(channel)
        {
            stream.leave(connection, Some(code));
        }
    }
}
