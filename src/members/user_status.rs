//! Statuses of the users with connections on this node. Renews the connections' leases in the broker, which make their
//! users online, and serves users' commands about statuses. Invisible users are also hidden from the [`Presence`] of
//! all channels.
//!
//! Each new connection takes its lease at once. A single task reports changed and ended connections to the broker, in
//! batches, and repeats failed reports, so that no report overtakes another. A connection without a sign of life for long counts as lost before its end is
//! noticed.

use super::leases::{EndedLease, LocalLeases, Reports};
use super::presence::Presence;
use super::renewal::RenewalSchedule;
use crate::broker::BrokerError;
use crate::broker::status_store::{Choice, End, Lease, Mode, StatusStore, UserStatus};
use crate::config::Config;
use crate::connection::{Connection, Connections};
use crate::log_lines::limited;
use crate::metrics::Metrics;
use crate::tasks::{self, Task};
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::task::AbortOnDropHandle;

/// Maximum number of leases or ends per call to the broker.
const BATCH: usize = 500;
/// Pause between attempts while the broker fails.
const RETRY: Duration = Duration::from_millis(200);
/// Maximum time for a client's answer to a ping, in addition to the interval of pings, before the connection counts as
/// lost.
const ANSWER: Duration = Duration::from_secs(5);

pub struct UserStatuses {
    store: Arc<dyn StatusStore>,
    presence: Arc<Presence>,
    /// This node's connections, by user.
    register: Arc<Connections>,
    metrics: Metrics,
    lease: Duration,
    /// Time without a sign of life after which a connection counts as lost.
    silence: Duration,
    // Held for a few reads, never across an await.
    local: Mutex<LocalLeases>,
    /// Wakes the reporting task after a change of `local`.
    changed: Notify,
    /// Notified once nothing is left to report.
    reported: Notify,
}

impl UserStatuses {
    pub fn new(
        config: &Config,
        store: Arc<dyn StatusStore>,
        presence: Arc<Presence>,
        register: Arc<Connections>,
        metrics: Metrics,
    ) -> Arc<Self> {
        let silence = config.presence_ttl.max(config.ping_interval + ANSWER.min(config.pong_timeout));
        let (local, changed, reported) = (Mutex::default(), Notify::new(), Notify::new());
        Arc::new(Self {
            store,
            presence,
            register,
            metrics,
            lease: config.presence_ttl,
            silence,
            local,
            changed,
            reported,
        })
    }

    /// Starts the reports to the broker, and the search for silent connections.
    pub fn start_reports(self: &Arc<Self>) -> [AbortOnDropHandle<()>; 2] {
        // Several times within a third of a lease, by which a sweep may be late.
        let look = (self.lease / 30).min(Duration::from_secs(1));
        [
            tasks::spawn(Task::StatusReports, Arc::clone(self).run()),
            tasks::spawn(Task::StatusSilence, Arc::clone(self).look(look)),
        ]
    }

    /// Starts the renewal of each lease, three times within its duration: for a broker that several nodes share.
    pub fn start_renewal(self: &Arc<Self>) -> AbortOnDropHandle<()> {
        let schedule = RenewalSchedule::new(self.lease / 3);
        tasks::spawn(Task::StatusRenewal, Arc::clone(self).renew(schedule))
    }

    /// Reports changes to the broker.
    async fn run(self: Arc<Self>) {
        loop {
            self.changed.notified().await;
            self.report().await;
        }
    }

    /// Renews each lease in its turn.
    async fn renew(self: Arc<Self>, mut schedule: RenewalSchedule) {
        loop {
            let turn = schedule.next().await;
            let due = self.local().of_turn(turn);
            for (at, part) in schedule.parts(&due) {
                sleep_until(at).await;
                self.renew_now(part);
            }
        }
    }

    /// Looks for connections that have fallen silent, and sweeps the store.
    async fn look(self: Arc<Self>, pause: Duration) {
        let mut failed = false;
        loop {
            sleep(pause).await;
            self.look_for_silence();
            match self.store.sweep().await {
                Ok(()) if failed => {
                    // The broker may have lost its data.
                    let all = self.local().connections();
                    self.renew_now(&all);
                    failed = false;
                }
                Ok(()) => {}
                Err(error) => {
                    self.failed(&error);
                    failed = true;
                }
            }
        }
    }

    /// Reports a new connection. On return, the user is online and the node knows whether the user is invisible. Returns
    /// false if the user already has `limit` other connections, on all nodes together; then nothing has changed. If the
    /// broker does not answer by the deadline, the connection counts as entered, since a limit must not end the service,
    /// and the report is repeated in the background.
    pub async fn enter(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
        limit: Option<usize>,
        deadline: Instant,
    ) -> bool {
        let lease = self.local().add(connection);
        let entering = tasks::outliving(Arc::clone(self).take_lease(lease, Arc::clone(connection), limit));
        let stopping = || Err(BrokerError::stopping());
        match timeout_at(deadline, entering).await.map(|entered| entered.unwrap_or_else(stopping)) {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => {
                self.local().withdraw(connection);
                return false;
            }
            failed => {
                if let Ok(Err(error)) = failed {
                    self.failed(&error);
                    limited!(
                        warn,
                        "uncounted connections",
                        %error,
                        "the broker could not count a user's connections; the client is accepted nevertheless"
                    );
                }
                self.local().report(connection);
                self.changed.notify_one();
            }
        }
        true
    }

