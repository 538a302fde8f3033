//! Links to all nodes, by address, and the last known owners of the slots.

use super::super::address::Endpoint;
use super::super::error::{LinkError, TopologyError};
use super::super::link::CommandLink;
use super::super::sentinels::Sentinels;
use super::super::slots::SlotMap;
use super::super::subscriptions::{Common, Subscriptions};
use crate::broker::BrokerError;
use parking_lot::{Mutex, MutexGuard};
use redis::{Cmd, RedisConnectionInfo, Value};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::{Semaphore, watch};

pub struct Links {
    pub clustered: bool,
    /// Nodes named by the URL of a cluster or a single Redis; empty with sentinels.
    pub seeds: Vec<Endpoint>,
    pub login: RedisConnectionInfo,
    pub sentinels: Option<Sentinels>,
    /// Counts connections, and changes of the slots' owners.
    pub counter: Arc<AtomicU64>,
    /// Value of `counter` at the last change of owners.
    pub since: AtomicU64,
    pub slots: watch::Sender<Arc<SlotMap>>,
    /// Nodes by address. Never held across an await.
    pub table: Mutex<HashMap<String, Arc<Node>>>,
    /// Why the owners are not known, for error messages.
    pub trouble: Mutex<TopologyError>,
    pub common: Common,
}

/// Concurrent reads over a node's bulk link. An answer has up to half of `max_queue_size`, and the command timeout
/// covers all concurrent answers together.
const READS: usize = 8;

/// Choice between a node's two links for commands.
#[derive(Clone, Copy, PartialEq)]
pub enum Lane {
    Commands,
    Bulk,
}

pub struct Node {
    pub link: CommandLink,
    /// For large answers: keeps commands from waiting behind the bytes.
    pub bulk: CommandLink,
    /// Permits for reads over `bulk`.
    reads: Semaphore,
    pub subscriptions: Subscriptions,
}

impl Node {
    pub async fn attempt(
        &self,
        lane: Lane,
        fence: Option<u64>,
        commands: &[&Cmd],
        asking: bool,
    ) -> Result<Vec<Value>, LinkError> {
        match lane {
            Lane::Commands => self.link.attempt(fence, commands, asking).await,
            Lane::Bulk => {
                // The semaphore is never closed.
                let _place = self.reads.acquire().await.ok();
                self.bulk.attempt(fence, commands, asking).await
            }
        }
    }
}

impl Links {
    pub fn table(&self) -> MutexGuard<'_, HashMap<String, Arc<Node>>> {
        self.table.lock()
    }

    /// Whether slots can move to another node: in a cluster, and with sentinels.
    pub fn moves(&self) -> bool {
        self.clustered || self.sentinels.is_some()
    }

    pub fn add_seeds(&self) {
        for endpoint in &self.seeds {
            self.add(endpoint);
        }
    }

    pub fn add(&self, endpoint: &Endpoint) -> Arc<Node> {
        let start = || {
            let subscriptions = Subscriptions::start(endpoint.clone(), self.common.clone());
            let link = CommandLink::start(endpoint.clone(), Arc::clone(&self.counter), "Redis");
            // A counter of its own, unused: this link carries no publications.
            let bulk = CommandLink::start(endpoint.clone(), Arc::default(), "Redis for large reads");
            Arc::new(Node { link, bulk, reads: Semaphore::new(READS), subscriptions })
        };
        Arc::clone(self.table().entry(endpoint.name()).or_insert_with(start))
    }

    pub fn node(&self, name: &str) -> Option<Arc<Node>> {
        self.table().get(name).cloned()
    }

    pub fn owner(&self, slot: u16) -> Result<(String, Arc<Node>), BrokerError> {
        let name = self.slots.borrow().owner(slot).map(str::to_owned);
        let found = name.and_then(|name| self.node(&name).map(|node| (name, node)));
        found.ok_or_else(|| self.unknown())
    }

    /// All nodes that own slots; fails while a slot has no owner.
    pub fn owners(&self) -> Result<Vec<Arc<Node>>, BrokerError> {
        let slots = self.slots.borrow().clone();
        let nodes: Option<Vec<_>> = slots.addresses().iter().map(|name| self.node(name)).collect();
        nodes.filter(|_| slots.is_complete()).ok_or_else(|| self.unknown())
    }

    pub fn unknown(&self) -> BrokerError {
        let trouble = self.trouble.lock();
        BrokerError::Unavailable(if self.sentinels.is_some() {
            format!("the master is not known: {trouble}")
        } else {
            format!("some slots of the cluster have no known node: {trouble}")
        })
    }

    pub fn set_trouble(&self, trouble: TopologyError) {
        *self.trouble.lock() = trouble;
    }
}

pub fn unavailable(reason: &str) -> BrokerError {
    BrokerError::Unavailable(reason.to_owned())
}
