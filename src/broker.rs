//! The broker connects the relay, which publishes, with the hubs, which deliver: fan-out to all nodes, channel
//! histories, presence, user statuses, and the relays' shared mark.
//!
//! [`memory`] serves a single node, [`redis`] any number of nodes. Both keep the guarantees documented at [`Broker`],
//! and one contract suite (`tests/gateway/broker.rs`) runs against both.

pub mod memory;
pub mod redis;
pub mod status_store;

use crate::channel::INTERNAL;
use crate::protocol::{ClientInfo, Movement, Payload, Position, Publication};
use async_trait::async_trait;
use bytes::Bytes;
use status_store::{StatusStore, UserStatus};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// One publication for one channel, numbered by PocketBase's outbox.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The event's sequence number in the outbox, from 1.
    pub seq: u64,
    /// Time of the outbox row in Unix milliseconds, by PocketBase's clock; 0: unknown. For metrics alone.
    pub at: u64,
    pub channel: String,
    pub data: Payload,
    /// True for an access change. On every node, a barrier takes effect before any entry with a higher number, whatever
    /// the channel. The channel of barriers is always [`CONTROL`](crate::channel::CONTROL).
    pub barrier: bool,
}

/// Progress of publishing: every outbox event up to `seq` is published.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq)]
pub struct Mark {
    /// Generation of the outbox: grows each time PocketBase's outbox does not continue the outbox relayed so far.
    pub generation: u64,
    pub seq: u64,
    /// Fingerprint of the event with the number `seq`.
    pub fingerprint: u64,
    /// Run of PocketBase whose outbox is known to contain the event.
    pub boot: u64,
}

/// Part of a channel's history.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    /// Ascending by offset, or descending for a reverse query. Ends early at [`Retention::read_bytes`].
    pub publications: Vec<Publication>,
    /// The channel's newest position, read at the same instant.
    pub position: Position,
}

/// Range of a history to read.
#[derive(Clone, Copy, Debug, Default)]
pub struct HistoryQuery {
    /// Only publications after this offset (before it, when `reverse`).
    pub since: Option<u64>,
    /// Maximum number of publications. `None`: no limit; 0: only the position.
    pub limit: Option<usize>,
    /// Newest first.
    pub reverse: bool,
}

impl HistoryQuery {
    /// Only the position.
    pub const POSITION: Self = Self { since: None, limit: Some(0), reverse: false };

    /// The publications after this offset.
    pub fn after(offset: u64) -> Self {
        Self { since: Some(offset), ..Self::default() }
    }
}

/// Limits of the kept data, in size and time. A channel's history ends at the limit that is reached first.
#[derive(Clone, Debug)]
pub struct Retention {
    /// Publications per channel.
    pub size: usize,
    /// Bytes of payload per channel. The oldest publications are dropped first; a larger publication is never kept.
    pub bytes: usize,
    /// Bytes of payload in the histories of the whole deployment. Above the limit, the largest histories lose the
    /// oldest publications: in memory at once, in Redis about a second later.
    pub total_bytes: usize,
    /// Bytes of payload in an answer of [`Broker::history`]. A single publication may be larger.
    pub read_bytes: usize,
    /// How long a history is kept after the channel's last publication.
    pub ttl: Duration,
    /// How long a channel's epoch and offset are kept after the last use. A client that returns later gets
    /// `recovered:false`.
    pub position_ttl: Duration,
    /// How long a client stays in a channel's presence, and a user online, without a renewal.
    pub presence_ttl: Duration,
    /// Maximum number of clients in an answer of [`Broker::presence`].
    pub presence_max: usize,
    /// How long a user stays online after the last connection was closed.
    pub status_grace: Duration,
    /// How long a user's mode and last sign of life are kept.
    pub last_seen_ttl: Duration,
    /// Joins and leaves are announced in channels with at most this number of clients.
    pub join_leave_max: usize,
}

impl Retention {
    /// Maximum bytes of payload in the channel's history. The gateways' internal channels carry access changes: their
    /// limit is higher, and [`Retention::total_bytes`] does not shrink their histories.
    pub fn bytes_of(&self, channel: &str) -> usize {
        if channel.starts_with(INTERNAL) { self.bytes.max(self.total_bytes / 4) } else { self.bytes }
    }
}

impl Default for Retention {
    /// Keeps nothing; no limits in bytes.
    fn default() -> Self {
        Self {
            size: 0,
            bytes: usize::MAX,
            total_bytes: usize::MAX,
            read_bytes: usize::MAX,
            ttl: Duration::ZERO,
            position_ttl: Duration::ZERO,
            presence_ttl: Duration::ZERO,
            presence_max: usize::MAX,
            status_grace: Duration::ZERO,
            last_seen_ttl: Duration::ZERO,
            join_leave_max: 0,
        }
    }
}

