//! Order between channels: nothing is delivered before the access changes that were published before it.
//!
//! From a Redis Cluster each master's publications come over a link of their own, so a later publication of one channel may
//! arrive before an earlier access change. It names that change's position in the watched channel, its *barrier*. While
//! the watched channel has not reached the barrier, the publication is held back in its channel's [`Feed`](super::feed),
//! and the channel's history is read, which waits in [`Hub::level`]. What is held is bounded as in every read of history;
//! past the bounds it is read again, and if the history does not go back so far, subscribers get code 2500.
//!
//! From a single Redis publications come in order. There, as everywhere, publications are held back while the watched
//! channel itself is being read after a gap.

use super::{Channel, Hub, Watched};
use crate::broker::{BrokerError, HistoryQuery};
use crate::protocol::Position;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How much later than in the history a publication of the watched channel may arrive before it counts as missed.
const LAG: Duration = Duration::from_millis(100);
/// How often that is looked at.
const LAG_CHECK: Duration = Duration::from_millis(1);
/// How long the watched channel may take to reach a barrier while the broker answers. Past that the access change is lost,
/// as after the failover to a replica that did not have it.
const LOST_AFTER: Duration = Duration::from_secs(5);

/// Barriers that publications have named.
#[derive(Default)]
pub(super) struct Barriers {
    /// The newest that the watched channel had not reached.
    asked: Option<Position>,
    /// The newest of these whose access changes have taken effect, though the watched channel's position does not show
    /// it: it may be of an epoch that ended with Redis's data.
    settled: Option<Position>,
}

impl Barriers {
    fn has_settled(&self, barrier: &Position) -> bool {
        self.settled.as_ref().is_some_and(|at| at.epoch == barrier.epoch && at.offset >= barrier.offset)
    }

    fn ask(&mut self, barrier: &Position) {
        if self.asked.as_ref().is_none_or(|at| at.epoch != barrier.epoch || at.offset < barrier.offset) {
            self.asked = Some(barrier.clone());
        }
    }
}

impl Watched {
    fn barriers(&self) -> MutexGuard<'_, Barriers> {
        self.barriers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hub {
    /// Whether a publication has arrived before an access change that was published earlier. `after`: its barrier.
    pub(super) fn is_early(&self, channel: &Arc<Channel>, after: Option<&Position>) -> bool {
        let Some(watched) = self.watched.get().filter(|watched| !Arc::ptr_eq(&watched.channel, channel)) else {
            return false;
        };
        let mut state = watched.channel.state();
        let Some(feed) = state.flow.feed() else { return false };
        let Some(after) = after else { return !feed.is_live() };
        if feed.has_reached(after) {
            return false;
        }
        let mut barriers = watched.barriers();
        let early = !barriers.has_settled(after);
        if early {
            barriers.ask(after);
            self.metrics.publications_early.inc();
        }
        early
    }

    /// Returns once everything has taken effect that was published into the watched channel before: what was just read
    /// from the broker may be ahead of what it has delivered here so far.
    pub async fn level(&self) -> Result<(), BrokerError> {
        let Some(watched) = self.watched.get() else { return Ok(()) };
        let asked = watched.barriers().asked.clone();
        let top = self.broker.history(&watched.channel.name, HistoryQuery::POSITION).await?.position;
        // The broker's answer is lower where it came from a master that has been replaced.
        let beyond = asked.clone().filter(|asked| asked.epoch == top.epoch && asked.offset > top.offset);
        let target = beyond.clone().unwrap_or(top);
        let began = Instant::now();
        let mut patience = began + LAG;
        while watched.channel.state().flow.feed().is_some_and(|feed| feed.is_behind(&target)) {
            let now = Instant::now();
            if let Some(barrier) = beyond.as_ref().filter(|_| now > began + LOST_AFTER) {
                give_up(watched, barrier);
                return Ok(());
            }
            if now > patience && watched.channel.state().flow.doubt() {
                self.sync_later(vec![Arc::clone(&watched.channel)]);
                patience = now + LAG;
            }
            Box::pin(self.make_this_live(&watched.channel)).await?;
            sleep(LAG_CHECK).await;
        }
        if asked.is_some() {
            watched.barriers().settled = asked;
        }
        Ok(())
    }
}

/// Has all access checked anew, once for each barrier that cannot be reached.
fn give_up(watched: &Watched, barrier: &Position) {
    let _state = watched.channel.state();
    {
        let mut barriers = watched.barriers();
        if barriers.has_settled(barrier) {
            return;
        }
        barriers.settled = Some(barrier.clone());
    }
    tracing::warn!("an access change was lost with a Redis master; all access is checked anew");
    if let Some(watcher) = watched.watcher.upgrade() {
        watcher.lost();
    }
}
