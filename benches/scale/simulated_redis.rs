//! A Redis in this process, shared by many gateways: the data of a [`MemoryBroker`] on a thread of its own, and a bus
//! that hands each message to every node with a subscription, as Redis' pub/sub does.
//!
//! Messages have the form that they have in Redis, and each node parses them. Commands are counted as the real broker
//! would send them, and are neither written nor parsed; `redis_commands.rs` measures that part with a real Redis.

use async_trait::async_trait;
use bytes::Bytes;
use konvert_gateway::broker::memory::MemoryBroker;
use konvert_gateway::broker::redis::wire::{self, Message};
use konvert_gateway::broker::status_store::{BUCKETS, Choice, End, Lease, Mode, StatusStore, UserStatus, bucket};
use konvert_gateway::broker::{
    Broker, BrokerError, Entry, History, HistoryQuery, Mark, PresenceStats, Retention, Sink,
};
use konvert_gateway::channel::of_node;
use konvert_gateway::protocol::{ClientInfo, Movement, Payload, Position, Publication};
use std::collections::{HashMap, HashSet};
use std::ops::Sub;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;
use tokio::runtime::{Builder, Handle};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Kinds of commands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Command {
    Publish,
    History,
    Subscribe,
    /// Joins, leaves, and renewals of presence.
    Presence,
    /// Leases of users' statuses.
    Status,
    /// Search for expired leases.
    Sweep,
    /// The relays' shared mark.
    Mark,
    Other,
}

pub const COMMANDS: [(&str, Command); 8] = [
    ("publish", Command::Publish),
    ("history", Command::History),
    ("subscribe", Command::Subscribe),
    ("presence", Command::Presence),
    ("status", Command::Status),
    ("sweep", Command::Sweep),
    ("mark", Command::Mark),
    ("other", Command::Other),
];

/// Traffic since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    pub commands: [f64; COMMANDS.len()],
    /// Messages to nodes, and their bytes with the channels' names.
    pub messages: f64,
    pub bytes: f64,
}

impl Traffic {
    pub fn of(&self, command: Command) -> f64 {
        self.commands[command as usize]
    }

    pub fn all(&self) -> f64 {
        self.commands.iter().sum()
    }
}

impl Sub for Traffic {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        let commands = std::array::from_fn(|kind| self.commands[kind] - before.commands[kind]);
        Self { commands, messages: self.messages - before.messages, bytes: self.bytes - before.bytes }
    }
}

pub struct SimulatedRedis {
    store: Arc<MemoryBroker>,
    bus: Arc<Bus>,
    commands: [AtomicU64; COMMANDS.len()],
    /// Runtime of the thread that holds the data.
    runtime: Handle,
    end: CancellationToken,
}

impl SimulatedRedis {
    pub async fn start(retention: Retention) -> Arc<Self> {
        let end = CancellationToken::new();
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (handle, ended) = (runtime.handle().clone(), end.clone());
        std::thread::spawn(move || runtime.block_on(ended.cancelled()));
        let (store, bus) = (MemoryBroker::new(retention), Arc::<Bus>::default());
        let sink: Weak<Bus> = Arc::downgrade(&bus);
        store.start(sink).await.expect("a first start");
        Arc::new(Self { store, bus, commands: Default::default(), runtime: handle, end })
    }

    /// The broker of one more node.
    pub fn node(self: &Arc<Self>) -> Arc<NodeBroker> {
        let (sender, receiver) = unbounded_channel();
        let mut bus = self.bus.subscriptions();
        bus.nodes.push(sender);
        let (number, received) = (bus.nodes.len() - 1, Mutex::new(Some(receiver)));
        Arc::new(NodeBroker { redis: Arc::clone(self), number, received, delivery: OnceLock::new() })
    }

    pub fn traffic(&self) -> Traffic {
        let commands = std::array::from_fn(|kind| self.commands[kind].load(Relaxed) as f64);
        let [messages, bytes] = [&self.bus.messages, &self.bus.bytes].map(|count| count.load(Relaxed) as f64);
        Traffic { commands, messages, bytes }
    }

    /// Whether every node has processed every message.
    pub fn is_delivered(&self) -> bool {
        self.bus.delivered.load(Relaxed) == self.bus.messages.load(Relaxed)
    }
}

