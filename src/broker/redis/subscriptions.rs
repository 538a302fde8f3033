//! The subscribing link to one node: those wanted channels whose slots the node owns, subscribed to again after
//! each reconnection and each move of a slot, of which the sink is told as a gap.

use super::address::Endpoint;
use super::delivery::Queue;
use super::pubsub::{ANSWER_TIMEOUT, PubSub};
use super::slots::{self, SlotMap};
use super::subscriber::State;
use super::task::Task;
use crate::broker::BrokerError;
use redis::Cmd;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Of callers that want to subscribe or unsubscribe; more wait.
const REQUESTS: usize = 1024;
/// Channels per command, and requests that are carried out in one go.
const BATCH: usize = 512;
/// Channels that are subscribed to again before an answer is waited for: few enough for it to come in time.
const RESTORE: usize = 8192;
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// Between attempts to subscribe to what the node has refused.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Bounds of the pause between attempts to connect.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

pub struct Subscriptions {
    requests: mpsc::Sender<Request>,
    health: Arc<Health>,
    _task: Task,
}

struct Health {
    /// All wanted channels of this node are subscribed to.
    whole: AtomicBool,
    /// What last went wrong.
    trouble: Mutex<String>,
}

struct Request {
    channel: String,
    wanted: bool,
    done: oneshot::Sender<Result<(), Refusal>>,
}

pub enum Refusal {
    /// Another node may own the channel's slot.
    Elsewhere(BrokerError),
    Failed(BrokerError),
}

/// What all nodes share.
#[derive(Clone)]
pub struct Common {
    pub state: Arc<State>,
    pub queue: Arc<Queue>,
    pub slots: watch::Receiver<Arc<SlotMap>>,
    /// To be told when the slots seem to have moved.
    pub outdated: Arc<Notify>,
    pub clustered: bool,
}

impl Subscriptions {
    pub fn start(endpoint: Endpoint, common: Common) -> Self {
        let (requests, queue) = mpsc::channel(REQUESTS);
        let health =
            Arc::new(Health { whole: AtomicBool::new(false), trouble: Mutex::new("not connected yet".into()) });
        let name = endpoint.name();
        let keeper = Keeper { name, endpoint, common, requests: queue, health: Arc::clone(&health) };
        Self { requests, health, _task: Task::spawn(keeper.keep()) }
    }

    /// Whether everything published into the wanted channels of this node arrives here.
    pub fn check(&self) -> Result<(), BrokerError> {
        if self.health.whole.load(Ordering::Acquire) { Ok(()) } else { Err(self.health.down()) }
    }

    pub async fn set(&self, channel: &str, wanted: bool) -> Result<(), Refusal> {
        let (done, answer) = oneshot::channel();
        let request = Request { channel: channel.to_owned(), wanted, done };
        let down = || Refusal::Failed(self.health.down());
        let asked = async {
            self.requests.send(request).await.map_err(|_| down())?;
            answer.await.map_err(|_| down())?
        };
        // What times out here is undone there.
        timeout(2 * ANSWER_TIMEOUT, asked).await.unwrap_or_else(|_| Err(down()))
    }
}

impl Health {
    fn down(&self) -> BrokerError {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        BrokerError::Unavailable(format!("the subscribing link to Redis is down: {trouble}"))
    }

