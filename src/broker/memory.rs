//! The broker of a single node: keeps all data in this process.
//!
//! After a restart every channel has a new epoch, so returning clients get `recovered:false` and reload from
//! PocketBase.

mod channel;
mod crowd;
mod status_store;

use super::{Broker, BrokerError, Entry, History, HistoryQuery, Mark, PresenceStats, Retention, Sink, level};
use crate::channel::INTERNAL;
use crate::protocol::{ClientInfo, Movement, Payload, Position, Publication};
use crate::tasks::{self, Task};
use async_trait::async_trait;
use bytes::Bytes;
use channel::StoredChannel;
use dashmap::DashMap;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use tokio::time::{Duration, Instant};
use tokio_util::task::AbortOnDropHandle;

/// Maximum number of reserved names, some 100 bytes each.
const CLAIMS_MAX: usize = 100_000;
/// Pause between two sweeps.
const SWEEP: Duration = Duration::from_secs(10);

/// Reserved names, each with the end of the reservation.
type Reservations = HashMap<String, Instant, foldhash::fast::RandomState>;

pub struct MemoryBroker {
    retention: Retention,
    channels: DashMap<Arc<str>, Arc<Mutex<StoredChannel>>, foldhash::fast::RandomState>,
    /// Upper bound of the payload bytes in the counted histories: exact after [`MemoryBroker::shrink`], then only
    /// growing.
    bytes: AtomicUsize,
    mark: Mutex<Option<Mark>>,
    claims: Mutex<Reservations>,
    statuses: status_store::StatusTable,
    sink: OnceLock<Weak<dyn Sink>>,
}

impl MemoryBroker {
    pub fn new(retention: Retention) -> Arc<Self> {
        let channels = DashMap::with_hasher(foldhash::fast::RandomState::default());
        Arc::new(Self {
            retention,
            channels,
            bytes: AtomicUsize::new(0),
            mark: Mutex::new(None),
            claims: Mutex::default(),
            statuses: status_store::StatusTable::default(),
            sink: OnceLock::new(),
        })
    }

    /// Starts the sweep of expired histories, expired clients and unused channels.
    pub fn start_sweep(self: &Arc<Self>) -> AbortOnDropHandle<()> {
        let broker = Arc::clone(self);
        tasks::spawn(Task::MemorySweep, async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                broker.free_expired(Instant::now());
            }
        })
    }

    fn free_expired(&self, now: Instant) {
        self.channels.retain(|name, channel| {
            let mut state = channel.lock();
            if let Some(log) = &mut state.log {
                log.expire(now, &self.retention);
            }
            self.evict(name, &mut state, None);
            // Another task with this Arc may be about to publish.
            Arc::strong_count(channel) > 1 || !state.is_idle(now, &self.retention)
        });
    }

    /// Counts newly kept bytes. Shrinks the histories when the total may exceed the limit.
    fn count_bytes(&self, added: usize) {
        if self.bytes.fetch_add(added, Ordering::AcqRel).saturating_add(added) > self.retention.total_bytes {
            self.shrink();
        }
    }

    /// Drops the oldest publications of the largest histories, down to three quarters of the total limit. Visits every
    /// channel, but not again before a quarter of the limit was published.
    fn shrink(&self) {
        let mut channels: Vec<(usize, Arc<Mutex<StoredChannel>>)> = Vec::new();
        for entry in self.channels.iter() {
            let bytes = entry.value().lock().log.as_ref().map_or(0, |log| log.bytes);
            if bytes > 0 && !entry.key().starts_with(INTERNAL) {
                channels.push((bytes, Arc::clone(entry.value())));
            }
        }
        let target = self.retention.total_bytes / 4 * 3;
        let level = level(channels.iter().map(|(bytes, _)| *bytes).collect(), target);
        let mut kept = 0;
        for (_, channel) in channels {
            if let Some(log) = &mut channel.lock().log {
                log.trim(usize::MAX, level);
                kept += log.bytes;
            }
        }
        self.bytes.store(kept, Ordering::Release);
    }

    /// The channel, created on first use. The map's guard is dropped here, so that no guard lives across an await.
    fn channel(&self, name: impl AsRef<str> + Into<Arc<str>>) -> Arc<Mutex<StoredChannel>> {
        if let Some(found) = self.channels.get(name.as_ref()) {
            return Arc::clone(&found);
        }
        Arc::clone(&self.channels.entry(name.into()).or_default())
    }

    /// Adds or renews a client.
    fn add(&self, name: &Arc<str>, info: &ClientInfo) {
        let channel = self.channel(Arc::clone(name));
        let mut channel = channel.lock();
        self.evict(name, &mut channel, None);
        let new = channel.presence.see(info.clone(), Instant::now());
        if new && channel.presence.len() <= self.retention.join_leave_max {
            self.tell_movement(name, Movement::Join, info.clone());
        }
    }

    /// Removes expired clients, and `client`, from the presence, and announces their leaves.
    fn evict(&self, name: &str, channel: &mut StoredChannel, client: Option<&str>) {
        for info in channel.evict(Instant::now(), &self.retention, client) {
            self.tell_movement(name, Movement::Leave, info);
        }
    }

    fn tell_movement(&self, channel: &str, movement: Movement, info: ClientInfo) {
        if let Some(sink) = self.sink() {
            sink.movement(channel, movement, info);
        }
    }

    fn sink(&self) -> Option<Arc<dyn Sink>> {
        self.sink.get().and_then(Weak::upgrade)
    }
}

#[async_trait]
impl Broker for MemoryBroker {
    async fn start(&self, sink: Weak<dyn Sink>) -> Result<(), BrokerError> {
        self.sink.set(sink).map_err(|_| BrokerError::Unavailable("the broker was already started".into()))
    }

