//! The contract of [`Broker`], tested for each implementation (`delivery`, `history`, `presence`, `status`), and the
//! features and failures of the Redis broker (`nodes`, `faults`, `cluster`).

mod cluster;
mod delivery;
mod faults;
mod history;
mod nodes;
mod presence;
mod status;

use crate::harness::cluster::Cluster;
use crate::harness::redis::Redis;
use async_trait::async_trait;
use konvert_gateway::broker::memory::MemoryBroker;
use konvert_gateway::broker::redis::RedisBroker;
use konvert_gateway::broker::status_store::UserStatus;
use konvert_gateway::broker::{Broker, Entry, Mark, Retention, Sink};
use konvert_gateway::protocol::{ClientInfo, Movement, Payload, Position, Publication};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

const PREFIX: &str = "test";

/// Makes brokers that share nothing with the brokers of other factories.
#[async_trait]
trait Factory: Sync {
    async fn broker(&self, retention: Retention) -> Arc<dyn Broker>;
}

struct InMemory;

#[async_trait]
impl Factory for InMemory {
    async fn broker(&self, retention: Retention) -> Arc<dyn Broker> {
        MemoryBroker::new(retention)
    }
}

#[async_trait]
impl Factory for Redis {
    async fn broker(&self, retention: Retention) -> Arc<dyn Broker> {
        connect(self, retention).await
    }
}

#[async_trait]
impl Factory for Cluster {
    async fn broker(&self, retention: Retention) -> Arc<dyn Broker> {
        RedisBroker::connect(&self.url(), PREFIX, retention).await.unwrap()
    }
}

async fn connect(redis: &Redis, retention: Retention) -> Arc<RedisBroker> {
    RedisBroker::connect(&redis.url(), PREFIX, retention).await.unwrap()
}

/// Runs every case against each broker.
macro_rules! for_each_broker {
    ($($file:ident::$case:ident)*) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                crate::broker::$file::$case(&crate::broker::InMemory).await;
            })*
        }
        mod redis {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                crate::broker::$file::$case(&crate::broker::Redis::start()).await;
            })*
        }
        mod redis_cluster {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                crate::broker::$file::$case(&crate::broker::Cluster::start()).await;
            })*
        }
    };
}

for_each_broker! {
    delivery::offsets_are_contiguous_and_in_order
    delivery::history_comes_before_delivery
    delivery::repeats_are_dropped
    delivery::only_subscribed_channels_are_delivered
    delivery::signals_are_delivered_and_not_kept
    delivery::strange_names_do_not_collide
    delivery::payloads_pass_byte_for_byte
    delivery::concurrent_publishers_leave_no_gaps
    history::reads_return_the_requested_range
    history::size_is_bounded
    history::bytes_are_bounded
    history::a_read_is_bounded_in_bytes
    history::total_bytes_of_all_histories_are_bounded
    history::publications_expire_and_the_position_stays
    history::an_unused_channel_has_a_position
    history::each_channel_has_a_separate_epoch
    history::a_forgotten_history_does_not_come_back
    presence::clients_are_added_renewed_and_removed
    presence::clients_expire
    presence::clients_and_users_are_counted
    presence::a_large_presence_is_counted_and_not_listed
    presence::joins_and_leaves_are_announced_once
    presence::clients_who_come_at_the_same_time_are_announced
    presence::joins_and_leaves_in_a_large_channel_are_not_announced
    status::a_user_is_online_while_one_connection_lives
    status::a_reload_goes_unnoticed
    status::an_expired_lease_of_a_dead_node_does_not_end_the_grace
    status::a_user_has_a_limited_number_of_connections
    status::connections_that_come_at_the_same_time_are_counted_each
    status::a_lost_connection_ends_without_grace
    status::a_lease_expires_once
    status::modes_and_idleness
    status::invisible_users_appear_offline
    status::a_lease_restores_the_newest_mode
    status::unknown_users_are_offline
    status::consecutive_statuses_always_differ
    presence::the_mark_only_moves_forward
    presence::the_mark_moves_with_a_whole_batch_only
    presence::a_name_has_one_claim_at_a_time
    presence::a_new_generation_resets_every_channel
}

fn generous() -> Retention {
    Retention {
        size: 1000,
        bytes: 1 << 30,
        total_bytes: 1 << 30,
        read_bytes: 1 << 30,
        ttl: Duration::from_secs(600),
        position_ttl: Duration::from_secs(3600),
        presence_ttl: Duration::from_secs(60),
        presence_max: 10_000,
        status_grace: Duration::from_secs(10),
        last_seen_ttl: Duration::from_secs(3600),
        join_leave_max: 200,
    }
}

fn payload(text: impl Into<String>) -> Payload {
    Payload::trusted(text.into().into())
}

