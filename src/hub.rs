//! The channels of this node with their local subscribers; delivers each publication once and in order.
//!
//! A publication arrives from the broker ([`delivery`]). The channel's [`feed::Feed`] compares the offset with the
//! channel's position. The hub then encodes the publication once and hands the frame to the
//! [writers](crate::outbox::writer), each of which pushes the frame into the outboxes of its connections.
//! [`Hub::subscribe`] pushes the subscribe reply into the outbox under the channel's lock, so that live publications
//! follow without a gap. Publications that the broker did not deliver are read from the history, for the channel
//! ([`sync`]) and for a client that recovers ([`recovery`]).
//!
//! The watched channel is internal to the gateways: it carries the access changes to a [`Watcher`], which suspends
//! subscriptions ([`suspension`]). The watched channel is synced before any other channel ([`barrier`]), so that no
//! client gets publications from after the loss of access. Publications that arrive during this sync are held back, and
//! their channels are read again; channels without such publications are not read.
//!
//! Lock order: a channel's `attachment` (async, held during the broker's calls about the [`channel`]), then the
//! channel's `state` (never held across an await), then a share of the [`subscriber`]s, then an outbox. The
//! [`registry`]'s shard lock is taken before `state`, never after. The watched channel's `state` comes first of all: the
//! watched channel is never removed from the registry, so its `state` is never taken with a shard locked.

pub(crate) mod ahead;
mod barrier;
mod channel;
mod delivery;
pub mod feed;
pub(crate) mod latest_status;
mod liveness;
mod recovery;
pub mod registry;
mod status_channels;
pub(crate) mod subscriber;
pub(crate) mod suspension;
mod sync;

use crate::backoff::Backoff;
use crate::broker::{Broker, BrokerError, History};
use crate::connection::Connection;
use crate::members::presence::Presence;
use crate::metrics::Metrics;
use crate::protocol::codes::UnsubscribeCode;
use crate::protocol::encode::Push;
use crate::protocol::{Payload, Position, SubscribeReply};
use crate::tasks::{self, Task};
use barrier::Barriers;
use bytes::Bytes;
use channel::{Channel, ChannelState};
use dashmap::DashMap;
use feed::{JoinOutcome, RecentLimits};
use parking_lot::Mutex;
use std::ops::Range;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use subscriber::Subscriber;
use sync::SYNC_CONCURRENCY;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// Shortest and longest pause between attempts to receive messages of other nodes.
const MAILBOX_PAUSE: Range<Duration> = Duration::from_millis(100)..Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum SubscribeError {
    #[error("already subscribed")]
    AlreadySubscribed,
    #[error("wrong kind of channel")]
    OtherKind,
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

/// A client's options for a subscription to a channel with a history.
#[derive(Default)]
pub struct SubscribeOptions<'a> {
    /// The client's position, for a recovery.
    pub recover: Option<&'a Position>,
    /// The subscriber gets join and leave pushes.
    pub join_leave: bool,
    /// The subscriber does not get its own signals.
    pub without_echo: bool,
}

pub struct Hub {
    me: Weak<Hub>,
    broker: Arc<dyn Broker>,
    presence: Arc<Presence>,
    channels: DashMap<Arc<str>, Arc<Channel>, foldhash::fast::RandomState>,
    metrics: Metrics,
    watched: OnceLock<Watched>,
    mailbox: OnceLock<Weak<dyn Mailbox>>,
    /// Limits of the recent publications in a feed.
    recent: RecentLimits,
    /// Limits concurrent syncs.
    syncs: Semaphore,
}

/// Receives the publications of the watched channel: at once, in order, and before later publications of all channels.
pub trait Watcher: Send + Sync {
    fn publication(&self, data: &Payload);
    /// Called after an unrecoverable loss of publications.
    fn lost(&self);
}

/// Receives the messages for this node alone. Called from the broker's task: implementations return quickly.
pub trait Mailbox: Send + Sync {
    fn message(&self, message: Bytes);
}

struct Watched {
    channel: Arc<Channel>,
    watcher: Weak<dyn Watcher>,
    // Taken last, and held for a few comparisons only.
    barriers: Mutex<Barriers>,
}

impl Hub {
    pub fn new(broker: Arc<dyn Broker>, presence: Arc<Presence>, metrics: Metrics) -> Arc<Self> {
        let recent = RecentLimits::within(broker.retention());
        Arc::new_cyclic(|me| {
            let (me, channels, watched) = (me.clone(), DashMap::default(), OnceLock::new());
            let syncs = Semaphore::new(SYNC_CONCURRENCY);
            let mailbox = OnceLock::new();
            Self { me, broker, presence, channels, metrics, watched, mailbox, recent, syncs }
        })
    }

    /// Passes all later publications of this channel to the watcher. Called once, before the first subscribe.
    pub fn watch(&self, name: &str, watcher: Weak<dyn Watcher>) {
        let joining = self.find_or_create(name);
        let channel = Arc::clone(&joining.channel);
        // The count of joins never drops to zero, so the channel stays in the registry.
        std::mem::forget(joining);
        let barriers = Mutex::default();
        if self.watched.set(Watched { channel: Arc::clone(&channel), watcher, barriers }).is_ok() {
            self.sync_later(vec![channel]);
        }
    }

