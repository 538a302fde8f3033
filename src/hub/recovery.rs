//! Reading what those who come back have missed, once for all who come at the same time and have missed the same: after
//! a restart or a cut that is most of a room.

use super::{Channel, Hub};
use crate::broker::{BrokerError, History, HistoryQuery};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::OnceCell;

/// A channel's reads under way, by the offset after which they read.
#[derive(Default)]
pub(super) struct Reads {
    // Held for a few looks, never across an await.
    running: Mutex<HashMap<u64, Weak<Read>, foldhash::fast::RandomState>>,
}

type Read = OnceCell<History>;

impl Reads {
    /// The read that is under way, or one to begin.
    fn join(&self, after: u64) -> Arc<Read> {
        let mut running = self.running();
        if let Some(read) = running.get(&after).and_then(Weak::upgrade) {
            return read;
        }
        // Those who began them have all given up.
        running.retain(|_, read| read.strong_count() > 0);
        let read = Arc::default();
        running.insert(after, Arc::downgrade(&read));
        read
    }

    fn end(&self, after: u64) {
        self.running().remove(&after);
    }

    fn running(&self) -> MutexGuard<'_, HashMap<u64, Weak<Read>, foldhash::fast::RandomState>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hub {
    /// The history after this offset. It may be a little older than the call: [`super::feed::Feed::join`] adds what the
    /// channel has brought since.
    pub(super) async fn missed(&self, channel: &Channel, after: u64) -> Result<History, BrokerError> {
        let read = channel.reads.join(after);
        let history = read.get_or_try_init(async || {
            let history = self.history(&channel.name, HistoryQuery::after(after)).await?;
            // Whoever comes from now on may have missed more.
            channel.reads.end(after);
            Ok(history)
        });
        history.await.cloned()
    }
}
