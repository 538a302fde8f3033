//! Which of this node's clients are in which channel: keeps their leases in the broker alive. Clients of users who are
//! invisible are kept from it.

use crate::broker::Broker;
use crate::event::INTERNAL;
use crate::protocol::ClientInfo;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio_util::task::TaskTracker;

/// Leases renewed in one call to the broker.
const CHUNK: usize = 500;

pub struct Presence {
    broker: Arc<dyn Broker>,
    /// By client id and channel.
    local: Mutex<HashMap<(String, String), ClientInfo, foldhash::fast::RandomState>>,
    /// Users whom nobody shall see.
    hidden: Mutex<HashSet<String, foldhash::fast::RandomState>>,
    /// What the broker is being told in the background.
    leaving: TaskTracker,
}

impl Presence {
    pub fn new(broker: Arc<dyn Broker>) -> Arc<Self> {
        Arc::new(Self { broker, local: Mutex::default(), hidden: Mutex::default(), leaving: TaskTracker::new() })
    }

    /// Renews all leases three times within each one's length, for as long as `presence` lives.
    pub async fn renew(presence: Weak<Self>, lease: Duration) {
        loop {
            tokio::time::sleep(lease / 3).await;
            let Some(presence) = presence.upgrade() else { return };
            let all = presence.select(|channel, info| presence.shows(channel, info));
            for chunk in all.chunks(CHUNK) {
                if let Err(error) = presence.broker.add_presence(chunk).await {
                    tracing::warn!(%error, "renewing presence failed");
                    break;
                }
                presence.leave_again(chunk);
            }
        }
    }

    pub async fn enter(self: &Arc<Self>, channel: &str, info: &ClientInfo) -> Result<(), crate::broker::BrokerError> {
        self.local().insert((info.client.clone(), channel.to_owned()), info.clone());
        if !self.shows(channel, info) {
            return Ok(());
        }
        let client = [(channel.to_owned(), info.clone())];
        self.broker.add_presence(&client).await?;
        self.leave_again(&client);
        Ok(())
    }

    /// From now on nobody sees this user's clients, or everybody does again. Channels of the gateways' own are not
    /// concerned.
    pub fn hide(self: &Arc<Self>, user: &str, hidden: bool) {
        let changed = if hidden { self.hidden().insert(user.to_owned()) } else { self.hidden().remove(user) };
        if !changed {
            return;
        }
        let clients = self.select(|channel, info| info.user == user && !channel.starts_with(INTERNAL));
        if hidden {
            clients.into_iter().for_each(|(channel, info)| self.tell_of_leaving((info.client, channel)));
            return;
        }
        let me = Arc::clone(self);
        self.leaving.spawn(async move {
            match me.broker.add_presence(&clients).await {
                Ok(()) => me.leave_again(&clients),
                Err(error) => tracing::debug!(%error, "showing clients failed; their renewal does it"),
            }
        });
    }

    /// Of a user with no clients here any more nothing needs to be known.
    pub fn forget(&self, user: &str) {
        self.hidden().remove(user);
    }

    fn shows(&self, channel: &str, info: &ClientInfo) -> bool {
        channel.starts_with(INTERNAL) || !self.hidden().contains(&info.user)
    }

    fn select(&self, which: impl Fn(&str, &ClientInfo) -> bool) -> Vec<(String, ClientInfo)> {
        let local = self.local();
        let selected = local.iter().filter(|((_, channel), info)| which(channel, info));
        selected.map(|((_, channel), info)| (channel.clone(), info.clone())).collect()
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

    /// Takes out whom a call has brought back, since they left, or hid, while it was under way.
    fn leave_again(self: &Arc<Self>, renewed: &[(String, ClientInfo)]) {
        for (channel, info) in renewed {
            let key = (info.client.clone(), channel.clone());
            if !self.local().contains_key(&key) || !self.shows(channel, info) {
                self.tell_of_leaving(key);
            }
        }
    }

    /// May be taken while `local` is held, never the other way round.
    fn hidden(&self) -> MutexGuard<'_, HashSet<String, foldhash::fast::RandomState>> {
        self.hidden.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn local(&self) -> MutexGuard<'_, HashMap<(String, String), ClientInfo, foldhash::fast::RandomState>> {
        self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
