//! A connection's session: commands in, frames out. Knows the protocol's rules and nothing of sockets.
//!
//! The socket passes each frame to [`Session::handle`]; replies and publications go into the connection's [`Outbox`].
//! Dropping the session leaves all channels, however the connection ended.
//!
//! This module dispatches the commands. [`login`] authenticates the client. [`subscriptions`] subscribes to channels
//! and unsubscribes, with the parts that [`ahead`] has prepared for a whole frame. [`member`] contains the commands of
//! subscribers, [`status`] the commands about users' statuses. [`limits`] limits all of them, and [`journal`] logs the
//! outcome.

mod ahead;
mod journal;
mod limits;
mod login;
mod member;
mod status;
mod subscriptions;
pub mod timing;
mod upcoming;

use crate::access::Access;
use crate::auth::Auth;
use crate::broker::{Broker, BrokerError};
use crate::config::Config;
use crate::connection::{Connection, ConnectionId, Connections};
use crate::hub::Hub;
use crate::inboxes::Inboxes;
use crate::limits::Limits;
use crate::limits::addresses::counted_as;
use crate::limits::guests::GuestPlace;
use crate::limits::newcomers::NewcomerPlace;
use crate::log_lines::limited;
use crate::members::presence::Presence;
use crate::members::user_status::UserStatuses;
use crate::metrics::Metrics;
use crate::outbox::Outbox;
use crate::pocketbase::batch::Asker;
use crate::protocol::codes::{self, Disconnect, ErrorCode};
use crate::protocol::decode::{ClientFrame, DecodeError};
use crate::protocol::{Command, Reply, Request, StreamAddress};
use crate::refusals::Refusals;
use crate::relay::RelayStart;
use crate::updates::Updates;
use ahead::Ahead;
use futures_util::FutureExt;
use journal::Subject;
use limits::Pace;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use timing::{Clock, Timing};
use tokio::time::{Instant, timeout_at};

/// Interval at which a half-full queue is checked for room.
const DRAIN_CHECK: Duration = Duration::from_millis(2);

/// The parts of the gateway that sessions use, shared by all sessions.
pub struct Services {
    pub config: Config,
    pub auth: Arc<Auth>,
    pub access: Arc<Access>,
    pub connections: Arc<Connections>,
    pub updates: Arc<Updates>,
    pub broker: Arc<dyn Broker>,
    pub hub: Arc<Hub>,
    pub inboxes: Arc<Inboxes>,
    pub presence: Arc<Presence>,
    pub statuses: Arc<UserStatuses>,
    pub relay_start: RelayStart,
    pub limits: Limits,
    pub refusals: Arc<Refusals>,
    pub metrics: Metrics,
}

pub struct Session {
    id: ConnectionId,
    /// Client id of the connection, shown to other clients.
    client: Arc<str>,
    services: Arc<Services>,
    outbox: Arc<Outbox>,
    pace: Pace,
    /// The client's network address, for limits on guests and for the log.
    address: IpAddr,
    /// Held until the client is authenticated; boxed, since most connections are authenticated.
    newcomer: Option<Box<BeforeConnect>>,
    /// Held by a guest; boxed, since most clients are users.
    guest: Option<Box<GuestPlace>>,
    state: AuthState,
    /// Reason for refusing the current command, for the log; may say more than the client is told.
    detail: Option<Box<str>>,
    /// The client has not answered a ping.
    lost: bool,
}

/// The parts of a session that end with the reply to `connect`.
pub struct BeforeConnect {
    /// The connection's place among connections without a token.
    pub place: NewcomerPlace,
    /// Address of a stream's session, for the reply.
    pub stream: Option<StreamAddress>,
}

enum AuthState {
    /// Only `connect` is accepted.
    New,
    Connected(Arc<Connection>),
    /// `connect` was answered with an error. Later commands are dropped without an answer: a close code that is final
    /// for SDKs would hide the error. The connection ends after `connect_timeout` at the latest.
    Failed,
}