    /// Takes a new connection's lease. Returns false past the limit. If the connection has ended meanwhile, its end may have
    /// reached the broker before the lease, and is reported again.
    async fn take_lease(
        self: Arc<Self>,
        lease: Lease,
        connection: Arc<Connection>,
        limit: Option<usize>,
    ) -> Result<bool, BrokerError> {
        let Some(choice) = self.store.enter(&lease, limit).await? else { return Ok(false) };
        self.learn(std::slice::from_ref(&lease), &[choice]);
        if self.local().end_if_gone(&connection) {
            self.changed.notify_one();
        }
        Ok(true)
    }

    /// Number of the user's connections, on all nodes together.
    pub async fn connections(&self, user: &str) -> Result<usize, BrokerError> {
        self.store.connections(user).await
    }

    fn learn(&self, leases: &[Lease], choices: &[Choice]) {
        for (lease, choice) in leases.iter().zip(choices) {
            let known = self.local().learn(&lease.user, &lease.client, *choice);
            if let Some(known) = known {
                self.presence.hide(&lease.user, known.mode == Mode::Invisible);
            }
        }
    }

    /// `closed`: whether either side closed the connection, rather than a ping being left unanswered.
    pub fn leave(&self, connection: &Connection, closed: bool) {
        let Some(choice) = self.local().remove(connection, closed) else { return };
        if choice.mode == Mode::Invisible && !self.has_others(connection) {
            self.presence.forget(&connection.user);
        }
        self.changed.notify_one();
    }

    /// Whether this node holds another connection of the user.
    fn has_others(&self, connection: &Connection) -> bool {
        let others = self.register.of(&connection.user);
        let local = self.local();
        others.iter().any(|other| other.id != connection.id && local.contains(other))
    }

    /// Records that a connection's user is idle, or active again.
    pub fn set_idle(&self, connection: &Connection, idle: bool) {
        if self.local().set_idle(connection, idle) {
            self.changed.notify_one();
        }
    }

    /// Sets the user's chosen mode; `None` only reads. Returns the mode, and the status shown to other users.
    pub async fn choose(&self, user: &str, mode: Option<Mode>) -> Result<(Mode, UserStatus), BrokerError> {
        let (choice, state) = self.store.choose(user, mode).await?;
        let of_user = self.register.of(user);
        let known = {
            let mut local = self.local();
            of_user.iter().filter_map(|connection| local.learn(user, &connection.client, choice)).last()
        };
        if let Some(known) = known {
            self.presence.hide(user, known.mode == Mode::Invisible);
        }
        Ok((choice.mode, state))
    }

    /// Statuses in the order of `users`.
    pub async fn of(&self, users: &[String]) -> Result<Vec<UserStatus>, BrokerError> {
        let states = self.store.statuses(users).await?;
        Ok(states.into_iter().map(Option::unwrap_or_default).collect())
    }

    /// Returns once the broker knows all reports.
    pub async fn all_reported(&self) {
        loop {
            let reported = self.reported.notified();
            if self.local().is_reported() {
                return;
            }
            reported.await;
        }
    }

    /// For the end of the process: ends all remaining connections as if they had closed.
    pub fn withdraw(&self) {
        let left = self.local().connections();
        left.iter().for_each(|connection| self.leave(connection, true));
    }

    /// Queues renewals of the connections' leases, except for connections that are gone or lost.
    fn renew_now(&self, connections: &[Arc<Connection>]) {
        self.local().renew(connections);
        self.changed.notify_one();
    }

    fn look_for_silence(&self) {
        if self.local().look_for_silence(self.silence) {
            self.changed.notify_one();
        }
    }

    /// Sends due reports until none is left. Ends go first: a client that returned after being lost has a lease in the
    /// end.
    async fn report(&self) {
        loop {
            let reports = self.local().take_due();
            if reports.is_empty() {
                self.reported.notify_waiters();
                return;
            }
            if let Err(error) = self.send(&reports).await {
                self.failed(&error);
                self.local().put_back(reports, self.lease);
                sleep(RETRY).await;
            }
        }
    }

    async fn send(&self, reports: &Reports) -> Result<(), BrokerError> {
        let ends: Vec<End> = reports.ends.iter().map(EndedLease::as_end).collect();
        for ends in ends.chunks(BATCH) {
            self.store.end(ends).await?;
        }
        let connections: Vec<&Arc<Connection>> = reports.leases.values().collect();
        for connections in connections.chunks(BATCH) {
            let leases = self.local().leases_of(connections);
            let choices = self.store.lease(&leases).await?;
            self.learn(&leases, &choices);
        }
        Ok(())
    }

    fn failed(&self, error: &BrokerError) {
        self.metrics.broker_errors.with_label_values(&["status"]).inc();
        tracing::debug!(%error, "a call to the broker about users' statuses failed; retrying");
    }

    fn local(&self) -> MutexGuard<'_, LocalLeases> {
        self.local.lock()
    }
}

#[cfg(test)]
#[path = "user_status_tests.rs"]
mod tests;
