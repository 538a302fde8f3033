//! Between the broker and a channel here: linking them, and reading what the link has not brought.
//!
//! A channel is brought up to date before its first subscriber comes in, and again whenever something may have been
//! missed. The watched channel always comes first.

use super::barrier::Barriers;
use super::feed::{Feed, Synced};
use super::flow::Flow;
use super::{Channel, Hub, Link, Watched};
use crate::broker::{BrokerError, History, HistoryQuery};
use crate::channel;
use crate::limits::lines::limited;
use crate::protocol::codes;
use futures_util::StreamExt;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// How long a channel without subscribers stays linked to the broker, so that a page reload costs nothing.
pub(super) const LINGER: Duration = Duration::from_secs(2);
/// How often each channel's position is compared with the broker's. What is published reaches this node at once or
/// its loss is noticed by the link; this is for what neither notices, such as a Redis that was emptied by hand.
const CHECK: Duration = Duration::from_secs(15);
/// Concurrent syncs of the hub, without subscribes under way.
pub(super) const SYNC_CONCURRENCY: usize = 32;
/// Bounds of the pause between attempts to reach the broker.
const RETRY: std::ops::Range<Duration> = Duration::from_millis(50)..Duration::from_secs(2);

impl Hub {
    /// Returns once the watched channel brings all that is published into it from now on.
    pub async fn watched(&self) -> Result<(), BrokerError> {
        match self.watched.get() {
            Some(watched) => self.make_this_live(&watched.channel).await,
            None => Ok(()),
        }
    }

    /// Links the channel to the broker and reads its history as far as its feed needs, unless both are done. The
    /// watched channel comes first.
    pub(super) async fn make_live(&self, channel: &Arc<Channel>) -> Result<(), BrokerError> {
        self.watched().await?;
        self.make_this_live(channel).await
    }

    pub(super) async fn make_this_live(&self, channel: &Arc<Channel>) -> Result<(), BrokerError> {
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

    fn as_watched(&self, channel: &Arc<Channel>) -> Option<&Watched> {
        self.watched.get().filter(|watched| Arc::ptr_eq(&watched.channel, channel))
    }

    /// Unlinks the channel from the broker if still nobody wants it after a while.
    pub(super) fn detach_later(&self, channel: Arc<Channel>) {
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
                state.flow = Flow::of(&channel.name, me.bounds);
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

    /// Reads history until the feed is live again. The caller holds the channel's link.
    async fn sync(&self, channel: &Arc<Channel>) -> Result<(), BrokerError> {
        if let Some(user) = channel::user_of_status(&channel.name) {
            return self.read_status(channel, user).await;
        }
        loop {
            let Some(after) = channel.state().flow.feed().map(Feed::begin_sync) else { return Ok(()) };
            let query = after.map_or(HistoryQuery::POSITION, HistoryQuery::after);
            let history = self.history(&channel.name, query).await?;
            let mut state = channel.state();
            let Some(feed) = state.flow.feed() else { return Ok(()) };
            let synced = feed.finish_sync(history);
            feed.renew(Instant::now());
            match synced {
                Synced::Again => {}
                Synced::Part(publications) => {
                    for publication in &publications {
                        self.deliver(channel, &state, publication);
                    }
                }
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
                    limited!(
                        warn,
                        "channels whose history was lost",
                        subscribers = state.subscribers.len(),
                        "a channel's history was lost; its subscribers are told"
                    );
                    let gone = state.subscribers.drain();
                    let gone = gone.iter().map(|subscriber| &*subscriber.connection);
                    self.end(channel, &state, gone, codes::INSUFFICIENT_STATE);
                    if let Some(watched) = self.as_watched(channel) {
                        // Offsets may be given anew from here on.
                        *watched.barriers() = Barriers::default();
                    }
                    if let Some(watcher) = self.watcher_of(channel) {
                        watcher.lost();
                    }
                    return Ok(());
                }
            }
        }
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

    /// Syncs channels in the background, a few at a time, with retries until each is live or abandoned.
    pub(super) fn sync_later(&self, channels: Vec<Arc<Channel>>) {
        let Some(me) = self.me.upgrade() else { return };
        tokio::spawn(futures_util::stream::iter(channels).for_each_concurrent(SYNC_CONCURRENCY, move |channel| {
            let me = Arc::clone(&me);
            async move {
                let mut pause = RETRY.start;
                while !channel.state().is_idle() {
                    let synced = {
                        // Other channels wait for the watched channel; a place would be a deadlock.
                        let needs_place = me.as_watched(&channel).is_none();
                        let _place = if needs_place { me.syncs.acquire().await.ok() } else { None };
                        me.make_live(&channel).await
                    };
                    let Err(error) = synced else { return };
                    me.metrics.broker_errors.with_label_values(&["history"]).inc();
                    limited!(warn, "failed reads of history", %error, "reading history failed and is tried again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY.end);
                }
            }
        }));
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
                        hub.sync_later(vec![channel]);
                    }
                }
            });
            checks.await;
        }
    }
}