    async fn publish(&self, entries: &[Entry]) -> Result<usize, BrokerError> {
        let sink = self.sink();
        let mut new = 0;
        for entry in entries {
            let Entry { seq, channel: name, data, .. } = entry;
            let channel = self.channel(name.as_str());
            let mut channel = channel.lock();
            let last = channel.seq();
            if *seq <= last {
                let newest = channel.log().history.back().filter(|_| *seq == last);
                if newest.is_some_and(|newest| newest.data != *data) {
                    return Err(BrokerError::Conflict);
                }
                continue;
            }
            new += 1;
            let subscribed = channel.subscribed;
            let log = channel.log();
            let publication = log.append(entry, &self.retention, self.retention.bytes_of(name));
            if subscribed && let Some(sink) = &sink {
                sink.publication(name, &log.epoch, publication, None);
            }
            // Unlock first: shrinking locks each channel.
            drop(channel);
            if !name.starts_with(INTERNAL) {
                self.count_bytes(data.len());
            }
        }
        Ok(new)
    }

    async fn signal(&self, channel: &str, data: Payload, info: ClientInfo) -> Result<(), BrokerError> {
        if let Some(sink) = self.sink() {
            sink.signal(channel, Publication { offset: 0, at: 0, data, info: Some(info) });
        }
        Ok(())
    }

    /// There is no other node.
    async fn send(&self, _node: &str, _message: Bytes) -> Result<bool, BrokerError> {
        Ok(false)
    }

    async fn subscribe(&self, channel: &str) -> Result<(), BrokerError> {
        self.channel(channel).lock().subscribed = true;
        Ok(())
    }

    async fn unsubscribe(&self, channel: &str) -> Result<(), BrokerError> {
        let channel = self.channel(channel);
        let mut channel = channel.lock();
        channel.subscribed = false;
        if let Some(log) = &mut channel.log {
            log.used_at = Instant::now();
        }
        Ok(())
    }

    fn retention(&self) -> &Retention {
        &self.retention
    }

    async fn history(&self, channel: &str, query: HistoryQuery) -> Result<History, BrokerError> {
        let channel = self.channel(channel);
        let mut channel = channel.lock();
        let log = channel.log();
        log.used_at = Instant::now();
        log.expire(log.used_at, &self.retention);
        let position = Position { offset: log.offset, epoch: log.epoch.clone() };
        Ok(History { publications: log.read(query, self.retention.read_bytes), position })
    }

    async fn forget(&self, channel: &str, seq: u64) -> Result<(), BrokerError> {
        let channel = self.channel(channel);
        let mut channel = channel.lock();
        // Without a log there is no history, and no client knows an epoch.
        if let Some(log) = channel.log.as_mut().filter(|log| log.seq <= seq) {
            let last = log.seq;
            log.forget();
            log.seq = last;
        }
        Ok(())
    }

    async fn add_presence(&self, clients: &[(Arc<str>, ClientInfo)]) -> Result<(), BrokerError> {
        for (name, info) in clients {
            self.add(name, info);
        }
        Ok(())
    }

    async fn remove_presence(&self, clients: &[(Arc<str>, Arc<str>)]) -> Result<(), BrokerError> {
        for (name, client) in clients {
            let channel = self.channel(Arc::clone(name));
            self.evict(name, &mut channel.lock(), Some(client));
        }
        Ok(())
    }

    async fn presence(&self, name: &str) -> Result<Vec<ClientInfo>, BrokerError> {
        let channel = self.channel(name);
        let mut channel = channel.lock();
        self.evict(name, &mut channel, None);
        if channel.presence.len() > self.retention.presence_max {
            return Err(BrokerError::Crowded);
        }
        Ok(channel.presence.infos())
    }

    async fn presence_stats(&self, name: &str) -> Result<PresenceStats, BrokerError> {
        let channel = self.channel(name);
        let mut channel = channel.lock();
        self.evict(name, &mut channel, None);
        Ok(PresenceStats { clients: channel.presence.len(), users: channel.presence.users() })
    }

    async fn begin(&self, mark: Mark) -> Result<Mark, BrokerError> {
        Ok(*self.mark.lock().get_or_insert(mark))
    }

    async fn advance(&self, mark: Mark) -> Result<Mark, BrokerError> {
        let mut at = self.mark.lock();
        let at = at.get_or_insert(mark);
        if at.generation == mark.generation && at.seq < mark.seq {
            *at = mark;
        }
        Ok(*at)
    }

    async fn restart(&self, mark: Mark) -> Result<Mark, BrokerError> {
        {
            let mut at = self.mark.lock();
            if let Some(at) = *at
                && at.generation >= mark.generation
            {
                return Ok(at);
            }
            *at = Some(mark);
        }
        for channel in self.channels.iter() {
            if let Some(log) = &mut channel.lock().log {
                log.forget();
            }
        }
        if let Some(sink) = self.sink() {
            sink.gap();
        }
        Ok(mark)
    }

    async fn claim(&self, name: &str, ttl: Duration) -> Result<bool, BrokerError> {
        let now = Instant::now();
        let mut claims = self.claims.lock();
        if claims.len() >= CLAIMS_MAX {
            claims.retain(|_, until| *until > now);
            if claims.len() >= CLAIMS_MAX {
                return Err(BrokerError::Unavailable("more than 100,000 names are reserved".into()));
            }
        }
        if claims.get(name).is_some_and(|until| *until > now) {
            return Ok(false);
        }
        claims.insert(name.to_owned(), now + ttl);
        Ok(true)
    }

    async fn check(&self) -> Result<(), BrokerError> {
        Ok(())
    }
}
