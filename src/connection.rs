//! An authenticated connection, as seen by modules outside its [`session`](crate::session), and the register of this
//! node's connections.

use crate::auth::Account;
use crate::outbox::Outbox;
use crate::pocketbase::AccountId;
use crate::protocol::ClientInfo;
use dashmap::DashMap;
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Id of a connection, unique on this node.
pub type ConnectionId = u64;

pub struct Connection {
    pub id: ConnectionId,
    /// The user's key; empty for guests.
    pub user: Arc<str>,
    /// Client id of the connection, shown to other clients.
    pub client: Arc<str>,
    pub outbox: Arc<Outbox>,
    // Both are held for a read or a swap only: blocking mutexes are enough.
    account: Mutex<Arc<Account>>,
    channels: Mutex<Channels>,
    opened: Instant,
    /// Time of the client's last sign of life, in milliseconds since `opened`.
    seen: AtomicU64,
}

impl Connection {
    pub fn new(
        id: ConnectionId,
        user: impl Into<Arc<str>>,
        client: impl Into<Arc<str>>,
        outbox: &Arc<Outbox>,
        account: Arc<Account>,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            user: user.into(),
            client: client.into(),
            outbox: Arc::clone(outbox),
            account: Mutex::new(account),
            channels: Mutex::default(),
            opened: Instant::now(),
            seen: AtomicU64::new(0),
        })
    }

    pub fn info(&self) -> ClientInfo {
        ClientInfo { user: Arc::clone(&self.user), client: Arc::clone(&self.client) }
    }

    /// Records a sign of life of the client.
    pub fn record_activity(&self) {
        let age = self.opened.elapsed().as_millis();
        self.seen.store(age.try_into().unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Time of the client's last sign of life.
    pub fn seen(&self) -> Instant {
        self.opened + Duration::from_millis(self.seen.load(Ordering::Relaxed))
    }

    pub fn is_guest(&self) -> bool {
        self.user.is_empty()
    }

    /// The user's account, as last reported by PocketBase.
    pub fn account(&self) -> Arc<Account> {
        Arc::clone(&self.account.lock())
    }

    /// Whether the connection's user has blocked `user`: signals of `user` are not delivered.
    pub fn blocks(&self, user: &str) -> bool {
        self.account.lock().blocks(user)
    }

    pub fn set_account(&self, account: Arc<Account>) {
        *self.account.lock() = account;
    }

    /// Time since the connection was authenticated.
    pub fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    /// Adds a channel to [`Connection::channels`]. Returns whether the channel is new.
    pub fn add_channel(&self, channel: Arc<str>) -> bool {
        let since = u32::try_from(self.age().as_secs()).unwrap_or(u32::MAX);
        self.channels().insert(channel, since)
    }

    /// Channels that the connection is subscribed to. The hub maintains the list.
    pub fn channels(&self) -> MutexGuard<'_, Channels> {
        self.channels.lock()
    }
}

/// Names of a connection's channels, each with the connection's age in seconds at the subscribe. Mostly few: a sorted
/// list takes less than half the memory of a set.
#[derive(Default)]
pub struct Channels(Vec<(Arc<str>, u32)>);

impl Channels {
    /// Returns whether the channel is new.
    pub fn insert(&mut self, channel: Arc<str>, since: u32) -> bool {
        let Err(at) = self.find(&channel) else { return false };
        if self.0.is_empty() {
            self.0.reserve_exact(1);
        }
        self.0.insert(at, (channel, since));
        true
    }

    /// Returns whether the channel was in the list.
    pub fn remove(&mut self, channel: &str) -> bool {
        self.find(channel).map(|at| self.0.remove(at)).is_ok()
    }

