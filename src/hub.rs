//! The channels of this node with their local subscribers; delivers each publication once and in order.
//!
//! A publication arrives from the broker ([`delivery`]). The channel's [`feed::Feed`] compares the offset with the
//! channel's position. The hub then encodes the publication once and hands the frame to the
//! [writers](crate::writer), each of which pushes the frame into the outboxes of its connections. [`Hub::subscribe`]
//! pushes the subscribe reply into the outbox under the channel's lock, so that live publications follow without a gap.
//! Publications that the broker did not deliver are read from the history, for the channel ([`sync`]) and for a client
//! that recovers ([`recovery`]).
//!
//! The watched channel is internal to the gateways: it carries the access changes to a [`Watcher`], which suspends
//! subscriptions ([`suspension`]). The watched channel is synced before any other channel ([`barrier`]), so that no
//! client gets publications from after the loss of access. Publications that arrive during this sync are held back, and
//! their channels are read again; channels without such publications are not read.
//!
//! Lock order: a channel's `link` (async, held during the broker's calls about the channel), then the channel's `state`
//! (std, never held across an await), then a share of the `subscribers`, then an outbox. The registry's shard lock is
//! taken before `state`, never after. The watched channel's `state` comes first of all: the watched channel is never
//! removed from the registry, so its `state` is never taken with a shard locked.

pub mod ahead;
mod audience;
mod barrier;
pub mod current;
mod delivery;
pub mod feed;
mod flow;
mod liveness;
mod recovery;
mod statuses;
pub mod suspension;
mod sync;

use crate::broker::{Broker, BrokerError, History};
use crate::connection::Connection;
use crate::metrics::Metrics;
use crate::outbox::Outbox;
use crate::presence::Presence;
use crate::protocol::codes::UnsubscribeCode;
use crate::protocol::{Payload, Position, SubscribeReply, json};
use audience::Audience;
use barrier::Barriers;
use dashmap::DashMap;
use feed::{Bounds, Join};
use flow::Flow;
use recovery::Reads;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use suspension::Held;
use sync::SYNC_CONCURRENCY;
use tokio::sync::Semaphore;
use tokio::time::Instant;

#[derive(Debug, thiserror::Error)]
pub enum SubscribeError {
    #[error("already subscribed")]
    AlreadySubscribed,
    #[error("wrong kind of channel")]
    OtherKind,
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

pub struct Hub {
    me: Weak<Hub>,
    broker: Arc<dyn Broker>,
    presence: Arc<Presence>,
    channels: DashMap<Arc<str>, Arc<Channel>, foldhash::fast::RandomState>,
    metrics: Metrics,
    watched: OnceLock<Watched>,
    /// Limits of the recent publications in a feed.
    bounds: Bounds,
    /// Limits concurrent syncs.
    syncs: Semaphore,
}

/// Receives the publications of the watched channel: at once, in order, and before later publications of all channels.
pub trait Watcher: Send + Sync {
    fn publication(&self, data: &Payload);
    /// Called after an unrecoverable loss of publications.
    fn lost(&self);
}

struct Watched {
    channel: Arc<Channel>,
    watcher: Weak<dyn Watcher>,
    // Taken last, and held for a few comparisons only.
    barriers: Mutex<Barriers>,
}

struct Channel {
    name: Arc<str>,
    link: tokio::sync::Mutex<Link>,
    state: Mutex<State>,
    reads: Reads,
}

/// Whether the broker delivers this channel to this node.
#[derive(PartialEq)]
enum Link {
    Detached,
    Attached,
}

struct State {
    flow: Flow,
    subscribers: Audience,
    /// Number of subscribes in progress, which keep the channel alive.
    joining: usize,
    /// True after the removal from the registry: holders of the channel have to look it up again.
    closed: bool,
}

struct Subscriber {
    connection: Arc<Connection>,
    /// Same as `connection.outbox`; saves a pointer dereference.
    outbox: Arc<Outbox>,
    /// Offset of the subscribe reply: only later publications are delivered.
    from: u64,
    /// True if the subscriber gets join and leave pushes.
    movements: bool,
    /// True if the subscriber gets its own signals.
    echo: bool,
    /// Set during a suspension: frames to deliver after the suspension.
    held: Option<Box<Held>>,
}

impl State {
    fn new(name: &str, bounds: Bounds) -> Self {
        Self { flow: Flow::of(name, bounds), subscribers: Audience::default(), joining: 0, closed: false }
    }

    fn is_idle(&self) -> bool {
        self.subscribers.is_empty() && self.joining == 0
    }
}

impl Channel {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Guard of a subscribe in progress: keeps the channel in the registry.
struct Joining<'a> {
    hub: &'a Hub,
    channel: Arc<Channel>,
}

impl Drop for Joining<'_> {
    fn drop(&mut self) {
        let idle = {
            let mut state = self.channel.state();
            state.joining -= 1;
            state.is_idle()
        };
        if idle {
            self.hub.detach_later(Arc::clone(&self.channel));
        }
    }
}

