//! The gateways' own channel ([`CONTROL`](crate::channel::CONTROL)): access changes, events of guarded records, and
//! orders of back ends, for every gateway.
//!
//! Each [`message`] arrives through the hub's watched channel, in outbox order and before later publications of other
//! channels. Access changes go to the [log of changes](crate::access::change_log), to [`updates`](crate::updates) and to
//! [`revocation`](crate::revocation), events of guarded records to [`updates`](crate::updates). Orders are executed at
//! once.

pub mod message;

use crate::access::change_log::Changes;
use crate::channel::Kind;
use crate::connection::Connections;
use crate::event::{Cause, Change};
use crate::hub::Watcher;
use crate::protocol::Payload;
use crate::protocol::codes;
use crate::protocol::json;
use crate::revocation::Revocation;
use crate::tasks::{self, Task};
use crate::updates::Updates;
use message::{ControlMessage, Order};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;

pub struct Control {
    pub revocation: Arc<Revocation>,
    pub updates: Arc<Updates>,
    pub connections: Arc<Connections>,
    pub changes: Arc<Changes>,
}

impl Control {
    /// Starts the check of all access every `interval`, without a suspension: for rules that depend on the time, and
    /// for writes that bypassed the hooks.
    pub fn start_rechecks(self: &Arc<Self>, interval: Duration) -> AbortOnDropHandle<()> {
        let control = Arc::clone(self);
        tasks::spawn(Task::AccessRechecks, async move {
            loop {
                tokio::time::sleep(interval).await;
                control.revocation.recheck().await;
                control.updates.recheck();
            }
        })
    }

    /// Applies an access change. First, earlier answers of PocketBase become invalid.
    fn apply(&self, change: &Change) {
        self.changes.note(change);
        self.updates.change(change);
        self.revocation.apply(change);
    }

    fn execute(&self, order: &Order) {
        match order {
            Order::Disconnect { user, reconnect } => {
                let reason = if *reconnect { codes::RECONNECT } else { codes::DISCONNECTED };
                let connections = self.connections.of(user);
                connections.iter().for_each(|connection| self.revocation.disconnect(connection, reason));
            }
            Order::Unsubscribe { user, channel } => {
                for connection in self.connections.of(user) {
                    match Kind::of(channel) {
                        Kind::Updates => self.updates.end(channel, &connection, codes::BY_SERVER),
                        Kind::Feed | Kind::Status => {
                            self.revocation.revoke(channel, &connection, Cause::Server, || true);
                        }
                    }
                }
            }
        }
    }
}

impl Watcher for Control {
    fn publication(&self, data: &Payload) {
        match serde_json::from_slice::<ControlMessage>(data.as_bytes()) {
            Ok(ControlMessage { access, updates, order, data }) => {
                order.iter().for_each(|order| self.execute(order));
                access.iter().for_each(|change| self.apply(change));
                if let (Some(route), Some(data)) = (updates, data) {
                    self.updates.event(&route, &Payload::from_raw(data));
                }
            }
            Err(error) => {
                let error = json::place(&error);
                tracing::error!(
                    error,
                    "a notice from PocketBase's hooks is unreadable; all subscriptions are suspended and checked again"
                );
                self.lost();
            }
        }
    }

    fn lost(&self) {
        self.apply(&Change::EVERYTHING);
        // Changes of records are lost as well.
        self.updates.lost();
    }
}
