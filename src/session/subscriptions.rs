//! Into a channel of any kind, once PocketBase allows it, and out of it again.

use super::{Failure, Session, State};
use crate::access::changes::Moment;
use crate::broker::status::State as Status;
use crate::channel::Kind;
use crate::connection::Connection;
use crate::hub::SubscribeError;
use crate::hub::suspension::Standing;
use crate::presence::Presence;
use crate::protocol::codes::{self, ErrorCode};
use crate::protocol::{Command, Position, Publication, Reply, Request, Subscribe, SubscribeReply, json};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tokio::time::{Instant, timeout_at};

/// What PocketBase has said already of channels that a frame names.
pub(super) type Verdicts = HashMap<String, Result<Moment, ErrorCode>>;

impl Session {
    /// Asks for all subscribes of a frame at once, so that a client with many channels waits once.
    pub(super) async fn check_access(&self, frame: &str, deadline: Instant) -> Verdicts {
        let State::Connected(connection) = &self.state else { return HashMap::new() };
        if frame.matches("\"subscribe\"").nth(1).is_none() {
            // One alone is asked about in its turn.
            return HashMap::new();
        }
        let channels: HashSet<String> = json::decode(frame)
            .filter_map(|command| match command {
                Ok(Command { request: Request::Subscribe(Subscribe { channel, .. }), .. }) => Some(channel),
                _ => None,
            })
            .filter(|channel| !connection.channels().contains(channel))
            .take(self.services.config.max_subscriptions.min(self.commands_left()))
            .collect();
        let checks = channels.into_iter().map(|channel| async move {
            let name: Arc<str> = channel.as_str().into();
            let verdict = timeout_at(deadline, self.services.access.check(&connection.user, &name)).await;
            (channel, verdict.unwrap_or(Err(codes::INTERNAL)))
        });
        futures_util::future::join_all(checks).await.into_iter().collect()
    }

    pub(super) fn may_subscribe(&self, channel: &str) -> Result<(), ErrorCode> {
        if self.services.hub.standing(channel, self.id) != Standing::Out {
            return Err(codes::ALREADY_SUBSCRIBED);
        }
        let State::Connected(connection) = &self.state else { return Err(codes::UNAUTHORIZED) };
        if connection.channels().len() >= self.services.config.max_subscriptions {
            return Err(codes::LIMIT_EXCEEDED);
        }
        Ok(())
    }

    pub(super) async fn subscribe(
        &self,
        id: u32,
        Subscribe { channel, recover, reject_unrecovered, join_leave, echo }: Subscribe,
        deadline: Instant,
        verdicts: &mut Verdicts,
    ) -> Result<(), Failure> {
        let connection = Arc::clone(self.connection()?);
        let mut entering =
            Entering { presence: &self.services.presence, channel: &channel, client: &self.client, stays: false };
        let limit = self.services.config.max_queue_size / 2;
        let name: Arc<str> = channel.as_str().into();
        let mut verdict = verdicts.remove(&channel);
        loop {
            let allowed = self.allowed(&name, verdict.take(), deadline).await?;
            let mut stale = false;
            let accept = |mut reply: SubscribeReply| {
                if !self.services.access.holds(allowed, &connection.user, &channel) {
                    // Something has changed since PocketBase was asked.
                    stale = true;
                    return false;
                }
                if total_size(&reply.publications) > limit {
                    // More than a client can take at once: it reloads from PocketBase instead.
                    (reply.recovered, reply.publications) = (Some(false), Vec::new());
                }
                let unrecoverable = reply.recovered == Some(false) && reject_unrecovered;
                if !unrecoverable {
                    let has_content = !reply.publications.is_empty();
                    let reply = json::reply(id, &Reply::Subscribe(reply));
                    if has_content {
                        connection.outbox.push_reply_of(&name, reply);
                    } else {
                        connection.outbox.push(reply);
                    }
                }
                !unrecoverable
            };
            let joined = timeout_at(deadline, async {
                self.services.relay.started().await;
                self.services.presence.enter(&name, &connection.info()).await?;
                self.services.hub.subscribe(&channel, &connection, recover.as_ref(), accept).await
            });
            let failure = match joined.await {
                Ok(Ok(true)) => {
                    entering.stays = true;
                    if join_leave {
                        self.services.hub.tell_movements(&channel, &connection);
                    }
                    if !echo {
                        self.services.hub.spare_echo(&channel, &connection);
                    }
                    return Ok(());
                }
                Ok(Ok(false)) if stale => continue,
                Ok(Ok(false)) => codes::UNRECOVERABLE_POSITION,
                Ok(Err(SubscribeError::AlreadySubscribed)) => codes::ALREADY_SUBSCRIBED,
                Ok(Err(SubscribeError::OtherKind)) => codes::UNKNOWN_CHANNEL,
                Ok(Err(SubscribeError::Broker(error))) => self.broker_failed("subscribe", &error),
                Err(_) => codes::INTERNAL,
            };
            return Err(failure.into());
        }
    }

