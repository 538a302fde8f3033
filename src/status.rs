//! Statuses of the users with connections on this node. Renews the connections' leases in the broker, which make their
//! users online, and serves users' commands about statuses. Invisible users are also hidden from the [`Presence`] of
//! all channels.
//!
//! A single task reports new, changed and ended connections to the broker, in batches, and repeats failed reports, so
//! that no report overtakes another. A connection without a sign of life for long counts as lost before its end is
//! noticed.

use crate::broker::BrokerError;
use crate::broker::status::{Choice, End, Lease, Mode, State, StatusStore};
use crate::config::Config;
use crate::connection::{Connection, Connections};
use crate::metrics::Metrics;
use crate::presence::Presence;
use crate::tasks::{self, Task};
use crate::turns::Turns;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

/// Maximum number of leases or ends per call to the broker.
const BATCH: usize = 500;
/// Pause between attempts while the broker fails.
const RETRY: Duration = Duration::from_millis(200);
/// Maximum time for a client's answer to a ping, in addition to the interval of pings, before the connection counts as
/// lost.
const ANSWER: Duration = Duration::from_secs(5);

pub struct Statuses {
    store: Arc<dyn StatusStore>,
    presence: Arc<Presence>,
    /// This node's connections, by user.
    register: Arc<Connections>,
    metrics: Metrics,
    lease: Duration,
    /// Time without a sign of life after which a connection counts as lost.
    silence: Duration,
    // Held for a few reads, never across an await.
    local: Mutex<Local>,
    changed: Notify,
    told: Notify,
}

#[derive(Default)]
struct Local {
    /// By client.
    connections: HashMap<Arc<str>, Held, foldhash::fast::RandomState>,
    /// Reports due to the broker.
    due: Due,
    /// Whether reports are being sent.
    busy: bool,
}

#[derive(Default)]
struct Due {
    leases: HashSet<Arc<str>, foldhash::fast::RandomState>,
    ends: Vec<Ended>,
}

struct Held {
    connection: Arc<Connection>,
    idle: bool,
    lost: bool,
    choice: Choice,
}

struct Ended {
    user: Arc<str>,
    client: Arc<str>,
    seen: Instant,
    at: Instant,
    closed: bool,
}

impl Statuses {
    pub fn new(
        config: &Config,
        store: Arc<dyn StatusStore>,
        presence: Arc<Presence>,
        register: Arc<Connections>,
        metrics: Metrics,
    ) -> Arc<Self> {
        let silence = config.presence_ttl.max(config.ping_interval + ANSWER.min(config.pong_timeout));
        let (local, changed, told) = (Mutex::default(), Notify::new(), Notify::new());
        Arc::new(Self { store, presence, register, metrics, lease: config.presence_ttl, silence, local, changed, told })
    }

    /// Runs for as long as `statuses` lives.
    pub async fn run(statuses: Weak<Self>) {
        let Some(me) = statuses.upgrade() else { return };
        // Several times within a third of a lease, by which a sweep may be late.
        let look = (me.lease / 30).min(Duration::from_secs(1));
        let lease = me.lease;
        drop(me);
        tasks::spawn(Task::StatusSilence, Self::look(statuses.clone(), look));
        tasks::spawn(Task::StatusRenewal, Self::renew(statuses.clone(), Turns::new(lease / 3)));
        while let Some(me) = statuses.upgrade() {
            match timeout(look, me.changed.notified()).await {
                Ok(()) => me.tell().await,
                Err(_) => continue,
            }
        }
    }

    /// Renews each lease in its turn.
    async fn renew(statuses: Weak<Self>, mut turns: Turns) {
        loop {
            turns.next().await;
            let Some(due) = statuses.upgrade().map(|me| me.clients(|client| turns.is_of(client))) else { return };
            for (at, part) in turns.parts(&due) {
                sleep_until(at).await;
                let Some(me) = statuses.upgrade() else { return };
                me.tell_again(part);
            }
        }
    }

    /// Looks for connections that have fallen silent, and sweeps the store.
    async fn look(statuses: Weak<Self>, pause: Duration) {
        let mut failed = false;
        loop {
            sleep(pause).await;
            let Some(me) = statuses.upgrade() else { return };
            me.look_for_silence();
            match me.store.sweep().await {
                Ok(()) if failed => {
                    // The broker may have lost its data.
                    me.tell_again(&me.clients(|_| true));
                    failed = false;
                }
                Ok(()) => {}
                Err(error) => {
                    me.failed(&error);
                    failed = true;
                }
            }
        }
    }

