//! Channels of updates, such as `room-updates`: each user is told of all records of a guard collection that he may
//! view, and of none other.
//!
//! What happens to the records comes through the hub's watched channel, beside the changes of access and in one order
//! with them: one message of the broker for each event, however many may see it. Each updates channel has a
//! [`stream`], which knows what each of this node's subscribers sees ([`sight`]). It takes what has come, asks
//! PocketBase about those records and users whose access may have changed, and only then hands out what is now each
//! one's: so nobody gets an event of a record whose access is in doubt. Who no longer sees a record is told no more
//! than its id.
//!
//! There is no history for clients: what one of them has missed depends on what he could see meanwhile. Whoever
//! subscribes again is told `recovered: false`, and reloads.

mod sight;
mod stream;

use crate::access::changes::Change;
use crate::connection::Connection;
use crate::metrics::Metrics;
use crate::pocketbase::PocketBase;
use crate::protocol::Payload;
use crate::protocol::codes::UnsubscribeCode;
use crate::protocol::frame::Frame;
use dashmap::DashMap;
use serde::Deserialize;
use std::sync::Arc;
use stream::{Input, Join, Stream};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

/// What the hooks say of a change of a guarded record.
#[derive(Deserialize)]
pub struct Told {
    /// The updates channels that tell of it.
    pub channels: Vec<String>,
    /// The users whom it names, before or after the change.
    pub users: Vec<String>,
}

pub struct Updates {
    pocketbase: PocketBase,
    /// Few: only channels that PocketBase has confirmed.
    streams: DashMap<Arc<str>, Stream, foldhash::fast::RandomState>,
    metrics: Metrics,
}

impl Updates {
    pub fn new(pocketbase: PocketBase, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self { pocketbase, streams: DashMap::default(), metrics })
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

    /// Looks at everything anew, for what no change tells of, such as the time.
    pub fn recheck(&self) {
        self.change(&Change::EVERYTHING);
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
        let join = Join { connection: Arc::clone(connection), reply, joined };
        self.streams
            .entry(Arc::clone(channel))
            .or_insert_with(|| Stream::start(channel, self.pocketbase.clone(), self.metrics.clone()))
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