    pub(super) async fn subscribe_status(
        &self,
        id: u32,
        Subscribe { channel, .. }: Subscribe,
        deadline: Instant,
        verdicts: &mut Verdicts,
    ) -> Result<(), Failure> {
        let connection = self.connection()?;
        let name: Arc<str> = channel.as_str().into();
        let mut verdict = verdicts.remove(&channel);
        loop {
            let allowed = self.allowed(&name, verdict.take(), deadline).await?;
            let accept = |state: Status| {
                let still = self.services.access.holds(allowed, &connection.user, &channel);
                if still {
                    let reply = json::reply(id, &Reply::SubscribeState(state.payload()));
                    connection.outbox.push_reply_of(&name, reply);
                }
                still
            };
            let joined = self.services.hub.subscribe_status(&channel, connection, accept);
            match timeout_at(deadline, joined).await {
                Ok(Ok(true)) => return Ok(()),
                // Something has changed since PocketBase was asked.
                Ok(Ok(false)) => {}
                Ok(Err(SubscribeError::Broker(error))) => return Err(self.broker_failed("subscribe", &error).into()),
                Ok(Err(SubscribeError::AlreadySubscribed)) => return Err(codes::ALREADY_SUBSCRIBED.into()),
                Ok(Err(SubscribeError::OtherKind)) => return Err(codes::UNKNOWN_CHANNEL.into()),
                Err(_) => return Err(codes::INTERNAL.into()),
            }
        }
    }

    /// Nothing is kept for clients that come back: they are told to reload. `reject_unrecovered` is ignored, since after
    /// error 112 an SDK with `getState` subscribes again, and would get error 112 for ever.
    pub(super) async fn subscribe_to_updates(
        &self,
        id: u32,
        Subscribe { channel, recover, .. }: Subscribe,
        deadline: Instant,
        verdicts: &mut Verdicts,
    ) -> Result<(), Failure> {
        let connection = self.connection()?;
        let services = &self.services;
        let verdict = verdicts.remove(&channel);
        let channel: Arc<str> = channel.into();
        self.allowed(&channel, verdict, deadline).await?;
        let ready = timeout_at(deadline, async {
            services.relay.started().await;
            services.hub.watched().await
        });
        match ready.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(self.broker_failed("subscribe", &error).into()),
            Err(_) => return Err(codes::INTERNAL.into()),
        }
        if !connection.channels().insert(Arc::clone(&channel)) {
            return Err(codes::ALREADY_SUBSCRIBED.into());
        }
        let position = Position { offset: 0, epoch: crate::random::token::<6>() };
        let recovered = recover.map(|_| false);
        let reply =
            json::reply(id, &Reply::Subscribe(SubscribeReply { position, recovered, publications: Vec::new() }));
        let updates = &services.revocation.updates;
        if updates.subscribe(&channel, connection, reply, deadline).await {
            return Ok(());
        }
        connection.channels().remove(&channel);
        updates.unsubscribe(&channel, connection);
        Err(codes::INTERNAL.into())
    }

    /// PocketBase's verdict: the one that is there already, or else its answer.
    async fn allowed(
        &self,
        channel: &Arc<str>,
        verdict: Option<Result<Moment, ErrorCode>>,
        deadline: Instant,
    ) -> Result<Moment, Failure> {
        if let Some(verdict) = verdict {
            return Ok(verdict?);
        }
        let check = self.services.access.check(&self.connection()?.user, channel);
        Ok(timeout_at(deadline, check).await.unwrap_or(Err(codes::INTERNAL))?)
    }

    pub(super) fn leave(&self, connection: &Connection, channel: &str) {
        if Kind::of(channel) == Kind::Updates {
            connection.channels().remove(channel);
            self.services.revocation.updates.unsubscribe(channel, connection);
            return;
        }
        self.services.hub.unsubscribe(channel, connection);
        // Of those that have no presence it knows nothing.
        self.services.presence.leave(channel, &self.client);
    }
}

/// A client that is present in a channel before it is subscribed. Should it not be in the end, or be gone in the
/// midst of it, it is taken out again.
struct Entering<'a> {
    presence: &'a Arc<Presence>,
    channel: &'a str,
    client: &'a str,
    stays: bool,
}

impl Drop for Entering<'_> {
    fn drop(&mut self) {
        if !self.stays {
            self.presence.leave(self.channel, self.client);
        }
    }
}

fn total_size(publications: &[Publication]) -> usize {
    publications.iter().map(|publication| publication.data.len()).sum()
}
