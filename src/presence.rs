//! Which of this node's clients are in which channel: keeps their leases in the broker alive.

use crate::broker::Broker;
use crate::protocol::ClientInfo;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio_util::task::TaskTracker;

/// Leases renewed in one call to the broker.
const CHUNK: usize = 500;

pub struct Presence {
    broker: Arc<dyn Broker>,
    /// By client id and channel.
    local: Mutex<HashMap<(String, String), ClientInfo, foldhash::fast::RandomState>>,
    /// What the broker is being told in the background.
    leaving: TaskTracker,
}

impl Presence {
    pub fn new(broker: Arc<dyn Broker>) -> Arc<Self> {
        Arc::new(Self { broker, local: Mutex::default(), leaving: TaskTracker::new() })
    }

    /// Renews all leases three times within each one's length, for as long as `presence` lives.
    pub async fn renew(presence: Weak<Self>, lease: Duration) {
        loop {
            tokio::time::sleep(lease / 3).await;
            let Some(presence) = presence.upgrade() else { return };
            let all: Vec<(String, ClientInfo)> =
                presence.local().iter().map(|((_, channel), info)| (channel.clone(), info.clone())).collect();
            for chunk in all.chunks(CHUNK) {
                if let Err(error) = presence.broker.add_presence(chunk).await {
                    tracing::warn!(%error, "renewing presence failed");
                    break;
                }
                presence.leave_again(chunk);
            }
        }
    }

    pub async fn enter(&self, channel: &str, info: &ClientInfo) -> Result<(), crate::broker::BrokerError> {
        self.local().insert((info.client.clone(), channel.to_owned()), info.clone());
        self.broker.add_presence(&[(channel.to_owned(), info.clone())]).await
    }

    /// As `enter`, where the channel may hold so many clients on all nodes; false where it holds as many already, and
    /// this one has not entered. Entry and question leave together, the entry first, so that those who come at the
    /// same time see each other; only while a broker begins anew may a few too many get in.
    pub async fn enter_if_room(
        self: &Arc<Self>,
        channel: &str,
        info: &ClientInfo,
        limit: usize,
    ) -> Result<bool, crate::broker::BrokerError> {
        let (entered, present) = tokio::join!(self.enter(channel, info), self.broker.presence(channel));
        entered?;
        let others = present?.iter().filter(|other| other.client != info.client).count();
        if others >= limit {
            self.leave(channel, &info.client);
        }
        Ok(others < limit)
    }

    /// Returns at once; the broker is told in the background, and where that fails the lease runs out.
    pub fn leave(self: &Arc<Self>, channel: &str, client: &str) {
        let key = (client.to_owned(), channel.to_owned());
        if self.local().remove(&key).is_some() {
            self.tell_of_leaving(key);
        }
    }

    fn tell_of_leaving(self: &Arc<Self>, (client, channel): (String, String)) {
        let me = Arc::clone(self);
        self.leaving.spawn(async move {
            if let Err(error) = me.broker.remove_presence(&channel, &client).await {
                tracing::debug!(%error, "removing a client's presence failed; its lease runs out");
            }
        });
    }

    /// For the end of the process: takes out whoever is left, and returns once the broker knows of all who left.
    pub async fn withdraw(self: &Arc<Self>) {
        let left: Vec<(String, String)> = self.local().keys().cloned().collect();
        for (client, channel) in left {
            self.leave(&channel, &client);
        }
        self.leaving.close();
        self.leaving.wait().await;
    }

    /// Takes out whom a renewal has brought back, since they left while it was under way.
    fn leave_again(self: &Arc<Self>, renewed: &[(String, ClientInfo)]) {
        for (channel, info) in renewed {
            let key = (info.client.clone(), channel.clone());
            if !self.local().contains_key(&key) {
                self.tell_of_leaving(key);
            }
        }
    }

    fn local(&self) -> MutexGuard<'_, HashMap<(String, String), ClientInfo, foldhash::fast::RandomState>> {
        self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
