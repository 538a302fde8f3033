//! Channel → this node's subscribers: who gets which publication, in order, once.
//!
//! A publication comes in from the broker ([`Sink`]), passes the channel's [`feed::Feed`], which knows what comes
//! next, is encoded once, and is handed to the [writers](crate::writer), each of which puts it into the outboxes of
//! its own connections. A subscriber comes in through [`Hub::subscribe`], which puts its reply into its outbox in the
//! same instant from which live publications follow, so that none falls between.
//!
//! One channel of the broker's is the gateways' own, watched by a [`Watcher`]: it says whose access may have ended
//! ([`suspension`]). It is brought up to date before any other channel goes on, so that nobody gets what was published
//! after he was shut out.
//!
//! Locks: a channel's `link` (async, held while the broker is asked about this channel) is taken before its
//! `state` (std, never held across an await), that before a share of its `subscribers`, and that before an outbox; the registry's shard lock is taken before `state`, never after. The
//! watched channel's `state` comes before all of these: it is never removed from the registry, so nobody takes it
//! with a shard locked.

mod audience;
pub mod current;
pub mod feed;
mod flow;
mod statuses;
pub mod suspension;

use crate::broker::status::State as Status;
use crate::broker::{Broker, BrokerError, History, HistoryQuery, Sink};
use crate::channel;
use crate::connection::Connection;
use crate::metrics::Metrics;
use crate::outbox::Outbox;
use crate::protocol::codes::UnsubscribeCode;
use crate::protocol::frame::Frame;
use crate::protocol::{ClientInfo, Movement, Payload, Position, Publication, SubscribeReply, codes, json};
use audience::Audience;
use dashmap::DashMap;
use feed::{Arrival, Feed, Join, Synced};
use flow::Flow;
use futures_util::StreamExt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;
use suspension::Held;

/// How long a channel without subscribers stays linked to the broker, so that a page reload costs nothing.
const LINGER: Duration = Duration::from_secs(2);
/// How often each channel's position is compared with the broker's. What is published reaches this node at once or
/// its loss is noticed by the link; this is for what neither notices, such as a Redis that was emptied by hand.
const CHECK: Duration = Duration::from_secs(15);
/// How much later than in the history a publication of the watched channel may arrive before it counts as missed.
const LAG: Duration = Duration::from_millis(100);
/// How often that is looked at.
const LAG_CHECK: Duration = Duration::from_millis(1);
/// How many channels are read at once after the link to the broker was cut.
const SYNC_CONCURRENCY: usize = 32;
/// Bounds of the pause between attempts to reach the broker.
const RETRY: std::ops::Range<Duration> = Duration::from_millis(50)..Duration::from_secs(2);

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
    channels: DashMap<Arc<str>, Arc<Channel>, foldhash::fast::RandomState>,
    metrics: Metrics,
    watched: OnceLock<Watched>,
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
}

