//! What the checker compares: what one client saw of one channel, and what PocketBase says happened there.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Clone, Debug, PartialEq)]
pub struct Position {
    pub epoch: Arc<str>,
    pub offset: u64,
}

/// What a client saw of a channel, in the order in which it saw it.
#[derive(Default)]
pub struct Log {
    pub client: usize,
    pub channel: Arc<str>,
    pub seen: Vec<Seen>,
}

pub enum Seen {
    /// A subscription without a past: from here on nothing may be missing. Boxed, as it is rare.
    Start(Box<Start>),
    /// `recovered: true`: what follows continues what came before. `now` is the reply's position, which is `since`.
    Recovered { since: Box<Position>, now: Box<Position> },
    /// One publication: what it said, as [`key`] of its data, and its number.
    Publication { key: u64, offset: u64 },
}

pub struct Start {
    pub position: Position,
    /// Where the client was before, if it asked for what it had missed and was told `recovered: false`.
    pub instead_of: Option<Before>,
    /// What it then loaded from PocketBase holds everything up to this number of the outbox.
    pub reload: Reload,
}

pub struct Before {
    pub since: Position,
    /// How often Redis had lost its data when the answer came.
    pub losses: u32,
}

/// A number of the outbox that becomes known somewhat later.
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

/// Stands for the bytes of an event's data, which are different for each event of a run.
pub fn key(data: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    data.hash(&mut hasher);
    hasher.finish()
}

/// One channel as PocketBase's outbox tells it.
#[derive(Default, PartialEq)]
pub struct Truth {
    /// Ascending.
    pub seqs: Vec<u64>,
    places: HashMap<u64, usize>,
    pub last_key: u64,
}

impl Truth {
    /// Adds the channel's next event. False if one with the same data is there already.
    pub fn push(&mut self, seq: u64, key: u64) -> bool {
        self.seqs.push(seq);
        self.last_key = key;
        self.places.insert(key, self.seqs.len() - 1).is_none()
    }

    pub fn place(&self, key: u64) -> Option<usize> {
        self.places.get(&key).copied()
    }

    /// How many of the channel's events lie at or below this number of the outbox.
    pub fn up_to(&self, seq: u64) -> usize {
        self.seqs.partition_point(|&at| at <= seq)
    }

    pub fn len(&self) -> usize {
        self.seqs.len()
    }
}

/// Which epochs were seen, and how often Redis had lost its data when each began.
#[derive(Default)]
pub struct Epochs(HashMap<(Arc<str>, Arc<str>), u32>);

impl Epochs {
    pub fn seen(&mut self, channel: &Arc<str>, epoch: &Arc<str>, losses: u32) {
        self.0.entry((Arc::clone(channel), Arc::clone(epoch))).or_insert(losses);
    }

    /// `None`: nobody has ever seen it.
    pub fn began(&self, channel: &Arc<str>, epoch: &Arc<str>) -> Option<u32> {
        self.0.get(&(Arc::clone(channel), Arc::clone(epoch))).copied()
    }
}
