//! Commands of a channel's subscribers: send signals, read the history, and ask who is present.

use super::limits::weight;
use super::subscriptions::{ENVELOPE, total_size};
use super::{Failure, Session};
use crate::broker::{BrokerError, HistoryQuery, PresenceStats};
use crate::channel::Kind;
use crate::hub::subscriber::SubscriptionState;
use crate::protocol::codes::{self, ErrorCode};
use crate::protocol::frame::Frame;
use crate::protocol::{ClientInfo, HistoryRequest, Payload, Reply, encode};
use std::sync::Arc;
use std::time::SystemTime;
use tokio::time::Instant;

impl Session {
    /// A member's short-lived signal, such as typing. Lasting changes are written through PocketBase.
    pub(super) async fn publish(&self, channel: &str, data: Payload, deadline: Instant) -> Result<Reply, Failure> {
        /// Refuses two fields `type`: another parser could read the other field.
        #[derive(serde::Deserialize)]
        struct Signal<'a> {
            #[serde(rename = "type", borrow)]
            kind: std::borrow::Cow<'a, str>,
        }
        if data.len() > self.services.config.max_signal_size {
            return Err(codes::LIMIT_EXCEEDED.into());
        }
        has_members(channel)?;
        let connection = self.connection()?;
        if connection.is_guest() {
            return Err(codes::PERMISSION_DENIED.into());
        }
        // Parsed as a whole, since other clients receive the signal: more than 128 levels of nesting, or half of a
        // surrogate pair, is more than the parsers of some SDKs accept.
        let whole: serde_json::Value = serde_json::from_slice(data.as_bytes()).map_err(|_| codes::BAD_REQUEST)?;
        if !whole.is_object() {
            return Err(codes::BAD_REQUEST.into());
        }
        let signal: Signal = serde_json::from_slice(data.as_bytes()).map_err(|_| codes::BAD_REQUEST)?;
        require(self.services.hub.subscription_state(channel, self.id))?;
        if !self.services.config.signals.contains(&signal.kind) {
            return Err(codes::PERMISSION_DENIED.into());
        }
        if connection.account().is_muted(SystemTime::now()) {
            return Err(codes::MUTED.into());
        }
        self.admit_signal(&connection.user, channel)?;
        let signal = self.services.broker.signal(channel, data, connection.info());
        self.ask_broker("publish", deadline, signal).await?;
        Ok(Reply::Publish)
    }

    pub(super) async fn history(&mut self, id: u32, request: HistoryRequest, deadline: Instant) -> Result<(), Failure> {
        has_members(&request.channel)?;
        require(self.services.hub.subscription_state(&request.channel, self.id))?;
        let since = request.since.as_ref().map(|since| since.offset);
        let most = self.services.config.history_limit;
        // A negative limit asks for all publications.
        let limit = usize::try_from(request.limit).map_or(most, |limit| limit.min(most));
        let query = HistoryQuery { since, limit: Some(limit), reverse: request.reverse };
        let mut history =
            self.ask_broker("history", deadline, self.services.hub.history(&request.channel, query)).await?;
        // Charged whether or not the answer is sent: the broker has read the history.
        let weight = weight(history.publications.len(), total_size(&history.publications));
        self.charge_read(&Arc::clone(self.connection()?), weight);
        if request.since.is_some_and(|since| !since.epoch.is_empty() && since.epoch != history.position.epoch) {
            return Err(codes::UNRECOVERABLE_POSITION.into());
        }
        // An offset beyond the last one belongs to another history, so nothing here lies before it.
        if request.reverse && since.is_some_and(|offset| offset > history.position.offset) {
            history.publications.clear();
        }
        let reply = Reply::History { publications: history.publications, position: history.position };
        self.reply_to_subscriber(&request.channel, encode::reply(self.outbox.format(), id, &reply), deadline).await
    }

    /// Lists present clients, up to `presence_max`. Returns the weight of the answer.
    pub(super) async fn presence(&self, id: u32, channel: &str, deadline: Instant) -> Result<u32, Failure> {
        has_members(channel)?;
        require(self.services.hub.subscription_state(channel, self.id))?;
        let listed = async {
            match self.services.broker.presence(channel).await {
                Err(BrokerError::Crowded) => Ok(None),
                listed => listed.map(Some),
            }
        };
        let listed = self.ask_broker("presence", deadline, listed).await?;
        let clients: Vec<ClientInfo> = listed.ok_or(codes::LIMIT_EXCEEDED)?;
        let count = clients.len();
        let frame = encode::reply(self.outbox.format(), id, &Reply::Presence(clients));
        // Users' keys may be long.
        if frame.len() > self.services.config.max_queue_size / 2 {
            return Err(codes::LIMIT_EXCEEDED.into());
        }
        let weight = weight(count, frame.len());
        self.reply_to_subscriber(channel, frame, deadline).await?;
        Ok(weight)
    }

    pub(super) async fn presence_stats(&self, id: u32, channel: &str, deadline: Instant) -> Result<(), Failure> {
        has_members(channel)?;
        require(self.services.hub.subscription_state(channel, self.id))?;
        let counting = self.services.broker.presence_stats(channel);
        let PresenceStats { clients, users } = self.ask_broker("presence", deadline, counting).await?;
        let frame = encode::reply(self.outbox.format(), id, &Reply::PresenceStats { clients, users });
        self.reply_to_subscriber(channel, frame, deadline).await
    }

    /// Sends a reply for subscribers only, once the queue has room, if the connection is then still subscribed.
    async fn reply_to_subscriber(&self, channel: &str, frame: Frame, deadline: Instant) -> Result<(), Failure> {
        self.room_for(frame.len() + ENVELOPE, deadline).await?;
        Ok(require(self.services.hub.reply_to_subscriber(channel, self.connection()?, frame))?)
    }
}

/// Refuses channels of statuses and updates, which have no history, no presence, and no members who publish.
fn has_members(channel: &str) -> Result<(), ErrorCode> {
    match Kind::of(channel) {
        Kind::Feed => Ok(()),
        Kind::Status | Kind::Updates => Err(codes::NOT_AVAILABLE),
    }
}

/// Refuses connections that are not subscribed.
fn require(standing: SubscriptionState) -> Result<(), ErrorCode> {
    match standing {
        SubscriptionState::Subscribed => Ok(()),
        // The access check under way decides in a moment.
        SubscriptionState::Suspended => Err(codes::INTERNAL),
        SubscriptionState::NotSubscribed => Err(codes::PERMISSION_DENIED),
    }
}
