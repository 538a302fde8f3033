//! Who is online: leases of connections, counted together over all nodes, and what follows from them for each user.

use super::BrokerError;
use crate::protocol::Payload;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// What others see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Online,
    Away,
    Dnd,
    #[default]
    Offline,
}

/// What a user has chosen to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Online, or away while all connections are idle.
    #[default]
    Online,
    Away,
    Dnd,
    /// Looks offline to all others.
    Invisible,
}

/// A user's status at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub status: Status,
    /// Unix milliseconds: of the last sign of life, or when the user became invisible; for whoever is not offline: of
    /// the change to this status. `None` when it is not known.
    pub last_seen: Option<u64>,
    /// Later states of a user have greater ones: microseconds of the store's clock, made to ascend.
    pub version: u64,
}

impl State {
    pub fn payload(&self) -> Payload {
        Payload::trusted(serde_json::to_vec(self).unwrap_or_default().into())
    }

    /// Whether it tells nothing new to those who know the other.
    pub fn is_told_by(&self, other: &Self) -> bool {
        let seen = self.status != Status::Offline || self.last_seen.is_none() || self.last_seen == other.last_seen;
        self.status == other.status && seen
    }
}

/// A user's mode and when it was chosen, in microseconds; 0: never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    pub mode: Mode,
    pub at: u64,
}

/// One connection that lives.
#[derive(Clone, Debug)]
pub struct Lease {
    pub user: Arc<str>,
    pub client: Arc<str>,
    pub idle: bool,
    /// Since its last sign of life.
    pub age: Duration,
    /// What this node knows of its user's mode: comes back with it should the store have lost its data.
    pub choice: Choice,
}

/// One connection that lives no more.
#[derive(Clone, Debug)]
pub struct End {
    pub user: Arc<str>,
    pub client: Arc<str>,
    /// Since its last sign of life.
    pub age: Duration,
    /// Whether it may be back in a moment, as after a page's reload: it was closed rather than lost.
    pub closed: bool,
}

/// A user is online while at least one connection has a lease, and for `Retention::status_grace` after the last was
/// closed. The status is worked out anew with every call that concerns the user, atomically, and each change of it is
/// handed to [`super::Sink::status`] of every node that is subscribed to the user's channel, once. So there is never a
/// change from one status to the same.
///
/// States of one user reach a sink in their order. What it misses is announced by [`super::Sink::gap`] and can be read
/// with [`StatusStore::statuses`]; versions say which is newer.
#[async_trait]
pub trait StatusStore: Send + Sync {
    /// Takes or renews leases, for `Retention::presence_ttl`. Returns each user's mode, in the order of the leases.
    async fn lease(&self, leases: &[Lease]) -> Result<Vec<Choice>, BrokerError>;

    /// Ends leases; those that have ended before change nothing.
    async fn end(&self, ends: &[End]) -> Result<(), BrokerError>;

    /// Changes a user's mode, or with `None` only looks. Returns what it is now and what others see.
    async fn choose(&self, user: &str, mode: Option<Mode>) -> Result<(Choice, State), BrokerError>;

    /// In the order of `users`. `None`: not known yet, since the store has begun anew a moment ago and nodes may still
    /// have to bring the user's connections back.
    async fn statuses(&self, users: &[String]) -> Result<Vec<Option<State>>, BrokerError>;

    /// Lets time take effect on leases and graces that have run out. To be called by every node, several times within
    /// a lease; what one call has done the others do not do again. After nobody has called it for a third of a lease,
    /// as when Redis was away, it does nothing for a whole one: the nodes come first.
    async fn sweep(&self) -> Result<(), BrokerError>;
}