impl Hub {
    pub fn new(broker: Arc<dyn Broker>, presence: Arc<Presence>, metrics: Metrics) -> Arc<Self> {
        let bounds = Bounds::within(broker.retention());
        Arc::new_cyclic(|me| {
            let (me, channels, watched) = (me.clone(), DashMap::default(), OnceLock::new());
            let syncs = Semaphore::new(SYNC_CONCURRENCY);
            Self { me, broker, presence, channels, metrics, watched, bounds, syncs }
        })
    }

    /// Passes all later publications of this channel to the watcher. Called once, before the first subscribe.
    pub fn watch(&self, name: &str, watcher: Weak<dyn Watcher>) {
        let joining = self.hold(name);
        let channel = Arc::clone(&joining.channel);
        // The count of joins never drops to zero, so the channel stays in the registry.
        std::mem::forget(joining);
        let barriers = Mutex::default();
        if self.watched.set(Watched { channel: Arc::clone(&channel), watcher, barriers }).is_ok() {
            self.sync_later(vec![channel]);
        }
    }

    /// Adds a subscriber. `accept` gets the reply: it either pushes the reply into the outbox and returns true, and
    /// live publications follow from the reply's position on; or it returns false, and no subscriber is added. Returns
    /// the result of `accept`.
    ///
    /// With `recover`, the reply holds the publications since that position, or `recovered: Some(false)`. `history`:
    /// the result of [`Hub::read_ahead`], if any.
    pub async fn subscribe(
        &self,
        name: &str,
        connection: &Arc<Connection>,
        recover: Option<&Position>,
        mut history: Option<History>,
        accept: impl FnOnce(SubscribeReply) -> bool + Send,
    ) -> Result<bool, SubscribeError> {
        let joining = self.hold(name);
        let channel = &joining.channel;
        loop {
            self.make_live(channel).await?;
            let read = {
                let mut state = channel.state();
                if state.subscribers.with(connection.id, |_| ()).is_some() {
                    return Err(SubscribeError::AlreadySubscribed);
                }
                if !state.flow.is_live() {
                    continue;
                }
                let Some(feed) = state.flow.feed() else { return Err(SubscribeError::OtherKind) };
                feed.expire(Instant::now());
                match feed.join(recover, history.take()) {
                    Join::Ready(reply) => {
                        self.count_recovery(reply.recovered);
                        let from = reply.position.offset;
                        return Ok(self.add(channel, &mut state, connection, from, || accept(reply)));
                    }
                    Join::ReadHistory(after) => Some(after),
                    Join::Behind => {
                        state.flow.doubt();
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
        state: &mut State,
        connection: &Arc<Connection>,
        from: u64,
        accept: impl FnOnce() -> bool,
    ) -> bool {
        // Before `accept` checks the user's access: a later change of the account finds the channel in this list, and
        // then waits for the channel's state.
        connection.channels().insert(Arc::clone(&channel.name));
        if !accept() {
            connection.channels().remove(&channel.name);
            return false;
        }
        let subscriber = Subscriber {
            connection: Arc::clone(connection),
            outbox: Arc::clone(&connection.outbox),
            from,
            movements: false,
            echo: true,
            held: None,
        };
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

    /// Turns on join and leave pushes for this subscriber.
    pub fn tell_movements(&self, name: &str, connection: &Connection) {
        let Some(channel) = self.find(name) else { return };
        channel.state().subscribers.with(connection.id, |subscriber| subscriber.movements = true);
    }

    /// Turns off the delivery of a subscriber's own signals.
    pub fn spare_echo(&self, name: &str, connection: &Connection) {
        let Some(channel) = self.find(name) else { return };
        channel.state().subscribers.with(connection.id, |subscriber| subscriber.echo = false);
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
        state: &State,
        gone: impl IntoIterator<Item = &'a Connection>,
        code: UnsubscribeCode,
    ) {
        for connection in gone {
            self.left(channel, connection);
            connection.outbox.push(json::unsubscribe_push(&channel.name, code));
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
        if let Some(feed) = channel.state().flow.feed() {
            feed.forget();
        }
    }

    fn find(&self, name: &str) -> Option<Arc<Channel>> {
        self.channels.get(name).map(|channel| Arc::clone(&channel))
    }

    /// Finds or creates the channel, and keeps it in the registry while the guard lives.
    fn hold(&self, name: &str) -> Joining<'_> {
        loop {
            let channel = self.find(name).unwrap_or_else(|| {
                let name: Arc<str> = name.into();
                Arc::clone(&self.channels.entry(Arc::clone(&name)).or_insert_with(|| {
                    self.metrics.channels.inc();
                    let (link, state) =
                        (tokio::sync::Mutex::new(Link::Detached), Mutex::new(State::new(&name, self.bounds)));
                    Arc::new(Channel { name, link, state, reads: Reads::default() })
                }))
            });
            let mut state = channel.state();
            if !state.closed {
                state.joining += 1;
                drop(state);
                return Joining { hub: self, channel };
            }
        }
    }
}

#[cfg(test)]
#[path = "hub/hub_tests.rs"]
mod tests;
