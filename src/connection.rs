//! One authenticated connection as everybody but its [`session`](crate::session) sees it, and the register of all
//! that are open on this node.

use crate::auth::Account;
use crate::outbox::Outbox;
use crate::protocol::ClientInfo;
use dashmap::DashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Names one connection on this node.
pub type ConnectionId = u64;

pub struct Connection {
    pub id: ConnectionId,
    pub user: Arc<str>,
    /// The connection's name towards clients.
    pub client: Arc<str>,
    pub outbox: Arc<Outbox>,
    // Both are held for a look or a swap only: std Mutexes are enough.
    account: Mutex<Arc<Account>>,
    channels: Mutex<Channels>,
    opened: Instant,
    /// The client's last sign of life, in milliseconds since `opened`.
    seen: AtomicU64,
}

impl Connection {
    pub fn new(
        id: ConnectionId,
        user: &str,
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

    /// The client has just shown that it is there.
    pub fn show_life(&self) {
        let age = self.opened.elapsed().as_millis();
        self.seen.store(age.try_into().unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// When it last did.
    pub fn seen(&self) -> Instant {
        self.opened + Duration::from_millis(self.seen.load(Ordering::Relaxed))
    }

    /// The user's account, as it was last heard of.
    pub fn account(&self) -> Arc<Account> {
        Arc::clone(&lock(&self.account))
    }

    /// Whether its user does not want that one's signals.
    pub fn blocks(&self, user: &str) -> bool {
        lock(&self.account).blocks(user)
    }

    pub fn set_account(&self, account: Arc<Account>) {
        *lock(&self.account) = account;
    }

    /// What it is subscribed to. The hub keeps this.
    pub fn channels(&self) -> MutexGuard<'_, Channels> {
        lock(&self.channels)
    }
}

/// The names of a connection's channels: mostly few, so that a sorted list takes less than half of what a set would.
#[derive(Default)]
pub struct Channels(Vec<Arc<str>>);

impl Channels {
    /// Returns whether it is new.
    pub fn insert(&mut self, channel: Arc<str>) -> bool {
        let Err(at) = self.find(&channel) else { return false };
        if self.0.is_empty() {
            self.0.reserve_exact(1);
        }
        self.0.insert(at, channel);
        true
    }

    /// Returns whether it was there.
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
        self.0.clone()
    }

    pub fn take(&mut self) -> Vec<Arc<str>> {
        std::mem::take(&mut self.0)
    }

    fn find(&self, channel: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|other| (**other).cmp(channel))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All authenticated connections of this node, by user.
#[derive(Default)]
pub struct Connections {
    users: DashMap<Arc<str>, Vec<Arc<Connection>>, foldhash::fast::RandomState>,
}

impl Connections {
    pub fn add(&self, connection: &Arc<Connection>) {
        let mut connections = self.users.entry(Arc::clone(&connection.user)).or_default();
        if connections.is_empty() {
            // A growing list would have room for four at once, and most users have one.
            connections.reserve_exact(1);
        }
        connections.push(Arc::clone(connection));
    }

    pub fn remove(&self, connection: &Connection) {
        self.users.remove_if_mut(&connection.user, |_, connections| {
            connections.retain(|other| other.id != connection.id);
            connections.is_empty()
        });
    }

    pub fn of(&self, user: &str) -> Vec<Arc<Connection>> {
        self.users.get(user).map(|connections| connections.clone()).unwrap_or_default()
    }

    pub fn users(&self) -> Vec<Arc<str>> {
        self.users.iter().map(|entry| Arc::clone(entry.key())).collect()
    }
}