    /// Reports a new connection. On return, the user is online and the node knows whether the user is invisible. If
    /// the broker does not answer by the deadline, the report is repeated in the background.
    pub async fn enter(&self, connection: &Arc<Connection>, deadline: Instant) {
        let client = Arc::clone(&connection.client);
        let held = Held { connection: Arc::clone(connection), idle: false, lost: false, choice: Choice::default() };
        let lease = held.lease();
        self.local().connections.insert(Arc::clone(&client), held);
        match timeout_at(deadline, self.store.lease(std::slice::from_ref(&lease))).await {
            Ok(Ok(choices)) => self.learn(std::slice::from_ref(&lease), &choices),
            failed => {
                if let Ok(Err(error)) = failed {
                    self.failed(&error);
                }
                self.local().due.leases.insert(client);
                self.changed.notify_one();
            }
        }
    }

    fn learn(&self, leases: &[Lease], choices: &[Choice]) {
        for (lease, choice) in leases.iter().zip(choices) {
            let known = self.local().connections.get_mut(&lease.client).map(|held| held.learn(*choice));
            if let Some(known) = known {
                self.presence.hide(&lease.user, known.mode == Mode::Invisible);
            }
        }
    }

    /// `closed`: whether either side closed the connection, rather than a ping being left unanswered.
    pub fn leave(&self, connection: &Connection, closed: bool) {
        let mut local = self.local();
        let Some((client, held)) = local.connections.remove_entry(&connection.client) else { return };
        local.due.leases.remove(&client);
        let Held { connection, lost, choice, .. } = held;
        if !lost {
            local.due.ends.push(Ended::new(&connection, client, closed));
        }
        drop(local);
        if choice.mode == Mode::Invisible && !self.has_others(&connection) {
            self.presence.forget(&connection.user);
        }
        self.changed.notify_one();
    }

    /// Whether this node holds another connection of the user.
    fn has_others(&self, connection: &Connection) -> bool {
        let others = self.register.of(&connection.user);
        let local = self.local();
        others.iter().any(|other| other.id != connection.id && local.connections.contains_key(&other.client))
    }

    /// Records that a connection's user is idle, or active again.
    pub fn set_idle(&self, connection: &Connection, idle: bool) {
        let mut local = self.local();
        let Local { connections, due, .. } = &mut *local;
        let Some((client, held)) = connections.get_key_value(&connection.client) else { return };
        if held.idle == idle {
            return;
        }
        let client = Arc::clone(client);
        due.leases.insert(Arc::clone(&client));
        if let Some(held) = connections.get_mut(&client) {
            held.idle = idle;
        }
        drop(local);
        self.changed.notify_one();
    }

    /// Sets the user's chosen mode; `None` only reads. Returns the mode, and the status shown to other users.
    pub async fn choose(&self, user: &str, mode: Option<Mode>) -> Result<(Mode, State), BrokerError> {
        let (choice, state) = self.store.choose(user, mode).await?;
        let of_user = self.register.of(user);
        let known = {
            let mut local = self.local();
            let learn =
                |connection: &Arc<Connection>| Some(local.connections.get_mut(&connection.client)?.learn(choice));
            of_user.iter().filter_map(learn).last()
        };
        if let Some(known) = known {
            self.presence.hide(user, known.mode == Mode::Invisible);
        }
        Ok((choice.mode, state))
    }

    /// Statuses in the order of `users`.
    pub async fn of(&self, users: &[String]) -> Result<Vec<State>, BrokerError> {
        let states = self.store.statuses(users).await?;
        Ok(states.into_iter().map(Option::unwrap_or_default).collect())
    }

    /// Returns once the broker knows all reports.
    pub async fn settled(&self) {
        loop {
            let told = self.told.notified();
            let settled = {
                let local = self.local();
                !local.busy && local.due.leases.is_empty() && local.due.ends.is_empty()
            };
            if settled {
                return;
            }
            told.await;
        }
    }

    /// For the end of the process: ends all remaining connections as if they had closed.
    pub fn withdraw(&self) {
        let left: Vec<Arc<Connection>> =
            self.local().connections.values().map(|it| Arc::clone(&it.connection)).collect();
        left.iter().for_each(|connection| self.leave(connection, true));
    }

