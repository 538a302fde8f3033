//! Users' statuses on a single node: the same logic as in `redis/scripts/status*.lua`, within this process.

use super::MemoryBroker;
use crate::broker::status_store::{Choice, End, Lease, Mode, Status, StatusStore, UserStatus};
use crate::broker::{BrokerError, Retention};
use crate::channel;
use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// The lock is held for a few lookups and never across an await. Calls to the sink are made under this lock,
/// which keeps each user's states in order.
#[derive(Default)]
pub(super) struct StatusTable {
    users: Mutex<Users>,
}

/// Boxed, since up to half of a large map is empty slots.
type Users = HashMap<Arc<str>, Box<User>, foldhash::fast::RandomState>;

struct User {
    /// Few; mostly one.
    leases: Vec<StoredLease>,
    choice: Choice,
    state: UserStatus,
    /// The last sign of life of ended connections, in Unix milliseconds.
    seen: u64,
    /// End of the grace period, during which a closed connection may return.
    grace: Option<Instant>,
    used_at: Instant,
}

struct StoredLease {
    client: Arc<str>,
    till: Instant,
    seen: u64,
    idle: bool,
}

impl User {
    fn new(now: Instant) -> Self {
        let (choice, state) = Default::default();
        Self { leases: Vec::new(), choice, state, seen: 0, grace: None, used_at: now }
    }

    /// Adds or renews a lease.
    fn renew(&mut self, lease: StoredLease) {
        match self.leases.iter_mut().find(|held| held.client == lease.client) {
            Some(held) => *held = lease,
            None => {
                // Plain growth would reserve four places at once, for each of many users.
                self.leases.reserve_exact(1);
                self.leases.push(lease);
            }
        }
    }

    /// Number of live connections other than `client`.
    fn others(&self, client: &str, now: Instant) -> usize {
        self.leases.iter().filter(|lease| *lease.client != *client && lease.till > now).count()
    }

    /// Computes the status again; returns the state if the status has changed.
    fn recompute(&mut self, now: Instant) -> Option<UserStatus> {
        let seen = &mut self.seen;
        self.leases.retain(|lease| {
            let lives = lease.till > now;
            if !lives {
                *seen = lease.seen.max(*seen);
            }
            lives
        });
        self.grace = self.grace.filter(|grace| *grace > now);
        let connected = !self.leases.is_empty();
        let status = match self.choice.mode {
            Mode::Invisible => Status::Offline,
            _ if !connected && self.grace.is_some() => self.state.status,
            _ if !connected => Status::Offline,
            Mode::Away => Status::Away,
            Mode::Dnd => Status::Dnd,
            Mode::Online if self.leases.iter().all(|lease| lease.idle) => Status::Away,
            Mode::Online => Status::Online,
        };
        if status == self.state.status {
            return None;
        }
        let left = status == Status::Offline && !connected && self.choice.mode != Mode::Invisible;
        let last_seen = if left { self.seen } else { micros() / 1000 };
        let version = micros().max(self.state.version + 1);
        self.state = UserStatus { status, last_seen: Some(last_seen), version };
        Some(self.state)
    }
}

fn micros() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_micros().try_into().unwrap_or(u64::MAX)
}

fn seen(age: Duration) -> u64 {
    (micros() / 1000).saturating_sub(age.as_millis().try_into().unwrap_or(u64::MAX))
}

impl MemoryBroker {
    fn users(&self) -> MutexGuard<'_, Users> {
        self.statuses.users.lock()
    }

    /// Takes or renews a lease.
    fn take(&self, users: &mut Users, lease: &Lease, now: Instant) -> Choice {
        let user = users.entry(Arc::clone(&lease.user)).or_insert_with(|| Box::new(User::new(now)));
        user.used_at = now;
        if lease.choice.at > user.choice.at {
            user.choice = lease.choice;
        }
        user.renew(StoredLease {
            client: Arc::clone(&lease.client),
            till: now + self.retention.presence_ttl,
            seen: seen(lease.age),
            idle: lease.idle,
        });
        self.announce(&lease.user, user.recompute(now));
        user.choice
    }

    fn announce(&self, user: &str, changed: Option<UserStatus>) {
        if let (Some(state), Some(sink)) = (changed, self.sink()) {
            sink.status(&channel::status_of(user), state);
        }
    }
}

#[async_trait]
impl StatusStore for MemoryBroker {
    async fn enter(&self, lease: &Lease, limit: Option<usize>) -> Result<Option<Choice>, BrokerError> {
        let mut users = self.users();
        let now = Instant::now();
        let others = users.get(&lease.user).map_or(0, |user| user.others(&lease.client, now));
        Ok(limit.is_none_or(|limit| others < limit).then(|| self.take(&mut users, lease, now)))
    }

    async fn connections(&self, user: &str) -> Result<usize, BrokerError> {
        Ok(self.users().get(user).map_or(0, |user| user.others("", Instant::now())))
    }

    async fn lease(&self, leases: &[Lease]) -> Result<Vec<Choice>, BrokerError> {
        let mut users = self.users();
        let now = Instant::now();
        Ok(leases.iter().map(|lease| self.take(&mut users, lease, now)).collect())
    }

    async fn end(&self, ends: &[End]) -> Result<(), BrokerError> {
        let mut users = self.users();
        let now = Instant::now();
        for end in ends {
            let Some(user) = users.get_mut(&end.user) else { continue };
            let Some(held) = user.leases.iter().position(|held| held.client == end.client) else { continue };
            user.leases.swap_remove(held);
            user.used_at = now;
            user.seen = user.seen.max(seen(end.age));
            if end.closed {
                user.grace = Some(now + self.retention.status_grace);
            }
            self.announce(&end.user, user.recompute(now));
        }
        Ok(())
    }

    async fn choose(&self, id: &str, mode: Option<Mode>) -> Result<(Choice, UserStatus), BrokerError> {
        let mut users = self.users();
        let now = Instant::now();
        let user = users.entry(id.into()).or_insert_with(|| Box::new(User::new(now)));
        user.used_at = now;
        if let Some(mode) = mode {
            user.choice = Choice { mode, at: micros().max(user.choice.at + 1) };
        }
        self.announce(id, user.recompute(now));
        Ok((user.choice, user.state))
    }

    async fn statuses(&self, users: &[String]) -> Result<Vec<Option<UserStatus>>, BrokerError> {
        let known = self.users();
        let unknown = UserStatus { version: micros(), ..UserStatus::default() };
        Ok(users.iter().map(|user| Some(known.get(user.as_str()).map_or(unknown, |user| user.state))).collect())
    }

    async fn sweep(&self) -> Result<(), BrokerError> {
        let now = Instant::now();
        let Retention { last_seen_ttl, .. } = self.retention;
        self.users().retain(|id, user| {
            self.announce(id, user.recompute(now));
            !user.leases.is_empty() || user.grace.is_some() || now - user.used_at < last_seen_ttl
        });
        Ok(())
    }
}