    /// Passes the messages for this node to the mailbox. Starts the subscription at the broker, which is tried again
    /// until the broker accepts; afterwards the broker keeps it. Called once.
    pub fn receive(self: &Arc<Self>, node: &str, mailbox: Weak<dyn Mailbox>) -> AbortOnDropHandle<()> {
        let _ = self.mailbox.set(mailbox);
        let (broker, channel) = (Arc::clone(&self.broker), crate::channel::of_node(node));
        tasks::spawn(Task::NodeMailbox, async move {
            let mut backoff = Backoff::new(MAILBOX_PAUSE);
            while let Err(error) = broker.subscribe(&channel).await {
                tracing::debug!(%error, "cannot receive messages of other nodes yet; trying again");
                tokio::time::sleep(backoff.pause()).await;
            }
            std::future::pending().await
        })
    }

    /// Adds a subscriber. `accept` gets the reply: it either pushes the reply into the outbox and returns true, and
    /// live publications follow from the reply's position on; or it returns false, and no subscriber is added. Returns
    /// the result of `accept`.
    ///
    /// With `options.recover`, the reply holds the publications since that position, or `recovered: Some(false)`.
    /// `history`: the result of [`Hub::read_ahead`], if any.
    pub async fn subscribe(
        &self,
        name: &str,
        connection: &Arc<Connection>,
        options: SubscribeOptions<'_>,
        mut history: Option<History>,
        accept: impl FnOnce(SubscribeReply) -> bool + Send,
    ) -> Result<bool, SubscribeError> {
        let SubscribeOptions { recover, join_leave, without_echo } = options;
        let joining = self.find_or_create(name);
        let channel = &joining.channel;
        loop {
            self.make_live(channel).await?;
            let read = {
                let mut state = channel.state();
                if state.subscribers.contains(connection.id) {
                    return Err(SubscribeError::AlreadySubscribed);
                }
                if !state.content.is_live() {
                    continue;
                }
                let Some(feed) = state.content.feed() else { return Err(SubscribeError::OtherKind) };
                feed.expire(Instant::now());
                match feed.join(recover, history.take()) {
                    JoinOutcome::Ready(reply) => {
                        self.count_recovery(reply.recovered);
                        let from = reply.position.offset;
                        let mut subscriber = Subscriber::new(connection, from);
                        (subscriber.movements, subscriber.echo) = (join_leave, !without_echo);
                        return Ok(self.add(channel, &mut state, subscriber, || accept(reply)));
                    }
                    JoinOutcome::ReadHistory(after) => Some(after),
                    JoinOutcome::Behind => {
                        state.content.doubt();
                        None
                    }
                }
            };
            match read {
                Some(after) => history = Some(self.missed(channel, after).await?),
                // In the background: other subscribers need this sync even if the subscribe is cancelled.
                None => self.sync_later(vec![Arc::clone(channel)]),
            }
        }
    }

    /// Adds a subscriber unless `accept` returns false. Returns the result of `accept`.
    fn add(
        &self,
        channel: &Channel,
        state: &mut ChannelState,
        subscriber: Subscriber,
        accept: impl FnOnce() -> bool,
    ) -> bool {
        let connection = &subscriber.connection;
        // Before `accept` checks the user's access: a later change of the account finds the channel in this list, and
        // then waits for the channel's state.
        connection.add_channel(Arc::clone(&channel.name));
        if !accept() {
            connection.channels().remove(&channel.name);
            return false;
        }
        state.subscribers.insert(subscriber, &self.metrics.deliveries);
        self.metrics.subscriptions.inc();
        true
    }

    fn count_recovery(&self, recovered: Option<bool>) {
        if let Some(recovered) = recovered {
            let outcome = if recovered { "recovered" } else { "unrecoverable" };
            self.metrics.recoveries.with_label_values(&[outcome]).inc();
        }
    }

    /// Removes a subscriber. Returns false if the connection was not subscribed.
    pub fn unsubscribe(&self, name: &str, connection: &Connection) -> bool {
        let Some(channel) = self.find(name) else { return false };
        let (removed, idle) = {
            let mut state = channel.state();
            (state.subscribers.remove(connection.id).is_some(), state.is_idle())
        };
        if removed {
            self.left(&channel, connection);
            if idle {
                self.detach_later(channel);
            }
        }
        removed
    }

    /// Completes the removal of subscribers with an unsubscribe push to each connection. A channel without subscribers
    /// is detached from the broker.
    fn end<'a>(
        &self,
        channel: &Arc<Channel>,
        state: &ChannelState,
        gone: impl IntoIterator<Item = &'a Connection>,
        code: UnsubscribeCode,
    ) {
        for connection in gone {
            self.left(channel, connection);
            connection.outbox.push_alone(&channel.name, &Push::Unsubscribe(code));
        }
        if state.is_idle() {
            self.detach_later(Arc::clone(channel));
        }
    }

    /// Cleanup after the end of a subscription, whatever the cause.
    fn left(&self, channel: &Channel, connection: &Connection) {
        self.metrics.subscriptions.dec();
        connection.channels().remove(&channel.name);
        self.presence.leave(&channel.name, &connection.client);
    }

    /// Drops the channel's recent publications. The channel's record was deleted, and the broker drops the history too.
    pub fn forget(&self, name: &str) {
        let Some(channel) = self.find(name) else { return };
        if let Some(feed) = channel.state().content.feed() {
            feed.forget();
        }
    }
}

#[cfg(test)]
mod tests;
