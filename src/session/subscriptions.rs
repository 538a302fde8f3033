//! Subscribing to channels of all kinds, once PocketBase allows it, and unsubscribing.

use super::ahead::{Ahead, Entering, Groundwork};
use super::limits::{FAILED_RECOVERY, weight};
use super::{AuthState, Failure, Session};
use crate::access::change_log::Moment;
use crate::broker::status_store::UserStatus;
use crate::channel::Kind;
use crate::connection::Connection;
use crate::hub::subscriber::SubscriptionState;
use crate::hub::{SubscribeError, SubscribeOptions};
use crate::outbox::Outbox;
use crate::protocol::codes::{self, ErrorCode};
use crate::protocol::encode::{self, Push};
use crate::protocol::{Position, Publication, Reply, Subscribe, SubscribeReply};
use futures_util::FutureExt;
use std::sync::Arc;
use tokio::time::{Instant, timeout_at};

/// Maximum bytes of missed publications in a subscribe reply. A slow line (64 kbit/s) carries them in eight seconds,
/// less than `pong_timeout`.
const PIECE: usize = 64 * 1024;
/// Bytes of a publication in a queue, in addition to its payload and its channel's name.
pub(super) const ENVELOPE: usize = 256;

impl Session {
    fn may_subscribe(&self, channel: &str) -> Result<(), ErrorCode> {
        if self.services.hub.subscription_state(channel, self.id) != SubscriptionState::NotSubscribed {
            return Err(codes::ALREADY_SUBSCRIBED);
        }
        let AuthState::Connected(connection) = &self.state else { return Err(codes::UNAUTHORIZED) };
        self.admit_subscription(connection)
    }

    /// Subscribes to a channel of any kind, with the parts prepared for the whole frame. The hub's part of the future is
    /// boxed: most subscribes wait for PocketBase, and need no room for the hub meanwhile.
    pub(super) async fn subscribe(
        &self,
        id: u32,
        request: &Subscribe,
        deadline: Instant,
        ahead: &mut Ahead<'_>,
    ) -> Result<(), Failure> {
        self.may_subscribe(&request.channel)?;
        let groundwork = &mut ahead.take(&request.channel);
        match Kind::of(&request.channel) {
            Kind::Feed => self.subscribe_to_feed(id, request, deadline, groundwork).await,
            Kind::Status => self.subscribe_to_status(id, request, deadline, groundwork).await,
            Kind::Updates => self.subscribe_to_updates(id, request, deadline, groundwork).await,
        }
    }

    async fn subscribe_to_feed(
        &self,
        id: u32,
        request: &Subscribe,
        deadline: Instant,
        groundwork: &mut Groundwork<'_>,
    ) -> Result<(), Failure> {
        let Subscribe { channel, recover, reject_unrecovered, join_leave, echo } = request;
        let connection = self.connection()?;
        if recover.is_some() {
            self.admit_recovery(connection)?;
        }
        let mut weight_of_missed = 0;
        let limit = self.services.config.max_queue_size / 2;
        let name: Arc<str> = channel.as_str().into();
        let mut present = groundwork.present.take();
        loop {
            let allowed = self.allowed(&name, groundwork.verdict.take(), deadline).await?;
            let history = groundwork.take_history();
            let (mut stale, mut needs_room) = (false, None);
            let accept = |mut reply: SubscribeReply| {
                if !self.services.access.holds(allowed, &connection.user, channel) {
                    // Access may have changed since PocketBase was asked.
                    stale = true;
                    return false;
                }
                // Charged even if they are not sent: the publications have been read.
                weight_of_missed = weight(reply.publications.len(), total_size(&reply.publications));
                let room = cost(&reply.publications, channel);
                if total_size(&reply.publications) > limit || room > limit / 2 * 3 {
                    // More than a client can take at once: the client reloads from PocketBase instead.
                    (reply.recovered, reply.publications) = (Some(false), Vec::new());
                } else if !connection.outbox.has_room(room) {
                    // Replies to earlier commands of the frame are still queued. A full queue would end the connection, and
                    // the client would ask for the same again.
                    needs_room = Some(room);
                    return false;
                }
                if reply.recovered == Some(false) {
                    weight_of_missed = weight_of_missed.max(FAILED_RECOVERY);
                }
                let unrecoverable = reply.recovered == Some(false) && *reject_unrecovered;
                if !unrecoverable {
                    reply_in_pieces(&connection.outbox, id, &name, reply);
                }
                !unrecoverable
            };
            let options = SubscribeOptions { recover: recover.as_ref(), join_leave: *join_leave, without_echo: !echo };
            let joining = async {
                self.services.relay_start.wait().await;
                if present.is_none() {
                    present = Some(Entering::new(&self.services.presence, &name, &self.client));
                    self.services.presence.enter(&name, &connection.info()).await?;
                }
                Box::pin(self.services.hub.subscribe(channel, connection, options, history, accept)).await
            };
            let joined = self.joined(joining, deadline).await;
            if let Some(room) = needs_room {
                // Read again afterwards: the channel goes on meanwhile.
                if let Err(failure) = self.room_for(room, deadline).await {
                    self.charge_recovery(connection, weight_of_missed);
                    return Err(failure);
                }
                continue;
            }
            self.charge_recovery(connection, std::mem::take(&mut weight_of_missed));
            if joined? {
                present.iter_mut().for_each(|present| present.stays = true);
                return Ok(());
            }
            if !stale {
                return Err(codes::UNRECOVERABLE_POSITION.into());
            }
        }
    }

