//! One connection: commands in, frames out. Knows the protocol's rules and nothing of sockets.
//!
//! The socket hands in each frame with [`Session::handle`]; replies and publications go into the connection's
//! [`Outbox`]. Dropping the session leaves everything that it had joined, whichever way it ended.

mod limits;
mod status;
pub mod timing;

use crate::access::Access;
use crate::access::changes::Moment;
use crate::auth::{Auth, AuthError, Verified};
use crate::broker::{Broker, BrokerError, HistoryQuery};
use crate::channel::Kind;
use crate::config::Config;
use crate::connection::{Connection, ConnectionId, Connections};
use crate::hub::suspension::Standing;
use crate::hub::{Hub, SubscribeError};
use crate::limits::Limits;
use crate::limits::places::Place;
use crate::metrics::Metrics;
use crate::outbox::Outbox;
use crate::presence::Presence;
use crate::protocol::codes::{self, Disconnect, ErrorCode};
use crate::protocol::json::{self, DecodeError};
use crate::protocol::{
    ClientInfo, Command, ConnectReply, HistoryRequest, Payload, Position, Publication, Reply, Request, Subscribe,
    SubscribeReply,
};
use crate::relay::Relay;
use crate::revocation::Revocation;
use crate::status::Statuses;
use limits::Pace;
use serde_json::value::RawValue;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;
use timing::{Due, Pings, Timing};
use tokio::time::{Instant, timeout_at};

/// What sessions work with, shared by all of them.
pub struct Services {
    pub config: Config,
    pub auth: Arc<Auth>,
    pub access: Arc<Access>,
    pub connections: Arc<Connections>,
    /// Works by itself; lives as long as the sessions do.
    pub revocation: Arc<Revocation>,
    pub broker: Arc<dyn Broker>,
    pub hub: Arc<Hub>,
    pub presence: Arc<Presence>,
    pub statuses: Arc<Statuses>,
    pub relay: Relay,
    pub limits: Limits,
    pub metrics: Metrics,
}

pub struct Session {
    id: ConnectionId,
    /// The connection's name towards clients.
    client: Arc<str>,
    services: Arc<Services>,
    outbox: Arc<Outbox>,
    timing: Timing,
    pace: Pace,
    /// Held until the client has proved who it is.
    newcomer: Option<Place>,
    state: State,
    /// The client has not answered a ping.
    lost: bool,
}

enum State {
    /// Nothing but `connect` is taken.
    New,
    Connected(Arc<Connection>),
    /// `connect` failed, which the client was told; nothing more is taken.
    Failed,
}

/// How a command may end, other than with a reply.
enum Failure {
    Error(ErrorCode),
    Disconnect(Disconnect),
}

impl From<ErrorCode> for Failure {
    fn from(error: ErrorCode) -> Self {
        Failure::Error(error)
    }
}

impl From<Disconnect> for Failure {
    fn from(disconnect: Disconnect) -> Self {
        Failure::Disconnect(disconnect)
    }
}

impl Session {
    /// `newcomer`: its place among those that have not sent their token yet.
    pub fn new(id: ConnectionId, services: Arc<Services>, outbox: Arc<Outbox>, newcomer: Option<Place>) -> Self {
        let now = Instant::now();
        let (timing, pace) = (Timing::new(&services.config, now), Pace::new(now));
        let client = crate::random::token::<16>().into();
        Self { id, client, services, outbox, timing, pace, newcomer, state: State::New, lost: false }
    }

    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// When [`Session::tick`] is due.
    pub fn next_tick(&self) -> Instant {
        self.timing.next()
    }

    /// Does what the time has come for.
    pub fn tick(&mut self, now: Instant) -> Result<(), Disconnect> {
        match self.timing.due(now, Pings::of(&self.services.config)) {
            Due::Nothing => Ok(()),
            Due::Ping => {
                self.outbox.push(json::PING);
                Ok(())
            }
            Due::End(reason) => {
                self.lost = reason == codes::NO_PONG;
                Err(reason)
            }
        }
    }