    fn clients(&self, which: impl Fn(&str) -> bool) -> Vec<Arc<str>> {
        self.local().connections.keys().filter(|client| which(client)).cloned().collect()
    }

    /// Queues renewals of the clients' leases, except for clients that are gone or lost.
    fn tell_again(&self, clients: &[Arc<str>]) {
        let mut local = self.local();
        let Local { connections, due, .. } = &mut *local;
        let there = clients.iter().filter(|&client| connections.get(client).is_some_and(|held| !held.lost));
        due.leases.extend(there.cloned());
        drop(local);
        self.changed.notify_one();
    }

    fn look_for_silence(&self) {
        let mut local = self.local();
        let Local { connections, due, .. } = &mut *local;
        let mut changed = false;
        for (client, held) in connections {
            let lost = held.connection.seen().elapsed() > self.silence;
            if lost == held.lost {
                continue;
            }
            (held.lost, changed) = (lost, true);
            if lost {
                due.leases.remove(client);
                due.ends.push(Ended::new(&held.connection, Arc::clone(client), false));
            } else {
                due.leases.insert(Arc::clone(client));
            }
        }
        drop(local);
        if changed {
            self.changed.notify_one();
        }
    }

    /// Sends due reports until none is left. Ends go first: a client that returned after being lost has a lease in the
    /// end.
    async fn tell(&self) {
        loop {
            let (ends, leases) = {
                let mut local = self.local();
                let Due { leases, ends } = std::mem::take(&mut local.due);
                local.busy = !leases.is_empty() || !ends.is_empty();
                (ends, leases)
            };
            if ends.is_empty() && leases.is_empty() {
                self.told.notify_waiters();
                return;
            }
            if let Err(error) = self.tell_these(&ends, &leases).await {
                self.failed(&error);
                self.put_back(ends, leases);
                sleep(RETRY).await;
            }
        }
    }

    fn put_back(&self, ends: Vec<Ended>, leases: impl IntoIterator<Item = Arc<str>>) {
        let mut local = self.local();
        let Local { connections, due, .. } = &mut *local;
        due.leases.extend(leases.into_iter().filter(|it| connections.get(it).is_some_and(|held| !held.lost)));
        // The leases of older ends have expired by themselves.
        let mut ends: Vec<Ended> = ends.into_iter().filter(|end| end.at.elapsed() < self.lease).collect();
        ends.append(&mut due.ends);
        due.ends = ends;
    }

    async fn tell_these(&self, ends: &[Ended], leases: &HashSet<Arc<str>, impl Sync>) -> Result<(), BrokerError> {
        let ends: Vec<End> = ends.iter().map(Ended::as_end).collect();
        for ends in ends.chunks(BATCH) {
            self.store.end(ends).await?;
        }
        let clients: Vec<&Arc<str>> = leases.iter().collect();
        for clients in clients.chunks(BATCH) {
            let leases: Vec<Lease> = {
                let local = self.local();
                clients.iter().filter_map(|client| local.connections.get(*client).map(Held::lease)).collect()
            };
            let choices = self.store.lease(&leases).await?;
            self.learn(&leases, &choices);
        }
        Ok(())
    }

    fn failed(&self, error: &BrokerError) {
        self.metrics.broker_errors.with_label_values(&["status"]).inc();
        tracing::debug!(%error, "a call to the broker about users' statuses failed; retrying");
    }

    fn local(&self) -> MutexGuard<'_, Local> {
        self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Returns the newest known choice.
    fn learn(&mut self, choice: Choice) -> Choice {
        if choice.at > self.choice.at {
            self.choice = choice;
        }
        self.choice
    }

    fn lease(&self) -> Lease {
        Lease {
            user: Arc::clone(&self.connection.user),
            client: Arc::clone(&self.connection.client),
            idle: self.idle,
            age: self.connection.seen().elapsed(),
            choice: self.choice,
        }
    }
}

impl Ended {
    fn new(connection: &Connection, client: Arc<str>, closed: bool) -> Self {
        let user = Arc::clone(&connection.user);
        Self { user, client, seen: connection.seen(), at: Instant::now(), closed }
    }

    fn as_end(&self) -> End {
        let (user, client) = (Arc::clone(&self.user), Arc::clone(&self.client));
        End { user, client, age: self.seen.elapsed(), closed: self.closed }
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
