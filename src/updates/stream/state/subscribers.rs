//! Subscribed users with their connections: answers to subscribes, unsubscribes, ends of subscriptions.

use super::StreamState;
use crate::connection::Connection;
use crate::log_lines::limited;
use crate::protocol::codes;
use crate::protocol::codes::UnsubscribeCode;
use crate::protocol::encode::Push;
use crate::updates::stream::inputs::{InputQueue, SubscribeRequest, UnsubscribeRequest};
use crate::updates::stream::loads::LoadSubject;
use crate::updates::visibility::{Classes, Viewer};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Time to keep the visible records of a user without connections, and to continue an abandoned load, so that a
/// subscribe after a timeout needs no new load.
pub(super) const IDLE: Duration = Duration::from_secs(30);

/// A subscribed user.
pub(super) struct SubscribedUser {
    /// The records that the user's clients know.
    pub viewer: Viewer,
    pub connections: Vec<Arc<Connection>>,
    /// Set while the user's access is in doubt and delivery is suspended.
    pub suspended: Option<Suspended>,
    /// The time when the last connection left.
    pub empty_since: Option<Instant>,
}

pub(super) struct Suspended {
    /// The first batch without delivery.
    pub from: u64,
    pub since: Instant,
}

pub(super) type SubscribedUsers = HashMap<Arc<str>, SubscribedUser, foldhash::fast::RandomState>;

impl StreamState {
    /// Answers the waiting subscribes of all users with known visible records.
    pub(super) fn answer_subscribes(&mut self) {
        let Self { waiting, subscribed, metrics, .. } = self;
        waiting.retain(|user, requests| {
            // A user in doubt without connections is new in this batch.
            let known =
                |subscriber: &&mut SubscribedUser| subscriber.suspended.is_none() || subscriber.connections.is_empty();
            let Some(subscriber) = subscribed.get_mut(user).filter(known) else { return true };
            for SubscribeRequest { connection, reply, accepted, .. } in requests.drain(..) {
                // False: the subscribe has timed out.
                if accepted.send(()).is_ok() {
                    metrics.subscriptions.inc();
                    connection.outbox.push(reply);
                    subscriber.connections.push(connection);
                    subscriber.empty_since = None;
                }
            }
            false
        });
    }

    pub(super) fn unsubscribe(&mut self, UnsubscribeRequest { user, connection, code }: &UnsubscribeRequest) {
        if let Some(requests) = self.waiting.get_mut(user) {
            requests.retain(|request| request.connection.id != *connection);
        }
        let Some(subscriber) = self.subscribed.get_mut(user) else { return };
        let Some(index) = subscriber.connections.iter().position(|other| other.id == *connection) else { return };
        let left = subscriber.connections.swap_remove(index);
        if subscriber.connections.is_empty() {
            self.subscribed.remove(user);
            self.loads.remove(&LoadSubject::User(Arc::clone(user)));
        }
        self.unsubscribed(&left, *code);
    }

    /// Drops abandoned subscribes, idle users, unused classes and unused ids.
    pub(super) fn purge(&mut self) {
        self.waiting.retain(|_, requests| {
            requests.retain(|request| !request.accepted.is_closed());
            !requests.is_empty()
        });
        let loads = &mut self.loads;
        self.subscribed.retain(|user, subscriber| {
            let stays = subscriber.empty_since.is_none_or(|since| since.elapsed() < IDLE);
            if !stays {
                loads.remove(&LoadSubject::User(Arc::clone(user)));
            }
            stays
        });
        self.end_abandoned_loads();
        let read = self.loads.iter().filter_map(|(_, load)| load.result.as_ref()?.as_ref()?.class.clone());
        let wanted =
            self.subscribed.values().filter_map(|subscriber| subscriber.viewer.class.clone()).chain(read).collect();
        self.classes.retain(&wanted);
        if self.names.len() > 2 * self.names_in_use {
            self.names.retain(|name| Arc::strong_count(name) > 1);
            self.names_in_use = self.names.len().max(1024);
        }
    }

    /// Ends loads of users without subscribes and connections, and loads of unused classes, after [`IDLE`]: a client
    /// subscribes again after a timeout.
    fn end_abandoned_loads(&mut self) {
        let Self { waiting, subscribed, loads, .. } = self;
        if loads.is_empty() {
            return;
        }
        let of_users = subscribed.values().filter_map(|subscriber| subscriber.viewer.class.clone());
        let of_loads = loads.iter().filter_map(|(_, load)| load.result.as_ref()?.as_ref()?.class.clone());
        let classes: HashSet<Arc<str>> = of_users.chain(of_loads).collect();
        loads.end_abandoned(IDLE, |subject| match subject {
            LoadSubject::User(user) => waiting.contains_key(user) || subscribed.contains_key(user),
            LoadSubject::Class(class) => classes.contains(class),
        });
    }

    /// Ends all subscriptions after a loss of inputs; clients subscribe again.
    pub(super) fn end_all(&mut self, queue: &InputQueue) {
        let channel = &*self.channel;
        limited!(
            warn,
            "updates channels with lost events",
            channel,
            "events of an updates channel were lost; its subscribers get code 2500, subscribe again and reload"
        );
        let users: Vec<Arc<str>> = self.subscribed.keys().cloned().collect();
        self.metrics.updates_lost.inc();
        users.iter().for_each(|user| self.end(user, queue));
        self.loads.clear();
        self.classes = Classes::default();
        self.log.trim(self.batch + 1);
    }

    /// Ends the subscriptions of a user with code 2500, so that clients subscribe again and reload.
    pub(super) fn end(&mut self, user: &Arc<str>, queue: &InputQueue) {
        self.loads.remove(&LoadSubject::User(Arc::clone(user)));
        let Some(subscriber) = self.subscribed.remove(user) else { return };
        for connection in subscriber.connections {
            queue.lock().wanted.remove(&connection.id);
            // False: the client has just unsubscribed.
            let is_there = connection.channels().remove(&self.channel);
            self.unsubscribed(&connection, is_there.then_some(codes::INSUFFICIENT_STATE));
        }
    }

    fn unsubscribed(&self, connection: &Connection, code: Option<UnsubscribeCode>) {
        self.metrics.subscriptions.dec();
        if let Some(code) = code {
            connection.outbox.push_alone(&self.channel, &Push::Unsubscribe(code));
        }
    }
}
