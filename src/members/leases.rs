//! Status leases of this node's connections, and the reports that are due to the broker. No I/O: [`super::user_status`]
//! sends the reports.

use super::renewal::ByTurn;
use crate::broker::status_store::{Choice, End, Lease};
use crate::connection::Connection;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

#[derive(Default)]
pub(super) struct LocalLeases {
    /// Divided by the users.
    connections: ByTurn<LeasedConnection>,
    /// Reports due to the broker.
    due: Reports,
    /// Whether reports are being sent.
    busy: bool,
}

/// Reports to the broker: connections whose leases are taken or renewed, by client, and leases that end.
#[derive(Default)]
pub(super) struct Reports {
    pub leases: HashMap<Arc<str>, Arc<Connection>, foldhash::fast::RandomState>,
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
        self.connections.around_mut(&connection.user).insert(Arc::clone(&connection.client), added);
        lease
    }

    /// Removes a connection whose lease was refused.
    pub fn withdraw(&mut self, connection: &Connection) {
        self.connections.around_mut(&connection.user).remove(&connection.client);
    }

    /// Removes a connection, and reports the end of the lease. Returns the user's newest known choice; `None`: the
    /// connection is not among the leases.
    pub fn remove(&mut self, connection: &Connection, closed: bool) -> Option<Choice> {
        let around = self.connections.around_mut(&connection.user);
        let (client, LeasedConnection { connection, lost, choice, .. }) = around.remove_entry(&connection.client)?;
        self.due.leases.remove(&client);
        if !lost {
            self.due.ends.push(EndedLease::new(&connection, client, closed));
        }
        Some(choice)
    }

    /// Reports the end of a connection's lease, if the connection is not among the leases. Returns whether it is not.
    pub fn end_if_gone(&mut self, connection: &Connection) -> bool {
        let is_gone = !self.contains(connection);
        if is_gone {
            self.due.ends.push(EndedLease::new(connection, Arc::clone(&connection.client), true));
        }
        is_gone
    }

    pub fn contains(&self, connection: &Connection) -> bool {
        self.leased(connection).is_some()
    }

    fn leased(&self, connection: &Connection) -> Option<&LeasedConnection> {
        self.connections.around(&connection.user).get(&connection.client)
    }

    /// The connections of a turn.
    pub fn of_turn(&self, turn: usize) -> Vec<Arc<Connection>> {
        self.connections.of(turn).values().map(|leased| Arc::clone(&leased.connection)).collect()
    }

    pub fn connections(&self) -> Vec<Arc<Connection>> {
        self.connections.iter().map(|(_, leased)| Arc::clone(&leased.connection)).collect()
    }

    /// Records a choice, unless a newer choice is known. Returns the newest known choice; `None`: the client is gone.
    pub fn learn(&mut self, user: &str, client: &str, choice: Choice) -> Option<Choice> {
        let known = &mut self.connections.around_mut(user).get_mut(client)?.choice;
        if choice.at > known.at {
            *known = choice;
        }
        Some(*known)
    }

    /// Records whether a connection is idle. Returns true if the change has to be reported.
    pub fn set_idle(&mut self, connection: &Connection, idle: bool) -> bool {
        let leased = self.connections.around_mut(&connection.user).get_mut(&connection.client);
        let Some(leased) = leased.filter(|leased| leased.idle != idle) else { return false };
        leased.idle = idle;
        let connection = Arc::clone(&leased.connection);
        self.report(&connection);
        true
    }

    /// Queues the report of a lease.
    pub fn report(&mut self, connection: &Arc<Connection>) {
        self.due.leases.insert(Arc::clone(&connection.client), Arc::clone(connection));
    }

    /// Queues renewals of the connections' leases, except for connections that are gone or lost.
    pub fn renew<'a>(&mut self, connections: impl IntoIterator<Item = &'a Arc<Connection>>) {
        for connection in connections {
            if self.leased(connection).is_some_and(|leased| !leased.lost) {
                self.report(connection);
            }
        }
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
                self.due.leases.insert(Arc::clone(client), Arc::clone(&leased.connection));
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
        self.renew(reports.leases.values());
        // The leases of older ends have expired by themselves.
        let mut ends: Vec<EndedLease> = reports.ends.into_iter().filter(|end| end.at.elapsed() < lease).collect();
        ends.append(&mut self.due.ends);
        self.due.ends = ends;
    }

    /// The leases of these connections, without connections that are gone.
    pub fn leases_of(&self, connections: &[&Arc<Connection>]) -> Vec<Lease> {
        connections.iter().filter_map(|connection| self.leased(connection)).map(LeasedConnection::lease).collect()
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