impl Drop for SimulatedRedis {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

/// A message and its channel.
type Sent = (Arc<str>, Bytes);

#[derive(Default)]
struct Bus {
    subscriptions: Mutex<Subscriptions>,
    messages: AtomicU64,
    bytes: AtomicU64,
    delivered: AtomicU64,
}

#[derive(Default)]
struct Subscriptions {
    nodes: Vec<UnboundedSender<Sent>>,
    /// Numbers of the subscribed nodes.
    channels: HashMap<Arc<str>, HashSet<usize>>,
}

impl Bus {
    fn subscriptions(&self) -> MutexGuard<'_, Subscriptions> {
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a message to the subscribed nodes. Returns the number of nodes.
    fn send(&self, channel: &str, message: impl Into<Bytes>) -> usize {
        let subscriptions = self.subscriptions();
        let Some((channel, nodes)) = subscriptions.channels.get_key_value(channel) else { return 0 };
        let message = message.into();
        self.messages.fetch_add(nodes.len() as u64, Relaxed);
        self.bytes.fetch_add((nodes.len() * (channel.len() + message.len())) as u64, Relaxed);
        for node in nodes {
            // Fails only after the end of the node.
            let _ = subscriptions.nodes[*node].send((Arc::clone(channel), message.clone()));
        }
        nodes.len()
    }
}

/// Called by the store: writes messages as the scripts in Redis do.
impl Sink for Bus {
    fn publication(&self, channel: &str, epoch: &str, publication: Publication, _: Option<&Position>) {
        let Publication { offset, at, data, .. } = publication;
        let head = format!("p{offset}:{epoch}:{at}:");
        self.send(channel, [head.as_bytes(), data.as_bytes()].concat());
    }

    fn signal(&self, channel: &str, Publication { data, info, .. }: Publication) {
        if let Some(info) = info {
            self.send(channel, wire::signal(&data, &info));
        }
    }

    fn movement(&self, channel: &str, movement: Movement, info: ClientInfo) {
        let kind: &[u8] = if movement == Movement::Join { b"j" } else { b"l" };
        self.send(channel, [kind, &wire::info_json(&info)].concat());
    }

    fn status(&self, channel: &str, UserStatus { status, last_seen, version }: UserStatus) {
        let status = serde_json::to_value(status).unwrap_or_default();
        let (status, seen) = (status.as_str().unwrap_or_default(), last_seen.unwrap_or_default());
        self.send(channel, format!("v{version}:{status}:{seen}"));
    }

    fn gap(&self) {}
}

/// A node's link to the simulated Redis.
pub struct NodeBroker {
    redis: Arc<SimulatedRedis>,
    number: usize,
    received: Mutex<Option<UnboundedReceiver<Sent>>>,
    delivery: OnceLock<AbortOnDropHandle<()>>,
}

impl NodeBroker {
    /// Counts commands, and runs `work` on the thread of the simulated Redis.
    async fn call<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        command: Command,
        count: usize,
        work: impl FnOnce(Arc<MemoryBroker>) -> F + Send,
    ) -> T {
        self.redis.commands[command as usize].fetch_add(count as u64, Relaxed);
        let work = work(Arc::clone(&self.redis.store));
        self.redis.runtime.spawn(work).await.expect("the simulated Redis works")
    }

    fn set(&self, channel: &str, is_wanted: bool) {
        let mut bus = self.redis.bus.subscriptions();
        let nodes = bus.channels.entry(channel.into()).or_default();
        if is_wanted {
            nodes.insert(self.number)
        } else {
            nodes.remove(&self.number)
        };
    }
}

fn hand_over(sink: &dyn Sink, channel: &str, message: &Bytes) {
    match wire::read(message) {
        Some(Message::Publication { epoch, publication, after }) => {
            sink.publication(channel, &epoch, publication, after.as_ref());
        }
        Some(Message::Signal(publication)) => sink.signal(channel, publication),
        Some(Message::Movement(movement, info)) => sink.movement(channel, movement, info),
        Some(Message::Node(message)) => sink.message(message),
        Some(Message::Status(state)) => sink.status(channel, state),
        None => panic!("unreadable message: {message:?}"),
    }
}

/// Number of calls for items that share a call per key.
fn calls<K: std::hash::Hash + Eq>(keys: impl Iterator<Item = K>) -> usize {
    keys.collect::<HashSet<K>>().len()
}

#[async_trait]
impl Broker for NodeBroker {
    async fn start(&self, sink: Weak<dyn Sink>) -> Result<(), BrokerError> {
        let received = self.received.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (mut received, bus) = (received.expect("a first start"), Arc::clone(&self.redis.bus));
        let delivery = tokio::spawn(async move {
            while let Some((channel, message)) = received.recv().await {
                let Some(sink) = sink.upgrade() else { return };
                hand_over(&*sink, &channel, &message);
                bus.delivered.fetch_add(1, Relaxed);
            }
        });
        let _ = self.delivery.set(AbortOnDropHandle::new(delivery));
        Ok(())
    }

    async fn publish(&self, entries: &[Entry]) -> Result<usize, BrokerError> {
        let entries = entries.to_vec();
        self.call(Command::Publish, entries.len(), |store| async move { store.publish(&entries).await }).await
    }

    async fn signal(&self, channel: &str, data: Payload, info: ClientInfo) -> Result<(), BrokerError> {
        let channel = channel.to_owned();
        self.call(Command::Other, 1, |store| async move { store.signal(&channel, data, info).await }).await
    }

    async fn send(&self, node: &str, message: Bytes) -> Result<bool, BrokerError> {
        let (bus, channel) = (Arc::clone(&self.redis.bus), of_node(node));
        self.call(Command::Other, 1, |_| async move { Ok(bus.send(&channel, wire::node_message(&message)) > 0) }).await
    }

