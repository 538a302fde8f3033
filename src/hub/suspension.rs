//! Suspension of subscriptions during an access check: publications are held back until PocketBase answers, and are
//! then delivered, or dropped with the subscription.

use super::{Hub, State, Subscriber};
use crate::access::changes::Cause;
use crate::connection::{Connection, ConnectionId};
use crate::outbox::Outbox;
use crate::protocol::codes;
use crate::protocol::frame::Frame;
use crate::protocol::{ClientInfo, json};
use std::sync::Arc;

/// Frames held back for one suspended subscription. Past this limit the client is unsubscribed and has to recover.
pub(super) const HELD_MAX: usize = 256;

/// Channel name and connection of a subscription.
pub type Subscription = (Arc<str>, Arc<Connection>);

pub(super) struct Held {
    /// The strongest cause of the suspension so far.
    cause: Cause,
    frames: Vec<Frame>,
    /// True past [`HELD_MAX`] frames.
    overflowed: bool,
}

/// Outcome of [`Hub::revoke`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revoked {
    /// The subscription was ended. Holds the strongest cause, of the given cause and the causes of the suspension.
    Ended(Cause),
    /// The connection was not subscribed.
    Absent,
    /// The refusal was no longer valid; the subscription is unchanged.
    Overtaken,
}

/// State of a connection's subscription to a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Out,
    Subscribed,
    /// An access check is in progress.
    Suspended,
}

impl Subscriber {
    fn standing(&self) -> Standing {
        if self.held.is_none() { Standing::Subscribed } else { Standing::Suspended }
    }

    fn suspend(&mut self, cause: Cause) {
        let held = self.held.get_or_insert_with(|| Box::new(Held { cause, frames: Vec::new(), overflowed: false }));
        held.cause = held.cause.max(cause);
    }

    pub(super) fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// False for signals of blocked users, for own signals without `echo`, and for all signals during a suspension.
    pub(super) fn wants_signal(&self, sender: Option<&ClientInfo>) -> bool {
        let unwanted = |sender: &ClientInfo| {
            self.connection.blocks(&sender.user) || (!self.echo && sender.client == self.connection.client)
        };
        self.held.is_none() && !sender.is_some_and(unwanted)
    }

    pub(super) fn push(&mut self, frame: &Frame) -> bool {
        match &mut self.held {
            Some(held) => {
                held.take_in(frame);
                false
            }
            None => self.outbox.push(frame.clone()),
        }
    }
}

impl Held {
    pub(super) fn take_in(&mut self, frame: &Frame) {
        if self.frames.len() < HELD_MAX && !self.overflowed {
            self.frames.push(frame.clone());
        } else {
            *self = Held { cause: self.cause, frames: Vec::new(), overflowed: true };
        }
    }
}

impl State {
    fn standing(&self, connection: ConnectionId) -> Standing {
        self.subscribers.with(connection, |it| it.standing()).unwrap_or(Standing::Out)
    }
}

impl Hub {
    pub fn standing(&self, name: &str, connection: ConnectionId) -> Standing {
        let channel = self.find(name);
        channel.map_or(Standing::Out, |channel| channel.state().standing(connection))
    }

    /// Queues a reply with data for subscribers only, if the connection is subscribed and not suspended. Check and push
    /// are one step, under the channel's lock.
    pub fn reply_to_subscriber(&self, name: &str, connection: &Connection, reply: Frame) -> Standing {
        let Some(channel) = self.find(name) else { return Standing::Out };
        let state = channel.state();
        let standing = state.standing(connection.id);
        if standing == Standing::Subscribed {
            connection.outbox.push_reply_of(&channel.name, reply);
        }
        standing
    }

    pub fn channel_names(&self) -> Vec<Arc<str>> {
        self.channels.iter().map(|entry| Arc::clone(entry.key())).collect()
    }

