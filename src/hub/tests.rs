//! Tests of the hub on the real in-process broker. A cut link is simulated: the node is unsubscribed at the broker
//! during a publish, so the publication is in the history and is not delivered.

mod delivery;
mod recovery;
mod suspension;
mod watched;

use super::registry::LINGER;
use super::subscriber::SubscriptionState;
use super::suspension::Revoked;
use super::*;
use crate::auth::Account;
use crate::broker::memory::MemoryBroker;
use crate::broker::{Entry, HistoryQuery, Retention, Sink};
use crate::connection::ConnectionId;
use crate::event::Cause;
use crate::outbox::writer::Writer;
use crate::outbox::{Budget, Outbox, OutboxState, SHARE};
use crate::protocol::frame::Frame;
use crate::protocol::{ClientInfo, Movement, Payload, Publication, Reply, codes};
use bytes::Bytes;
use prometheus::IntGauge;
use serde_json::Value;
use std::time::Duration;

const CHANNEL: &str = "room:a";

struct Node {
    broker: Arc<MemoryBroker>,
    hub: Arc<Hub>,
    metrics: Metrics,
    seq: std::cell::Cell<u64>,
}

impl Node {
    async fn with_history(size: usize) -> Self {
        let day = Duration::from_secs(86_400);
        Self::with(Retention { size, ttl: day, position_ttl: day, presence_ttl: day, ..Retention::default() }).await
    }

    async fn with(retention: Retention) -> Self {
        let broker = MemoryBroker::new(retention);
        let metrics = Metrics::new().unwrap();
        let hub = Hub::new(broker.clone(), Presence::start(broker.clone()), metrics.clone());
        let sink: Weak<Hub> = Arc::downgrade(&hub);
        broker.start(sink).await.unwrap();
        Self { broker, hub, metrics, seq: 0.into() }
    }

    async fn publish(&self, count: u64) {
        for _ in 0..count {
            self.seq.set(self.seq.get() + 1);
            let data = Payload::parse(&self.seq.get().to_string()).unwrap();
            self.broker
                .publish(&[Entry { seq: self.seq.get(), at: 0, channel: CHANNEL.into(), data, barrier: false }])
                .await
                .unwrap();
        }
    }

    /// Publishes to the history, without delivery to this node.
    async fn publish_unheard(&self, count: u64) {
        self.broker.unsubscribe(CHANNEL).await.unwrap();
        self.publish(count).await;
        self.broker.subscribe(CHANNEL).await.unwrap();
    }

    async fn subscribe(&self, id: ConnectionId, recover: Option<&Position>) -> Subscribed {
        self.subscribe_with(connection(id, 1 << 20), recover).await
    }

    async fn subscribe_with(&self, connection: Arc<Connection>, recover: Option<&Position>) -> Subscribed {
        self.subscribe_as(connection, SubscribeOptions { recover, ..SubscribeOptions::default() }).await
    }

    async fn subscribe_as(&self, connection: Arc<Connection>, options: SubscribeOptions<'_>) -> Subscribed {
        let accept = |reply| connection.outbox.reply(1, &Reply::Subscribe(reply));
        assert!(self.hub.subscribe(CHANNEL, &connection, options, None, accept).await.unwrap());
        let outbox = Arc::clone(&connection.outbox);
        let mut subscribed = Subscribed { connection, outbox, reply: Value::Null };
        subscribed.reply = subscribed.frames(1).await.remove(0)["subscribe"].take();
        subscribed
    }
}

fn connection(id: ConnectionId, limit: usize) -> Arc<Connection> {
    Connection::new(id, "u", "c", &Outbox::alone(limit), Account::blocking(&["a pest"]))
}

struct Subscribed {
    connection: Arc<Connection>,
    outbox: Arc<Outbox>,
    reply: Value,
}

impl Subscribed {
    /// Delivers at once, in place of the writer.
    fn write(&self) {
        self.outbox.writer().deliver();
    }

    async fn frames(&self, count: usize) -> Vec<Value> {
        let mut batch: Vec<Bytes> = Vec::new();
        while batch.len() < count {
            self.outbox.take(&mut batch).await.unwrap();
        }
        batch.iter().map(|frame| serde_json::from_slice(frame).unwrap()).collect()
    }

    async fn offsets(&self, count: usize) -> Vec<u64> {
        self.frames(count).await.iter().map(|frame| frame["push"]["pub"]["offset"].as_u64().unwrap()).collect()
    }

    fn position(&self) -> Position {
        let epoch = self.reply["epoch"].as_str().unwrap().to_owned();
        Position { offset: self.reply["offset"].as_u64().unwrap(), epoch }
    }
}