    async fn subscribe(&self, channel: &str) -> Result<(), BrokerError> {
        self.set(channel, true);
        let channel = channel.to_owned();
        self.call(Command::Subscribe, 1, |store| async move { store.subscribe(&channel).await }).await
    }

    async fn unsubscribe(&self, channel: &str) -> Result<(), BrokerError> {
        self.set(channel, false);
        self.call(Command::Subscribe, 1, |_| async { Ok(()) }).await
    }

    fn retention(&self) -> &Retention {
        self.redis.store.retention()
    }

    /// Two commands, since the mark is restored too.
    async fn history(&self, channel: &str, query: HistoryQuery) -> Result<History, BrokerError> {
        let channel = channel.to_owned();
        self.call(Command::History, 2, |store| async move { store.history(&channel, query).await }).await
    }

    async fn forget(&self, channel: &str, seq: u64) -> Result<(), BrokerError> {
        let channel = channel.to_owned();
        self.call(Command::Other, 1, |store| async move { store.forget(&channel, seq).await }).await
    }

    async fn add_presence(&self, clients: &[(Arc<str>, ClientInfo)]) -> Result<(), BrokerError> {
        let (count, clients) = (calls(clients.iter().map(|(channel, _)| channel)), clients.to_vec());
        self.call(Command::Presence, count, |store| async move { store.add_presence(&clients).await }).await
    }

    async fn remove_presence(&self, clients: &[(Arc<str>, Arc<str>)]) -> Result<(), BrokerError> {
        let (count, clients) = (calls(clients.iter().map(|(channel, _)| channel)), clients.to_vec());
        self.call(Command::Presence, count, |store| async move { store.remove_presence(&clients).await }).await
    }

    async fn presence(&self, channel: &str) -> Result<Vec<ClientInfo>, BrokerError> {
        let channel = channel.to_owned();
        self.call(Command::Other, 1, |store| async move { store.presence(&channel).await }).await
    }

    async fn presence_stats(&self, channel: &str) -> Result<PresenceStats, BrokerError> {
        let channel = channel.to_owned();
        self.call(Command::Other, 1, |store| async move { store.presence_stats(&channel).await }).await
    }

    async fn begin(&self, mark: Mark) -> Result<Mark, BrokerError> {
        self.call(Command::Mark, 2, |store| async move { store.begin(mark).await }).await
    }

    async fn advance(&self, mark: Mark) -> Result<Mark, BrokerError> {
        self.call(Command::Mark, 1, |store| async move { store.advance(mark).await }).await
    }

    async fn restart(&self, mark: Mark) -> Result<Mark, BrokerError> {
        self.call(Command::Mark, 1, |store| async move { store.restart(mark).await }).await
    }

    async fn claim(&self, name: &str, ttl: Duration) -> Result<bool, BrokerError> {
        let name = name.to_owned();
        self.call(Command::Other, 1, |store| async move { store.claim(&name, ttl).await }).await
    }

    async fn check(&self) -> Result<(), BrokerError> {
        Ok(())
    }
}

#[async_trait]
impl StatusStore for NodeBroker {
    async fn enter(&self, lease: &Lease, limit: Option<usize>) -> Result<Option<Choice>, BrokerError> {
        let lease = lease.clone();
        self.call(Command::Status, 1, |store| async move { store.enter(&lease, limit).await }).await
    }

    async fn connections(&self, user: &str) -> Result<usize, BrokerError> {
        let user = user.to_owned();
        self.call(Command::Status, 1, |store| async move { store.connections(&user).await }).await
    }

    async fn lease(&self, leases: &[Lease]) -> Result<Vec<Choice>, BrokerError> {
        let (count, leases) = (calls(leases.iter().map(|lease| bucket(&lease.user))), leases.to_vec());
        self.call(Command::Status, count, |store| async move { store.lease(&leases).await }).await
    }

    async fn end(&self, ends: &[End]) -> Result<(), BrokerError> {
        let (count, ends) = (calls(ends.iter().map(|end| bucket(&end.user))), ends.to_vec());
        self.call(Command::Status, count, |store| async move { store.end(&ends).await }).await
    }

    async fn choose(&self, user: &str, mode: Option<Mode>) -> Result<(Choice, UserStatus), BrokerError> {
        let user = user.to_owned();
        self.call(Command::Status, 1, |store| async move { store.choose(&user, mode).await }).await
    }

    async fn statuses(&self, users: &[String]) -> Result<Vec<Option<UserStatus>>, BrokerError> {
        let (count, users) = (calls(users.iter().map(|user| bucket(user))), users.to_vec());
        self.call(Command::Status, count, |store| async move { store.statuses(&users).await }).await
    }

    /// One gateway after another sweeps.
    async fn sweep(&self) -> Result<(), BrokerError> {
        let pause = (self.retention().presence_ttl / 40).min(Duration::from_millis(750));
        if !self.claim("status sweep", pause).await? {
            return Ok(());
        }
        self.call(Command::Sweep, BUCKETS, |store| async move { store.sweep().await }).await
    }
}
