//! Registry of this node's channels: created with the first subscribe, removed some time after the last subscriber.

use super::Hub;
use super::channel::{Attachment, Channel, Content};
use crate::channel::INTERNAL;
use std::sync::Arc;
use std::time::Duration;

/// Time that a channel without subscribers stays subscribed at the broker, so that a page reload costs no call.
pub(super) const LINGER: Duration = Duration::from_secs(2);

/// Number of channels looked at without letting other tasks run.
const YIELD_AFTER: usize = 1024;

/// Guard of a subscribe in progress: keeps the channel in the registry.
pub(super) struct Joining<'a> {
    hub: &'a Hub,
    pub channel: Arc<Channel>,
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
    pub(super) fn find(&self, name: &str) -> Option<Arc<Channel>> {
        self.channels.get(name).map(|channel| Arc::clone(&channel))
    }

    pub(super) fn all_channels(&self) -> Vec<Arc<Channel>> {
        self.channels.iter().map(|entry| Arc::clone(entry.value())).collect()
    }

    pub fn channel_names(&self) -> Vec<Arc<str>> {
        self.channels.iter().map(|entry| Arc::clone(entry.key())).collect()
    }

    /// The `count` channels with the most subscribers, with the number of subscribers. Locks one channel at a time, and
    /// lets other tasks run in between.
    pub async fn largest_channels(&self, count: usize) -> Vec<(Arc<str>, usize)> {
        let mut sizes = Vec::new();
        for some in self.all_channels().chunks(YIELD_AFTER) {
            sizes.extend(some.iter().map(|channel| (Arc::clone(&channel.name), channel.state().subscribers.len())));
            if sizes.len() > YIELD_AFTER {
                keep_largest(&mut sizes, count);
            }
            tokio::task::yield_now().await;
        }
        sizes.retain(|(name, size)| *size > 0 && !name.starts_with(INTERNAL));
        keep_largest(&mut sizes, count);
        sizes
    }

    /// Finds or creates the channel, and keeps it in the registry while the guard lives.
    pub(super) fn find_or_create(&self, name: &str) -> Joining<'_> {
        loop {
            let channel = self.find(name).unwrap_or_else(|| {
                let name: Arc<str> = name.into();
                Arc::clone(&self.channels.entry(Arc::clone(&name)).or_insert_with(|| {
                    self.metrics.channels.inc();
                    Arc::new(Channel::new(name, self.recent))
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

    /// Removes the channel and unsubscribes at the broker, if the channel still has no subscribers after [`LINGER`].
    pub(super) fn detach_later(&self, channel: Arc<Channel>) {
        let Some(me) = self.me.upgrade() else { return };
        tokio::spawn(async move {
            tokio::time::sleep(LINGER).await;
            let mut attachment = channel.attachment.lock().await;
            {
                let mut state = channel.state();
                if !state.is_idle() {
                    return;
                }
                // Before the broker's call: a subscribe during the call finds the channel not live, and waits for
                // `attachment`.
                state.content = Content::of(&channel.name, me.recent);
            }
            if *attachment == Attachment::Attached {
                if let Err(error) = me.broker.unsubscribe(&channel.name).await {
                    // Later publications find no channel and are dropped.
                    tracing::debug!(%error, "unsubscribing from the broker failed; later publications are dropped");
                }
                *attachment = Attachment::Detached;
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
}

/// Sorts by size, the largest first, and drops all but the first `count`.
pub fn keep_largest(sizes: &mut Vec<(Arc<str>, usize)>, count: usize) {
    sizes.sort_unstable_by(|(name, size), (other, others)| others.cmp(size).then_with(|| name.cmp(other)));
    sizes.truncate(count);
}
