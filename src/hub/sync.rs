//! Sync of a channel with the broker: subscribes to the channel at the broker, and reads undelivered publications from
//! the history.
//!
//! A channel is synced before the first subscriber is added, and again after every possible gap. The watched channel is
//! always synced first.

use super::barrier::Barriers;
use super::channel::{Attachment, Channel};
use super::feed::{Feed, Synced};
use super::{Hub, Watched};
use crate::backoff::Backoff;
use crate::broker::{BrokerError, History, HistoryQuery};
use crate::channel;
use crate::log_lines::limited;
use crate::protocol::codes;
use crate::tasks::{self, Task};
use futures_util::StreamExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// Interval between comparisons of each channel's position with the broker's. Normally, the link delivers publications
/// at once or notices a loss. The comparison covers other causes, such as a Redis that was emptied by hand.
const CHECK: Duration = Duration::from_secs(15);
/// Concurrent background syncs of the hub. Subscribes sync outside this limit.
pub(super) const SYNC_CONCURRENCY: usize = 32;
/// Shortest and longest pause between attempts to reach the broker.
const RETRY: std::ops::Range<Duration> = Duration::from_millis(50)..Duration::from_secs(2);

impl Hub {
    /// Waits until the watched channel is live.
    pub async fn watched(&self) -> Result<(), BrokerError> {
        match self.watched.get() {
            Some(watched) => self.make_this_live(&watched.channel).await,
            None => Ok(()),
        }
    }

    /// Makes the watched channel live, and then this channel.
    pub(super) async fn make_live(&self, channel: &Arc<Channel>) -> Result<(), BrokerError> {
        self.watched().await?;
        self.make_this_live(channel).await
    }

    /// Subscribes to the channel at the broker and reads the history that the feed needs, unless both are done.
    pub(super) async fn make_this_live(&self, channel: &Arc<Channel>) -> Result<(), BrokerError> {
        if channel.state().content.is_live() {
            return Ok(());
        }
        let mut attachment = channel.attachment.lock().await;
        if *attachment == Attachment::Detached {
            self.broker.subscribe(&channel.name).await?;
            *attachment = Attachment::Attached;
        }
        if !channel.state().content.is_live() {
            self.sync(channel).await?;
        }
        Ok(())
    }

    fn as_watched(&self, channel: &Arc<Channel>) -> Option<&Watched> {
        self.watched.get().filter(|watched| Arc::ptr_eq(&watched.channel, channel))
    }

    /// Reads history until the feed is live again. The caller holds the channel's attachment.
    async fn sync(&self, channel: &Arc<Channel>) -> Result<(), BrokerError> {
        if let Some(user) = channel::user_of_status(&channel.name) {
            return self.read_status(channel, user).await;
        }
        loop {
            let Some(after) = channel.state().content.feed().map(Feed::begin_sync) else { return Ok(()) };
            let query = after.map_or(HistoryQuery::POSITION, HistoryQuery::after);
            let history = self.history(&channel.name, query).await?;
            let mut state = channel.state();
            let Some(feed) = state.content.feed() else { return Ok(()) };
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
                        "channels with lost publications",
                        subscribers = state.subscribers.len(),
                        "publications of a channel were lost; its subscribers get code 2500, subscribe again and reload"
                    );
                    let gone = state.subscribers.drain();
                    let gone = gone.iter().map(|subscriber| &*subscriber.connection);
                    self.end(channel, &state, gone, codes::INSUFFICIENT_STATE);
                    if let Some(watched) = self.as_watched(channel) {
                        // Offsets may be assigned again from here on.
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

    /// Reads a channel's history, and waits until the earlier access changes have taken effect: the history may be
    /// ahead of the broker's deliveries to this node.
    pub async fn history(&self, name: &str, query: HistoryQuery) -> Result<History, BrokerError> {
        let history = self.broker.history(name, query).await?;
        if self.watched.get().is_none_or(|it| *it.channel.name != *name) {
            self.level().await?;
        }
        Ok(history)
    }

    /// Syncs channels in the background, with limited concurrency. Retries until each channel is live or has no
    /// subscribers.
    pub(super) fn sync_later(&self, channels: Vec<Arc<Channel>>) {
        let Some(me) = self.me.upgrade() else { return };
        tokio::spawn(futures_util::stream::iter(channels).for_each_concurrent(SYNC_CONCURRENCY, move |channel| {
            let me = Arc::clone(&me);
            async move {
                let mut backoff = Backoff::new(RETRY);
                while !channel.state().is_idle() {
                    let synced = {
                        // Other channels wait for the watched channel while they hold a permit: a permit for the
                        // watched channel could be a deadlock.
                        let needs_place = me.as_watched(&channel).is_none();
                        let _place = if needs_place { me.syncs.acquire().await.ok() } else { None };
                        me.make_live(&channel).await
                    };
                    let Err(error) = synced else { return };
                    let pause = backoff.pause();
                    me.metrics.broker_errors.with_label_values(&["history"]).inc();
                    limited!(
                        warn,
                        "failed reads of a channel's history",
                        %error,
                        "the broker did not return a channel's history; its subscribers wait, retrying in {pause:?}"
                    );
                    tokio::time::sleep(pause).await;
                }
            }
        }));
    }

    /// Starts the comparison of all positions with the broker's, every [`CHECK`].
    pub fn start_position_checks(self: &Arc<Self>) -> AbortOnDropHandle<()> {
        let hub = Arc::clone(self);
        tasks::spawn(Task::PositionChecks, async move {
            loop {
                tokio::time::sleep(CHECK).await;
                hub.check_positions().await;
            }
        })
    }

    async fn check_positions(self: &Arc<Self>) {
        let (all, statuses) =
            self.all_channels().into_iter().partition(|channel| channel.state().content.feed().is_some());
        self.check_statuses(statuses).await;
        let all: Vec<Arc<Channel>> = all;
        let checks = futures_util::stream::iter(all).for_each_concurrent(SYNC_CONCURRENCY, |channel| async move {
            // Nothing to do while the broker is unreachable: the link announces the gap afterwards.
            let Ok(history) = self.broker.history(&channel.name, HistoryQuery::POSITION).await else { return };
            let doubtful = {
                let content = &mut channel.state().content;
                content.feed().is_some_and(|feed| feed.is_behind(&history.position)) && content.doubt()
            };
            if doubtful {
                self.sync_later(vec![channel]);
            }
        });
        checks.await;
    }
}