/// Number of clients and users in a channel, on all nodes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PresenceStats {
    pub clients: usize,
    /// Distinct users; guests are not counted.
    pub users: usize,
}

/// Number of leading publications with at most `bytes` of payload together; 1 if the first publication alone has more.
pub(crate) fn fitting<'a>(publications: impl IntoIterator<Item = &'a Publication>, bytes: usize) -> usize {
    let mut left = bytes;
    let fits = |publication: &&Publication| {
        let size = publication.data.len();
        let fits = size <= left;
        left = left.saturating_sub(size);
        fits
    };
    let mut publications = publications.into_iter().peekable();
    let is_any = publications.peek().is_some();
    publications.take_while(fits).count().max(usize::from(is_any))
}

/// Receiver of published messages, implemented by the hub. Called from the broker's own tasks: implementations return
/// quickly and never call back into the broker on the same stack.
pub trait Sink: Send + Sync {
    /// A publication of a channel that this node is subscribed to. Publications arrive in the channel's order, without
    /// holes, unless [`Sink::gap`] reports that some may be missing. Repeats are possible.
    ///
    /// `after`: position of the newest earlier barrier ([`Entry::barrier`]), which may arrive later than the
    /// publication. `None`: all earlier barriers have been delivered, or a gap was reported.
    fn publication(&self, channel: &str, epoch: &str, publication: Publication, after: Option<&Position>);
    /// A signal, without an offset: not kept, and not repeated after a loss.
    fn signal(&self, channel: &str, publication: Publication);
    /// A client's join or leave; not kept either.
    fn movement(&self, channel: &str, movement: Movement, info: ClientInfo);
    /// A user's new state, for the user's status channel. States of one user arrive in order; repeats are possible.
    fn status(&self, channel: &str, state: UserStatus);
    /// A message for this node alone; not kept, and not repeated after a loss. Ignored by default.
    fn message(&self, _message: Bytes) {}
    /// Publications of any channel may have been missed: the link was cut, a queue overflowed, or a new generation
    /// began. The link works again, and missing publications can be read from the history.
    fn gap(&self);
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum BrokerError {
    /// The call did nothing, or the outcome is unknown. Publishing the same entries again is safe.
    #[error("the broker is out of reach: {0}")]
    Unavailable(String),
    /// The channel's newest publication has the same number and another content: two outboxes are being published.
    #[error("another event was published under this number")]
    Conflict,
    /// More clients than [`Retention::presence_max`] are in the channel; [`Broker::presence_stats`] has the number.
    #[error("the channel has more clients than an answer may list")]
    Crowded,
    /// The broker's answer has a form that this version does not know.
    #[error("unreadable data in the broker: {0}")]
    Corrupt(String),
}

impl BrokerError {
    /// The error of a call that the end of the process has cut off.
    pub(crate) fn stopping() -> Self {
        Self::Unavailable("the gateway is stopping".into())
    }
}

/// Ordering: the publications of one channel get the offsets 1, 2, 3 … of one epoch in the order of publishing, and
/// reach each subscribed node's [`Sink`] in the same order. Between channels, only barriers ([`Entry::barrier`]) have a
/// guaranteed order: a barrier enters the history before later entries of any channel are published, and later
/// publications name the barrier's position unless delivery is in order.
///
/// Delivery: a publication is in the history before any sink receives the publication. [`Sink::gap`] announces possible
/// losses; [`Broker::history`] has the missing publications.
#[async_trait]
pub trait Broker: StatusStore + 'static {
    /// Starts delivery. Called once, before the first `subscribe`.
    async fn start(&self, sink: Weak<dyn Sink>) -> Result<(), BrokerError>;

    /// Appends each entry to the channel's history and delivers the entry. Entries of one channel must ascend by `seq`.
    /// An entry whose `seq` is not above the channel's last is dropped, so repeating a batch is harmless; different
    /// content under the last `seq` is a [`BrokerError::Conflict`].
    ///
    /// Returns the number of new entries. On an error, part of the batch may have been published: of each channel, a
    /// prefix of the entries. Fails when a channel belongs to a later generation than this node knows of.
    async fn publish(&self, entries: &[Entry]) -> Result<usize, BrokerError>;