    async fn subscribe_to_status(
        &self,
        id: u32,
        Subscribe { channel, .. }: &Subscribe,
        deadline: Instant,
        groundwork: &mut Groundwork<'_>,
    ) -> Result<(), Failure> {
        let connection = self.connection()?;
        let name: Arc<str> = channel.as_str().into();
        loop {
            let allowed = self.allowed(&name, groundwork.verdict.take(), deadline).await?;
            let accept = |state: UserStatus| {
                let still = self.services.access.holds(allowed, &connection.user, channel);
                if still {
                    let outbox = &connection.outbox;
                    let reply = encode::reply(outbox.format(), id, &Reply::SubscribeState(state.payload()));
                    outbox.push_reply_of(&name, reply);
                }
                still
            };
            let joining = Box::pin(self.services.hub.subscribe_status(channel, connection, accept));
            if self.joined(joining, deadline).await? {
                return Ok(());
            }
            // Access may have changed since PocketBase was asked.
        }
    }

    /// Updates channels keep nothing for returning clients, which are told to reload. `reject_unrecovered` is ignored,
    /// since after error 112 an SDK with `getState` subscribes again, and would get error 112 forever.
    async fn subscribe_to_updates(
        &self,
        id: u32,
        Subscribe { channel, recover, .. }: &Subscribe,
        deadline: Instant,
        groundwork: &mut Groundwork<'_>,
    ) -> Result<(), Failure> {
        let connection = self.connection()?;
        let services = &self.services;
        let channel: Arc<str> = channel.as_str().into();
        self.allowed(&channel, groundwork.verdict.take(), deadline).await?;
        let ready = timeout_at(deadline, async {
            services.relay_start.wait().await;
            services.hub.watched().await
        });
        match ready.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(self.broker_failed("subscribe", &error).into()),
            Err(_) => return Err(codes::INTERNAL.into()),
        }
        if !connection.add_channel(Arc::clone(&channel)) {
            return Err(codes::ALREADY_SUBSCRIBED.into());
        }
        let position = Position { offset: 0, epoch: crate::random::token::<6>() };
        let recovered = recover.as_ref().map(|_| false);
        let reply = Reply::Subscribe(SubscribeReply { position, recovered, publications: Vec::new() });
        let reply = encode::reply(connection.outbox.format(), id, &reply);
        let updates = &services.updates;
        if updates.subscribe(&channel, connection, reply, deadline).await {
            return Ok(());
        }
        connection.channels().remove(&channel);
        updates.unsubscribe(&channel, connection);
        Err(codes::INTERNAL.into())
    }

    /// The hub's answer: whether the subscribe was accepted. Not an `async fn`: the future would hold `joining` twice.
    fn joined(
        &self,
        joining: impl Future<Output = Result<bool, SubscribeError>>,
        deadline: Instant,
    ) -> impl Future<Output = Result<bool, Failure>> {
        timeout_at(deadline, joining).map(|joined| match joined {
            Ok(Ok(accepted)) => Ok(accepted),
            Ok(Err(SubscribeError::AlreadySubscribed)) => Err(codes::ALREADY_SUBSCRIBED.into()),
            Ok(Err(SubscribeError::OtherKind)) => Err(codes::UNKNOWN_CHANNEL.into()),
            Ok(Err(SubscribeError::Broker(error))) => Err(self.broker_failed("subscribe", &error).into()),
            Err(_) => Err(codes::INTERNAL.into()),
        })
    }

    /// PocketBase's verdict: the prepared verdict, or else a new answer.
    async fn allowed(
        &self,
        channel: &Arc<str>,
        verdict: Option<Result<Moment, ErrorCode>>,
        deadline: Instant,
    ) -> Result<Moment, Failure> {
        if let Some(verdict) = verdict {
            return Ok(verdict?);
        }
        let check = self.services.access.check(self.asker(), &self.connection()?.user, channel);
        Ok(timeout_at(deadline, check).await.unwrap_or(Err(codes::INTERNAL))?)
    }

    pub(super) fn leave(&self, connection: &Connection, channel: &str) {
        if Kind::of(channel) == Kind::Updates {
            connection.channels().remove(channel);
            self.services.updates.unsubscribe(channel, connection);
            return;
        }
        self.services.hub.unsubscribe(channel, connection);
    }
}

/// Total size of the payloads, in bytes.
pub(super) fn total_size(publications: &[Publication]) -> usize {
    publications.iter().map(|publication| publication.data.len()).sum()
}

/// Queues a subscribe reply. Missed publications beyond [`PIECE`] bytes follow as pushes, which the client handles as
/// usual: on a slow line, the client keeps the publications that have arrived, even if the connection ends before the
/// rest.
fn reply_in_pieces(outbox: &Arc<Outbox>, id: u32, channel: &Arc<str>, mut reply: SubscribeReply) {
    let mut size = 0;
    let fitting = reply.publications.iter().take_while(|publication| {
        size += publication.data.len();
        size <= PIECE
    });
    let first = fitting.count().max(1).min(reply.publications.len());
    let rest = reply.publications.split_off(first);
    let has_content = !reply.publications.is_empty();
    let format = outbox.format();
    let reply = encode::reply(format, id, &Reply::Subscribe(reply));
    let push = |publication| encode::push(format, channel, &Push::Publication(publication));
    let pushes = rest.iter().map(push).collect();
    outbox.push_reply_with(has_content.then_some(channel), reply, pushes);
}

/// Bytes in a client's queue for these publications, including the other bytes of their frames and the cost of each
/// frame.
fn cost(publications: &[Publication], channel: &str) -> usize {
    publications.iter().map(|publication| publication.data.len() + channel.len() + ENVELOPE).sum()
}
