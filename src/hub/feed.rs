//! The position of one channel on this node, as a pure state machine: which publication comes next, what is a
//! repeat, where something is missing, and what a subscriber that comes back has missed.
//!
//! A feed is either *live* (its position is known and what arrives continues it) or *syncing* (history is being
//! read; what arrives meanwhile is held back). No I/O and no clock: the hub does the reading.

use super::liveness::Liveness;
use crate::broker::{History, Retention};
use crate::protocol::{Position, Publication, SubscribeReply};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// Bounds of the publications that are held back while history is read, in number and in bytes of payload. Past either
/// of them further ones are dropped, and history is read once more.
const HELD_MAX: usize = 1024;
const HELD_BYTES: usize = 1 << 20;
/// How many of the last publications are kept here, so that a short reconnect costs the broker nothing.
const RECENT_MAX: usize = 32;
/// And how many bytes of payload at most.
const RECENT_BYTES: usize = 64 * 1024;

/// Bounds of a feed's recent publications: never more than the broker's history.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    publications: usize,
    bytes: usize,
    /// Since the channel's last publication.
    ttl: Duration,
}

impl Bounds {
    pub fn within(retention: &Retention) -> Self {
        let (publications, bytes) = (RECENT_MAX.min(retention.size), RECENT_BYTES.min(retention.bytes));
        Self { publications, bytes, ttl: retention.ttl }
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Self { publications: RECENT_MAX, bytes: RECENT_BYTES, ttl: Duration::MAX }
    }
}

#[derive(Debug, Default)]
pub struct Feed {
    bounds: Bounds,
    /// What has been delivered; unknown until the first sync.
    position: Option<Position>,
    /// The last publications up to `position`, ascending and without a hole.
    recent: VecDeque<Publication>,
    recent_bytes: usize,
    /// When `recent` ends, as the broker's history does.
    recent_until: Option<Instant>,
    /// While history is read, what has arrived is held, each with its epoch.
    liveness: Liveness<Held>,
}

#[derive(Debug, Default)]
struct Held {
    publications: Vec<(String, Publication)>,
    bytes: usize,
}

/// What becomes of a publication that has arrived.
#[derive(Debug, PartialEq)]
pub enum Arrival {
    /// It is the next one.
    Deliver,
    /// It was there before.
    Repeat,
    /// History is being read; it will be delivered afterwards.
    Held,
    /// Something before it is missing: history must be read now.
    Gap,
}

/// What reading history has brought.
#[derive(Debug, PartialEq)]
pub enum Synced {
    /// These come next; the feed is live.
    Continues(Vec<Publication>),
    /// The next publications, but not yet up to the newest: another read has to follow.
    Part(Vec<Publication>),
    /// The subscribers' place is no longer in the history. They must be told; the feed is live at its newest
    /// position.
    Lost,
    /// More was missed meanwhile: read once more.
    Again,
}

/// What a new subscriber gets.
#[derive(Debug)]
pub enum Join {
    Ready(SubscribeReply),
    /// History after this offset is needed to decide.
    ReadHistory(u64),
    /// The broker is further than this feed: sync first.
    Behind,
}

