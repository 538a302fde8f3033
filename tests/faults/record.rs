//! The checker's input: the log of one client and channel, and the channel's truth according to PocketBase.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Clone, Debug, PartialEq)]
pub struct Position {
    pub epoch: Arc<str>,
    pub offset: u64,
}

/// Log of a client's subscription to a channel, in order of receipt.
#[derive(Default)]
pub struct Log {
    pub client: usize,
    pub channel: Arc<str>,
    pub seen: Vec<Seen>,
}

pub enum Seen {
    /// A subscription without recovery: from here on, nothing may be missing. Boxed, since it is rare.
    Start(Box<Start>),
    /// `recovered: true`: the following publications continue the previous ones. `now`, the position in the reply,
    /// equals `since`.
    Recovered { since: Box<Position>, now: Box<Position> },
    /// One publication: [`key`] of its data, and its offset.
    Publication { key: u64, offset: u64 },
}

pub struct Start {
    pub position: Position,
    /// The client's previous position, if a recovery was answered with `recovered: false`.
    pub instead_of: Option<Before>,
    /// The client's reload from PocketBase covers the outbox up to this sequence number.
    pub reload: Reload,
}

pub struct Before {
    pub since: Position,
    /// Number of times that Redis had lost its data when the answer came.
    pub losses: u32,
}

/// A sequence number of the outbox that becomes known somewhat later.
#[derive(Clone, Default)]
pub struct Reload(Arc<AtomicU64>);

impl Reload {
    pub fn done(&self, seq: u64) {
        self.0.store(seq + 1, Ordering::Release);
    }

    pub fn seq(&self) -> Option<u64> {
        self.0.load(Ordering::Acquire).checked_sub(1)
    }
}

/// Hash of an event's data, which differs between the events of a run.
pub fn key(data: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    data.hash(&mut hasher);
    hasher.finish()
}

/// The events of one channel according to PocketBase's outbox.
#[derive(Default, PartialEq)]
pub struct Truth {
    /// Sequence numbers in ascending order.
    pub seqs: Vec<u64>,
    places: HashMap<u64, usize>,
    pub last_key: u64,
}

impl Truth {
    /// Adds the channel's next event. Returns false if an event with the same data exists.
    pub fn push(&mut self, seq: u64, key: u64) -> bool {
        self.seqs.push(seq);
        self.last_key = key;
        self.places.insert(key, self.seqs.len() - 1).is_none()
    }

    pub fn place(&self, key: u64) -> Option<usize> {
        self.places.get(&key).copied()
    }

    /// Number of the channel's events with a sequence number of at most `seq`.
    pub fn up_to(&self, seq: u64) -> usize {
        self.seqs.partition_point(|&at| at <= seq)
    }

    pub fn len(&self) -> usize {
        self.seqs.len()
    }
}

/// The epochs seen by clients, and for each the number of Redis's data losses at its beginning.
#[derive(Default)]
pub struct Epochs(HashMap<(Arc<str>, Arc<str>), u32>);

impl Epochs {
    pub fn seen(&mut self, channel: &Arc<str>, epoch: &Arc<str>, losses: u32) {
        self.0.entry((Arc::clone(channel), Arc::clone(epoch))).or_insert(losses);
    }

    /// `None` if no client has seen the epoch.
    pub fn began(&self, channel: &Arc<str>, epoch: &Arc<str>) -> Option<u32> {
        self.0.get(&(Arc::clone(channel), Arc::clone(epoch))).copied()
    }
}
