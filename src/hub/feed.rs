//! The position of one channel on this node, as a pure state machine: recognizes the next publication, repeats and
//! gaps, and finds the missed publications for a client that recovers.
//!
//! A feed is either *live* (the position is known, and arriving publications continue from there) or *syncing* (history
//! is being read, and arriving publications are held back). No I/O and no clock: the hub does the reading.

use super::liveness::Liveness;
use crate::broker::{History, Retention};
use crate::protocol::{Position, Publication, SubscribeReply};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// Limits of the publications held back during a read of history, in number and in bytes of payload. Past either limit,
/// further publications are dropped, and history is read again.
const HELD_MAX: usize = 1024;
const HELD_BYTES: usize = 1 << 20;
/// Recent publications kept per channel: a recovery after a short disconnect needs no call to the broker.
const RECENT_MAX: usize = 32;
/// Payload bytes of the recent publications.
const RECENT_BYTES: usize = 64 * 1024;

/// Limits of a feed's recent publications: never more than the broker's history.
#[derive(Clone, Copy, Debug)]
pub struct RecentLimits {
    publications: usize,
    bytes: usize,
    /// Lifetime after the channel's last publication.
    ttl: Duration,
}

impl RecentLimits {
    pub fn within(retention: &Retention) -> Self {
        let (publications, bytes) = (RECENT_MAX.min(retention.size), RECENT_BYTES.min(retention.bytes));
        Self { publications, bytes, ttl: retention.ttl }
    }
}

impl Default for RecentLimits {
    fn default() -> Self {
        Self { publications: RECENT_MAX, bytes: RECENT_BYTES, ttl: Duration::MAX }
    }
}

#[derive(Debug, Default)]
pub struct Feed {
    limits: RecentLimits,
    /// Position of the last delivered publication; unknown until the first sync.
    position: Option<Position>,
    /// The last publications up to `position`, ascending and without a hole.
    recent: VecDeque<Publication>,
    recent_bytes: usize,
    /// Expiry of `recent`, the same as in the broker's history.
    recent_until: Option<Instant>,
    /// During a read of history, holds the arriving publications with their epochs.
    liveness: Liveness<HeldPublications>,
}

#[derive(Debug, Default)]
struct HeldPublications {
    publications: Vec<(String, Publication)>,
    bytes: usize,
}

/// Verdict on an arriving publication.
#[derive(Debug, PartialEq)]
pub enum Arrival {
    /// The next publication: deliver.
    Deliver,
    /// Delivered before: drop.
    Repeat,
    /// Held back until the end of the current read of history.
    Held,
    /// Earlier publications are missing: read history now.
    Gap,
}

/// Outcome of a read of history.
#[derive(Debug, PartialEq)]
pub enum Synced {
    /// The next publications; the feed is live.
    Continues(Vec<Publication>),
    /// The next publications, but not up to the newest: read again.
    Part(Vec<Publication>),
    /// The history does not continue from the feed's position: publications are lost, and the subscribers have to be
    /// told. The feed is live at the newest position.
    Lost,
    /// Another gap occurred during the read: read again.
    Again,
}

/// Outcome of [`Feed::join`].
#[derive(Debug)]
pub enum JoinOutcome {
    Ready(SubscribeReply),
    /// The history after this offset is needed first.
    ReadHistory(u64),
    /// The broker is ahead of the feed: sync first.
    Behind,
}