    pub fn contains(&self, channel: &str) -> bool {
        self.find(channel).is_ok()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn to_vec(&self) -> Vec<Arc<str>> {
        self.0.iter().map(|(name, _)| Arc::clone(name)).collect()
    }

    /// The first `count` channels by name, each with the connection's age in seconds at the subscribe.
    pub fn first(&self, count: usize) -> Vec<(Arc<str>, u32)> {
        self.0.iter().take(count).cloned().collect()
    }

    pub fn take(&mut self) -> Vec<Arc<str>> {
        std::mem::take(&mut self.0).into_iter().map(|(name, _)| name).collect()
    }

    fn find(&self, channel: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| (**other).cmp(channel))
    }
}

/// Register of this node's authenticated connections, by the user's key.
#[derive(Default)]
pub struct Connections {
    /// Sorted by connection id, for a fast removal: guests, maybe thousands, share a key.
    users: DashMap<Arc<str>, Vec<Arc<Connection>>, foldhash::fast::RandomState>,
}

impl Connections {
    pub fn add(&self, connection: &Arc<Connection>) {
        let mut connections = self.users.entry(Arc::clone(&connection.user)).or_default();
        if connections.is_empty() {
            // A growing list would reserve room for four, and most users have a single connection.
            connections.reserve_exact(1);
        }
        let at = connections.partition_point(|other| other.id < connection.id);
        connections.insert(at, Arc::clone(connection));
    }

    pub fn remove(&self, connection: &Connection) {
        self.users.remove_if_mut(&connection.user, |_, connections| {
            if let Ok(at) = connections.binary_search_by_key(&connection.id, |other| other.id) {
                connections.remove(at);
            }
            connections.is_empty()
        });
    }

    pub fn of(&self, user: &str) -> Vec<Arc<Connection>> {
        self.users.get(user).map(|connections| connections.clone()).unwrap_or_default()
    }

    /// Accounts of a user's connections: a single account, except just after a config change that moved the key.
    pub fn accounts_of(&self, user: &str) -> HashSet<AccountId> {
        self.of(user).iter().map(|connection| connection.account().id.clone()).collect()
    }

    /// The user's first `count` connections, and the number of all.
    pub fn first_of(&self, user: &str, count: usize) -> (Vec<Arc<Connection>>, usize) {
        let first = |all: &Vec<Arc<Connection>>| (all.iter().take(count).cloned().collect(), all.len());
        self.users.get(user).map(|connections| first(&connections)).unwrap_or_default()
    }

    pub fn users(&self) -> Vec<Arc<str>> {
        self.users.iter().map(|entry| Arc::clone(entry.key())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_channel_is_there_once() {
        let mut channels = Channels::default();
        let inserted: Vec<bool> = ["b", "a", "c", "a"].map(|name| channels.insert(name.into(), 0)).into();
        assert_eq!(inserted, [true, true, true, false]);
        assert!(channels.contains("a") && !channels.contains("d"));
        assert!(channels.remove("b") && !channels.remove("b"));
        assert_eq!((channels.len(), channels.is_empty()), (2, false));
        assert_eq!(channels.take(), ["a", "c"].map(Arc::<str>::from));
        assert!(channels.is_empty());
    }

    #[test]
    fn connections_of_one_key_come_and_go_in_any_order() {
        let all = Connections::default();
        let connection = |id| Connection::new(id, "", "c", &Outbox::alone(1000), Account::blocking(&[]));
        let made: Vec<Arc<Connection>> = [3, 1, 2, 5, 4].map(connection).into();
        made.iter().for_each(|connection| all.add(connection));
        let ids = || all.of("").iter().map(|connection| connection.id).collect::<Vec<_>>();
        assert_eq!(ids(), [1, 2, 3, 4, 5]);
        [0, 3, 1].iter().for_each(|&i| all.remove(&made[i]));
        all.remove(&made[0]);
        assert_eq!((ids(), all.accounts_of("").len()), (vec![2, 4], 1));
        [2, 4].iter().for_each(|&i| all.remove(&made[i]));
        assert!(all.users().is_empty());
    }
}
