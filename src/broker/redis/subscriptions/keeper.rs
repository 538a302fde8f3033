//! Keeps the wanted channels of one node's slots subscribed: subscribes again after a reconnection or a move of a slot,
//! and reports a gap to the sink.

use super::super::address::Endpoint;
use super::super::error::LinkError;
use super::super::pubsub::PubSub;
use super::super::slots::{self, SlotMap};
use super::{Common, Health, SubscriptionError, SubscriptionRequest};
use crate::backoff::Backoff;
use crate::broker::BrokerError;
use crate::channel::CONTROL;
use redis::Cmd;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

/// Channels per command, and requests per batch.
const BATCH: usize = 512;
/// Channels subscribed again per wait for an answer: few enough for an answer in time.
const RESTORE: usize = 8192;
/// Channels and slots compared before yielding to other tasks.
const LOOK: usize = 4096;
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// Pause between attempts to subscribe to channels that the node has refused.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Shortest and longest pause between attempts to connect.
const PAUSE: Range<Duration> = Duration::from_millis(50)..Duration::from_secs(1);

/// The only task that subscribes on this node, so that requests and reconnections cannot overtake each other.
pub(super) struct Keeper {
    pub name: String,
    pub endpoint: Endpoint,
    pub common: Common,
    pub requests: mpsc::Receiver<SubscriptionRequest>,
    pub health: Arc<Health>,
}

impl Keeper {
    /// Connects, and connects anew after a failure, for as long as the broker lives.
    pub async fn keep(mut self) {
        let mut backoff = Backoff::new(PAUSE);
        let mut announced = false;
        loop {
            let connecting = PubSub::connect(self.endpoint.clone(), Arc::clone(&self.common.queue));
            let reason = match self.refusing(connecting).await {
                Ok(mut link) => {
                    let begin = Instant::now();
                    let Err(reason) = self.serve(&mut link).await;
                    // A connection that fails at once does not reset the backoff.
                    if begin.elapsed() > PAUSE.end {
                        backoff.reset();
                        announced = false;
                    }
                    reason
                }
                Err(reason) => reason,
            };
            // Once per outage.
            if !announced {
                tracing::warn!(node = self.name, %reason, "the subscription link to Redis is down, reconnecting");
                announced = true;
            }
            self.health.set_trouble(reason);
            self.common.outdated.notify_one();
            self.refusing(sleep(backoff.pause())).await;
        }
    }

