//! Shared reads of history for recovery: clients that recover from the same offset at the same time share one read.
//! After a restart or a network failure, these are most clients of a channel.

use super::Hub;
use super::channel::Channel;
use crate::broker::{BrokerError, History, HistoryQuery};
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use tokio::sync::OnceCell;

/// A channel's reads in progress, by the offset to read after.
#[derive(Default)]
pub(super) struct Reads {
    // Held for a lookup or an insertion, never across an await.
    running: Mutex<HashMap<u64, Weak<SharedRead>, foldhash::fast::RandomState>>,
}

type SharedRead = OnceCell<History>;

impl Reads {
    /// The read in progress, or a new read.
    fn join(&self, after: u64) -> Arc<SharedRead> {
        let mut running = self.running();
        if let Some(read) = running.get(&after).and_then(Weak::upgrade) {
            return read;
        }
        // Removes reads whose waiting clients have all given up.
        running.retain(|_, read| read.strong_count() > 0);
        let read = Arc::default();
        running.insert(after, Arc::downgrade(&read));
        read
    }

    fn end(&self, after: u64) {
        self.running().remove(&after);
    }

    fn running(&self) -> MutexGuard<'_, HashMap<u64, Weak<SharedRead>, foldhash::fast::RandomState>> {
        self.running.lock()
    }
}

impl Hub {
    /// The history after this offset, possibly a little older than the call: [`super::feed::Feed::join`] adds the later
    /// publications.
    pub(super) async fn missed(&self, channel: &Channel, after: u64) -> Result<History, BrokerError> {
        let read = channel.reads.join(after);
        let history = read.get_or_try_init(async || {
            let history = self.history(&channel.name, HistoryQuery::after(after)).await?;
            // Later clients may have missed more, and start a new read.
            channel.reads.end(after);
            Ok(history)
        });
        history.await.cloned()
    }
}
