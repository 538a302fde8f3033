//! A channel of the in-process broker: history and presence.

use super::crowd::Crowd;
use crate::broker::{Entry, HistoryQuery, Retention, fitting, new_epoch};
use crate::protocol::{ClientInfo, Publication};
use std::collections::VecDeque;
use tokio::time::Instant;

/// Locked for a few pushes and never across an await. Calls to the sink are made under this lock, which keeps the
/// channel's order. Lock order: the hub's lock of the channel is taken inside, never the other way round.
#[derive(Default)]
pub(super) struct StoredChannel {
    /// Created on first use, since very many channels may only ever have presence. After that a client may know the
    /// epoch, which must not change.
    pub log: Option<Box<Log>>,
    pub presence: Crowd,
    pub subscribed: bool,
}

pub(super) struct Log {
    pub epoch: String,
    pub offset: u64,
    /// The outbox number of the last publication.
    pub seq: u64,
    pub history: VecDeque<Publication>,
    /// Bytes of payload in `history`.
    pub bytes: usize,
    published_at: Instant,
    pub used_at: Instant,
}

impl StoredChannel {
    pub fn log(&mut self) -> &mut Log {
        self.log.get_or_insert_with(|| Box::new(Log::new()))
    }

    /// The outbox number of the last publication, or 0.
    pub fn seq(&self) -> u64 {
        self.log.as_ref().map_or(0, |log| log.seq)
    }

    /// Removes expired clients, and `client`. Returns the removed clients whose leave must be announced.
    pub fn evict(&mut self, now: Instant, retention: &Retention, client: Option<&str>) -> Vec<ClientInfo> {
        let is_announced = self.presence.len() <= retention.join_leave_max;
        let mut left = self.presence.expire(now, retention.presence_ttl);
        left.extend(client.and_then(|client| self.presence.take_out(client)));
        if is_announced { left } else { Vec::new() }
    }

    pub fn is_idle(&self, now: Instant, retention: &Retention) -> bool {
        let is_needed = |log: &Log| !log.history.is_empty() || now - log.used_at <= retention.position_ttl;
        !self.subscribed && self.presence.is_empty() && !self.log.as_deref().is_some_and(is_needed)
    }
}

impl Log {
    fn new() -> Self {
        let now = Instant::now();
        let (epoch, history) = (new_epoch(), VecDeque::new());
        Self { epoch, offset: 0, seq: 0, history, bytes: 0, published_at: now, used_at: now }
    }

    /// Begins a new history.
    pub fn forget(&mut self) {
        (self.epoch, self.offset, self.seq) = (new_epoch(), 0, 0);
        self.clear();
    }

    /// Drops all publications and keeps the position.
    pub fn clear(&mut self) {
        (self.history, self.bytes) = (VecDeque::new(), 0);
    }

    /// Drops the oldest publications above the two limits.
    pub fn trim(&mut self, size: usize, bytes: usize) {
        while self.history.len() > size || self.bytes > bytes {
            let Some(oldest) = self.history.pop_front() else { break };
            self.bytes -= oldest.data.len();
        }
    }

    /// Appends a publication; `bytes` limits the payload of the history.
    pub fn append(&mut self, entry: &Entry, retention: &Retention, bytes: usize) -> Publication {
        let now = Instant::now();
        self.expire(now, retention);
        self.offset += 1;
        self.seq = entry.seq;
        self.published_at = now;
        let publication = Publication { offset: self.offset, at: entry.at, data: entry.data.clone(), info: None };
        self.bytes += publication.data.len();
        self.history.push_back(publication.clone());
        self.trim(retention.size, bytes);
        publication
    }

    /// Clears the history after its time to live.
    pub fn expire(&mut self, now: Instant, retention: &Retention) {
        if now - self.published_at > retention.ttl {
            self.clear();
        }
    }

    pub fn read(&self, query: HistoryQuery, bytes: usize) -> Vec<Publication> {
        let limit = query.limit.unwrap_or(usize::MAX);
        let found: Vec<&Publication> = if query.reverse {
            let wanted = |p: &&Publication| query.since.is_none_or(|since| p.offset < since);
            self.history.iter().rev().filter(wanted).take(limit).collect()
        } else {
            let wanted = |p: &&Publication| query.since.is_none_or(|since| p.offset > since);
            self.history.iter().filter(wanted).take(limit).collect()
        };
        let count = fitting(found.iter().copied(), bytes);
        found.into_iter().take(count).cloned().collect()
    }
}