fn entry(channel: &str, seq: u64) -> Entry {
    Entry { seq, at: 0, channel: channel.into(), data: payload(seq.to_string()), barrier: false }
}

fn entries(channel: &str, seqs: impl IntoIterator<Item = u64>) -> Vec<Entry> {
    seqs.into_iter().map(|seq| entry(channel, seq)).collect()
}

/// A mark in the outbox of the first generation.
fn mark(seq: u64) -> Mark {
    Mark { generation: 0, seq, fingerprint: seq + 1, boot: 3 }
}

fn client(user: &str, client: &str) -> ClientInfo {
    ClientInfo { user: user.into(), client: client.into() }
}

/// Offsets and payloads, for comparisons.
fn brief(publications: &[Publication]) -> Vec<(u64, String)> {
    let text = |p: &Publication| String::from_utf8(p.data.as_bytes().to_vec()).unwrap();
    publications.iter().map(|p| (p.offset, text(p))).collect()
}

/// Offsets and payloads, where the payloads are `seqs` and the offsets count from 1.
fn numbered(seqs: impl IntoIterator<Item = u64>) -> Vec<(u64, String)> {
    (1..).zip(seqs).map(|(offset, seq)| (offset, seq.to_string())).collect()
}

/// A sink that records every delivery.
#[derive(Default)]
struct Recorder {
    publications: Mutex<Vec<(String, String, Publication)>>,
    signals: Mutex<Vec<(String, Publication)>>,
    movements: Mutex<Vec<(String, Movement, String)>>,
    statuses: Mutex<Vec<(String, UserStatus)>>,
    /// Barriers named by publications, each with the publication's channel.
    barriers: Mutex<Vec<(String, Position)>>,
    gaps: AtomicUsize,
}

impl Sink for Recorder {
    fn publication(&self, channel: &str, epoch: &str, publication: Publication, after: Option<&Position>) {
        self.barriers.lock().unwrap().extend(after.map(|after| (channel.to_owned(), after.clone())));
        self.publications.lock().unwrap().push((channel.into(), epoch.into(), publication));
    }

    fn signal(&self, channel: &str, publication: Publication) {
        self.signals.lock().unwrap().push((channel.into(), publication));
    }

    fn movement(&self, channel: &str, movement: Movement, info: ClientInfo) {
        self.movements.lock().unwrap().push((channel.into(), movement, info.client.to_string()));
    }

    fn status(&self, channel: &str, state: UserStatus) {
        self.statuses.lock().unwrap().push((channel.into(), state));
    }

    fn gap(&self) {
        self.gaps.fetch_add(1, Ordering::SeqCst);
    }
}

impl Recorder {
    async fn listen(broker: &dyn Broker) -> Arc<Self> {
        let recorder = Arc::new(Self::default());
        let sink: Arc<dyn Sink> = recorder.clone();
        let sink: Weak<dyn Sink> = Arc::downgrade(&sink);
        broker.start(sink).await.unwrap();
        recorder
    }

    fn gaps(&self) -> usize {
        self.gaps.load(Ordering::SeqCst)
    }

    fn of(&self, channel: &str) -> Vec<Publication> {
        let all = self.publications.lock().unwrap();
        all.iter().filter(|(name, ..)| name == channel).map(|(.., publication)| publication.clone()).collect()
    }

    /// Joins (`+`) and leaves (`-`) of a channel.
    fn movements(&self, channel: &str) -> Vec<String> {
        let all = self.movements.lock().unwrap();
        let sign = |movement: &Movement| if *movement == Movement::Join { '+' } else { '-' };
        all.iter()
            .filter(|(name, ..)| name == channel)
            .map(|(_, movement, client)| format!("{}{client}", sign(movement)))
            .collect()
    }

    fn states(&self, user: &str) -> Vec<UserStatus> {
        let (all, channel) = (self.statuses.lock().unwrap(), format!("status:{user}"));
        all.iter().filter(|(name, _)| *name == channel).map(|(_, state)| *state).collect()
    }

    fn epochs(&self, channel: &str) -> Vec<String> {
        let all = self.publications.lock().unwrap();
        let mut epochs: Vec<String> =
            all.iter().filter(|(name, ..)| name == channel).map(|(_, epoch, _)| epoch.clone()).collect();
        epochs.dedup();
        epochs
    }

    /// Waits until the channel has `count` publications, and returns its publications.
    async fn wait(&self, channel: &str, count: usize) -> Vec<Publication> {
        let enough = async || (self.of(channel).len() >= count).then_some(());
        until(&format!("{count} publications of {channel:?}"), enough).await;
        self.of(channel)
    }
}

/// Polls `look` until it returns a value, for at most half a minute.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
