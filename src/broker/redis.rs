//! The broker for any number of gateways, on a single Redis, a Redis with sentinels, or a Redis Cluster.
//!
//! A gateway has three links to each Redis node. Commands go over a [`link`] and fail with
//! [`BrokerError::Unavailable`]: within about two seconds if Redis is silent, within a quarter of a second if the link
//! is known to be down. Histories and presence lists have a separate link, so that large answers do not delay commands.
//! Messages arrive over [`subscriptions`], with one Redis pub/sub channel per wanted channel. Links reconnect by
//! themselves for as long as the broker lives; [`nodes`] routes commands. Follow a message: [`pubsub`] → [`delivery`] →
//! the sink. The calls of clients that come at the same time share requests ([`gather`]), except in a cluster.
//!
//! In a cluster, hash tags ([`keys`]) put the keys of a channel into one slot, and likewise the users of a bucket.
//! Publications go through sharded pub/sub on the slot's node. When a node dies or a slot moves, the subscriptions move
//! to the new node, and the sink gets a gap. With [`sentinels`], a new master is handled as a move of all slots.
//!
//! A channel is a hash (epoch, offset, last sequence number and bytes), a stream (the history) and the keys of
//! presence. Users' statuses have separate keys ([`status_store`]). [`scripts`] change the keys, each script atomically.
//! The [`ledger`] limits the total size of the histories. If Redis comes back empty, channels begin new epochs.

mod address;
mod delivery;
mod error;
mod gather;
#[doc(hidden)] // public for the fuzz targets in tests/fuzz
pub mod keys;
mod ledger;
mod link;
mod nodes;
mod publishing;
mod pubsub;
mod scripts;
mod sentinels;
mod slots;
mod status_store;
mod subscriber;
mod subscriptions;
#[doc(hidden)]
pub mod wire;

use super::status_store::Choice;
use super::{Broker, BrokerError, Entry, History, HistoryQuery, Mark, PresenceStats, Retention, Sink, new_epoch};
use crate::channel;
use crate::config::{RedisUrl, Topology};
use crate::protocol::{ClientInfo, Payload};
use crate::tasks::{self, Task};
use crate::tls::Tls;
use address::Address;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt;
use gather::{Answers, Gather};
use keys::Keys;
use ledger::{Accounts, Ledger};
use nodes::Nodes;
use parking_lot::Mutex;
use publishing::Known;
use redis::{Cmd, Value};
use scripts::{Scripts, call};
use status_store::Limited;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use subscriber::RedisSubscriber;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

/// How long [`RedisBroker::connect`] waits for a first answer of Redis.
const CONNECT_WAIT: Duration = Duration::from_secs(3);
/// Clients per call of a presence script: few enough that a crowded channel does not delay the rest.
const PRESENCE_CHUNK: usize = 256;
/// Longest expiry passed to Redis, which refuses times beyond the range of a clock: ten years stand for "forever".
const MAX_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A client in a channel.
type Present = (Arc<str>, ClientInfo);

pub struct RedisBroker {
    /// Key names, wanted channels, and the sink.
    state: Arc<RedisSubscriber>,
    nodes: Arc<Nodes>,
    scripts: Arc<Scripts>,
    retention: Retention,
    clustered: bool,
    /// True without a cluster and without sentinels.
    single: bool,
    ledger: Arc<Ledger>,
    /// Generation of the outbox, from the last read of the shared mark.
    generation: AtomicU64,
    /// The shared mark, as last read: the point to continue from if Redis loses the data. Never held across an await.
    known: Mutex<Known>,
    /// Connection number at which the mark was last read; 0: not read yet.
    marked: AtomicU64,
    /// Joins the leases of new connections into shared requests.
    entering: Gather<Limited, Option<Choice>>,
    /// Joins the arrivals of clients in channels into shared requests.
    arriving: Gather<Present, ()>,
    _tasks: [AbortOnDropHandle<()>; 2],
}

impl RedisBroker {
    /// As [`RedisBroker::connect_with`], without TLS.
    pub async fn connect(url: &str, prefix: &str, retention: Retention) -> Result<Arc<Self>, BrokerError> {
        let url = RedisUrl::read(url).map_err(BrokerError::Unavailable)?;
        Self::connect_with(url, None, prefix, retention).await
    }

