//! A hub in this process, on the in-process broker. Its subscribers need no client: frames are written to a wire of
//! the caller's choice.

use super::SECRET;
use super::pocketbase::PocketBase;
use konvert_gateway::access::change_log::Changes;
use konvert_gateway::auth::{Account, Auth};
use konvert_gateway::broker::memory::MemoryBroker;
use konvert_gateway::broker::{Broker, Entry, Retention};
use konvert_gateway::config::{Config, Sources};
use konvert_gateway::connection::Connection;
use konvert_gateway::hub::{Hub, SubscribeOptions};
use konvert_gateway::members::presence::Presence;
use konvert_gateway::metrics::Metrics;
use konvert_gateway::outbox::writer::Writers;
use konvert_gateway::outbox::{Budget, Outbox, Wire};
use konvert_gateway::protocol::format::Format;
use konvert_gateway::protocol::{Payload, Reply, encode};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

const QUEUE: usize = 1 << 20;
const BUDGET: usize = 1 << 28;

pub struct Node {
    broker: Arc<MemoryBroker>,
    hub: Arc<Hub>,
    writers: Writers,
    metrics: Metrics,
    account: Arc<Account>,
    connections: Vec<Arc<Connection>>,
    /// Sequence number of the last event, and the number of deliveries expected so far.
    seq: u64,
    expected: u64,
}

impl Node {
    /// Every connection belongs to `account`.
    pub async fn start(account: Arc<Account>) -> Self {
        let day = Duration::from_secs(86_400);
        let retention = Retention { size: 500, ttl: day, position_ttl: day, presence_ttl: day, ..Retention::default() };
        let (broker, metrics) = (MemoryBroker::new(retention), Metrics::new().expect("metrics"));
        let hub = Hub::new(broker.clone(), Presence::start(broker.clone()), metrics.clone());
        let sink: Weak<Hub> = Arc::downgrade(&hub);
        broker.start(sink).await.expect("a first start");
        // No batching window, since waiting for a timer is not part of the measurement.
        let writers =
            Writers::start(Duration::ZERO, &Budget::new(BUDGET, metrics.queued_bytes.clone()), &metrics.outbox_seconds);
        Self { broker, hub, writers, metrics, account, connections: Vec::new(), seq: 0, expected: 0 }
    }

    /// Subscribes a new connection; returns the length of the reply in bytes.
    pub async fn subscribe(&mut self, channel: &str, wire: Arc<dyn Wire>) -> usize {
        let outbox = Outbox::new(QUEUE, Format::WebSocketJson, wire, self.writers.next());
        let id = self.connections.len() as u64;
        let connection = Connection::new(id, "user", format!("client {id}"), &outbox, Arc::clone(&self.account));
        let mut length = 0;
        let accept = |reply| {
            let frame = encode::reply(Format::WebSocketJson, 1, &Reply::Subscribe(reply));
            length = frame.len();
            outbox.push(frame)
        };
        assert!(
            self.hub
                .subscribe(channel, &connection, SubscribeOptions::default(), None, accept)
                .await
                .expect("the broker answers")
        );
        self.connections.push(connection);
        length
    }

    /// Offset of the last publication, if every publication went into one channel.
    pub fn offset(&self) -> u64 {
        self.seq
    }

    /// Publishes the payload `times` times in one batch into a channel with `subscribers` subscribers, like the relay
    /// with a run of events. Returns once the frames are written.
    pub async fn publish(&mut self, channel: &str, data: &Payload, times: u64, subscribers: u64) {
        let entry = |seq| Entry { seq, at: 0, channel: channel.to_owned(), data: data.clone(), barrier: false };
        let entries: Vec<Entry> = (self.seq + 1..=self.seq + times).map(entry).collect();
        let new = self.broker.publish(&entries).await.expect("the broker takes it");
        assert_eq!(new as u64, times);
        self.seq += times;
        self.expected += times * subscribers;
        while self.metrics.deliveries.get() < self.expected || self.metrics.queued_bytes.get() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(self.metrics.deliveries.get(), self.expected);
    }
}

/// A token verifier beside a real PocketBase.
pub fn auth(pocketbase: &PocketBase) -> Arc<Auth> {
    let environment = vec![
        ("GATEWAY_SECRET".to_owned(), SECRET.to_owned()),
        ("GATEWAY_POCKETBASE_URL".to_owned(), pocketbase.url.clone()),
        // Keys must not be fetched again during a run.
        ("GATEWAY_KEY_TTL".to_owned(), "3600".to_owned()),
    ];
    let config = Config::load(&Sources { environment, ..Sources::default() }).expect("a configuration");
    let client =
        konvert_gateway::pocketbase::PocketBase::new(&config, Metrics::new().expect("metrics")).expect("no TLS");
    Auth::new(&config, client, Arc::<Changes>::default())
}

/// The account of a valid token.
pub async fn account(auth: &Auth, token: &str) -> Arc<Account> {
    auth.verify(token, SystemTime::now()).await.expect("PocketBase's own token").account
}