    /// The subscriptions to these channels for which `which` is true.
    pub fn subscriptions(&self, channels: &[Arc<str>], which: impl Fn(&str, &Connection) -> bool) -> Vec<Subscription> {
        self.select(channels, |name, subscriber| which(name, &subscriber.connection))
    }

    /// Suspends the subscriptions to these channels for which `which` is true, and returns them. The caller has to call
    /// [`Hub::resume`] or [`Hub::revoke`] for each, including subscriptions that were suspended before.
    pub fn suspend(
        &self,
        channels: &[Arc<str>],
        cause: Cause,
        which: impl Fn(&str, &Connection) -> bool,
    ) -> Vec<Subscription> {
        self.select(channels, |name, subscriber| {
            let concerned = which(name, &subscriber.connection);
            if concerned {
                subscriber.suspend(cause);
            }
            concerned
        })
    }

    /// Suspends all subscriptions of these connections, at a cost independent of other subscribers. The caller has to
    /// resume or revoke each, as after [`Hub::suspend`].
    pub fn suspend_all_of(&self, connections: &[Arc<Connection>], cause: Cause) -> Vec<Subscription> {
        let mut suspended = Vec::new();
        for connection in connections {
            let names = connection.channels().to_vec();
            for channel in names.iter().filter_map(|name| self.find(name)) {
                let suspend = |subscriber: &mut Subscriber| subscriber.suspend(cause);
                if channel.state().subscribers.with(connection.id, suspend).is_some() {
                    suspended.push((Arc::clone(&channel.name), Arc::clone(connection)));
                }
            }
        }
        suspended
    }

    fn select(&self, channels: &[Arc<str>], mut which: impl FnMut(&str, &mut Subscriber) -> bool) -> Vec<Subscription> {
        let watched = self.watched.get().map(|watched| &watched.channel);
        let mut selected = Vec::new();
        for channel in channels.iter().filter_map(|name| self.find(name)) {
            // The caller may hold the state of the watched channel, which has no subscribers.
            if watched.is_some_and(|watched| Arc::ptr_eq(watched, &channel)) {
                continue;
            }
            channel.state().subscribers.each(|subscriber| {
                if which(&channel.name, subscriber) {
                    selected.push((Arc::clone(&channel.name), Arc::clone(&subscriber.connection)));
                }
            });
        }
        selected
    }

    /// Ends a suspension and delivers the held frames, if `still` is true under the channel's lock. Returns the result
    /// of `still`, or true if the channel does not exist.
    pub fn resume(&self, name: &str, connection: &Connection, still: impl FnOnce() -> bool) -> bool {
        let Some(channel) = self.find(name) else { return true };
        let mut state = channel.state();
        if !still() {
            return false;
        }
        let deliver = |subscriber: &mut Subscriber| {
            let Some(held) = subscriber.held.take() else { return false };
            if !held.overflowed {
                let delivered = held.frames.into_iter().filter(|frame| subscriber.push(frame)).count();
                self.metrics.deliveries.inc_by(delivered as u64);
            }
            held.overflowed
        };
        if state.subscribers.with(connection.id, deliver) == Some(true) {
            state.subscribers.remove(connection.id);
            self.end(&channel, &state, [connection], codes::INSUFFICIENT_STATE);
        }
        true
    }

    /// Ends a subscription after a refusal, if the refusal is `still` valid under the channel's lock. Queued
    /// publications of the channel are withdrawn from the outbox.
    pub fn revoke(&self, name: &str, connection: &Connection, cause: Cause, still: impl FnOnce() -> bool) -> Revoked {
        let Some(channel) = self.find(name) else { return Revoked::Absent };
        let mut state = channel.state();
        if !still() {
            return Revoked::Overtaken;
        }
        let Some(subscriber) = state.subscribers.remove(connection.id) else { return Revoked::Absent };
        let cause = subscriber.held.map_or(cause, |held| held.cause.max(cause));
        connection.outbox.withdraw(name, &json::push_begin(name));
        self.end(&channel, &state, [connection], cause.code());
        Revoked::Ended(cause)
    }
}