    /// Handles the commands of one frame in order. Replies go into the outbox; an error ends the connection.
    /// All commands of a frame together may wait for `command_timeout`.
    pub async fn handle(&mut self, frame: &str) -> Result<(), Disconnect> {
        let deadline = Instant::now() + self.services.config.command_timeout;
        self.show_life();
        let mut verdicts = self.check_access(frame, deadline).await;
        let mut is_empty = true;
        // One by one: all commands of a frame together may take fifty times its size.
        for command in json::decode(frame) {
            is_empty = false;
            let Command { id, request } = command.map_err(|error| self.malformed(&error))?;
            self.services.metrics.commands.with_label_values(&[request.name()]).inc();
            let done = match self.admit(&request) {
                Ok(()) => self.dispatch(id, request, deadline, &mut verdicts).await,
                refused => refused,
            };
            match done {
                Ok(()) => {}
                // What expects no reply gets none.
                Err(Failure::Error(_)) if id == 0 => {}
                Err(Failure::Error(error)) => self.reply_error(id, error),
                Err(Failure::Disconnect(reason)) => return Err(reason),
            }
        }
        if is_empty { self.count_frame() } else { Ok(()) }
    }

    /// Something has come from the client, be it its farewell.
    pub fn show_life(&self) {
        if let State::Connected(connection) = &self.state {
            connection.show_life();
        }
    }

    fn malformed(&self, error: &DecodeError) -> Disconnect {
        let kind = match error {
            DecodeError::Json(_) => "malformed",
            DecodeError::NoId => "no_id",
            DecodeError::UnknownCommand => "unknown_command",
        };
        self.services.metrics.bad_frames.with_label_values(&[kind]).inc();
        codes::BAD_REQUEST_FRAME
    }

    fn reply(&self, id: u32, reply: &Reply) {
        self.outbox.push(json::reply(id, reply));
    }

    fn reply_error(&self, id: u32, error: ErrorCode) {
        self.services.metrics.command_errors.with_label_values(&[&error.code.to_string()]).inc();
        self.reply(id, &Reply::Error(error));
    }