    /// Publishes the entries, and moves the mark in the same request if the broker can. Returns the number of new entries,
    /// and the current mark; `None`: the mark has not moved, and [`Broker::advance`] has to follow.
    async fn publish_and_advance(&self, entries: &[Entry], mark: Mark) -> Result<(usize, Option<Mark>), BrokerError> {
        let _ = mark;
        Ok((self.publish(entries).await?, None))
    }

    /// Delivers a signal at most once, without keeping it.
    async fn signal(&self, channel: &str, data: Payload, info: ClientInfo) -> Result<(), BrokerError>;

    /// Sends a message to the node that is subscribed to [`channel::of_node`](crate::channel::of_node), at most once
    /// ([`Sink::message`]). Returns false if there is no such node. Messages of one sender arrive in order.
    async fn send(&self, node: &str, message: Bytes) -> Result<bool, BrokerError>;

    /// Subscribes this node. After the return, every publication of the channel reaches this node's sink.
    async fn subscribe(&self, channel: &str) -> Result<(), BrokerError>;

    /// Unsubscribes this node. A late publication may still arrive afterwards.
    async fn unsubscribe(&self, channel: &str) -> Result<(), BrokerError>;

    /// Limits of histories and of presence.
    fn retention(&self) -> &Retention;

    /// Reads part of a history and the newest position, in one instant. A channel without a publication has offset 0
    /// and an epoch, which the first publication keeps. Returns at most [`Retention::read_bytes`] of payload; another
    /// call reads the rest.
    async fn history(&self, channel: &str, query: HistoryQuery) -> Result<History, BrokerError>;

    /// Clears a channel's history and starts a new epoch with the next use, unless the channel has a publication with a
    /// number above `seq`. Later subscribers must not see earlier publications. The number of the last publication is
    /// kept, so repeats are still dropped. Subscribed nodes learn of the new epoch with the next publication.
    async fn forget(&self, channel: &str, seq: u64) -> Result<(), BrokerError>;

    /// Adds clients to their channels' presence, or renews them, for `Retention::presence_ttl`. [`Sink::movement`]
    /// announces new clients, and also expired clients: once, with the next call about the channel. Channels with more
    /// clients than `Retention::join_leave_max` get no announcements.
    async fn add_presence(&self, clients: &[(Arc<str>, ClientInfo)]) -> Result<(), BrokerError>;

    /// Removes clients, given as pairs of channel and client. The leave of a present client is announced.
    async fn remove_presence(&self, clients: &[(Arc<str>, Arc<str>)]) -> Result<(), BrokerError>;

    /// The channel's clients on all nodes, without repeats, in no particular order. Fails with
    /// [`BrokerError::Crowded`] above [`Retention::presence_max`].
    async fn presence(&self, channel: &str) -> Result<Vec<ClientInfo>, BrokerError>;

    /// Number of clients and users in the channel, at a constant cost.
    async fn presence_stats(&self, channel: &str) -> Result<PresenceStats, BrokerError>;

    /// Returns the relays' shared mark; sets it to `mark` first if there is none. A node has one relay, which makes one
    /// call about the mark at a time.
    async fn begin(&self, mark: Mark) -> Result<Mark, BrokerError>;

    /// Moves the shared mark forward within the generation. A mark of another generation, or a lower mark, changes
    /// nothing. Returns the current mark.
    async fn advance(&self, mark: Mark) -> Result<Mark, BrokerError>;

    /// Begins a new generation: all channels drop their history and start new epochs, and sinks get a [`Sink::gap`].
    /// Does nothing if the shared mark is already of this generation or a later one. Returns the current mark. Other
    /// nodes join the generation with their next question about the mark.
    async fn restart(&self, mark: Mark) -> Result<Mark, BrokerError>;

    /// Reserves a name on all nodes, for `ttl`. Returns false if the name is already reserved. After an error the name
    /// may be reserved or not.
    async fn claim(&self, name: &str, ttl: Duration) -> Result<bool, BrokerError>;

    /// Fails while the broker cannot do its work; for the readiness check.
    async fn check(&self) -> Result<(), BrokerError>;
}

/// Water level for histories of these sizes: cut to the level, the histories have at most `target` bytes together.
/// Histories below the level stay untouched.
pub(crate) fn level(mut sizes: Vec<usize>, target: usize) -> usize {
    sizes.sort_unstable();
    let (mut left, mut channels) = (target, sizes.len());
    for size in sizes {
        if size > left / channels {
            return left / channels;
        }
        left -= size;
        channels -= 1;
    }
    usize::MAX
}

/// A random name for a new history: no two histories of one channel share an epoch.
pub(crate) fn new_epoch() -> String {
    crate::random::token::<6>()
}