    /// Waits for `work` without a connection: refuses requests to subscribe, and carries out requests to unsubscribe.
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
                    for SubscriptionRequest { channel, wanted, done } in batch.drain(..) {
                        let answer = if wanted {
                            Err(SubscriptionError::Failed(self.health.down()))
                        } else {
                            let (_, slot) = self.common.state.live(&channel);
                            self.common.state.wanted().remove(slot, &channel);
                            Ok(())
                        };
                        let _ = done.send(answer);
                    }
                }
            }
        }
    }

    /// Keeps the wanted channels subscribed over one connection, until the connection fails.
    async fn serve(&mut self, link: &mut PubSub) -> Result<std::convert::Infallible, LinkError> {
        let mut batch = Vec::with_capacity(BATCH);
        // True from the start, or from a lost subscription, until all wanted channels are subscribed.
        let mut broken = true;
        // A channel was subscribed again since the last gap was reported.
        let mut missed = false;
        let mut retry = Instant::now();
        let mut ping = Instant::now() + PING_INTERVAL;
        loop {
            tokio::select! {
                biased;
                disturbed = link.disturbed() => {
                    disturbed?;
                    self.health.set_trouble(LinkError::SlotMoved);
                    self.common.outdated.notify_one();
                    broken = true;
                }
                changed = self.common.slots.changed() => {
                    changed.map_err(|_| LinkError::Stopping)?;
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
                    // Report the gap before the link counts as whole: a successful check implies a reported gap.
                    if std::mem::take(&mut missed) {
                        self.common.state.gap();
                    }
                    broken = false;
                    if !self.health.whole.swap(true, Ordering::AcqRel) {
                        tracing::info!(node = self.name, "the subscription link to Redis is up");
                    }
                }
                count = self.requests.recv_many(&mut batch, BATCH), if !self.requests.is_closed() => {
                    if count > 0 {
                        self.apply(link, std::mem::take(&mut batch)).await?;
                    }
                }
                () = sleep_until(ping) => {
                    link.exchange(&[]).await?;
                    ping = Instant::now() + PING_INTERVAL;
                    // A slot may have moved away and back between two looks at the owners.
                    broken |= self.common.clustered && !self.is_complete(link);
                }
            }
        }
    }

    fn owns(&self, slots: &SlotMap, slot: u16) -> bool {
        slots.owner(slot) == Some(&self.name)
    }

    /// Whether all wanted channels of this node are subscribed. Runs every second and therefore compares only the
    /// numbers per slot; a link has surplus subscriptions for a moment at most.
    fn is_complete(&self, link: &PubSub) -> bool {
        let slots = self.common.slots.borrow().clone();
        let wanted: Vec<(u16, usize)> = self.common.state.wanted().counts().collect();
        link.has_at_least(wanted.into_iter().filter(|&(slot, _)| self.owns(&slots, slot)))
    }

    /// Names in Redis: of missing subscriptions, and of surplus subscriptions.
    async fn differences(&self, link: &PubSub) -> (Vec<String>, Vec<String>) {
        let (state, slots) = (&self.common.state, self.common.slots.borrow().clone());
        let (mut missing, mut more) = (Vec::new(), Vec::new());
        let mut looked_at = 0;
        for slot in 0..slots::SLOTS as u16 {
            let on = link.on(slot);
            let mine: HashSet<String> = if self.owns(&slots, slot) {
                state.wanted().of(slot).map(|channel| state.keys.live(channel)).collect()
            } else {
                HashSet::new()
            };
            missing.extend(mine.difference(&on).cloned());
            more.extend(on.difference(&mine).cloned());
            looked_at += 1 + on.len() + mine.len();
            if looked_at > LOOK {
                looked_at = 0;
                tokio::task::yield_now().await;
            }
        }
        (missing, more)
    }

    /// Adds missing subscriptions and ends surplus subscriptions. Returns whether a subscription was missing.
    async fn reconcile(&self, link: &mut PubSub) -> Result<bool, LinkError> {
        let (mut missing, more) = self.differences(link).await;
        self.write(link, &[], &more).await?;
        let is_missing = !missing.is_empty();
        let (access, _) = self.common.state.live(CONTROL);
        if let Some(place) = missing.iter().position(|name| *name == access).filter(|_| missing.len() > 1) {
            // The channel of access changes comes first, with a gap of its own, so that the sink reads missed access
            // changes before publications of other channels arrive. Otherwise a publication could overtake an access
            // change from the time of the outage.
            self.write(link, &[missing.swap_remove(place)], &[]).await?;
            self.common.state.gap();
        }
        for names in missing.chunks(RESTORE) {
            self.write(link, names, &[]).await?;
        }
        Ok(is_missing)
    }

    async fn write(&self, link: &mut PubSub, on: &[String], off: &[String]) -> Result<Option<LinkError>, LinkError> {
        link.leave(off);
        let [subscribe, unsubscribe] =
            if self.common.clustered { ["SSUBSCRIBE", "SUNSUBSCRIBE"] } else { ["SUBSCRIBE", "UNSUBSCRIBE"] };
        let mut commands = self.commands(unsubscribe, off);
        commands.extend(self.commands(subscribe, on));
        let refused = if commands.is_empty() { Ok(None) } else { link.exchange(&commands).await };
        link.left();
        refused
    }

    /// Commands for many names. In a cluster, the names of one command must share a slot.
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

    /// Carries out requests in order; the last request about a channel wins. Requests to subscribe are skipped if the
    /// caller has given up waiting.
    async fn apply(&self, link: &mut PubSub, batch: Vec<SubscriptionRequest>) -> Result<(), LinkError> {
        let state = &self.common.state;
        let batch: Vec<(SubscriptionRequest, (String, u16))> = batch
            .into_iter()
            .filter(|request| !request.wanted || !request.done.is_closed())
            .map(|request| {
                let live = state.live(&request.channel);
                (request, live)
            })
            .collect();
        let last: HashMap<&str, bool> =
            batch.iter().map(|(request, (name, _))| (name.as_str(), request.wanted)).collect();
        let changed = |wanted| {
            let changed = last.iter().filter(|&(name, &last)| last == wanted && link.is_on(name) != wanted);
            changed.map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>()
        };
        let (on, off) = (changed(true), changed(false));
        // Update the wanted channels first, so that a reconnection or a moving slot includes the new channels.
        let mut new: HashMap<String, (String, u16)> = HashMap::new();
        {
            let mut wanted = state.wanted();
            for (request, (name, slot)) in &batch {
                if !request.wanted {
                    wanted.remove(*slot, &request.channel);
                    new.remove(&request.channel);
                } else if wanted.insert(*slot, &request.channel) {
                    new.insert(request.channel.clone(), (name.clone(), *slot));
                }
            }
        }
        let result = self.write(link, &on, &off).await;
        let slots = self.common.slots.borrow().clone();
        let answer = |wanted: bool, name: &str, slot: u16| match &result {
            _ if !wanted || !last[name] => Ok(()),
            Err(reason) => Err(SubscriptionError::Failed(reason.clone().into())),
            Ok(_) if link.is_on(name) && self.owns(&slots, slot) => Ok(()),
            Ok(refused) => {
                let moved = || BrokerError::Unavailable("the channel's slot has moved to another node".into());
                Err(SubscriptionError::Elsewhere(refused.clone().map_or_else(moved, BrokerError::from)))
            }
        };
        let answers: Vec<_> = batch.iter().map(|(request, (name, slot))| answer(request.wanted, name, *slot)).collect();
        for ((SubscriptionRequest { channel, done, .. }, _), answer) in batch.into_iter().zip(answers) {
            let good = answer.is_ok();
            if done.send(answer).is_ok() && good {
                new.remove(&channel);
            }
        }
        // Failed, or without a waiting caller: no caller would ever unsubscribe from these channels.
        for (channel, (_, slot)) in &new {
            state.wanted().remove(*slot, channel);
        }
        result?;
        let unwanted: Vec<String> = new.into_values().map(|(name, _)| name).filter(|name| link.is_on(name)).collect();
        self.write(link, &[], &unwanted).await.map(drop)
    }
}
