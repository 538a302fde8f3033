//! Users' statuses (online, away, …), derived from the leases of the users' connections on all nodes.

use super::BrokerError;
use crate::protocol::Payload;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// A user's status as other users see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Online,
    Away,
    Dnd,
    #[default]
    Offline,
}

/// The mode that a user has chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Online, or away while all connections are idle.
    #[default]
    Online,
    Away,
    Dnd,
    /// Looks offline to other users.
    Invisible,
}

/// A user's status at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserStatus {
    pub status: Status,
    /// Unix milliseconds. Offline: the user's last sign of life, or the moment of becoming invisible. Otherwise: the
    /// change to this status. `None` if unknown.
    pub last_seen: Option<u64>,
    /// Ascends with each state of a user: microseconds of the store's clock, or the last version + 1 if that is higher.
    pub version: u64,
}

impl UserStatus {
    pub fn payload(&self) -> Payload {
        Payload::trusted(serde_json::to_vec(self).unwrap_or_default().into())
    }

    /// Whether a client that knows `known` learns anything new from this state.
    pub fn is_news_after(&self, known: &Self) -> bool {
        let has_other_time =
            self.status == Status::Offline && self.last_seen.is_some() && self.last_seen != known.last_seen;
        self.status != known.status || has_other_time
    }
}

/// A user's mode and the time of the choice, in Unix microseconds; 0: never chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    pub mode: Mode,
    pub at: u64,
}

/// Number of buckets of users, each of which Redis keeps in a slot of its own. Never changes: with another number, the
/// stored users would be in other buckets.
pub const BUCKETS: usize = 64;

/// The bucket of a user, by FNV-1a: the same on every node and in every version.
pub fn bucket(user: &str) -> usize {
    let hash = user.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    hash as usize % BUCKETS
}

/// A live connection.
#[derive(Clone, Debug)]
pub struct Lease {
    pub user: Arc<str>,
    pub client: Arc<str>,
    pub idle: bool,
    /// Time since the last sign of life.
    pub age: Duration,
    /// The user's mode as this node knows it. Restores the mode if the store has lost its data.
    pub choice: Choice,
}

/// A connection that has ended.
#[derive(Clone, Debug)]
pub struct End {
    pub user: Arc<str>,
    pub client: Arc<str>,
    /// Time since the last sign of life.
    pub age: Duration,
    /// True if the connection was closed, false if lost. After a close the client may return in a moment, as with a
    /// page reload.
    pub closed: bool,
}

/// A user is online while at least one connection has a lease, and for `Retention::status_grace` after the last
/// connection was closed. Every call about a user computes the status again, atomically. Only a changed status is
/// announced, once, to [`super::Sink::status`] of every node that is subscribed to the user's channel.
///
/// States of one user reach a sink in order. [`super::Sink::gap`] announces possible losses; [`StatusStore::statuses`]
/// has the current states. The higher version is the newer state.
#[async_trait]
pub trait StatusStore: Send + Sync {
    /// Takes the lease of a new connection, as [`StatusStore::lease`] does, and returns the user's mode. `None`: the user
    /// already has `limit` other connections, and nothing has changed.
    async fn enter(&self, lease: &Lease, limit: Option<usize>) -> Result<Option<Choice>, BrokerError>;

    /// Number of the user's connections, on all nodes together.
    async fn connections(&self, user: &str) -> Result<usize, BrokerError>;

    /// Takes or renews leases, for `Retention::presence_ttl`. Returns each user's mode, in the order of the leases.
    async fn lease(&self, leases: &[Lease]) -> Result<Vec<Choice>, BrokerError>;

    /// Ends leases. Leases that have already ended change nothing.
    async fn end(&self, ends: &[End]) -> Result<(), BrokerError>;

    /// Changes a user's mode, or only reads with `None`. Returns the current mode and the state for other users.
    async fn choose(&self, user: &str, mode: Option<Mode>) -> Result<(Choice, UserStatus), BrokerError>;

    /// States in the order of `users`. `None`: not known yet. The store has just started empty, and nodes may still
    /// have to renew the leases of the user's connections.
    async fn statuses(&self, users: &[String]) -> Result<Vec<Option<UserStatus>>, BrokerError>;

    /// Ends expired leases and grace periods. Every node calls this several times per lease; the calls share the work.
    /// After a pause of more than a third of a lease (an outage of Redis), sweeps do nothing for a whole lease, so that
    /// nodes can renew their leases first.
    async fn sweep(&self) -> Result<(), BrokerError>;
}
