//! Status leases of this node's connections, and the reports that are due to the broker. No I/O: [`super::user_status`]
//! sends the reports.

use super::renewal::ByTurn;
use crate::broker::status_store::{Choice, End, Lease};
use crate::connection::Connection;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

#[derive(Default)]
pub(super) struct LocalLeases {
    connections: ByTurn<LeasedConnection>,
    /// Reports due to the broker.
    due: Reports,
    /// Whether reports are being sent.
    busy: bool,
}

/// Reports to the broker: clients whose leases are taken or renewed, and leases that end.
#[derive(Default)]
pub(super) struct Reports {
    pub leases: HashSet<Arc<str>, foldhash::fast::RandomState>,
    pub ends: Vec<EndedLease>,
}

struct LeasedConnection {
    connection: Arc<Connection>,
    idle: bool,
    lost: bool,
    choice: Choice,
}

pub(super) struct EndedLease {
    user: Arc<str>,
    client: Arc<str>,
    seen: Instant,
    at: Instant,
    closed: bool,
}

impl LocalLeases {
    /// Adds a connection. The caller reports the returned lease.
    pub fn add(&mut self, connection: &Arc<Connection>) -> Lease {
        let added = LeasedConnection {
            connection: Arc::clone(connection),
            idle: false,
            lost: false,
            choice: Choice::default(),
        };
        let lease = added.lease();
        let client = Arc::clone(&connection.client);
        self.connections.around_mut(&client).insert(client, added);
        lease
    }

    /// Removes a connection, and reports the end of the lease. Returns the user's newest known choice; `None`: the
    /// connection is not among the leases.
    pub fn remove(&mut self, client: &Arc<str>, closed: bool) -> Option<Choice> {
        let (client, LeasedConnection { connection, lost, choice, .. }) =
            self.connections.around_mut(client).remove_entry(client)?;
        self.due.leases.remove(&client);
        if !lost {
            self.due.ends.push(EndedLease::new(&connection, client, closed));
        }
        Some(choice)
    }

    pub fn contains(&self, client: &str) -> bool {
        self.connections.around(client).contains_key(client)
    }

    /// The clients of a turn.
    pub fn clients_of(&self, turn: usize) -> Vec<Arc<str>> {
        self.connections.of(turn).keys().cloned().collect()
    }

    pub fn clients(&self) -> Vec<Arc<str>> {
        self.connections.iter().map(|(client, _)| Arc::clone(client)).collect()
    }

    pub fn connections(&self) -> Vec<Arc<Connection>> {
        self.connections.iter().map(|(_, leased)| Arc::clone(&leased.connection)).collect()
    }

    /// Records a choice, unless a newer choice is known. Returns the newest known choice; `None`: the client is gone.
    pub fn learn(&mut self, client: &str, choice: Choice) -> Option<Choice> {
        let known = &mut self.connections.around_mut(client).get_mut(client)?.choice;
        if choice.at > known.at {
            *known = choice;
        }
        Some(*known)
    }

    /// Records whether a connection is idle. Returns true if the change has to be reported.
    pub fn set_idle(&mut self, client: &str, idle: bool) -> bool {
        let around = self.connections.around_mut(client);
        let Some((client, _)) = around.get_key_value(client) else { return false };
        let client = Arc::clone(client);
        let Some(leased) = around.get_mut(&client).filter(|leased| leased.idle != idle) else { return false };
        leased.idle = idle;
        self.due.leases.insert(client);
        true
    }

    /// Queues the report of a lease.
    pub fn report(&mut self, client: Arc<str>) {
        self.due.leases.insert(client);
    }

    /// Queues renewals of the clients' leases, except for clients that are gone or lost.
    pub fn renew(&mut self, clients: impl IntoIterator<Item = Arc<str>>) {
        let Self { connections, due, .. } = self;
        due.leases
            .extend(clients.into_iter().filter(|it| connections.around(it).get(it).is_some_and(|leased| !leased.lost)));
    }

    /// Reports connections without a sign of life for longer than `silence` as lost, and lost connections with a new
    /// sign of life as back. Returns true if there is any to report.
    pub fn look_for_silence(&mut self, silence: Duration) -> bool {
        let mut changed = false;
        let now = Instant::now();
        for (client, leased) in self.connections.iter_mut() {
            let lost = now.duration_since(leased.connection.seen()) > silence;
            if lost == leased.lost {
                continue;
            }
            (leased.lost, changed) = (lost, true);
            if lost {
                self.due.leases.remove(client);
                self.due.ends.push(EndedLease::new(&leased.connection, Arc::clone(client), false));
            } else {
                self.due.leases.insert(Arc::clone(client));
            }
        }
        changed
    }

    /// Takes the due reports, to send them now.
    pub fn take_due(&mut self) -> Reports {
        let due = std::mem::take(&mut self.due);
        self.busy = !due.is_empty();
        due
    }

    /// Whether no report is due or being sent.
    pub fn is_reported(&self) -> bool {
        !self.busy && self.due.is_empty()
    }

    /// Queues reports again after a failure. `lease`: duration of a lease.
    pub fn put_back(&mut self, reports: Reports, lease: Duration) {
        self.renew(reports.leases);
        // The leases of older ends have expired by themselves.
        let mut ends: Vec<EndedLease> = reports.ends.into_iter().filter(|end| end.at.elapsed() < lease).collect();
        ends.append(&mut self.due.ends);
        self.due.ends = ends;
    }

    /// The leases of these clients, without clients that are gone.
    pub fn leases_of(&self, clients: &[&Arc<str>]) -> Vec<Lease> {
        let leased = |client: &&Arc<str>| self.connections.around(client).get(*client).map(LeasedConnection::lease);
        clients.iter().filter_map(leased).collect()
    }
}

impl Reports {
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty() && self.ends.is_empty()
    }
}

impl LeasedConnection {
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

impl EndedLease {
    fn new(connection: &Connection, client: Arc<str>, closed: bool) -> Self {
        let user = Arc::clone(&connection.user);
        Self { user, client, seen: connection.seen(), at: Instant::now(), closed }
    }

    pub fn as_end(&self) -> End {
        let (user, client) = (Arc::clone(&self.user), Arc::clone(&self.client));
        End { user, client, age: self.seen.elapsed(), closed: self.closed }
    }
}
