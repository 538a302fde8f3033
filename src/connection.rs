//! One authenticated connection as everybody but its [`session`](crate::session) sees it, and the register of all
//! that are open on this node.

use crate::auth::Account;
use crate::outbox::Outbox;
use crate::protocol::ClientInfo;
use dashmap::DashMap;
use std::collections::HashSet;
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
    channels: Mutex<HashSet<Arc<str>>>,
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
    pub fn channels(&self) -> MutexGuard<'_, HashSet<Arc<str>>> {
        lock(&self.channels)
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
        self.users.entry(Arc::clone(&connection.user)).or_default().push(Arc::clone(connection));
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
