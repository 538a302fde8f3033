//! Suspension of subscriptions during an access check: publications are held back until PocketBase answers, and are
//! then delivered, or dropped with the subscription.

use super::Hub;
use super::subscriber::{Subscriber, SubscriptionState};
use crate::connection::{Connection, ConnectionId};
use crate::event::Cause;
use crate::protocol::codes;
use crate::protocol::frame::Frame;
use std::sync::Arc;

/// Channel name and connection of a subscription.
pub type Subscription = (Arc<str>, Arc<Connection>);

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

impl Hub {
    pub fn subscription_state(&self, name: &str, connection: ConnectionId) -> SubscriptionState {
        let channel = self.find(name);
        channel.map_or(SubscriptionState::NotSubscribed, |channel| channel.state().subscribers.state_of(connection))
    }

    /// Queues a reply with data for subscribers only, if the connection is subscribed and not suspended. Check and push
    /// are one step, under the channel's lock.
    pub fn reply_to_subscriber(&self, name: &str, connection: &Connection, reply: Frame) -> SubscriptionState {
        let Some(channel) = self.find(name) else { return SubscriptionState::NotSubscribed };
        let state = channel.state();
        let subscription = state.subscribers.state_of(connection.id);
        if subscription == SubscriptionState::Subscribed {
            connection.outbox.push_reply_of(&channel.name, reply);
        }
        subscription
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
        connection.outbox.withdraw(name);
        self.end(&channel, &state, [connection], cause.code());
        Revoked::Ended(cause)
    }
}
