//! All nodes of Redis, three links to each, and which of them a command or a channel belongs to. A Redis that is no
//! cluster is one node that owns all slots; with sentinels, it is the node that they call the master.
//!
//! `redis` has a client for clusters, which neither says behind which connection an answer was made nor notices a
//! node that is silent. Here the nodes' own links do both, and this only routes.

use super::address::{Address, Endpoint};
use super::delivery::queue;
use super::keys::Keys;
use super::link::Link;
use super::sentinels::{self, Master, Sentinels};
use super::slots::{self, SlotMap};
use super::subscriber::State;
use super::subscriptions::{Common, Refusal, Subscriptions};
use super::task::Task;
use crate::broker::BrokerError;
use crate::config::Topology;
use futures_util::future::join_all;
use redis::{Cmd, RedisConnectionInfo, Script, Value};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};

/// Between looks at who owns the slots. Failures, and answers that name another node, hasten the next.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// How long one that names another node, or says that it will soon, is asked again.
const REDIRECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Concurrent reads over a node's bulk link. An answer has up to half of `max_queue_size`; the command timeout covers
/// all concurrent answers.
const READS: usize = 8;
/// How long a replica may take to confirm what was published.
const REPLICA_TIMEOUT: Duration = Duration::from_millis(500);
/// How often without a single call that went through, for want of the script. Two would do, were nobody flushing the
/// scripts at the same time.
const ATTEMPTS: usize = 4;

pub struct Nodes {
    shared: Arc<Shared>,
    _tasks: Vec<Task>,
}

struct Shared {
    clustered: bool,
    /// Of a cluster or a single Redis.
    seeds: Vec<Endpoint>,
    login: RedisConnectionInfo,
    sentinels: Option<Sentinels>,
    /// Counts connections, and changes of the slots' owners.
    counter: Arc<AtomicU64>,
    /// When the owners last changed, of that count.
    since: AtomicU64,
    slots: watch::Sender<Arc<SlotMap>>,
    /// By their addresses. A std Mutex is enough: never held across an await.
    table: Mutex<HashMap<String, Arc<Node>>>,
    /// Why the owners are not known.
    trouble: Mutex<String>,
    common: Common,
}

struct Node {
    link: Link,
    /// For large answers: keeps commands from waiting behind the bytes.
    bulk: Link,
    /// Places for reads over `bulk`.
    reads: Semaphore,
    subscriptions: Subscriptions,
}

/// Commands for one node, by their numbers.
struct Group {
    node: Arc<Node>,
    asking: bool,
    replicated: bool,
    commands: Vec<usize>,
}

/// Choice between a node's two links for commands.
#[derive(Clone, Copy, PartialEq)]
enum Lane {
    Commands,
    Bulk,
}

