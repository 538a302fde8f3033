//! What lies between the relay that publishes and the hubs that deliver: history, fan-out to all nodes,
//! presence, and the relay's cursor.
//!
//! [`memory`] serves one node, [`redis`] any number; both keep the promises written at [`Broker`], and one
//! contract suite (`tests/broker.rs`) runs against each.

pub mod memory;
pub mod redis;
pub mod status;

use crate::event::INTERNAL;
use crate::protocol::{ClientInfo, Movement, Payload, Position, Publication};
use async_trait::async_trait;
use status::{State, StatusStore};
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
    /// Marks an access change: on no node may entries with a higher number, of any channel, take effect before this entry.
    /// The channel of barriers is always [`ACCESS`](crate::event::ACCESS).
    pub barrier: bool,
}

/// How far the outbox has been published: every event up to `seq`.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq)]
pub struct Mark {
    /// Which outbox: counts how often PocketBase was found to have another history than before.
    pub generation: u64,
    pub seq: u64,
    /// Of the event with this number.
    pub fingerprint: u64,
    /// The run of PocketBase in whose outbox the mark is known to lie.
    pub boot: u64,
}

/// A stretch of a channel's history.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    /// Ascending by offset, or descending for a reverse query. Ends early at [`Retention::read_bytes`].
    pub publications: Vec<Publication>,
    /// The channel's newest position, taken at the same instant.
    pub position: Position,
}

/// Which stretch of history is wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct HistoryQuery {
    /// Only publications after this offset (before it, when `reverse`).
    pub since: Option<u64>,
    /// At most this many; `None`: all that is kept; 0: only the position.
    pub limit: Option<usize>,
    /// Newest first.
    pub reverse: bool,
}

impl HistoryQuery {
    /// Only the position.
    pub const POSITION: Self = Self { since: None, limit: Some(0), reverse: false };

    /// Everything after this offset.
    pub fn after(offset: u64) -> Self {
        Self { since: Some(offset), ..Self::default() }
    }
}

/// How much is kept and for how long; of a channel's history: whichever bound is reached first.
#[derive(Clone, Debug)]
pub struct Retention {
    /// Publications per channel.
    pub size: usize,
    /// Bytes of payload per channel. The oldest publications are dropped first; a larger publication is never kept.
    pub bytes: usize,
    /// Bytes of payload in the histories of the whole deployment. Past the bound, the largest histories lose the oldest
    /// publications: in memory at once, in Redis about a second later.
    pub total_bytes: usize,
    /// Bytes of payload in an answer of [`Broker::history`]. A single publication may be larger.
    pub read_bytes: usize,
    /// Since the channel's last publication.
    pub ttl: Duration,
    /// How long a channel's epoch and offset outlive their last use. A client that comes back later than
    /// this is told `recovered:false`.
    pub position_ttl: Duration,
    /// How long a client stays in a channel's presence, and its user online, without being renewed.
    pub presence_ttl: Duration,
    /// Maximum number of clients in an answer of [`Broker::presence`].
    pub presence_max: usize,
    /// How long a user stays online after the last connection was closed.
    pub status_grace: Duration,
    /// How long a user's mode and last sign of life are kept.
    pub last_seen_ttl: Duration,
    /// Joins and leaves are told while a channel has no more clients than this.
    pub join_leave_max: usize,
}

impl Retention {
    /// Maximum bytes of payload in the channel's history. Channels of the gateways themselves carry the ends of access:
    /// a higher bound holds for them, and [`Retention::total_bytes`] does not shrink them.
    pub fn bytes_of(&self, channel: &str) -> usize {
        if channel.starts_with(INTERNAL) { self.bytes.max(self.total_bytes / 4) } else { self.bytes }
    }
}

impl Default for Retention {
    /// Keeps nothing; no bound in bytes.
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

/// Number of clients and users in a channel, on every node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PresenceStats {
    pub clients: usize,
    /// Distinct users; guests are not counted.
    pub users: usize,
}

/// Number of leading publications with at most `bytes` of payload together; 1 where the first alone has more.
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

/// Where a broker hands over what was published, implemented by the hub. Called from the broker's own tasks:
/// implementations return quickly and never call back into the broker on the same stack.
pub trait Sink: Send + Sync {
    /// One publication of a channel that this node is subscribed to. Those with an offset come in the
    /// channel's order unless [`Sink::gap`] says that some may be missing; repeats are possible.
    ///
    /// `after`: position of the newest earlier barrier ([`Entry::barrier`]), which may arrive later than the publication.
    /// `None`: all earlier barriers have been handed over, or a gap was told.
    fn publication(&self, channel: &str, epoch: &str, publication: Publication, after: Option<&Position>);
    /// Something without an offset: kept nowhere, not repeated when it is lost.
    fn signal(&self, channel: &str, publication: Publication);
    /// A client's coming or going, which is not kept either.
    fn movement(&self, channel: &str, movement: Movement, info: ClientInfo);
    /// The new state of a channel that carries a status, in the user's order; repeats are possible.
    fn status(&self, channel: &str, state: State);
    /// Publications of any channel may have been missed (the link was cut, or a queue overflowed). The link
    /// is whole again: what is missing can be read from history.
    fn gap(&self);
}