    fn set_trouble(&self, trouble: String) {
        self.whole.store(false, Ordering::Release);
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

/// The one task that subscribes on this node, so that requests and reconnections cannot overtake one another.
struct Keeper {
    name: String,
    endpoint: Endpoint,
    common: Common,
    requests: mpsc::Receiver<Request>,
    health: Arc<Health>,
}

impl Keeper {
    async fn keep(mut self) {
        let mut pause = PAUSE.0;
        let mut announced = false;
        loop {
            let connecting = PubSub::connect(self.endpoint.clone(), Arc::clone(&self.common.queue));
            let reason = match self.refusing(connecting).await {
                Ok(mut link) => {
                    let begin = Instant::now();
                    let Err(reason) = self.serve(&mut link).await;
                    // One that fails at once is no sign that the next will do better.
                    if begin.elapsed() > PAUSE.1 {
                        (pause, announced) = (PAUSE.0, false);
                    }
                    reason
                }
                Err(reason) => reason,
            };
            // Once per outage: what follows says nothing new.
            if !announced {
                tracing::warn!(node = self.name, reason, "the subscribing link to Redis is down");
                announced = true;
            }
            self.health.set_trouble(reason);
            self.common.outdated.notify_one();
            self.refusing(sleep(pause)).await;
            pause = (2 * pause).min(PAUSE.1);
        }
    }

    /// Waits for something while there is no connection.
    async fn refusing<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                biased;
                result = &mut work => return result,
                count = self.requests.recv_many(&mut batch, BATCH), if !self.requests.is_closed() => {
                    if count == 0 {
                        continue;
                    }
                    for Request { channel, wanted, done } in batch.drain(..) {
                        let answer = if wanted {
                            Err(Refusal::Failed(self.health.down()))
                        } else {
                            self.common.state.wanted().remove(&channel);
                            Ok(())
                        };
                        let _ = done.send(answer);
                    }
                }
            }
        }
    }

    /// Keeps everything subscribed to over one connection, until it fails.
    async fn serve(&mut self, link: &mut PubSub) -> Result<std::convert::Infallible, String> {
        let mut batch = Vec::with_capacity(BATCH);
        // From a loss, or the beginning, until everything is subscribed to again.
        let mut broken = true;
        // Something was subscribed to again since the sink was last told of a gap.
        let mut missed = false;
        let mut retry = Instant::now();
        let mut ping = Instant::now() + PING_INTERVAL;
        loop {
            tokio::select! {
                biased;
                disturbed = link.disturbed() => {
                    disturbed?;
                    self.health.set_trouble("a slot has moved".into());
                    self.common.outdated.notify_one();
                    broken = true;
                }
                changed = self.common.slots.changed() => {
                    changed.map_err(|_| "it ends".to_owned())?;
                    self.common.slots.borrow_and_update();
                    broken = true;
                    retry = Instant::now();
                }
                () = sleep_until(retry), if broken => {
                    missed |= self.reconcile(link).await?;
                    if !self.is_complete(link) {
                        self.common.outdated.notify_one();
                        retry = Instant::now() + RETRY_PAUSE;
                        continue;
                    }
                    // Before it counts as whole, so that whoever finds it whole has heard of the gap.
                    if std::mem::take(&mut missed) {
                        self.common.state.gap();
                    }
                    broken = false;
                    if !self.health.whole.swap(true, Ordering::AcqRel) {
                        tracing::info!(node = self.name, "the subscribing link to Redis is up");
                    }
                }
                count = self.requests.recv_many(&mut batch, BATCH), if !self.requests.is_closed() => {
                    if count > 0 {
                        self.carry_out(link, std::mem::take(&mut batch)).await?;
                    }
                }
                () = sleep_until(ping) => {
                    link.exchange(&[]).await?;
                    ping = Instant::now() + PING_INTERVAL;
                    // A slot may have come and gone between two looks at the owners.
                    broken |= self.common.clustered && !self.is_complete(link);
                }
            }
        }
    }

    /// The names in Redis of all wanted channels that this node owns.
    fn mine(&self) -> HashSet<String> {
        let slots = self.common.slots.borrow().clone();
        let names: Vec<String> = {
            let wanted = self.common.state.wanted();
            wanted.iter().map(|channel| self.common.state.keys.live(channel)).collect()
        };
        names.into_iter().filter(|name| self.owns(&slots, name)).collect()
    }

    fn owns(&self, slots: &SlotMap, name: &str) -> bool {
        slots.owner(slots::of_key(name.as_bytes())) == Some(&self.name)
    }

    fn is_complete(&self, link: &PubSub) -> bool {
        self.mine().is_subset(&link.on())
    }

    /// Subscribes to everything wanted, and to no more. Returns whether something was missing.
    async fn reconcile(&self, link: &mut PubSub) -> Result<bool, String> {
        let (mine, on) = (self.mine(), link.on());
        let difference = |a: &HashSet<String>, b: &HashSet<String>| a.difference(b).cloned().collect::<Vec<_>>();
        let (missing, more) = (difference(&mine, &on), difference(&on, &mine));
        self.write(link, &[], &more).await?;
        for names in missing.chunks(RESTORE) {
            self.write(link, names, &[]).await?;
        }
        Ok(!missing.is_empty())
    }

    async fn write(&self, link: &mut PubSub, on: &[String], off: &[String]) -> Result<Option<String>, String> {
        link.leave(off);
        let [subscribe, unsubscribe] =
            if self.common.clustered { ["SSUBSCRIBE", "SUNSUBSCRIBE"] } else { ["SUBSCRIBE", "UNSUBSCRIBE"] };
        let mut commands = self.commands(unsubscribe, off);
        commands.extend(self.commands(subscribe, on));
        let refused = if commands.is_empty() { Ok(None) } else { link.exchange(&commands).await };
        link.left();
        refused
    }

    /// In a cluster the names of one command have to share a slot.
    fn commands(&self, word: &str, names: &[String]) -> Vec<Cmd> {
        let mut groups: BTreeMap<u16, Vec<&String>> = BTreeMap::new();
        for name in names {
            let group = if self.common.clustered { slots::of_key(name.as_bytes()) } else { 0 };
            groups.entry(group).or_default().push(name);
        }
        let chunks = groups.values().flat_map(|names| names.chunks(BATCH));
        chunks
            .map(|names| {
                let mut command = redis::cmd(word);
                command.arg(names);
                command
            })
            .collect()
    }

    /// Carries out requests in their order: of those about one channel the last one counts. Who has given up waiting
    /// does not want it any more.
    async fn carry_out(&self, link: &mut PubSub, batch: Vec<Request>) -> Result<(), String> {
        let state = &self.common.state;
        let batch: Vec<(Request, String)> = batch
            .into_iter()
            .filter(|request| !request.wanted || !request.done.is_closed())
            .map(|request| {
                let name = state.keys.live(&request.channel);
                (request, name)
            })
            .collect();
        let last: HashMap<&str, bool> = batch.iter().map(|(request, name)| (name.as_str(), request.wanted)).collect();
        let changed = |wanted| {
            let changed = last.iter().filter(|&(name, &last)| last == wanted && link.is_on(name) != wanted);
            changed.map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>()
        };
        let (on, off) = (changed(true), changed(false));
        // First, so that a reconnection or a moving slot does not miss them.
        let mut new = HashSet::new();
        {
            let mut wanted = state.wanted();
            for (request, _) in &batch {
                if !request.wanted {
                    wanted.remove(&request.channel);
                    new.remove(&request.channel);
                } else if wanted.insert(request.channel.clone()) {
                    new.insert(request.channel.clone());
                }
            }
        }
        let result = self.write(link, &on, &off).await;
        let slots = self.common.slots.borrow().clone();
        let answer = |wanted: bool, name: &str| match &result {
            _ if !wanted || !last[name] => Ok(()),
            Err(reason) => Err(Refusal::Failed(BrokerError::Unavailable(reason.clone()))),
            Ok(_) if link.is_on(name) && self.owns(&slots, name) => Ok(()),
            Ok(refused) => {
                let reason = refused.clone().unwrap_or_else(|| "the channel's slot has moved".into());
                Err(Refusal::Elsewhere(BrokerError::Unavailable(reason)))
            }
        };
        let answers: Vec<_> = batch.iter().map(|(request, name)| answer(request.wanted, name)).collect();
        for ((Request { channel, done, .. }, _), answer) in batch.into_iter().zip(answers) {
            let good = answer.is_ok();
            if done.send(answer).is_ok() && good {
                new.remove(&channel);
            }
        }
        // They have failed, or nobody waited for them any more, so nobody would ever take them back.
        if !new.is_empty() {
            state.wanted().retain(|channel| !new.contains(channel));
        }
        result?;
        let names = new.iter().map(|channel| state.keys.live(channel));
        let unwanted: Vec<String> = names.filter(|name| link.is_on(name)).collect();
        self.write(link, &[], &unwanted).await.map(drop)
    }
}