struct Channel {
    name: Arc<str>,
    link: tokio::sync::Mutex<Link>,
    state: Mutex<State>,
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
    fn new(name: &str) -> Self {
        Self { flow: Flow::of(name), subscribers: Audience::default(), joining: 0, closed: false }
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
    pub fn new(broker: Arc<dyn Broker>, metrics: Metrics) -> Arc<Self> {
        Arc::new_cyclic(|me| {
            let (me, channels, watched) = (me.clone(), DashMap::default(), OnceLock::new());
            Self { me, broker, channels, metrics, watched }
        })
    }

    /// Hands everything that is published into this channel from now on to the watcher. Called once, before anybody
    /// subscribes to anything.
    pub fn watch(&self, name: &str, watcher: Weak<dyn Watcher>) {
        let joining = self.hold(name);
        let channel = Arc::clone(&joining.channel);
        // It is never left again.
        std::mem::forget(joining);
        if self.watched.set(Watched { channel: Arc::clone(&channel), watcher }).is_ok() {
            self.sync_later(vec![channel]);
        }
    }

    /// Adds a subscriber. `accept` gets the reply and either puts it into the outbox and returns true (live
    /// publications follow it there, beginning after the position that the reply names), or declines with false,
    /// and nobody is added. Returns what it returned.
    ///
    /// With `recover` the reply holds what was published since, or `recovered: Some(false)`.
    pub async fn subscribe(
        &self,
        name: &str,
        connection: &Arc<Connection>,
        recover: Option<&Position>,
        accept: impl FnOnce(SubscribeReply) -> bool + Send,
    ) -> Result<bool, SubscribeError> {
        let joining = self.hold(name);
        let channel = &joining.channel;
        let mut history = None;
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
                match feed.join(recover, history.take()) {
                    Join::Ready(reply) => {
                        self.count_recovery(reply.recovered);
                        let from = reply.position.offset;
                        let accepted = accept(reply);
                        if accepted {
                            self.add(channel, &mut state, connection, from);
                        }
                        return Ok(accepted);
                    }
                    Join::ReadHistory(after) => Some(after),
                    Join::Behind => {
                        state.flow.doubt();
                        None
                    }
                }
            };
            match read {
                Some(after) => history = Some(self.history(name, HistoryQuery::after(after)).await?),
                // Others may depend on the sync that this doubt calls for, should this subscribe be given up.
                None => self.sync_later(vec![Arc::clone(channel)]),
            }
        }
    }

    fn add(&self, channel: &Channel, state: &mut State, connection: &Arc<Connection>, from: u64) {
        let subscriber = Subscriber {
            connection: Arc::clone(connection),
            outbox: Arc::clone(&connection.outbox),
            from,
            movements: false,
            echo: true,
            held: None,
        };
        state.subscribers.insert(subscriber, &self.metrics.deliveries);
        connection.channels().insert(Arc::clone(&channel.name));
        self.metrics.subscriptions.inc();
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

    /// A stretch of a channel's history, once everything has taken effect that was published into the watched channel
    /// before it: the history may be ahead of what the broker has delivered here so far.
    pub async fn history(&self, name: &str, query: HistoryQuery) -> Result<History, BrokerError> {
        let history = self.broker.history(name, query).await?;
        if self.watched.get().is_none_or(|it| *it.channel.name != *name) {
            self.level().await?;
        }
        Ok(history)
    }

    /// Returns once everything has taken effect that was published into the watched channel before: what was just read
    /// from the broker may be ahead of what it has delivered here so far.
    pub async fn level(&self) -> Result<(), BrokerError> {
        if let Some(Watched { channel: watched, .. }) = self.watched.get() {
            let top = self.broker.history(&watched.name, HistoryQuery::POSITION).await?.position;
            let patience = tokio::time::Instant::now() + LAG;
            while watched.state().flow.feed().is_some_and(|feed| feed.is_behind(&top)) {
                if tokio::time::Instant::now() > patience && watched.state().flow.doubt() {
                    self.resync(Arc::clone(watched));
                }
                Box::pin(self.make_this_live(watched)).await?;
                tokio::time::sleep(LAG_CHECK).await;
            }
        }
        Ok(())
    }

    /// Compares positions with the broker, for as long as the hub lives.
    pub async fn check_positions(hub: Weak<Self>) {
        loop {
            tokio::time::sleep(CHECK).await;
            let Some(hub) = hub.upgrade() else { return };
            let all: Vec<Arc<Channel>> = hub.channels.iter().map(|entry| Arc::clone(entry.value())).collect();
            let (all, statuses) = all.into_iter().partition(|channel| channel.state().flow.feed().is_some());
            hub.check_statuses(statuses).await;
            let all: Vec<Arc<Channel>> = all;
            let checks = futures_util::stream::iter(all).for_each_concurrent(SYNC_CONCURRENCY, |channel| {
                let hub = &hub;
                async move {
                    // While the broker is out of reach its links know; they announce the gap.
                    let Ok(history) = hub.broker.history(&channel.name, HistoryQuery::POSITION).await else { return };
                    let doubtful = {
                        let flow = &mut channel.state().flow;
                        flow.feed().is_some_and(|feed| feed.is_behind(&history.position)) && flow.doubt()
                    };
                    if doubtful {
                        hub.resync(channel);
                    }
                }
            });
            checks.await;
        }
    }

    /// Removes a subscriber; returns whether there was one.
    pub fn unsubscribe(&self, name: &str, connection: &Connection) -> bool {
        let Some(channel) = self.find(name) else { return false };
        let (removed, idle) = {
            let mut state = channel.state();
            (state.subscribers.remove(connection.id).is_some(), state.is_idle())
        };
        if removed {
            connection.channels().remove(&channel.name);
            self.metrics.subscriptions.dec();
            if idle {
                self.detach_later(channel);
            }
        }
        removed
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
                    let (link, state) = (tokio::sync::Mutex::new(Link::Detached), Mutex::new(State::new(&name)));
                    Arc::new(Channel { name, link, state })
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

    /// Returns once the watched channel brings all that is published into it from now on.
    pub async fn watched(&self) -> Result<(), BrokerError> {
        match self.watched.get() {
            Some(watched) => self.make_this_live(&watched.channel).await,
            None => Ok(()),
        }
    }

    /// Links the channel to the broker and reads its history as far as its feed needs, unless both are done. The
    /// watched channel comes first.
    async fn make_live(&self, channel: &Channel) -> Result<(), BrokerError> {
        self.watched().await?;
        self.make_this_live(channel).await
    }

    async fn make_this_live(&self, channel: &Channel) -> Result<(), BrokerError> {
        if channel.state().flow.is_live() {
            return Ok(());
        }
        let mut link = channel.link.lock().await;
        if *link == Link::Detached {
            self.broker.subscribe(&channel.name).await?;
            *link = Link::Attached;
        }
        if !channel.state().flow.is_live() {
            self.sync(channel).await?;
        }
        Ok(())
    }

    /// Reads history until the feed is live again. The caller holds the channel's link.
    async fn sync(&self, channel: &Channel) -> Result<(), BrokerError> {
        if let Some(user) = channel::user_of_status(&channel.name) {
            return self.read_status(channel, user).await;
        }
        loop {
            let Some(after) = channel.state().flow.feed().map(Feed::begin_sync) else { return Ok(()) };
            let query = after.map_or(HistoryQuery::POSITION, HistoryQuery::after);
            let history = self.history(&channel.name, query).await?;
            let mut state = channel.state();
            let Some(feed) = state.flow.feed() else { return Ok(()) };
            match feed.finish_sync(history) {
                Synced::Again => {}
                Synced::Continues(publications) => {
                    if after.is_some() {
                        self.metrics.gaps.with_label_values(&["filled"]).inc();
                    }
                    for publication in &publications {
                        self.deliver(channel, &state, publication);
                    }
                    return Ok(());
                }
                Synced::Lost => {
                    self.metrics.gaps.with_label_values(&["lost"]).inc();
                    tracing::warn!(
                        subscribers = state.subscribers.len(),
                        "a channel's history was lost; its subscribers are told"
                    );
                    for subscriber in state.subscribers.drain() {
                        self.end(channel, &subscriber.connection, codes::INSUFFICIENT_STATE);
                    }
                    if let Some(watcher) = self.watcher_of(channel) {
                        watcher.lost();
                    }
                    return Ok(());
                }
            }
        }
    }

    /// Reads what was missed of this channel. Of the watched one: before any channel goes on.
    fn resync(&self, channel: Arc<Channel>) {
        if self.watched.get().is_some_and(|watched| Arc::ptr_eq(&watched.channel, &channel)) {
            self.gap();
        }
        self.sync_later(vec![channel]);
    }

    /// Tries until these channels are live again or nobody wants them any more.
    fn sync_later(&self, channels: Vec<Arc<Channel>>) {
        let Some(me) = self.me.upgrade() else { return };
        tokio::spawn(futures_util::stream::iter(channels).for_each_concurrent(SYNC_CONCURRENCY, move |channel| {
            let me = Arc::clone(&me);
            async move {
                let mut pause = RETRY.start;
                while !channel.state().is_idle() {
                    let Err(error) = me.make_live(&channel).await else { return };
                    me.metrics.broker_errors.with_label_values(&["history"]).inc();
                    tracing::warn!(%error, "reading history failed and is tried again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY.end);
                }
            }
        }));
    }

    /// Unlinks the channel from the broker if still nobody wants it after a while.
    fn detach_later(&self, channel: Arc<Channel>) {
        let Some(me) = self.me.upgrade() else { return };
        tokio::spawn(async move {
            tokio::time::sleep(LINGER).await;
            let mut link = channel.link.lock().await;
            {
                let mut state = channel.state();
                if !state.is_idle() {
                    return;
                }
                // Before the broker is asked: whoever comes meanwhile finds it not live, and waits for the link.
                state.flow = Flow::of(&channel.name);
            }
            if *link == Link::Attached {
                if let Err(error) = me.broker.unsubscribe(&channel.name).await {
                    // What still arrives for it finds no channel and is dropped.
                    tracing::debug!(%error, "unsubscribing from the broker failed");
                }
                *link = Link::Detached;
            }
            let removed = me.channels.remove_if(&channel.name, |_, found| {
                let mut state = found.state();
                state.closed = Arc::ptr_eq(found, &channel) && state.is_idle();
                state.closed
            });
            if removed.is_some() {
                me.metrics.channels.dec();
            }
        });
    }

    /// Encodes once, for everybody. The caller holds the channel's state, which keeps the order.
    fn deliver(&self, channel: &Channel, state: &State, publication: &Publication) {
        if let Some(watcher) = self.watcher_of(channel) {
            watcher.publication(&publication.data);
        }
        if state.subscribers.is_empty() {
            return;
        }
        let frame = json::publication_push(&channel.name, publication);
        self.metrics.publications.inc();
        if publication.offset > 0 {
            state.subscribers.hand(&frame, publication.offset);
        } else {
            self.deliver_signal(state, &frame, publication.info.as_ref());
        }
    }

    /// What is not kept gives way to what is, where a client reads slowly.
    fn deliver_signal(&self, state: &State, frame: &Frame, sender: Option<&ClientInfo>) {
        state.subscribers.each(|subscriber| {
            if !subscriber.wants_signal(sender) {
            } else if subscriber.outbox().push_if_roomy(frame.clone()) {
                self.metrics.deliveries.inc();
            } else {
                self.metrics.signals_dropped.inc();
            }
        });
    }

    /// To those who asked for it, and not to that client itself.
    fn deliver_movement(&self, channel: &Channel, movement: Movement, info: &ClientInfo) {
        let mut frame = None;
        channel.state().subscribers.each(|subscriber| {
            if subscriber.movements && subscriber.held.is_none() && subscriber.connection.client != info.client {
                let frame = frame.get_or_insert_with(|| json::movement_push(&channel.name, movement, info));
                self.metrics.deliveries.inc_by(u64::from(subscriber.outbox().push(frame.clone())));
            }
        });
    }

    /// Keeps nothing of the channel's history here, since its record is gone and the broker keeps nothing either.
    pub fn forget(&self, name: &str) {
        let Some(channel) = self.find(name) else { return };
        if let Some(feed) = channel.state().flow.feed() {
            feed.forget();
        }
    }

    /// Tells a connection that was taken out of the channel's subscribers why.
    fn end(&self, channel: &Channel, connection: &Connection, code: UnsubscribeCode) {
        self.metrics.subscriptions.dec();
        connection.channels().remove(&channel.name);
        connection.outbox.push(json::unsubscribe_push(&channel.name, code));
    }

    fn watcher_of(&self, channel: &Channel) -> Option<Arc<dyn Watcher>> {
        let watched = self.watched.get()?;
        if std::ptr::eq(&*watched.channel, channel) { watched.watcher.upgrade() } else { None }
    }

    fn count_recovery(&self, recovered: Option<bool>) {
        if let Some(recovered) = recovered {
            let outcome = if recovered { "recovered" } else { "unrecoverable" };
            self.metrics.recoveries.with_label_values(&[outcome]).inc();
        }
    }
}

impl Sink for Hub {
    fn publication(&self, channel: &str, epoch: &str, publication: Publication) {
        let Some(channel) = self.find(channel) else { return };
        let mut state = channel.state();
        let Some(feed) = state.flow.feed() else { return };
        match feed.arrive(epoch, &publication) {
            Arrival::Deliver => self.deliver(&channel, &state, &publication),
            Arrival::Repeat => self.metrics.publication_repeats.inc(),
            Arrival::Held => {}
            Arrival::Gap => {
                drop(state);
                self.resync(channel);
            }
        }
    }

    fn signal(&self, channel: &str, publication: Publication) {
        if let Some(channel) = self.find(channel) {
            self.deliver(&channel, &channel.state(), &publication);
        }
    }

    fn movement(&self, channel: &str, movement: Movement, info: ClientInfo) {
        if let Some(channel) = self.find(channel) {
            self.deliver_movement(&channel, movement, &info);
        }
    }

    fn status(&self, channel: &str, status: Status) {
        if let Some(channel) = self.find(channel) {
            let mut state = channel.state();
            if state.flow.current().is_some_and(|current| current.arrive(status)) {
                self.deliver_status(&channel, &mut state, status);
            }
        }
    }

    fn gap(&self) {
        let doubtful: Vec<Arc<Channel>> = self.channels.iter().map(|entry| Arc::clone(entry.value())).collect();
        let doubtful = doubtful.into_iter().filter(|channel| channel.state().flow.doubt()).collect();
        self.sync_later(doubtful);
    }
}

#[cfg(test)]
#[path = "hub/hub_tests.rs"]
mod tests;