    /// Connects to Redis 7 or newer: a single Redis, a cluster (one answering node is enough), or the master named by
    /// sentinels. `tls` is required by `rediss` URLs. All keys and pub/sub channels begin with `prefix`; gateways with
    /// the same prefix work together.
    ///
    /// Waits at most three seconds for an answer of Redis. Without an answer the broker is returned all the same: calls
    /// fail, [`Broker::check`] gives the reason, and calls succeed as soon as Redis answers.
    ///
    /// # Errors
    /// When `url` is invalid. The error does not quote the URL, which may contain a password.
    pub async fn connect_with(
        url: RedisUrl,
        tls: Option<Tls>,
        prefix: &str,
        retention: Retention,
    ) -> Result<Arc<Self>, BrokerError> {
        let address = Address::of(url, tls)?;
        let clustered = matches!(address.topology, Topology::Cluster);
        let single = matches!(address.topology, Topology::Single);
        let scripts = Arc::new(Scripts::new(clustered));
        let nodes = Arc::new(Nodes::start(address, prefix));
        let ready = async {
            while nodes.check().await.is_err() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let _ = timeout(CONNECT_WAIT, ready).await;
        let state = Arc::clone(nodes.state());
        let refresh = refresh(Arc::clone(&nodes), Arc::clone(&state), retention.clone());
        let ledger = Arc::<Ledger>::default();
        let accounts = Accounts {
            ledger: Arc::clone(&ledger),
            nodes: Arc::clone(&nodes),
            scripts: Arc::clone(&scripts),
            retention: retention.clone(),
        };
        let tasks = [tasks::spawn(Task::RedisRefresh, refresh), tasks::spawn(Task::RedisLedger, accounts.keep())];
        Ok(Arc::new_cyclic(|me| Self {
            state,
            nodes,
            scripts,
            retention,
            clustered,
            single,
            ledger,
            generation: AtomicU64::new(0),
            known: Mutex::default(),
            marked: AtomicU64::new(0),
            entering: gathered(me, |me, leases| async move { me.take_leases(&leases).await }.boxed()),
            arriving: gathered(me, |me, clients| async move { me.add_arriving(&clients).await }.boxed()),
            _tasks: tasks,
        }))
    }

    fn keys(&self) -> &Keys {
        &self.state.keys
    }

    /// In milliseconds. A position lives at least as long as the history: without a position, the history would have no
    /// epoch.
    fn position_ttl(&self) -> u64 {
        position_ttl(&self.retention)
    }

    async fn call_one(&self, script: &redis::Script, command: Cmd) -> Result<Value, BrokerError> {
        let answers = self.nodes.call(script, &[command]).await?;
        answers.into_iter().next().ok_or_else(|| BrokerError::Corrupt("Redis gave no answer to a script".into()))
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Calls a presence script once per channel and chunk; `write` turns the channel's items into arguments.
    async fn change_presence<T: Sync>(
        &self,
        script: &redis::Script,
        items: &[(Arc<str>, T)],
        write: impl Fn(&mut Cmd, &[&T]),
    ) -> Result<(), BrokerError> {
        let mut channels: HashMap<&str, Vec<&T>> = HashMap::new();
        for (channel, item) in items {
            channels.entry(channel).or_default().push(item);
        }
        let commands: Vec<Cmd> = channels
            .iter()
            .flat_map(|(channel, items)| items.chunks(PRESENCE_CHUNK).map(move |items| (channel, items)))
            .map(|(channel, items)| {
                let mut command = self.presence_call(script, channel);
                write(&mut command, items);
                command
            })
            .collect();
        for commands in commands.chunks(link::MAX_COMMANDS) {
            self.nodes.call(script, commands).await?;
        }
        Ok(())
    }

    async fn add_arriving(&self, clients: &[Present]) -> Result<Vec<()>, BrokerError> {
        self.add_clients(clients, true).await?;
        Ok(vec![(); clients.len()])
    }

    /// `arriving`: whether the clients come independently of each other, so that each learns of those before.
    async fn add_clients(&self, clients: &[Present], arriving: bool) -> Result<(), BrokerError> {
        let write = |command: &mut Cmd, infos: &[&ClientInfo]| {
            command.arg(millis(self.retention.presence_ttl).max(1)).arg(u8::from(arriving));
            for info in infos {
                command.arg(&*info.client).arg(wire::info_json(info));
            }
        };
        self.change_presence(&self.scripts.add_presence, clients, write).await
    }

    fn presence_call(&self, script: &redis::Script, channel: &str) -> Cmd {
        let keys = self.keys();
        let mut command = call(script, &[keys.presence(channel), keys.leases(channel), keys.users(channel)]);
        command.arg(self.keys().live(channel)).arg(self.retention.join_leave_max);
        command
    }
}

/// A gather whose requests the broker sends, for as long as the broker lives.
fn gathered<T: Clone + Send + 'static, A: Send + 'static>(
    me: &Weak<RedisBroker>,
    send: impl Fn(Arc<RedisBroker>, Vec<T>) -> Answers<A> + Send + Sync + 'static,
) -> Gather<T, A> {
    let me = me.clone();
    Gather::new(move |items| match me.upgrade() {
        Some(me) => send(me, items),
        None => async { Err(BrokerError::stopping()) }.boxed(),
    })
}

fn millis(duration: Duration) -> u64 {
    duration.min(MAX_TTL).as_millis().try_into().unwrap_or(u64::MAX)
}

fn position_ttl(retention: &Retention) -> u64 {
    millis(retention.position_ttl.max(retention.ttl)).max(1)
}

/// Extends the lifetime of the positions of this node's subscribed channels, since a subscription counts as a use.
async fn refresh(nodes: Arc<Nodes>, state: Arc<RedisSubscriber>, retention: Retention) {
    let ttl = position_ttl(&retention);
    let pause = Duration::from_millis(ttl / 3).clamp(Duration::from_millis(50), Duration::from_secs(3600));
    loop {
        sleep(pause).await;
        let wanted: Vec<String> = state.wanted().all().cloned().collect();
        for channels in wanted.chunks(link::MAX_COMMANDS) {
            let commands: Vec<Cmd> = channels
                .iter()
                .map(|channel| {
                    let mut command = redis::cmd("PEXPIRE");
                    command.arg(state.keys.position(channel)).arg(ttl);
                    command
                })
                .collect();
            if let Err(error) = nodes.run(&commands).await {
                tracing::debug!(%error, "could not extend the expiry of channel positions in Redis; trying again later");
                break;
            }
        }
    }
}

#[async_trait]
impl Broker for RedisBroker {
    async fn start(&self, sink: Weak<dyn Sink>) -> Result<(), BrokerError> {
        self.state.set_sink(sink)
    }

    async fn publish(&self, entries: &[Entry]) -> Result<usize, BrokerError> {
        self.publish_in_order(entries, None).await.map(|(new, _)| new)
    }

    async fn publish_and_advance(&self, entries: &[Entry], mark: Mark) -> Result<(usize, Option<Mark>), BrokerError> {
        self.publish_in_order(entries, Some(mark)).await
    }

    async fn signal(&self, channel: &str, data: Payload, info: ClientInfo) -> Result<(), BrokerError> {
        let mut command = redis::cmd(self.scripts.publish_command);
        command.arg(self.keys().live(channel)).arg(wire::signal(&data, &info));
        self.nodes.send(command).await.map(drop)
    }

    /// Redis answers with the number of receivers: connections to the node that carries the message.
    async fn send(&self, node: &str, message: Bytes) -> Result<bool, BrokerError> {
        let mut command = redis::cmd(self.scripts.publish_command);
        command.arg(self.keys().live(&channel::of_node(node))).arg(wire::node_message(&message));
        Ok(self.nodes.send(command).await? != Value::Int(0))
    }

    async fn subscribe(&self, channel: &str) -> Result<(), BrokerError> {
        self.nodes.set(channel, true).await
    }

    async fn unsubscribe(&self, channel: &str) -> Result<(), BrokerError> {
        self.nodes.set(channel, false).await
    }

    fn retention(&self) -> &Retention {
        &self.retention
    }

    async fn history(&self, channel: &str, query: HistoryQuery) -> Result<History, BrokerError> {
        let mut command = call(&self.scripts.history, &[self.keys().position(channel), self.keys().stream(channel)]);
        command.arg(new_epoch()).arg(self.position_ttl()).arg(self.generation());
        let limit = query.limit.unwrap_or(usize::MAX).min(i64::MAX as usize);
        // Redis takes inclusive bounds. Without a valid bound there is nothing to read.
        if limit > 0 {
            if !query.reverse {
                if let Some(from) = query.since.unwrap_or(0).checked_add(1) {
                    command.arg("XRANGE").arg(from).arg("+").arg(limit).arg(self.retention.read_bytes);
                }
            } else if let Some(from) = query.since.unwrap_or(u64::MAX).checked_sub(1) {
                command.arg("XREVRANGE").arg(from).arg("-").arg(limit).arg(self.retention.read_bytes);
            }
        }
        let mut calls = vec![command];
        // Redis may have lost the mark with its data. A gateway that starts now would then set the mark to the outbox's
        // end and skip events that clients at this position still need. Hence this call also restores the mark.
        calls.extend(self.known_mark().map(|mark| self.set_if_missing(mark)));
        let script = &self.scripts.history;
        let answers =
            if limit > 0 { self.nodes.read(script, &calls).await? } else { self.nodes.call(script, &calls).await? };
        let answer = answers.into_iter().next();
        wire::read_history(answer.ok_or_else(|| BrokerError::Corrupt("Redis gave no answer to a script".into()))?)
    }

    async fn forget(&self, channel: &str, seq: u64) -> Result<(), BrokerError> {
        let mut command = call(&self.scripts.forget, &[self.keys().position(channel), self.keys().stream(channel)]);
        command.arg(seq);
        self.call_one(&self.scripts.forget, command).await.map(drop)
    }

    async fn add_presence(&self, clients: &[Present]) -> Result<(), BrokerError> {
        match clients {
            [client] if !self.clustered => self.arriving.call(client.clone()).await,
            clients => self.add_clients(clients, false).await,
        }
    }

    async fn remove_presence(&self, clients: &[(Arc<str>, Arc<str>)]) -> Result<(), BrokerError> {
        let write = |command: &mut Cmd, clients: &[&Arc<str>]| {
            for client in clients {
                command.arg(&***client);
            }
        };
        self.change_presence(&self.scripts.remove_presence, clients, write).await
    }

    async fn presence(&self, channel: &str) -> Result<Vec<ClientInfo>, BrokerError> {
        let mut command = self.presence_call(&self.scripts.presence, channel);
        command.arg(self.retention.presence_max);
        let answers = self.nodes.read(&self.scripts.presence, &[command]).await?;
        let answer = answers.into_iter().next();
        wire::read_presence(answer.ok_or_else(|| BrokerError::Corrupt("Redis gave no answer to a script".into()))?)
    }

    async fn presence_stats(&self, channel: &str) -> Result<PresenceStats, BrokerError> {
        let command = self.presence_call(&self.scripts.presence_stats, channel);
        wire::read_presence_stats(&self.call_one(&self.scripts.presence_stats, command).await?)
    }

    async fn begin(&self, mark: Mark) -> Result<Mark, BrokerError> {
        self.begin_at(mark).await
    }

    async fn advance(&self, mark: Mark) -> Result<Mark, BrokerError> {
        let barrier = self.known_barrier();
        self.move_mark(&self.scripts.advance, mark, barrier).await
    }

    async fn restart(&self, mark: Mark) -> Result<Mark, BrokerError> {
        // All channels start new epochs, the barriers' channel included, so no earlier barrier counts.
        self.move_mark(&self.scripts.restart, mark, None).await
    }

    async fn claim(&self, name: &str, ttl: Duration) -> Result<bool, BrokerError> {
        let mut command = redis::cmd("SET");
        command.arg(self.keys().claim(name)).arg("").arg("NX").arg("PX").arg(millis(ttl).max(1));
        Ok(self.nodes.send(command).await? != Value::Nil)
    }

    /// Requires that all links are up and all wanted channels are subscribed.
    async fn check(&self) -> Result<(), BrokerError> {
        self.nodes.check().await
    }
}