    /// Asks for all subscribes of a frame at once, so that a client with many channels waits once.
    async fn check_access(&self, frame: &str, deadline: Instant) -> Verdicts {
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

    async fn dispatch(
        &mut self,
        id: u32,
        request: Request<'_>,
        deadline: Instant,
        verdicts: &mut Verdicts,
    ) -> Result<(), Failure> {
        match (&self.state, &request) {
            (State::New, Request::Connect { .. }) | (State::Connected(_), _) => {}
            (State::New | State::Failed, _) => return Err(codes::BAD_REQUEST_FRAME.into()),
        }
        let reply = match request {
            Request::Connect { token } => Some(self.connect(&token, deadline).await?),
            Request::Subscribe(subscribe) => {
                self.may_subscribe(&subscribe.channel)?;
                match Kind::of(&subscribe.channel) {
                    Kind::Feed => self.subscribe(id, subscribe, deadline, verdicts).await?,
                    Kind::Status => self.subscribe_status(id, subscribe, deadline, verdicts).await?,
                    Kind::Updates => self.subscribe_to_updates(id, subscribe, deadline, verdicts).await?,
                }
                None
            }
            Request::Unsubscribe { channel } => {
                self.leave(self.connection()?, &channel);
                Some(Reply::Unsubscribe)
            }
            Request::Publish { channel, data } => Some(self.publish(&channel, data, deadline).await?),
            Request::History(history) => {
                self.history(id, history, deadline).await?;
                None
            }
            Request::Presence { channel } => {
                let clients = self.presence(&channel, deadline).await?;
                self.reply_to_subscriber(id, &channel, &Reply::Presence(clients))?;
                None
            }
            Request::PresenceStats { channel } => {
                let clients = self.presence(&channel, deadline).await?;
                let users = clients.iter().map(|info| &*info.user).collect::<HashSet<&str>>().len();
                self.reply_to_subscriber(id, &channel, &Reply::PresenceStats { clients: clients.len(), users })?;
                None
            }
            Request::Refresh { token } => Some(self.refresh(&token, deadline).await?),
            Request::Ping => Some(Reply::Ping),
            Request::Rpc { method, data } => Some(self.rpc(&method, data, deadline).await?),
            // Subscriptions have no tokens of their own here.
            Request::SubRefresh { .. } => return Err(codes::NOT_AVAILABLE.into()),
            // Nobody here listens to messages without a reply; they are counted and dropped.
            Request::Send => None,
            Request::Pong if self.timing.pong() => None,
            Request::Pong => return Err(codes::BAD_REQUEST_FRAME.into()),
        };
        if let Some(reply) = reply {
            self.reply(id, &reply);
        }
        Ok(())
    }

    async fn connect(&mut self, token: &str, deadline: Instant) -> Result<Reply, Failure> {
        if matches!(self.state, State::Connected(_)) {
            return Err(codes::BAD_REQUEST_FRAME.into());
        }
        self.state = State::Failed;
        if token.is_empty() {
            return Err(codes::UNAUTHORIZED.into());
        }
        let authenticated = self.authenticate(token, deadline).await;
        let ttl = authenticated.inspect_err(|_| self.fail())?;
        self.settle(deadline).await?;
        self.services.statuses.enter(self.connection()?, deadline).await;
        let ping = u32::try_from(self.services.config.ping_interval.as_secs()).unwrap_or(u32::MAX);
        Ok(Reply::Connect(ConnectReply { client: self.client.to_string(), ttl, ping }))
    }

    fn fail(&mut self) {
        if let State::Connected(connection) = std::mem::replace(&mut self.state, State::Failed) {
            self.services.connections.remove(&connection);
        }
    }

    async fn refresh(&mut self, token: &str, deadline: Instant) -> Result<Reply, Failure> {
        let ttl = self.authenticate(token, deadline).await?;
        Ok(Reply::Refresh { client: self.client.to_string(), ttl })
    }

    /// Verifies the token and takes over what it proves; returns its seconds left.
    async fn authenticate(&mut self, token: &str, deadline: Instant) -> Result<u32, Failure> {
        let mut verified = self.verify(token, deadline).await?;
        let connection = match &self.state {
            State::Connected(connection) => Arc::clone(connection),
            State::New | State::Failed => {
                let (user, account) = (&verified.identity.user, Arc::clone(&verified.account));
                let connection = Connection::new(self.id, user, Arc::clone(&self.client), &self.outbox, account);
                self.services.connections.add(&connection);
                self.state = State::Connected(Arc::clone(&connection));
                connection
            }
        };
        // From here on it hears of changes of its user; of those before it could not.
        while !self.services.auth.holds(&verified) {
            verified = self.verify(token, deadline).await?;
        }
        let Verified { identity, account, .. } = verified;
        if *connection.user != *identity.user {
            return Err(codes::INVALID_TOKEN.into());
        }
        connection.set_account(account);
        let now = SystemTime::now();
        let valid = identity.expires_at.duration_since(now).unwrap_or_default() + self.services.config.token_grace;
        self.timing.authenticated(Instant::now(), Pings::of(&self.services.config), valid);
        Ok(identity.ttl(now))
    }

    async fn verify(&self, token: &str, deadline: Instant) -> Result<Verified, Failure> {
        let now = SystemTime::now();
        match timeout_at(deadline, self.services.auth.verify(token, now)).await {
            Ok(Ok(verified)) if verified.account.is_banned(now) => Err(codes::BANNED.into()),
            Ok(Ok(verified)) => Ok(verified),
            Ok(Err(AuthError::Expired)) => Err(codes::TOKEN_EXPIRED.into()),
            Ok(Err(error @ AuthError::Invalid(_))) => {
                tracing::debug!(%error, client = &*self.client, "refused");
                Err(codes::INVALID_TOKEN.into())
            }
            Ok(Err(AuthError::Unavailable(error))) => {
                tracing::warn!(%error, "fetching a key failed; the client is told to try again");
                Err(codes::INTERNAL.into())
            }
            Err(_) => Err(codes::INTERNAL.into()),
        }
    }

    fn may_subscribe(&self, channel: &str) -> Result<(), ErrorCode> {
        if self.services.hub.standing(channel, self.id) != Standing::Out {
            return Err(codes::ALREADY_SUBSCRIBED);
        }
        let State::Connected(connection) = &self.state else { return Err(codes::UNAUTHORIZED) };
        if connection.channels().len() >= self.services.config.max_subscriptions {
            return Err(codes::LIMIT_EXCEEDED);
        }
        Ok(())
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

    async fn subscribe(
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

    /// Nothing is kept for clients that come back: they are told to reload.
    async fn subscribe_to_updates(
        &self,
        id: u32,
        Subscribe { channel, recover, reject_unrecovered, .. }: Subscribe,
        deadline: Instant,
        verdicts: &mut Verdicts,
    ) -> Result<(), Failure> {
        let connection = self.connection()?;
        let services = &self.services;
        let verdict = verdicts.remove(&channel);
        let channel: Arc<str> = channel.into();
        self.allowed(&channel, verdict, deadline).await?;
        if recover.is_some() && reject_unrecovered {
            return Err(codes::UNRECOVERABLE_POSITION.into());
        }
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

    fn leave(&self, connection: &Connection, channel: &str) {
        if Kind::of(channel) == Kind::Updates {
            connection.channels().remove(channel);
            self.services.revocation.updates.unsubscribe(channel, connection);
            return;
        }
        self.services.hub.unsubscribe(channel, connection);
        // Of those that have no presence it knows nothing.
        self.services.presence.leave(channel, &self.client);
    }

    /// A member's short-lived signal, such as typing. Everything that lasts is written through PocketBase.
    async fn publish(&self, channel: &str, data: &RawValue, deadline: Instant) -> Result<Reply, Failure> {
        /// Of two fields `type`, another parser than ours could take the other one.
        #[derive(serde::Deserialize)]
        struct Signal<'a> {
            #[serde(rename = "type", borrow)]
            kind: std::borrow::Cow<'a, str>,
        }
        if data.get().len() > self.services.config.max_signal_size {
            return Err(codes::LIMIT_EXCEEDED.into());
        }
        has_members(channel)?;
        let connection = self.connection()?;
        // Read whole, since it reaches other clients: what is nested beyond 128 levels, or holds half of a surrogate
        // pair, is more than the parsers of some SDKs take.
        let whole: serde_json::Value = serde_json::from_str(data.get()).map_err(|_| codes::BAD_REQUEST)?;
        if !whole.is_object() {
            return Err(codes::BAD_REQUEST.into());
        }
        let signal: Signal = serde_json::from_str(data.get()).map_err(|_| codes::BAD_REQUEST)?;
        require(self.services.hub.standing(channel, self.id))?;
        if !self.services.config.signals.contains(&signal.kind) {
            return Err(codes::PERMISSION_DENIED.into());
        }
        if connection.account().is_muted(SystemTime::now()) {
            return Err(codes::MUTED.into());
        }
        self.admit_signal(&connection.user, channel)?;
        let signal = self.services.broker.signal(channel, Payload::from_raw(data), connection.info());
        self.ask_broker("publish", deadline, signal).await?;
        Ok(Reply::Publish)
    }

    async fn history(&self, id: u32, request: HistoryRequest, deadline: Instant) -> Result<(), Failure> {
        has_members(&request.channel)?;
        require(self.services.hub.standing(&request.channel, self.id))?;
        let query = HistoryQuery {
            since: request.since.as_ref().map(|since| since.offset),
            limit: usize::try_from(request.limit).ok(),
            reverse: request.reverse,
        };
        let mut history =
            self.ask_broker("history", deadline, self.services.hub.history(&request.channel, query)).await?;
        if request.since.is_some_and(|since| !since.epoch.is_empty() && since.epoch != history.position.epoch) {
            return Err(codes::UNRECOVERABLE_POSITION.into());
        }
        truncate(&mut history.publications, self.services.config.max_queue_size / 2);
        let reply = Reply::History { publications: history.publications, position: history.position };
        self.reply_to_subscriber(id, &request.channel, &reply)
    }

    async fn presence(&self, channel: &str, deadline: Instant) -> Result<Vec<ClientInfo>, Failure> {
        has_members(channel)?;
        require(self.services.hub.standing(channel, self.id))?;
        self.ask_broker("presence", deadline, self.services.broker.presence(channel)).await
    }

    /// Replies with what only subscribers may see, if this connection still is one.
    fn reply_to_subscriber(&self, id: u32, channel: &str, reply: &Reply) -> Result<(), Failure> {
        let frame = json::reply(id, reply);
        Ok(require(self.services.hub.reply_to_subscriber(channel, self.connection()?, frame))?)
    }

    async fn ask_broker<T>(
        &self,
        operation: &str,
        deadline: Instant,
        answer: impl Future<Output = Result<T, BrokerError>>,
    ) -> Result<T, Failure> {
        match timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.broker_failed(operation, &error).into()),
            Err(_) => Err(codes::INTERNAL.into()),
        }
    }

    fn broker_failed(&self, operation: &str, error: &BrokerError) -> ErrorCode {
        self.services.metrics.broker_errors.with_label_values(&[operation]).inc();
        tracing::warn!(%error, operation, "the broker failed; the client is told to try again");
        codes::INTERNAL
    }

    fn connection(&self) -> Result<&Arc<Connection>, Failure> {
        match &self.state {
            State::Connected(connection) => Ok(connection),
            State::New | State::Failed => Err(codes::BAD_REQUEST_FRAME.into()),
        }
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

impl Drop for Session {
    fn drop(&mut self) {
        let State::Connected(connection) = &self.state else { return };
        self.services.connections.remove(connection);
        let channels = connection.channels().take();
        for channel in channels {
            self.leave(connection, &channel);
        }
        self.services.statuses.leave(connection, !self.lost);
        self.unsettle(connection);
    }
}

/// For what statuses and updates do not have: a history, a presence, and members who publish.
fn has_members(channel: &str) -> Result<(), ErrorCode> {
    match Kind::of(channel) {
        Kind::Feed => Ok(()),
        Kind::Status | Kind::Updates => Err(codes::NOT_AVAILABLE),
    }
}

/// For what only subscribers may do.
fn require(standing: Standing) -> Result<(), ErrorCode> {
    match standing {
        Standing::Subscribed => Ok(()),
        // It will be known in a moment.
        Standing::Suspended => Err(codes::INTERNAL),
        Standing::Out => Err(codes::PERMISSION_DENIED),
    }
}

type Verdicts = HashMap<String, Result<Moment, ErrorCode>>;

fn total_size(publications: &[Publication]) -> usize {
    publications.iter().map(|publication| publication.data.len()).sum()
}

/// Keeps as many publications from the front as fit into `limit` bytes, and at least one.
fn truncate(publications: &mut Vec<Publication>, limit: usize) {
    let mut size = 0;
    let fitting = publications.iter().take_while(|publication| {
        size += publication.data.len();
        size <= limit
    });
    let count = fitting.count().max(1);
    publications.truncate(count);
}
