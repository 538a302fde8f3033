//! Subscriptions whose access may have ended: while PocketBase is asked, what comes for them is held back, and then
//! delivered, or dropped with the subscription.

use super::{Hub, State, Subscriber};
use crate::access::changes::Cause;
use crate::connection::{Connection, ConnectionId};
use crate::outbox::Outbox;
use crate::protocol::codes;
use crate::protocol::frame::Frame;
use crate::protocol::{ClientInfo, json};
use std::sync::Arc;

/// What is held back for a suspended subscription, in frames. Beyond that it has to recover.
pub(super) const HELD_MAX: usize = 256;

/// A subscription, as the hub hands it out.
pub type Subscription = (Arc<str>, Arc<Connection>);

pub(super) struct Held {
    /// The most telling of those that came so far.
    cause: Cause,
    frames: Vec<Frame>,
    /// There was too much of it.
    overflowed: bool,
}

/// Outcome of [`Hub::revoke`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revoked {
    /// The subscription was ended, for this cause: the strongest of the given cause and the causes of the suspension.
    Ended(Cause),
    /// There was no such subscription.
    Absent,
    /// The refusal was no longer valid; nothing was changed.
    Overtaken,
}

/// How a connection stands to a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Out,
    Subscribed,
    /// PocketBase is being asked whether it may stay.
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

    /// Not those of users whom it blocks, nor its own if it does not want them, nor any that come while it is
    /// suspended.
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

    /// Queues a reply that holds what only subscribers may see, if the connection is one in this very moment.
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

    /// The subscriptions of these connections to these channels.
    pub fn subscriptions(&self, channels: &[Arc<str>], which: impl Fn(&str, &Connection) -> bool) -> Vec<Subscription> {
        self.select(channels, |name, subscriber| which(name, &subscriber.connection))
    }

    /// As [`Hub::subscriptions`], and holds back what comes for them from now on. Each, also if it was suspended
    /// before, has to be followed by [`Hub::resume`] or [`Hub::revoke`].
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

    /// Suspends all subscriptions of these connections, at a cost that does not depend on other subscribers. As after
    /// [`Hub::suspend`], each has to be resumed or revoked.
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
            // Whoever calls this may hold its state. It has no subscribers.
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

    /// Ends a suspension and delivers what was held back, if the subscription may `still` go on in this very moment.
    /// Returns whether that was so.
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

    /// Ends a subscription for want of access, if the refusal is `still` valid under the channel's lock. Queued
    /// publications of the channel are withdrawn.
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