impl Feed {
    pub fn new(limits: RecentLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Restarts the lifetime of the recent publications. Called after each publication.
    pub fn renew(&mut self, now: Instant) {
        self.expire(now);
        self.recent_until = now.checked_add(self.limits.ttl);
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

    /// Whether the broker, at position `top`, has undelivered publications.
    pub fn is_behind(&self, top: &Position) -> bool {
        self.position.as_ref().is_some_and(|at| at.epoch != top.epoch || at.offset < top.offset)
    }

    /// Epoch of the feed's position.
    pub fn epoch(&self) -> Option<&str> {
        self.position.as_ref().map(|at| at.epoch.as_str())
    }

    /// Whether all publications up to `position` are delivered.
    pub fn has_reached(&self, position: &Position) -> bool {
        self.position.as_ref().is_some_and(|at| at.epoch == position.epoch && at.offset >= position.offset)
    }

    /// Takes a publication from the broker.
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

    /// Notes a possible gap. Returns true if the caller has to start a sync, false during a sync.
    pub fn doubt(&mut self) -> bool {
        self.liveness.doubt()
    }

    /// Drops the recent publications. Later subscribers depend on the broker's history.
    pub fn forget(&mut self) {
        self.recent_until = None;
        self.recent.clear();
        self.recent_bytes = 0;
    }

    /// Begins a read of history. Returns the offset to read after; `None`: only the newest position is needed.
    pub fn begin_sync(&mut self) -> Option<u64> {
        self.liveness.begin();
        self.position.as_ref().map(|at| at.offset)
    }

    /// Takes the history that was read since [`Feed::begin_sync`].
    pub fn finish_sync(&mut self, history: History) -> Synced {
        let Some(held) = self.liveness.finish() else { return Synced::Again };
        let History { publications, position: top } = history;
        if self.position.as_ref().is_some_and(|at| begins(at, &publications, &top)) {
            // Held publications are dropped: the next read returns them.
            self.liveness.begin();
            for publication in &publications {
                self.advance(publication.clone());
            }
            return Synced::Part(publications);
        }
        let continues = match &self.position {
            // Nothing was delivered yet, so nothing can be lost.
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
            // Nothing was applied: the next read begins at the same offset.
            self.liveness.begin();
            return Synced::Again;
        }
        if !continues {
            self.forget();
        }
        let lost = !continues;
        if lost || self.position.is_none() {
            // Without delivery of the held publications above `top`: no subscriber waits for them.
            self.position = Some(Position { offset: reached, epoch: top.epoch });
            return if lost { Synced::Lost } else { Synced::Continues(Vec::new()) };
        }
        for publication in &next {
            self.advance(publication.clone());
        }
        Synced::Continues(next)
    }

    /// Computes the reply for a subscriber with all publications up to `since` (`None`: a first subscribe). `history`:
    /// the history read after [`JoinOutcome::ReadHistory`]. Requires a live feed.
    pub fn join(&self, since: Option<&Position>, history: Option<History>) -> JoinOutcome {
        let Some(at) = &self.position else { return JoinOutcome::Behind };
        let Some(since) = since else {
            return ready(at.clone(), None, Vec::new());
        };
        // An empty epoch matches every epoch: the client has the offset from elsewhere, such as an SDK's `getState`.
        let any = Position { offset: since.offset, epoch: at.epoch.clone() };
        let since = if since.epoch.is_empty() { &any } else { since };
        let Some(history) = history else {
            return match self.missed(at, since) {
                Some(publications) => ready(at.clone(), Some(true), publications),
                None => JoinOutcome::ReadHistory(since.offset),
            };
        };
        let History { mut publications, position: top } = history;
        if top.epoch != at.epoch {
            return JoinOutcome::Behind;
        }
        if !continues(since, &publications, &top) {
            return ready(at.clone(), Some(false), Vec::new());
        }
        // The feed may be ahead of the read: the rest is among the recent publications.
        match self.missed(at, &top) {
            Some(rest) => {
                publications.extend(rest);
                ready(at.clone(), Some(true), publications)
            }
            // The history is ahead of the feed: later deliveries up to `top` skip this subscriber.
            None if top.offset > at.offset => ready(top, Some(true), publications),
            None => JoinOutcome::ReadHistory(since.offset),
        }
    }

    /// The publications after `since` up to `at`; `None` if any is no longer among the recent publications.
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
        while self.recent.len() > self.limits.publications || self.recent_bytes > self.limits.bytes {
            let Some(oldest) = self.recent.pop_front() else { break };
            self.recent_bytes -= oldest.data.len();
        }
    }
}

fn ready(position: Position, recovered: Option<bool>, publications: Vec<Publication>) -> JoinOutcome {
    JoinOutcome::Ready(SubscribeReply { position, recovered, publications })
}

/// Whether `publications` follow `since` without a hole and end before `top`: brokers limit the size of a read.
fn begins(since: &Position, publications: &[Publication], top: &Position) -> bool {
    let end = publications.last().map_or(since.offset, |last| last.offset);
    let reached = Position { offset: end, epoch: top.epoch.clone() };
    since.offset < end && end < top.offset && continues(since, publications, &reached)
}

/// Whether `publications` are exactly the publications after `since` up to `top`.
fn continues(since: &Position, publications: &[Publication], top: &Position) -> bool {
    since.epoch == top.epoch
        && since.offset <= top.offset
        && publications.len() as u64 == top.offset - since.offset
        && publications.iter().zip(since.offset + 1..).all(|(p, expected)| p.offset == expected)
}

#[cfg(test)]
#[path = "feed_tests.rs"]
mod tests;
