//! Channel → this node's subscribers: who gets which publication, in order, once.
//!
//! A publication comes in from the broker ([`delivery`]), passes the channel's [`feed::Feed`], which knows what comes
//! next, is encoded once, and is handed to the [writers](crate::writer), each of which puts it into the outboxes of
//! its own connections. A subscriber comes in through [`Hub::subscribe`], which puts its reply into its outbox in the
//! same instant from which live publications follow, so that none falls between. What the broker has not brought is
//! read from it ([`sync`]), and what a subscriber has missed ([`recovery`]).
//!
//! One channel of the broker's is the gateways' own, watched by a [`Watcher`]: it says whose access may have ended
//! ([`suspension`]). It is brought up to date before any other channel goes on ([`barrier`]), so that nobody gets what was
//! published after they were shut out. Publications that arrive meanwhile are held back, and their channels are read once
//! more; channels without any are not read.
//!
//! Locks: a channel's `link` (async, held while the broker is asked about this channel) is taken before its
//! `state` (std, never held across an await), that before a share of its `subscribers`, and that before an outbox; the
//! registry's shard lock is taken before `state`, never after. The watched channel's `state` comes before all of
//! these: it is never removed from the registry, so nobody takes it with a shard locked.

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
    #[error("a channel of another kind")]
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
    /// Bounds of the recent publications in a feed.
    bounds: Bounds,
    /// Limits concurrent syncs.
    syncs: Semaphore,
}

/// Takes what is published into the watched channel: at once, in order, before anything later of any channel.
pub trait Watcher: Send + Sync {
    fn publication(&self, data: &Payload);
    /// Some publications are lost for good.
    fn lost(&self);
}

struct Watched {
    channel: Arc<Channel>,
    watcher: Weak<dyn Watcher>,
    // Held for a few comparisons; taken last.
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
    /// Subscribes under way, which keep the channel alive.
    joining: usize,
    /// Removed from the registry; whoever still holds it has to look it up again.
    closed: bool,
}

struct Subscriber {
    connection: Arc<Connection>,
    /// The connection's, nearer at hand.
    outbox: Arc<Outbox>,
    /// It has everything up to this offset already.
    from: u64,
    /// It wants to be told who comes and goes.
    movements: bool,
    /// Whether it gets its own signals.
    echo: bool,
    /// While it is suspended: what it gets when that ends.
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

/// Keeps a channel alive while somebody joins it.
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

    /// Hands everything that is published into this channel from now on to the watcher. Called once, before anybody
    /// subscribes to anything.
    pub fn watch(&self, name: &str, watcher: Weak<dyn Watcher>) {
        let joining = self.hold(name);
        let channel = Arc::clone(&joining.channel);
        // It is never left again.
        std::mem::forget(joining);
        let barriers = Mutex::default();
        if self.watched.set(Watched { channel: Arc::clone(&channel), watcher, barriers }).is_ok() {
            self.sync_later(vec![channel]);
        }
    }

    /// Adds a subscriber. `accept` gets the reply and either puts it into the outbox and returns true (live
    /// publications follow it there, beginning after the position that the reply names), or declines with false,
    /// and nobody is added. Returns what it returned.
    ///
    /// With `recover` the reply holds what was published since, or `recovered: Some(false)`. `history`: what was read
    /// for it already, see [`Hub::prepare`].
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
                // Others may depend on the sync that this doubt calls for, should this subscribe be given up.
                None => self.sync_later(vec![Arc::clone(channel)]),
            }
        }
    }

    /// Adds a subscriber unless `accept` declines; returns the answer of `accept`.
    fn add(
        &self,
        channel: &Channel,
        state: &mut State,
        connection: &Arc<Connection>,
        from: u64,
        accept: impl FnOnce() -> bool,
    ) -> bool {
        // Before `accept` looks at the user's access: a later change of the account finds the channel in this list, and
        // then waits for the state.
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

    /// From now on this subscriber is told who comes into the channel and who goes.
    pub fn tell_movements(&self, name: &str, connection: &Connection) {
        let Some(channel) = self.find(name) else { return };
        channel.state().subscribers.with(connection.id, |subscriber| subscriber.movements = true);
    }

    /// From now on this subscriber gets none of its own signals.
    pub fn spare_echo(&self, name: &str, connection: &Connection) {
        let Some(channel) = self.find(name) else { return };
        channel.state().subscribers.with(connection.id, |subscriber| subscriber.echo = false);
    }

    /// Removes a subscriber; returns whether there was one.
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

    /// Ends subscriptions that were taken out of the channel's subscribers, with an unsubscribe push to each. A channel
    /// without subscribers is detached from the broker.
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

    /// The common part of all ends of a subscription.
    fn left(&self, channel: &Channel, connection: &Connection) {
        self.metrics.subscriptions.dec();
        connection.channels().remove(&channel.name);
        self.presence.leave(&channel.name, &connection.client);
    }

    /// Keeps nothing of the channel's history here, since its record is gone and the broker keeps nothing either.
    pub fn forget(&self, name: &str) {
        let Some(channel) = self.find(name) else { return };
        if let Some(feed) = channel.state().flow.feed() {
            feed.forget();
        }
    }

    fn find(&self, name: &str) -> Option<Arc<Channel>> {
        self.channels.get(name).map(|channel| Arc::clone(&channel))
    }

    /// Finds or makes the channel and keeps it from being removed.
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