/// What to do about an answer that is none.
enum Detour {
    LoadScript,
    Moved,
    Ask(String),
    Wait,
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
        let shared = Arc::new(Shared {
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
        shared.add_seeds();
        let mut tasks = vec![Task::spawn(delivery.run(state))];
        if moves {
            tasks.push(Task::spawn(look_out(Arc::clone(&shared))));
        }
        Self { shared, _tasks: tasks }
    }

    pub fn state(&self) -> &Arc<State> {
        &self.shared.common.state
    }

    /// Whether all nodes answer and everything published into the wanted channels arrives here.
    pub async fn check(&self) -> Result<(), BrokerError> {
        let owners = self.shared.owners()?;
        let ping = redis::cmd("PING");
        let links = owners.iter().flat_map(|node| [&node.link, &node.bulk]);
        let answers = join_all(links.map(async |link| link.attempt(None, &[&ping], false).await));
        for answers in answers.await {
            checked(answers?)?;
        }
        owners.iter().try_for_each(|node| node.subscriptions.check())
    }

    /// Makes a channel wanted or unwanted, on the node that owns its slot. Returns when Redis has acted on it.
    pub async fn set(&self, channel: &str, wanted: bool) -> Result<(), BrokerError> {
        let slot = slots::of_key(self.state().keys.live(channel).as_bytes());
        let deadline = Instant::now() + REDIRECT_TIMEOUT;
        loop {
            let mut changes = self.shared.slots.subscribe();
            let (owner, node) = self.shared.owner(slot)?;
            let result = node.subscriptions.set(channel, wanted).await;
            let moved = self.shared.slots.borrow().owner(slot) != Some(owner.as_str());
            let error = match result {
                Ok(()) if !moved => return Ok(()),
                Ok(()) => unavailable("the channel's slot has moved"),
                Err(Refusal::Failed(error)) if !moved => return Err(error),
                Err(Refusal::Failed(error) | Refusal::Elsewhere(error)) => error,
            };
            if !self.shared.moves() || Instant::now() > deadline {
                return Err(error);
            }
            self.shared.common.outdated.notify_one();
            let _ = timeout(LOOK_PAUSE, changes.changed()).await;
        }
    }

    /// Counts connections and moves of slots. Behind a later connection there may be another Redis, or one without
    /// its data. Waits until the node of this slot is connected, for a moment.
    pub async fn number(&self, slot: u16) -> Result<u64, BrokerError> {
        let (_, node) = self.shared.owner(slot)?;
        node.link.number().await?;
        Ok(self.shared.counter.load(Ordering::Acquire))
    }

    /// Sends one command.
    pub async fn send(&self, command: Cmd) -> Result<Value, BrokerError> {
        let answers = self.run(std::slice::from_ref(&command)).await?;
        answers.into_iter().next().ok_or_else(|| BrokerError::Corrupt("no answer to a command".into()))
    }

    /// Sends commands in one go to each node. The first error among the answers is the result.
    pub async fn run(&self, commands: &[Cmd]) -> Result<Vec<Value>, BrokerError> {
        self.carry_out(None, None, commands, Lane::Commands, false).await
    }

    /// As [`Nodes::run`], but fails unless all connections were made by the time of this number.
    pub async fn run_on(&self, number: u64, commands: &[Cmd]) -> Result<Vec<Value>, BrokerError> {
        self.carry_out(Some(number), None, commands, Lane::Commands, false).await
    }

    /// Sends calls of a script, and those again that failed because Redis had lost it or their slot was elsewhere, with
    /// all that followed about the same slot: repeating a call must be harmless.
    pub async fn call(&self, script: &Script, calls: &[Cmd]) -> Result<Vec<Value>, BrokerError> {
        self.carry_out(None, Some(script), calls, Lane::Commands, false).await
    }

    /// As [`Nodes::call`], for large answers: over the bulk link, a few calls at a time.
    pub async fn read(&self, script: &Script, calls: &[Cmd]) -> Result<Vec<Value>, BrokerError> {
        self.carry_out(None, Some(script), calls, Lane::Bulk, false).await
    }

    /// As [`Nodes::call`], but fails unless all connections were made by the time of this number.
    pub async fn call_on(
        &self,
        number: Option<u64>,
        script: &Script,
        calls: &[Cmd],
    ) -> Result<Vec<Value>, BrokerError> {
        self.carry_out(number, Some(script), calls, Lane::Commands, false).await
    }

    /// As [`Nodes::call_on`], and returns when a replica has it as well, wherever there is one: or else a replica that
    /// takes over would give the numbers of what it has missed to something else.
    pub async fn publish(
        &self,
        number: Option<u64>,
        script: &Script,
        calls: &[Cmd],
    ) -> Result<Vec<Value>, BrokerError> {
        self.carry_out(number, Some(script), calls, Lane::Commands, true).await
    }

    async fn carry_out(
        &self,
        fence: Option<u64>,
        script: Option<&Script>,
        commands: &[Cmd],
        lane: Lane,
        replicated: bool,
    ) -> Result<Vec<Value>, BrokerError> {
        let slots: Vec<u16> = commands.iter().map(slots::of_command).collect();
        let mut answers: Vec<Option<Value>> = vec![None; commands.len()];
        let mut left: Vec<usize> = (0..commands.len()).collect();
        // Where to ask for what is on its way to another node.
        let mut elsewhere: HashMap<usize, String> = HashMap::new();
        let deadline = Instant::now() + REDIRECT_TIMEOUT;
        let mut in_vain = 0;
        let mut wait = redis::cmd("WAIT");
        wait.arg(1).arg(REPLICA_TIMEOUT.as_millis() as u64);
        while !left.is_empty() {
            let mut changes = self.shared.slots.subscribe();
            let groups = self.shared.group(&left, &slots, &mut elsewhere)?;
            if fence.is_some_and(|fence| self.shared.since.load(Ordering::Acquire) > fence) {
                return Err(unavailable("slots have moved"));
            }
            let results = join_all(groups.iter().map(async |group| {
                let mut commands: Vec<&Cmd> = group.commands.iter().map(|&i| &commands[i]).collect();
                let wait = (replicated && group.replicated).then_some(&wait);
                commands.extend(wait);
                let mut answers = group.node.attempt(lane, fence, &commands, group.asking).await?;
                if wait.is_some() && !matches!(answers.pop(), Some(Value::Int(1..))) {
                    return Err(unavailable("no replica has confirmed it"));
                }
                Ok(answers)
            }));
            let results = results.await;
            let before = left.len();
            left.clear();
            let (mut unloaded, mut moved) = (Vec::new(), false);
            for (group, result) in groups.iter().zip(results) {
                let result = result.inspect_err(|_| self.shared.common.outdated.notify_one())?;
                // What follows one that was not carried out must not overtake it.
                let mut held_back = HashSet::new();
                for (&i, answer) in group.commands.iter().zip(result) {
                    match self.shared.detour(&answer) {
                        None if !held_back.contains(&slots[i]) => {
                            answers[i] = Some(answer);
                            continue;
                        }
                        None => {}
                        Some(Detour::LoadScript) => unloaded.push(Arc::clone(&group.node)),
                        Some(Detour::Ask(address)) => drop(elsewhere.insert(i, address)),
                        Some(Detour::Moved | Detour::Wait) => moved = true,
                    }
                    held_back.insert(slots[i]);
                    left.push(i);
                }
            }
            left.sort_unstable();
            unloaded.dedup_by(|a, b| Arc::ptr_eq(a, b));
            in_vain = if left.len() == before { in_vain + usize::from(!unloaded.is_empty()) } else { 0 };
            for node in unloaded {
                let Some(script) = script.filter(|_| in_vain < ATTEMPTS) else {
                    return Err(unavailable("Redis keeps losing its scripts"));
                };
                node.link.load(script).await?;
            }
            if moved {
                if Instant::now() > deadline {
                    return Err(unavailable("the cluster is changing"));
                }
                self.shared.common.outdated.notify_one();
                let _ = timeout(LOOK_PAUSE, changes.changed()).await;
            }
        }
        checked(answers.into_iter().flatten().collect())
    }
}

impl Node {
    async fn attempt(
        &self,
        lane: Lane,
        fence: Option<u64>,
        commands: &[&Cmd],
        asking: bool,
    ) -> Result<Vec<Value>, BrokerError> {
        match lane {
            Lane::Commands => self.link.attempt(fence, commands, asking).await,
            Lane::Bulk => {
                // Never closed.
                let _place = self.reads.acquire().await.ok();
                self.bulk.attempt(fence, commands, asking).await
            }
        }
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, HashMap<String, Arc<Node>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether what one node keeps may come to another.
    fn moves(&self) -> bool {
        self.clustered || self.sentinels.is_some()
    }

    fn add_seeds(&self) {
        for endpoint in &self.seeds {
            self.add(endpoint);
        }
    }

    fn add(&self, endpoint: &Endpoint) -> Arc<Node> {
        let start = || {
            let subscriptions = Subscriptions::start(endpoint.clone(), self.common.clone());
            let link = Link::start(endpoint.clone(), Arc::clone(&self.counter), "Redis");
            // Carries no publications; its connections need no numbers.
            let bulk = Link::start(endpoint.clone(), Arc::default(), "Redis for large reads");
            Arc::new(Node { link, bulk, reads: Semaphore::new(READS), subscriptions })
        };
        Arc::clone(self.table().entry(endpoint.name()).or_insert_with(start))
    }

    fn node(&self, name: &str) -> Option<Arc<Node>> {
        self.table().get(name).cloned()
    }

    fn owner(&self, slot: u16) -> Result<(String, Arc<Node>), BrokerError> {
        let name = self.slots.borrow().owner(slot).map(str::to_owned);
        let found = name.and_then(|name| self.node(&name).map(|node| (name, node)));
        found.ok_or_else(|| self.unknown())
    }

    /// All nodes that own slots; fails while a slot has no owner.
    fn owners(&self) -> Result<Vec<Arc<Node>>, BrokerError> {
        let slots = self.slots.borrow().clone();
        let nodes: Option<Vec<_>> = slots.addresses().iter().map(|name| self.node(name)).collect();
        nodes.filter(|_| slots.is_complete()).ok_or_else(|| self.unknown())
    }

    fn unknown(&self) -> BrokerError {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        BrokerError::Unavailable(if self.sentinels.is_some() {
            format!("the master is not known: {trouble}")
        } else {
            format!("not all slots of the cluster are known to be kept by a node: {trouble}")
        })
    }

    fn set_trouble(&self, trouble: String) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// By node, each group in the order of the commands.
    fn group(
        &self,
        commands: &[usize],
        slots: &[u16],
        elsewhere: &mut HashMap<usize, String>,
    ) -> Result<Vec<Group>, BrokerError> {
        let map = self.slots.borrow().clone();
        let mut groups: BTreeMap<(String, bool), Vec<usize>> = BTreeMap::new();
        for &i in commands {
            // To be asked there once: the next answer may be another.
            let key = match elsewhere.remove(&i) {
                Some(address) => (address, true),
                None => {
                    let owner = map.owner(slots[i]);
                    (owner.ok_or_else(|| self.unknown())?.to_owned(), false)
                }
            };
            groups.entry(key).or_default().push(i);
        }
        let group = |((name, asking), commands): ((String, bool), _)| {
            Some(Group { node: self.node(&name)?, asking, replicated: map.is_replicated(&name), commands })
        };
        let groups: Option<Vec<Group>> = groups.into_iter().map(group).collect();
        groups.ok_or_else(|| unavailable("a node of the cluster has just gone"))
    }

    fn detour(&self, answer: &Value) -> Option<Detour> {
        let Value::ServerError(error) = answer else { return None };
        match error.code() {
            "NOSCRIPT" => Some(Detour::LoadScript),
            "MOVED" if self.clustered => Some(Detour::Moved),
            "TRYAGAIN" | "CLUSTERDOWN" if self.clustered => Some(Detour::Wait),
            // A former master, or one that has just lost its connection to the new one.
            "READONLY" | "MASTERDOWN" if self.sentinels.is_some() => Some(Detour::Wait),
            "ASK" if self.clustered => {
                let address = error.details()?.rsplit(' ').next()?;
                // One that owns no slot yet is not known here: soon it will.
                Some(if self.node(address).is_some() { Detour::Ask(address.to_owned()) } else { Detour::Wait })
            }
            _ => None,
        }
    }

    /// Asks all known nodes who owns the slots. The one that knows of the latest election is believed.
    async fn look(&self) {
        let nodes: Vec<(String, Arc<Node>)> =
            self.table().iter().map(|(name, node)| (name.clone(), Arc::clone(node))).collect();
        let commands = ["INFO", "SLOTS"].map(|word| {
            let mut command = redis::cmd("CLUSTER");
            command.arg(word);
            command
        });
        let commands: Vec<&Cmd> = commands.iter().collect();
        let answers = join_all(nodes.iter().map(async |(name, node)| {
            let asked = timeout(LOOK_INTERVAL, node.link.attempt(None, &commands, false)).await;
            let answers = asked.ok()?.inspect_err(|error| self.set_trouble(error.to_string())).ok()?;
            let [info, slots] = answers.as_slice() else { return None };
            match info {
                Value::ServerError(error) if error.details().is_some_and(|text| text.contains("support disabled")) => {
                    self.set_trouble("this Redis is no cluster, so its URL has to begin with redis://".into());
                }
                Value::ServerError(error) => self.set_trouble(error.to_string()),
                _ => self.set_trouble("the cluster is not complete".into()),
            }
            let host = name.rsplit_once(':').map_or(name.as_str(), |(host, _)| host);
            Some((latest_epoch(info)?, SlotMap::read(slots, host)?))
        }));
        // News of a replica comes later than its election would.
        let best = answers.await.into_iter().flatten().max_by_key(|(epoch, map)| (*epoch, map.replicas()));
        match best {
            Some((_, map)) => self.adopt(map),
            // All that were known may have gone.
            None => self.add_seeds(),
        }
    }

    /// Asks the sentinels for the master, and the master whether it is one.
    async fn look_for_master(&self, sentinels: &Sentinels) {
        let Master { endpoint, has_replica } = match sentinels.master().await {
            Ok(master) => master,
            Err(why) => return self.set_trouble(why),
        };
        let (name, node) = (endpoint.name(), self.add(&endpoint));
        let owner = self.slots.borrow().addresses().first().cloned();
        // Candidates of before that were none.
        self.table().retain(|known, _| *known == name || Some(known) == owner.as_ref());
        let role = redis::cmd("ROLE");
        let asked = timeout(LOOK_INTERVAL, node.link.attempt(None, &[&role], false)).await;
        let answers = asked.unwrap_or_else(|_| Err(unavailable("it did not answer in time")));
        let followers = match answers.as_deref() {
            Ok([Value::ServerError(error)]) => Err(error.to_string()),
            Ok([role]) => sentinels::followers(role).ok_or_else(|| "it says that it is none".to_owned()),
            Ok(_) => Err("it answered something else".to_owned()),
            Err(BrokerError::Unavailable(why)) => Err(why.clone()),
            Err(error) => Err(error.to_string()),
        };
        match followers {
            // A replica that is silent follows for a minute yet, and is down for the sentinels earlier.
            Ok(followers) => self.adopt(SlotMap::all_of_master(name, has_replica && followers > 0)),
            Err(why) => self.set_trouble(format!("the sentinels name {name}: {why}")),
        }
    }

    fn adopt(&self, map: SlotMap) {
        let current = self.slots.borrow().clone();
        if *current == map {
            return;
        }
        if current.same_owners(&map) {
            // Only a replica has come or gone.
            self.slots.send_replace(Arc::new(map));
            return;
        }
        for name in map.addresses() {
            if let Some(endpoint) = self.seeds.first().and_then(|seed| seed.at(name, &self.login)) {
                self.add(&endpoint);
            }
        }
        if self.sentinels.is_some() {
            tracing::info!(address = map.addresses().first(), "Redis has a new master");
        } else {
            tracing::info!(
                nodes = map.addresses().len(),
                complete = map.is_complete(),
                "slots of the Redis cluster have new owners"
            );
        }
        // Before anything goes to the new owners.
        self.since.store(self.counter.fetch_add(1, Ordering::AcqRel) + 1, Ordering::Release);
        let owners: HashSet<String> = map.addresses().iter().cloned().collect();
        self.slots.send_replace(Arc::new(map));
        self.table().retain(|name, _| owners.contains(name));
    }
}

/// Keeps the owners of the slots known, for as long as the broker lives.
async fn look_out(shared: Arc<Shared>) {
    loop {
        match &shared.sentinels {
            Some(sentinels) => shared.look_for_master(sentinels).await,
            None => shared.look().await,
        }
        sleep(LOOK_PAUSE).await;
        let _ = timeout(LOOK_INTERVAL, shared.common.outdated.notified()).await;
    }
}

/// Of a node that takes part in the cluster: one that was cut off says so, and may not know the latest owners.
fn latest_epoch(info: &Value) -> Option<u64> {
    let Value::BulkString(info) = info else { return None };
    let info = std::str::from_utf8(info).ok()?;
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    field("cluster_state").filter(|state| *state == "ok")?;
    field("cluster_current_epoch")?.parse().ok()
}

fn unavailable(reason: &str) -> BrokerError {
    BrokerError::Unavailable(reason.to_owned())
}

fn checked(answers: Vec<Value>) -> Result<Vec<Value>, BrokerError> {
    for answer in &answers {
        if let Value::ServerError(error) = answer {
            return Err(match error.code() {
                "CONFLICT" => BrokerError::Conflict,
                "WRONGTYPE" => BrokerError::Corrupt("a key of another type".into()),
                "MOVED" => unavailable("it belongs to a cluster: its URL has to begin with redis-cluster://"),
                _ => BrokerError::Unavailable(error.to_string()),
            });
        }
    }
    Ok(answers)
}
