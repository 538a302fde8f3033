//! The nodes of Redis: which of them keeps a slot ([`topology`]), the links to each ([`links`]), and the way of commands to
//! them ([`routing`]). A Redis that is no cluster is one node with all slots; with sentinels, that node is the master.
//!
//! The `redis` crate has a client for clusters. It does not tell over which connection an answer came, and does not notice
//! a silent node; the links here do both.

mod links;
mod routing;
mod topology;

use super::address::Address;
use super::delivery::queue;
use super::keys::Keys;
use super::sentinels::Sentinels;
use super::slots::{self, SlotMap};
use super::subscriber::State;
use super::subscriptions::{Common, Refusal};
use crate::broker::BrokerError;
use crate::config::Topology;
use crate::tasks::{self, Task};
use futures_util::future::join_all;
use links::{Lane, Links, unavailable};
use redis::{Cmd, Script, Value};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

/// Between looks at who owns the slots. Failures, and answers that name another node, hasten the next.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// How long one that names another node, or says that it will soon, is asked again.
const REDIRECT_TIMEOUT: Duration = Duration::from_secs(2);

pub struct Nodes {
    links: Arc<Links>,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl Nodes {
    pub fn start(Address { topology, seeds, login }: Address, prefix: &str) -> Self {
        let clustered = matches!(topology, Topology::Cluster);
        let keys = if clustered { Keys::clustered(prefix) } else { Keys::new(prefix) };
        let state = Arc::new(State::new(keys));
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
            trouble: Mutex::new("no node has answered yet".into()),
            common,
        });
        links.add_seeds();
        let mut tasks = vec![tasks::spawn_owned(Task::RedisDelivery, delivery.run(state))];
        if moves {
            tasks.push(tasks::spawn_owned(Task::RedisTopology, topology::look_out(Arc::clone(&links))));
        }
        Self { links, _tasks: tasks }
    }

    pub fn state(&self) -> &Arc<State> {
        &self.links.common.state
    }

    /// Whether all nodes answer and everything published into the wanted channels arrives here.
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

    /// Makes a channel wanted or unwanted, on the node that owns its slot. Returns when Redis has acted on it.
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
                Ok(()) => unavailable("the channel's slot has moved"),
                Err(Refusal::Failed(error)) if !moved => return Err(error),
                Err(Refusal::Failed(error) | Refusal::Elsewhere(error)) => error,
            };
            if !self.links.moves() || Instant::now() > deadline {
                return Err(error);
            }
            self.links.common.outdated.notify_one();
            let _ = timeout(LOOK_PAUSE, changes.changed()).await;
        }
    }

    /// Counts connections and moves of slots. Behind a later connection there may be another Redis, or one without
    /// its data. Waits until the node of this slot is connected, for a moment.
    pub async fn number(&self, slot: u16) -> Result<u64, BrokerError> {
        let (_, node) = self.links.owner(slot)?;
        node.link.number().await?;
        Ok(self.links.counter.load(Ordering::Acquire))
    }

    /// Sends one command.
    pub async fn send(&self, command: Cmd) -> Result<Value, BrokerError> {
        let answers = self.run(std::slice::from_ref(&command)).await?;
        answers.into_iter().next().ok_or_else(|| BrokerError::Corrupt("no answer to a command".into()))
    }

    /// Sends commands in one go to each node. The first error among the answers is the result.
    pub async fn run(&self, commands: &[Cmd]) -> Result<Vec<Value>, BrokerError> {
        self.links.carry_out(None, None, commands, Lane::Commands, false).await
    }

    /// As [`Nodes::run`], but fails unless all connections were made by the time of this number.
    pub async fn run_on(&self, number: u64, commands: &[Cmd]) -> Result<Vec<Value>, BrokerError> {
        self.links.carry_out(Some(number), None, commands, Lane::Commands, false).await
    }

    /// Sends calls of a script, and those again that failed because Redis had lost it or their slot was elsewhere, with
    /// all that followed about the same slot: repeating a call must be harmless.
    pub async fn call(&self, script: &Script, calls: &[Cmd]) -> Result<Vec<Value>, BrokerError> {
        self.links.carry_out(None, Some(script), calls, Lane::Commands, false).await
    }

    /// As [`Nodes::call`], for large answers: over the bulk link, a few calls at a time.
    pub async fn read(&self, script: &Script, calls: &[Cmd]) -> Result<Vec<Value>, BrokerError> {
        self.links.carry_out(None, Some(script), calls, Lane::Bulk, false).await
    }

    /// As [`Nodes::call`], but fails unless all connections were made by the time of this number.
    pub async fn call_on(
        &self,
        number: Option<u64>,
        script: &Script,
        calls: &[Cmd],
    ) -> Result<Vec<Value>, BrokerError> {
        self.links.carry_out(number, Some(script), calls, Lane::Commands, false).await
    }

    /// As [`Nodes::call_on`], and returns when a replica has it as well, wherever there is one: or else a replica that
    /// takes over would give the numbers of what it has missed to something else.
    pub async fn publish(
        &self,
        number: Option<u64>,
        script: &Script,
        calls: &[Cmd],
    ) -> Result<Vec<Value>, BrokerError> {
        self.links.carry_out(number, Some(script), calls, Lane::Commands, true).await
    }
}
