//! Authentication of a connection: `connect` with a PocketBase token, `connect` as a guest without a token, `refresh`.

use super::{AuthState, Failure, Session};
use crate::auth::{AuthError, Verified};
use crate::connection::Connection;
use crate::log_lines::limited;
use crate::protocol::codes;
use crate::protocol::{ConnectReply, Reply};
use crate::session::timing::{Clock, Pings};
use std::sync::Arc;
use std::time::SystemTime;
use tokio::time::{Instant, timeout_at};

impl Session {
    pub(super) async fn connect(&mut self, token: &str, clock: &Clock, deadline: Instant) -> Result<Reply, Failure> {
        if matches!(self.state, AuthState::Connected(_)) {
            return Err(codes::BAD_REQUEST_FRAME.into());
        }
        self.state = AuthState::Failed;
        self.newcomer.iter().for_each(|newcomer| newcomer.place.keep());
        let stream = self.newcomer.as_mut().and_then(|newcomer| newcomer.stream.take());
        let authenticated = self.authenticate(token, clock, deadline).await;
        let ttl = authenticated.inspect_err(|_| self.fail())?;
        self.enter_connection_limit(deadline).await?;
        let ping = u32::try_from(self.services.config.ping_interval.as_secs()).unwrap_or(u32::MAX);
        Ok(Reply::Connect(ConnectReply { client: self.client.to_string(), ttl, ping, stream }))
    }

    fn fail(&mut self) {
        if let AuthState::Connected(connection) = std::mem::replace(&mut self.state, AuthState::Failed) {
            self.services.connections.remove(&connection);
        }
    }

    /// Takes a fresh token of the same user. Guests get an error: to log in, a client connects anew.
    pub(super) async fn refresh(&mut self, token: &str, clock: &Clock, deadline: Instant) -> Result<Reply, Failure> {
        if self.connection()?.is_guest() {
            return Err(codes::NOT_AVAILABLE.into());
        }
        if token.is_empty() {
            return Err(codes::INVALID_TOKEN.into());
        }
        let ttl = match self.authenticate(token, clock, deadline).await {
            // For SDKs a non-temporary error to `refresh` is final. After close code 3005 they connect again, get error
            // 109 to `connect` and fetch a fresh token.
            Err(Failure::Error(codes::TOKEN_EXPIRED)) => return Err(codes::EXPIRED.into()),
            authenticated => authenticated?.ok_or(codes::INVALID_TOKEN)?,
        };
        Ok(Reply::Refresh { client: self.client.to_string(), ttl })
    }

    /// Verifies the token and takes over the account; returns the seconds until a refresh. An empty token: a guest.
    async fn authenticate(&mut self, token: &str, clock: &Clock, deadline: Instant) -> Result<Option<u32>, Failure> {
        let mut verified = self.verify(token, deadline).await?;
        let connection = match &self.state {
            AuthState::Connected(connection) => Arc::clone(connection),
            AuthState::New | AuthState::Failed => {
                let (user, account) = (Arc::clone(&verified.identity.user), Arc::clone(&verified.account));
                let connection = Connection::new(self.id, user, Arc::clone(&self.client), &self.outbox, account);
                self.services.connections.add(&connection);
                self.state = AuthState::Connected(Arc::clone(&connection));
                connection
            }
        };
        // From here on the connection is told of changes of the user; earlier changes are found here.
        while !self.services.auth.holds(&verified) {
            verified = self.verify(token, deadline).await?;
        }
        let Verified { identity, account, .. } = verified;
        // Beside the key, the account is compared: a new config may have given the key to another account.
        if connection.user != identity.user || connection.account().id != account.id {
            return Err(codes::INVALID_TOKEN.into());
        }
        connection.set_account(account);
        let now = SystemTime::now();
        let left = identity.expires_at.map(|end| end.duration_since(now).unwrap_or_default());
        let valid = left.map(|left| left + self.services.config.token_grace);
        let pings = Pings::of(&self.services.config);
        clock.with(|timing| timing.authenticated(Instant::now(), pings, valid));
        Ok(identity.ttl(now))
    }

    async fn verify(&mut self, token: &str, deadline: Instant) -> Result<Verified, Failure> {
        let now = SystemTime::now();
        let auth = Arc::clone(&self.services.auth);
        let verifying = async { if token.is_empty() { auth.guest().await } else { auth.verify(token, now).await } };
        match timeout_at(deadline, verifying).await {
            Ok(Ok(verified)) if verified.account.is_banned(now) => Err(codes::BANNED.into()),
            Ok(Ok(verified)) => Ok(verified),
            Ok(Err(AuthError::Expired)) => Err(codes::TOKEN_EXPIRED.into()),
            Ok(Err(AuthError::NoGuests)) => {
                self.services.metrics.guests_refused.with_label_values(&["not_allowed"]).inc();
                Err(codes::UNAUTHORIZED.into())
            }
            Ok(Err(error @ AuthError::Invalid(_))) => {
                self.detail = Some(error.to_string().into());
                Err(codes::INVALID_TOKEN.into())
            }
            Ok(Err(AuthError::Unavailable(error))) => {
                limited!(
                    warn,
                    "failed fetches of users' keys",
                    %error,
                    "fetching a user's key from PocketBase failed; the client gets error 100 and may retry"
                );
                Err(codes::INTERNAL.into())
            }
            Err(_) => {
                self.detail = Some("no answer within command_timeout".into());
                Err(codes::INTERNAL.into())
            }
        }
    }
}
