//! Log lines that answer "why was this user refused?": a line for each refused command at `info`, and for each
//! accepted command at `debug`. Refused commands are also noted for the admin page. No line contains a token, a key or content.

use super::{AuthState, Failure, Session};
use crate::protocol::{HistoryRequest, Request, Subscribe};
use crate::refusals::{Code, Refusal};

/// Maximum length of a channel's or method's name in the log, in characters; longer names are cut off.
const NAME_MAX: usize = 255;

/// The logged parts of a command.
pub(super) struct Subject {
    command: &'static str,
    channel: Option<String>,
    /// The method of an `rpc`.
    method: Option<String>,
}

impl Subject {
    /// `None` for commands that are not worth a line: pings, pongs and messages without a receiver.
    pub fn of(request: &Request) -> Option<Self> {
        let (mut channel, mut method) = (None, None);
        match request {
            Request::Ping | Request::Pong | Request::Send => return None,
            Request::Connect { .. } | Request::Refresh { .. } | Request::Refused { .. } => {}
            Request::Subscribe(Subscribe { channel: name, .. })
            | Request::History(HistoryRequest { channel: name, .. })
            | Request::Unsubscribe { channel: name }
            | Request::Publish { channel: name, .. }
            | Request::Presence { channel: name }
            | Request::PresenceStats { channel: name }
            | Request::SubRefresh { channel: name } => channel = Some(shortened(name)),
            Request::Rpc { method: name, .. } => method = Some(shortened(name)),
        }
        Some(Self { command: request.name(), channel, method })
    }
}

fn shortened(name: &str) -> String {
    name.chars().take(NAME_MAX).collect()
}

impl Session {
    /// Logs the outcome of a command.
    pub(super) fn note(&mut self, subject: Option<Subject>, done: &Result<(), Failure>) {
        let detail = self.detail.take();
        let Some(Subject { command, channel, method }) = subject else { return };
        let (code, cause) = match done {
            Ok(()) => {
                tracing::debug!(command, channel, method, user = self.user(), client = &*self.client, "accepted");
                return;
            }
            Err(Failure::Error(error)) => (error.code, error.message),
            Err(Failure::Disconnect(disconnect)) => (disconnect.code, disconnect.reason),
        };
        let (user, client, address) = (self.user(), &*self.client, self.address);
        let cause = detail.as_deref().unwrap_or(cause);
        self.services.refusals.note(&Refusal {
            action: command,
            channel: channel.as_deref().or(method.as_deref()),
            user,
            address: Some(address),
            code: Code::Number(code),
            cause,
        });
        if self.services.limits.refusals.passes() {
            tracing::info!(command, channel, method, user, client, %address, code, cause, "refused");
        }
    }

    /// The user's key; empty for guests and before `connect` has succeeded.
    fn user(&self) -> &str {
        if let AuthState::Connected(connection) = &self.state { &connection.user } else { "" }
    }
}