#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// Nothing was done, or it is not known whether it was; publishing the same entries again is safe.
    #[error("the broker is out of reach: {0}")]
    Unavailable(String),
    /// The channel's newest publication has this very number and another content: two outboxes are being published.
    #[error("another event was published under this number")]
    Conflict,
    /// More clients than [`Retention::presence_max`] are in the channel; [`Broker::presence_stats`] has the number.
    #[error("more clients are present than are listed")]
    Crowded,
    /// The broker answered with something that this version does not understand.
    #[error("the broker holds something unreadable: {0}")]
    Corrupt(String),
}

/// Ordering: the publications of one channel get the offsets 1, 2, 3 … of one epoch in the order in which they
/// were published, and reach each subscribed node's [`Sink`] in that order. Between channels there is none, but for
/// barriers ([`Entry::barrier`]): a barrier enters the history before later entries of any channel are published, and later
/// publications name the barrier's position unless delivery is in order.
///
/// Delivery: a publication is in the history before any sink sees it. What a sink misses is announced by
/// [`Sink::gap`] and can be read from [`Broker::history`].
#[async_trait]
pub trait Broker: StatusStore + 'static {
    /// Begins to deliver. Called once, before the first `subscribe`.
    async fn start(&self, sink: Weak<dyn Sink>) -> Result<(), BrokerError>;

    /// Appends each entry to its channel's history and delivers it. Entries of one channel must ascend by
    /// `seq`; one whose `seq` is not above the channel's last is dropped, so repeating a batch is harmless, unless
    /// it shows a [`BrokerError::Conflict`].
    /// On an error any prefix may have been published. Returns how many were new. Fails when the channel is of a
    /// later generation than this node knows of.
    async fn publish(&self, entries: &[Entry]) -> Result<usize, BrokerError>;

    /// Delivers something that is not kept, at most once.
    async fn signal(&self, channel: &str, data: Payload, info: ClientInfo) -> Result<(), BrokerError>;

    /// From its return on, everything published into the channel reaches this node's sink.
    async fn subscribe(&self, channel: &str) -> Result<(), BrokerError>;

    /// The counterpart; a late publication may still arrive afterwards.
    async fn unsubscribe(&self, channel: &str) -> Result<(), BrokerError>;

    /// Bounds of histories and of presence.
    fn retention(&self) -> &Retention;

    /// A stretch of history and the newest position, read in one instant. A channel that never saw a
    /// publication has offset 0 and an epoch of its own, which its first publication keeps. Returns at most
    /// [`Retention::read_bytes`]; another call reads the rest.
    async fn history(&self, channel: &str, query: HistoryQuery) -> Result<History, BrokerError>;

    /// Drops a channel's history, and begins a new epoch with its next use, unless something with a number above `seq`
    /// was published into it: nobody who comes later shall see what was before. What was published stays so, and
    /// repeats of it are dropped. Nodes that are subscribed find out with the next publication.
    async fn forget(&self, channel: &str, seq: u64) -> Result<(), BrokerError>;

    /// Adds these clients to their channels' presence, or renews them, for `Retention::presence_ttl`. Who is new is
    /// announced by [`Sink::movement`], and so is whose time has run out, once, with the next call about the channel;
    /// neither where the channel has more clients than `Retention::join_leave_max`.
    async fn add_presence(&self, clients: &[(Arc<str>, ClientInfo)]) -> Result<(), BrokerError>;

    /// As [`Broker::add_presence`] for one client, unless so many others are in the channel already: then it stays out,
    /// and the answer is false.
    async fn add_presence_if_room(
        &self,
        channel: &Arc<str>,
        client: &ClientInfo,
        limit: usize,
    ) -> Result<bool, BrokerError>;

    /// Takes clients out of channels; each is given as both. Also announced, where the client was present.
    async fn remove_presence(&self, clients: &[(Arc<str>, Arc<str>)]) -> Result<(), BrokerError>;

    /// Who is in the channel, on all nodes, each client once, in no particular order. Fails with
    /// [`BrokerError::Crowded`] above [`Retention::presence_max`].
    async fn presence(&self, channel: &str) -> Result<Vec<ClientInfo>, BrokerError>;

    /// Number of clients and users in the channel, at a constant cost. Not for the gateways' own channels: users are not
    /// counted there.
    async fn presence_stats(&self, channel: &str) -> Result<PresenceStats, BrokerError>;

    /// The relays' shared mark. Where none was ever set, it is set to this one. Returns where it stands. A node has
    /// one relay, which makes one call about the mark at a time.
    async fn begin(&self, mark: Mark) -> Result<Mark, BrokerError>;

    /// Moves the mark forward within its generation; a mark of another generation, or a lower one, changes nothing.
    /// Returns where it now stands.
    async fn advance(&self, mark: Mark) -> Result<Mark, BrokerError>;

    /// Begins a new generation: all channels forget their history and begin new epochs, and sinks are told of a
    /// [`Sink::gap`]. Unless the shared mark is of this generation or a later one already, which changes nothing.
    /// Returns where the mark now stands. Other nodes take part when they next ask for the mark.
    async fn restart(&self, mark: Mark) -> Result<Mark, BrokerError>;

    /// Reserves a name for this long, on all nodes. Returns false where the name is reserved already. On an error it may
    /// or may not be reserved.
    async fn claim(&self, name: &str, ttl: Duration) -> Result<bool, BrokerError>;

    /// Whether it answers, for the readiness check.
    async fn check(&self) -> Result<(), BrokerError>;
}

/// Water level for histories of these sizes: cut to the level, the histories have at most `target` bytes together.
/// Smaller histories stay untouched.
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

/// A name for a new history: random, so that no two histories of one channel share it.
pub(crate) fn new_epoch() -> String {
    crate::random::token::<6>()
}
