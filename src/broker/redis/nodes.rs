//! The nodes of Redis: the owners of the slots ([`topology`]), the links to each node ([`links`]), and the routing of
//! commands ([`routing`]). Without a cluster, a single node owns all slots; with sentinels, that node is the master.
//!
//! The cluster client of the `redis` crate does not tell over which connection an answer came, and does not notice a
//! silent node. The links here do both.

mod links;
mod routing;
mod topology;

use super::address::Address;
use super::delivery::queue;
use super::error::TopologyError;
use super::keys::Keys;
use super::sentinels::Sentinels;
use super::slots::{self, SlotMap};
use super::subscriber::RedisSubscriber;
use super::subscriptions::{Common, SubscriptionError};
use crate::broker::BrokerError;
use crate::config::Topology;
use crate::tasks::{self, Task};
use futures_util::future::join_all;
use links::{Lane, Links, unavailable};
use parking_lot::Mutex;
use redis::{Cmd, Script, Value};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

/// Time between two looks at the owners of the slots. Failures and redirections hasten the next look.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Shortest time between two looks, and longest wait for new owners before a command is tried again.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// How long commands are retried while nodes redirect them or a slot is moving.
const REDIRECT_TIMEOUT: Duration = Duration::from_secs(2);

pub struct Nodes {
    links: Arc<Links>,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl Nodes {
    pub fn start(Address { topology, seeds, login }: Address, prefix: &str) -> Self {
        let clustered = matches!(topology, Topology::Cluster);
        let keys = if clustered { Keys::clustered(prefix) } else { Keys::new(prefix) };
        let state = Arc::new(RedisSubscriber::new(keys));
        let (queue, delivery) = queue();
        let slots = match (&topology, seeds.first()) {
            (Topology::Single, Some(only)) => SlotMap::all_of(only.name()),
            _ => SlotMap::unknown(),
        };
        let (slots, receiver) = watch::channel(Arc::new(slots));
        let outdated = Arc::new(Notify::new());
        let common = Common { state: Arc::clone(&state), queue: Arc::new(queue), slots: receiver, outdated, clustered };
        let moves = !matches!(topology, Topology::Single);
        let (seeds, sentinels) = match topology {
            Topology::Sentinel { service, .. } => (Vec::new(), Some(Sentinels::start(service, seeds, login.clone()))),
            _ => (seeds, None),
        };
        let links = Arc::new(Links {
            clustered,
            seeds,
            login,
            sentinels,
            counter: Arc::default(),
            since: AtomicU64::new(0),
            slots,
            table: Mutex::default(),
            trouble: Mutex::new(TopologyError::NotAsked),
            common,
        });
        links.add_seeds();
        let mut tasks = vec![tasks::spawn(Task::RedisDelivery, delivery.run(state))];
        if moves {
            tasks.push(tasks::spawn(Task::RedisTopology, topology::look_out(Arc::clone(&links))));
        }
        Self { links, _tasks: tasks }
    }

    pub fn state(&self) -> &Arc<RedisSubscriber> {
        &self.links.common.state
    }

    /// Fails unless all nodes answer and all wanted channels are subscribed.
    pub async fn check(&self) -> Result<(), BrokerError> {
        let owners = self.links.owners()?;
        let ping = redis::cmd("PING");
        let links = owners.iter().flat_map(|node| [&node.link, &node.bulk]);
        let answers = join_all(links.map(async |link| link.attempt(None, &[&ping], false).await));
        for answers in answers.await {
            routing::checked(answers?)?;
        }
        owners.iter().try_for_each(|node| node.subscriptions.check())
    }

    /// Subscribes to or unsubscribes from a channel, on the node that owns the slot. Returns after Redis's
    /// confirmation.
    pub async fn set(&self, channel: &str, wanted: bool) -> Result<(), BrokerError> {
        let slot = slots::of_key(self.state().keys.live(channel).as_bytes());
        let deadline = Instant::now() + REDIRECT_TIMEOUT;
        loop {
            let mut changes = self.links.slots.subscribe();
            let (owner, node) = self.links.owner(slot)?;
            let result = node.subscriptions.set(channel, wanted).await;
            let moved = self.links.slots.borrow().owner(slot) != Some(owner.as_str());
            let error = match result {
                Ok(()) if !moved => return Ok(()),
                Ok(()) => unavailable("the channel's slot has moved to another node"),
                Err(SubscriptionError::Failed(error)) if !moved => return Err(error),
                Err(SubscriptionError::Failed(error) | SubscriptionError::Elsewhere(error)) => error,
            };
            if !self.links.moves() || Instant::now() > deadline {
                return Err(error);
            }
            self.links.common.outdated.notify_one();
            let _ = timeout(LOOK_PAUSE, changes.changed()).await;
        }
    }

    /// The number of connections and of changes of owners so far. A later connection may lead to another Redis, or to a
    /// Redis that has lost its data. Waits a moment for a connection to the slot's node.
    pub async fn number(&self, slot: u16) -> Result<u64, BrokerError> {
        let (_, node) = self.links.owner(slot)?;
        node.link.number().await?;
        Ok(self.links.counter.load(Ordering::Acquire))
    }

    /// Sends one command.
    pub async fn send(&self, command: Cmd) -> Result<Value, BrokerError> {
        let answers = self.run(std::slice::from_ref(&command)).await?;
        answers.into_iter().next().ok_or_else(|| BrokerError::Corrupt("Redis gave no answer to a command".into()))
    }

    /// Sends commands, in one pipeline per node. The first error among the answers is the result.
    pub async fn run(&self, commands: &[Cmd]) -> Result<Vec<Value>, BrokerError> {
        self.links.route(None, None, commands, Lane::Commands, false).await
    }

    /// As [`Nodes::run`], but fails if a connection or a change of owners is newer than `number`.
    pub async fn run_on(&self, number: u64, commands: &[Cmd]) -> Result<Vec<Value>, BrokerError> {
        self.links.route(Some(number), None, commands, Lane::Commands, false).await
    }

    /// Sends calls of a script. Calls that failed because Redis had lost the script, or because another node owns the
    /// slot, are sent again, together with later calls of the same slot. Hence repeating a call must be harmless.
    pub async fn call(&self, script: &Script, calls: &[Cmd]) -> Result<Vec<Value>, BrokerError> {
        self.links.route(None, Some(script), calls, Lane::Commands, false).await
    }

    /// As [`Nodes::call`], for large answers: over the bulk link, with few concurrent reads.
    pub async fn read(&self, script: &Script, calls: &[Cmd]) -> Result<Vec<Value>, BrokerError> {
        self.links.route(None, Some(script), calls, Lane::Bulk, false).await
    }

    /// As [`Nodes::call`], but fails if a connection or a change of owners is newer than `number`.
    pub async fn call_on(
        &self,
        number: Option<u64>,
        script: &Script,
        calls: &[Cmd],
    ) -> Result<Vec<Value>, BrokerError> {
        self.links.route(number, Some(script), calls, Lane::Commands, false).await
    }

    /// As [`Nodes::call_on`], but returns after a replica's confirmation, on nodes with a replica. Otherwise, a replica
    /// that takes over could give the offsets of lost publications to later publications.
    pub async fn publish(
        &self,
        number: Option<u64>,
        script: &Script,
        calls: &[Cmd],
    ) -> Result<Vec<Value>, BrokerError> {
        self.links.route(number, Some(script), calls, Lane::Commands, true).await
    }
}