impl Feed {
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, ..Self::default() }
    }

    /// Restarts the lifetime of the recent publications; to be called after each publication.
    pub fn renew(&mut self, now: Instant) {
        self.expire(now);
        self.recent_until = now.checked_add(self.bounds.ttl);
    }

    /// Drops the recent publications at the end of the history's lifetime.
    pub fn expire(&mut self, now: Instant) {
        if self.recent_until.is_some_and(|until| now > until) {
            self.forget();
        }
    }

    pub fn is_live(&self) -> bool {
        self.liveness.is_live()
    }

    /// Whether the broker, at `top`, has something that was not delivered here.
    pub fn is_behind(&self, top: &Position) -> bool {
        self.position.as_ref().is_some_and(|at| at.epoch != top.epoch || at.offset < top.offset)
    }

    /// Epoch of the position.
    pub fn epoch(&self) -> Option<&str> {
        self.position.as_ref().map(|at| at.epoch.as_str())
    }

    /// Whether everything up to `position` has been delivered here.
    pub fn has_reached(&self, position: &Position) -> bool {
        self.position.as_ref().is_some_and(|at| at.epoch == position.epoch && at.offset >= position.offset)
    }

    /// Takes a publication that the broker delivered.
    pub fn arrive(&mut self, epoch: &str, publication: &Publication) -> Arrival {
        if let Liveness::Syncing { held, stale } = &mut self.liveness {
            if held.publications.len() < HELD_MAX && held.bytes < HELD_BYTES {
                held.bytes += publication.data.len();
                held.publications.push((epoch.to_owned(), publication.clone()));
            } else {
                *stale = true;
            }
            return Arrival::Held;
        }
        match &self.position {
            Some(at) if at.epoch == epoch && publication.offset <= at.offset => Arrival::Repeat,
            Some(at) if at.epoch == epoch && publication.offset == at.offset + 1 => {
                self.advance(publication.clone());
                Arrival::Deliver
            }
            _ => {
                self.liveness.doubt();
                Arrival::Gap
            }
        }
    }

    /// Something may have been missed. Returns whether a sync has to be started for it (none is under way).
    pub fn doubt(&mut self) -> bool {
        self.liveness.doubt()
    }

    /// Drops the recent publications. Later subscribers depend on the broker's history.
    pub fn forget(&mut self) {
        self.recent_until = None;
        self.recent.clear();
        self.recent_bytes = 0;
    }

    /// Begins a read of history; returns the position after which to read, `None` when only the newest position
    /// is wanted.
    pub fn begin_sync(&mut self) -> Option<u64> {
        self.liveness.begin();
        self.position.as_ref().map(|at| at.offset)
    }

    /// Takes what was read since [`Feed::begin_sync`].
    pub fn finish_sync(&mut self, history: History) -> Synced {
        let Some(held) = self.liveness.finish() else { return Synced::Again };
        let History { publications, position: top } = history;
        if self.position.as_ref().is_some_and(|at| begins(at, &publications, &top)) {
            // Held publications are in the history as well: the next read returns them.
            self.liveness.begin();
            for publication in &publications {
                self.advance(publication.clone());
            }
            return Synced::Part(publications);
        }
        let continues = match &self.position {
            // Nobody has been served yet, so there is nothing to lose.
            None => true,
            Some(at) => continues(at, &publications, &top),
        };
        let mut next = if self.position.is_some() && continues { publications } else { Vec::new() };
        let mut reached = top.offset;
        let mut hole = false;
        for (epoch, publication) in held.publications {
            if epoch != top.epoch || publication.offset > reached + 1 {
                hole = true;
            } else if publication.offset == reached + 1 {
                reached += 1;
                next.push(publication);
            }
        }
        if hole {
            // Nothing has been applied yet: the next read begins where this one did.
            self.liveness.begin();
            return Synced::Again;
        }
        if !continues {
            self.forget();
        }
        let lost = !continues;
        if lost || self.position.is_none() {
            // What was held and lies above the top is nobody's yet; begin behind it.
            self.position = Some(Position { offset: reached, epoch: top.epoch });
            return if lost { Synced::Lost } else { Synced::Continues(Vec::new()) };
        }
        for publication in &next {
            self.advance(publication.clone());
        }
        Synced::Continues(next)
    }

    /// What a subscriber gets that has everything up to `since` (`None`: a first subscribe). `history` is what
    /// was read after an earlier [`Join::ReadHistory`]. The feed must be live.
    pub fn join(&self, since: Option<&Position>, history: Option<History>) -> Join {
        let Some(at) = &self.position else { return Join::Behind };
        let Some(since) = since else {
            return ready(at.clone(), None, Vec::new());
        };
        // An empty epoch matches any: the client has its offset from elsewhere, such as an SDK's `getState`.
        let any = Position { offset: since.offset, epoch: at.epoch.clone() };
        let since = if since.epoch.is_empty() { &any } else { since };
        let Some(history) = history else {
            return match self.missed(at, since) {
                Some(publications) => ready(at.clone(), Some(true), publications),
                None => Join::ReadHistory(since.offset),
            };
        };
        let History { mut publications, position: top } = history;
        if top.epoch != at.epoch {
            return Join::Behind;
        }
        if !continues(since, &publications, &top) {
            return ready(at.clone(), Some(false), Vec::new());
        }
        // The feed may have moved on since the read: the rest is among its last publications.
        match self.missed(at, &top) {
            Some(rest) => {
                publications.extend(rest);
                ready(at.clone(), Some(true), publications)
            }
            // History is ahead of the feed: this subscriber skips what is still to come to the others.
            None if top.offset > at.offset => ready(top, Some(true), publications),
            None => Join::ReadHistory(since.offset),
        }
    }

    /// The publications after `since` up to `at`, if they are all still here.
    fn missed(&self, at: &Position, since: &Position) -> Option<Vec<Publication>> {
        if since.epoch != at.epoch || since.offset > at.offset {
            return None;
        }
        let count = at.offset - since.offset;
        if count > self.recent.len() as u64 {
            return None;
        }
        Some(self.recent.range(self.recent.len() - count as usize..).cloned().collect())
    }

    fn advance(&mut self, publication: Publication) {
        if let Some(at) = &mut self.position {
            at.offset = publication.offset;
        }
        self.recent_bytes += publication.data.len();
        self.recent.push_back(publication);
        while self.recent.len() > self.bounds.publications || self.recent_bytes > self.bounds.bytes {
            let Some(oldest) = self.recent.pop_front() else { break };
            self.recent_bytes -= oldest.data.len();
        }
    }
}

fn ready(position: Position, recovered: Option<bool>, publications: Vec<Publication>) -> Join {
    Join::Ready(SubscribeReply { position, recovered, publications })
}

/// Whether `publications` follow `since` without a hole and end before `top`: a broker returns no more at once.
fn begins(since: &Position, publications: &[Publication], top: &Position) -> bool {
    let end = publications.last().map_or(since.offset, |last| last.offset);
    let reached = Position { offset: end, epoch: top.epoch.clone() };
    since.offset < end && end < top.offset && continues(since, publications, &reached)
}

/// Whether `publications` are exactly what lies between `since` and `top`.
fn continues(since: &Position, publications: &[Publication], top: &Position) -> bool {
    since.epoch == top.epoch
        && since.offset <= top.offset
        && publications.len() as u64 == top.offset - since.offset
        && publications.iter().zip(since.offset + 1..).all(|(p, expected)| p.offset == expected)
}

#[cfg(test)]
#[path = "feed_tests.rs"]
mod tests;