/// Failure of a command: an error reply, or the end of the connection.
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
    pub fn new(
        id: ConnectionId,
        services: Arc<Services>,
        outbox: Arc<Outbox>,
        address: IpAddr,
        newcomer: Option<Box<BeforeConnect>>,
    ) -> Self {
        let pace = Pace::new(Instant::now());
        let client = crate::random::token::<16>().into();
        let state = AuthState::New;
        Self { id, client, services, outbox, pace, address, newcomer, guest: None, state, detail: None, lost: false }
    }

    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// The connection has ended because the client did not answer a ping.
    pub fn lose(&mut self) {
        self.lost = true;
    }

    /// Handles the commands of one frame in order. Replies go into the outbox; `Err` ends the connection. All commands
    /// of a frame together may wait for `command_timeout`.
    pub async fn handle(&mut self, frame: &ClientFrame, clock: &Clock) -> Result<(), Disconnect> {
        let deadline = Instant::now() + self.services.config.command_timeout;
        let services = Arc::clone(&self.services);
        let mut ahead = Ahead::default();
        let mut is_empty = true;
        let mut commands = upcoming::commands(frame);
        while let Some(command) = commands.next() {
            is_empty = false;
            let Command { id, request } = command.map_err(|error| self.malformed(&error))?;
            self.services.metrics.commands.with_label_values(&[request.name()]).inc();
            let subject = Subject::of(&request);
            if let Request::Subscribe(first) = &request {
                ahead.prepare(self, &services, first, &mut commands, deadline).await;
            }
            let done = match self.admit(&request) {
                Ok(()) => self.dispatch(id, request, deadline, (clock, &mut ahead)).await,
                refused => refused,
            };
            self.note(subject, &done);
            match done {
                Ok(()) => {}
                // A command without an id gets no reply.
                Err(Failure::Error(_)) if id == 0 => {}
                Err(Failure::Error(error)) => self.reply_error(id, error),
                Err(Failure::Disconnect(reason)) => return Err(reason),
            }
            self.make_room(deadline).await;
        }
        if is_empty { self.count_frame() } else { Ok(()) }
    }

    /// Waits while more than half of the client's queue is unsent, so that the replies of one frame, which may all be
    /// ready at once, do not fill the queue. A client that does not read is disconnected elsewhere.
    async fn make_room(&self, deadline: Instant) {
        while self.outbox.is_half_full() && Instant::now() < deadline {
            tokio::time::sleep(DRAIN_CHECK).await;
        }
    }

    /// Waits until the client's queue has room for a large reply of `bytes`. Error 100 after `deadline`: the client has
    /// too much unread, and asks again.
    async fn room_for(&self, bytes: usize, deadline: Instant) -> Result<(), Failure> {
        while !self.outbox.has_room(bytes) {
            if Instant::now() >= deadline {
                return Err(codes::INTERNAL.into());
            }
            tokio::time::sleep(DRAIN_CHECK).await;
        }
        Ok(())
    }

    /// The authenticated connection, as other modules see it.
    pub fn authenticated(&self) -> Option<&Arc<Connection>> {
        if let AuthState::Connected(connection) = &self.state { Some(connection) } else { None }
    }

    fn malformed(&self, error: &DecodeError) -> Disconnect {
        let kind = match error {
            DecodeError::Json(_) | DecodeError::Protobuf(_) | DecodeError::CutOff => "malformed",
            DecodeError::NoId => "no_id",
            DecodeError::UnknownCommand => "unknown_command",
        };
        self.services.metrics.bad_frames.with_label_values(&[kind]).inc();
        codes::BAD_REQUEST_FRAME
    }

    fn reply(&self, id: u32, reply: &Reply) {
        self.outbox.reply(id, reply);
    }

    fn reply_error(&self, id: u32, error: ErrorCode) {
        self.services.metrics.command_errors.with_label_values(&[&error.code.to_string()]).inc();
        self.reply(id, &Reply::Error(error));
    }

    async fn dispatch(
        &mut self,
        id: u32,
        request: Request,
        deadline: Instant,
        (clock, ahead): (&Clock, &mut Ahead<'_>),
    ) -> Result<(), Failure> {
        match (&self.state, &request) {
            (AuthState::New, Request::Connect { .. }) | (AuthState::Connected(_), _) => {}
            (AuthState::Failed, _) => return Ok(()),
            (AuthState::New, _) => return Err(codes::BAD_REQUEST_FRAME.into()),
        }
        let reply = match request {
            Request::Connect { token } => Some(self.connect(&token, clock, deadline).await?),
            Request::Subscribe(subscribe) => {
                self.subscribe(id, &subscribe, deadline, ahead).await?;
                None
            }
            Request::Unsubscribe { channel } => {
                self.leave(self.connection()?, &channel);
                Some(Reply::Unsubscribe)
            }
            Request::Publish { channel, data } => Some(self.publish(&channel, data, deadline).await?),
            Request::History(history) => {
                let connection = Arc::clone(self.connection()?);
                self.admit_read(&connection)?;
                self.history(id, history, deadline).await?;
                None
            }
            Request::Presence { channel } => {
                let connection = Arc::clone(self.connection()?);
                self.admit_read(&connection)?;
                let weight = self.presence(id, &channel, deadline).await?;
                self.charge_read(&connection, weight);
                None
            }
            Request::PresenceStats { channel } => {
                self.admit_read(self.connection()?)?;
                self.presence_stats(id, &channel, deadline).await?;
                None
            }
            Request::Refresh { token } => Some(self.refresh(&token, clock, deadline).await?),
            Request::Ping => Some(Reply::Ping),
            Request::Rpc { method, data } => Some(self.rpc(&method, data, deadline).await?),
            // Subscriptions have no tokens in this gateway.
            Request::SubRefresh { .. } => return Err(codes::NOT_AVAILABLE.into()),
            Request::Refused { error, .. } => return Err(error.into()),
            // Messages without a reply have no receiver: they are counted and dropped.
            Request::Send => None,
            Request::Pong if clock.with(Timing::pong) => None,
            Request::Pong => return Err(codes::BAD_REQUEST_FRAME.into()),
        };
        if let Some(reply) = reply {
            self.reply(id, &reply);
        }
        Ok(())
    }

    /// The broker's answer until `deadline`. Not an `async fn`: the future would hold `answer` twice.
    fn ask_broker<T>(
        &self,
        operation: &'static str,
        deadline: Instant,
        answer: impl Future<Output = Result<T, BrokerError>>,
    ) -> impl Future<Output = Result<T, Failure>> {
        timeout_at(deadline, answer).map(move |answer| match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.broker_failed(operation, &error).into()),
            Err(_) => Err(codes::INTERNAL.into()),
        })
    }

    fn broker_failed(&self, operation: &str, error: &BrokerError) -> ErrorCode {
        self.services.metrics.broker_errors.with_label_values(&[operation]).inc();
        limited!(
            warn,
            "failed broker operations",
            %error,
            operation,
            "a broker operation failed; the client gets error 100 and may retry"
        );
        codes::INTERNAL
    }

    /// Asker of this session's questions to PocketBase: all connections of a user share turns and rate, and so do
    /// guests from one address.
    fn asker(&self) -> Asker {
        match self.authenticated() {
            Some(connection) if !connection.is_guest() => Asker::of(&*connection.user),
            _ => Asker::of(counted_as(self.address)),
        }
    }

    fn connection(&self) -> Result<&Arc<Connection>, Failure> {
        match &self.state {
            AuthState::Connected(connection) => Ok(connection),
            AuthState::New | AuthState::Failed => Err(codes::BAD_REQUEST_FRAME.into()),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let AuthState::Connected(connection) = &self.state else { return };
        self.services.connections.remove(connection);
        let channels = connection.channels().take();
        for channel in channels {
            self.leave(connection, &channel);
        }
        self.services.statuses.leave(connection, !self.lost);
    }
}

#[cfg(test)]
mod tests;
