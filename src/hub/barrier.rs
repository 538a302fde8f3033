//! Order between channels: a publication is delivered only after the access changes published before.
//!
//! In a Redis Cluster every master has a link of its own, so a publication may arrive before an earlier access change.
//! Every publication names the position of the newest earlier access change in the watched channel, the *barrier*.
//! Until the watched channel has reached the barrier, the channel's [`Feed`](super::feed) holds the publication back
//! and reads the history, and the read waits in [`Hub::level`]. The feed holds at most 1024 publications and 1 MiB.
//! Past either limit, the history is read again. If the history no longer reaches back, subscribers get code 2500.
//!
//! A single Redis delivers in order. With any broker, publications are also held back while the watched channel is read
//! after a gap.

use super::channel::Channel;
use super::{Hub, Watched};
use crate::broker::{BrokerError, HistoryQuery};
use crate::protocol::Position;
use parking_lot::MutexGuard;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Delay of a publication of the watched channel, after its entry into the history, past which the publication counts
/// as missed.
const LAG: Duration = Duration::from_millis(100);
/// Interval between two comparisons of positions.
const LAG_CHECK: Duration = Duration::from_millis(1);
/// Limit of the wait for a barrier while the broker answers. Past the limit, the access change counts as lost, as after
/// the failover to a replica without the change.
const LOST_AFTER: Duration = Duration::from_secs(5);

/// Barriers of early publications.
#[derive(Default)]
pub(super) struct Barriers {
    /// Newest barrier that the watched channel had not reached.
    asked: Option<Position>,
    /// Newest barrier known to be in effect regardless of the watched channel's position, such as a barrier of an epoch
    /// that ended when Redis lost its data.
    cleared: Option<Position>,
}

impl Barriers {
    /// `epoch`: current epoch of the watched channel. In this epoch, lower offsets may have been assigned again, after
    /// the failover to a replica without the last access changes.
    fn is_cleared(&self, barrier: &Position, epoch: Option<&str>) -> bool {
        self.cleared.as_ref().is_some_and(|at| {
            let is_former = epoch != Some(barrier.epoch.as_str());
            at.epoch == barrier.epoch && (at.offset == barrier.offset || (is_former && at.offset > barrier.offset))
        })
    }

    fn ask(&mut self, barrier: &Position) {
        if self.asked.as_ref().is_none_or(|at| at.epoch != barrier.epoch || at.offset < barrier.offset) {
            self.asked = Some(barrier.clone());
        }
    }
}

impl Watched {
    /// The newest barrier that is neither reached nor cleared.
    fn asked(&self) -> Option<Position> {
        let mut state = self.channel.state();
        let epoch = state.content.feed().and_then(|feed| feed.epoch());
        let barriers = self.barriers();
        barriers.asked.clone().filter(|asked| !barriers.is_cleared(asked, epoch))
    }

    pub(super) fn barriers(&self) -> MutexGuard<'_, Barriers> {
        self.barriers.lock()
    }
}

impl Hub {
    /// Whether a publication with the barrier `after` has arrived before an earlier access change.
    pub(super) fn is_early(&self, channel: &Arc<Channel>, after: Option<&Position>) -> bool {
        let Some(watched) = self.watched.get().filter(|watched| !Arc::ptr_eq(&watched.channel, channel)) else {
            return false;
        };
        let mut state = watched.channel.state();
        let Some(feed) = state.content.feed() else { return false };
        let Some(after) = after else { return !feed.is_live() };
        if feed.has_reached(after) {
            return false;
        }
        let mut barriers = watched.barriers();
        let early = !barriers.is_cleared(after, feed.epoch());
        if early {
            barriers.ask(after);
            self.metrics.publications_early.inc();
        }
        early
    }

    /// Waits until everything published so far into the watched channel has taken effect. Follows a read from the
    /// broker, since the answer may be ahead of the broker's deliveries.
    pub async fn level(&self) -> Result<(), BrokerError> {
        let Some(watched) = self.watched.get() else { return Ok(()) };
        let asked = watched.asked();
        let top = self.broker.history(&watched.channel.name, HistoryQuery::POSITION).await?.position;
        // A replaced master answers with a lower position.
        let beyond = asked.clone().filter(|asked| asked.epoch == top.epoch && asked.offset > top.offset);
        let target = beyond.clone().unwrap_or(top);
        let began = Instant::now();
        let mut patience = began + LAG;
        while watched.channel.state().content.feed().is_some_and(|feed| feed.is_behind(&target)) {
            let now = Instant::now();
            if now > began + LOST_AFTER {
                let Some(barrier) = &beyond else {
                    // The broker may have lost data since: the next attempt compares with the new position.
                    return Err(BrokerError::Unavailable("the broker does not deliver access changes".into()));
                };
                give_up(watched, barrier);
                return Ok(());
            }
            if now > patience {
                patience = now + LAG;
                if watched.channel.state().content.doubt() {
                    self.sync_later(vec![Arc::clone(&watched.channel)]);
                }
            }
            Box::pin(self.make_this_live(&watched.channel)).await?;
            sleep(LAG_CHECK).await;
        }
        if asked.is_some() {
            watched.barriers().cleared = asked;
        }
        Ok(())
    }
}

/// Requests a new check of all access, once per unreachable barrier.
fn give_up(watched: &Watched, barrier: &Position) {
    let mut state = watched.channel.state();
    {
        let epoch = state.content.feed().and_then(|feed| feed.epoch());
        let mut barriers = watched.barriers();
        if barriers.is_cleared(barrier, epoch) {
            return;
        }
        barriers.cleared = Some(barrier.clone());
    }
    tracing::warn!("a Redis failover lost an access change; the access of all subscribers is checked again");
    if let Some(watcher) = watched.watcher.upgrade() {
        watcher.lost();
    }
}
