//! Messages between client and gateway: the Centrifuge client protocol, version 2.
//!
//! Types and encodings only, no I/O. [`Command`] is a client's request, [`Reply`] the gateway's answer, and [`codes`]
//! lists the codes known to both sides. A client speaks JSON or Protobuf: [`decode`] reads its commands, and [`encode`]
//! makes [`frame`]s in the client's [`format`]. `messages.rs` is generated from `proto/client.proto` by `proto/generate`.
//! `proto/README.md` describes the protocol for people; the tests here read its golden frames.

pub mod codes;
pub mod decode;
pub mod encode;
pub mod format;
pub mod frame;
pub mod json;
#[rustfmt::skip]
pub mod messages;
mod protobuf;

use bytes::Bytes;
use codes::ErrorCode;
use serde_json::value::RawValue;
use std::fmt;
use std::sync::Arc;

/// A JSON value on a single line, passed on without being parsed or printed again.
///
/// Line feeds separate JSON frames, so a line feed inside a payload would split the receiver's frame. Between tokens a
/// line feed has no meaning and becomes a space; inside strings, JSON does not allow line feeds.
#[derive(Clone, Hash, PartialEq, Eq)]
pub struct Payload(Bytes);

impl Payload {
    pub const NULL: Self = Self(Bytes::from_static(b"null"));

    pub fn from_raw(raw: &RawValue) -> Self {
        let text = raw.get();
        if text.bytes().any(|b| matches!(b, b'\n' | b'\r')) {
            Self(text.replace(['\n', '\r'], " ").into())
        } else {
            Self(Bytes::copy_from_slice(text.as_bytes()))
        }
    }

    /// From the text of a JSON value, for tests and for the gateway's own messages.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str::<&RawValue>(text).map(Self::from_raw)
    }

    /// For bytes that were a `Payload` before, such as data stored by a broker.
    pub fn trusted(bytes: Bytes) -> Self {
        Self(bytes)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({})", String::from_utf8_lossy(&self.0))
    }
}

/// Position in a channel's history: the offset of the last publication, and the epoch of the history.
///
/// Offsets count from 1 without gaps within one epoch. A new epoch means that the old history is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    pub offset: u64,
    pub epoch: String,
}

/// User and client of a connection, as shown to other subscribers. All copies share the same texts.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ClientInfo {
    pub user: Arc<str>,
    pub client: Arc<str>,
}

/// A change of a channel's presence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Movement {
    Join,
    Leave,
}

/// A message of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// Number in the channel's history; 0 for messages without history (typing and other signals).
    pub offset: u64,
    /// Time of the outbox row in Unix milliseconds; 0: unknown, as in a history read from Redis. Never sent to clients.
    pub at: u64,
    pub data: Payload,
    /// The client that published the message; `None` for messages from PocketBase.
    pub info: Option<ClientInfo>,
}

/// A client's request with its id.
#[derive(Clone, Debug)]
pub struct Command {
    /// Repeated in the reply; 0 if no reply is expected (`send`, pong).
    pub id: u32,
    pub request: Request,
}

#[derive(Clone, Debug)]
pub enum Request {
    Connect {
        token: String,
    },
    Subscribe(Subscribe),
    Unsubscribe {
        channel: String,
    },
    Publish {
        channel: String,
        data: Payload,
    },
    History(HistoryRequest),
    Presence {
        channel: String,
    },
    PresenceStats {
        channel: String,
    },
    Rpc {
        method: String,
        data: Option<Payload>,
    },
    Send,
    Refresh {
        token: String,
    },
    SubRefresh {
        channel: String,
    },
    Ping,
    /// The answer to the server's ping: an empty command.
    Pong,
    /// A known command with malformed content, or with a request for a feature that is not offered.
    Refused {
        command: &'static str,
        error: ErrorCode,
    },
}

impl Request {
    /// The command's name in the protocol, for metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Request::Connect { .. } => "connect",
            Request::Subscribe(_) => "subscribe",
            Request::Unsubscribe { .. } => "unsubscribe",
            Request::Publish { .. } => "publish",
            Request::History(_) => "history",
            Request::Presence { .. } => "presence",
            Request::PresenceStats { .. } => "presence_stats",
            Request::Rpc { .. } => "rpc",
            Request::Send => "send",
            Request::Refresh { .. } => "refresh",
            Request::SubRefresh { .. } => "sub_refresh",
            Request::Ping => "ping",
            Request::Pong => "pong",
            Request::Refused { command, .. } => command,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Subscribe {
    pub channel: String,
    /// Position up to which the client has received everything; an empty epoch stands for any. `None` for a first
    /// subscribe.
    pub recover: Option<Position>,
    /// Answer an unrecoverable position with error 112 instead of `recovered:false`.
    pub reject_unrecovered: bool,
    /// Send joins and leaves.
    pub join_leave: bool,
    /// Whether the connection also receives its own signals: `data.echo`, true by default.
    pub echo: bool,
}

#[derive(Clone, Debug)]
pub struct HistoryRequest {
    pub channel: String,
    /// Maximum number of publications; 0: only the position; negative: as many as the server allows.
    pub limit: i32,
    pub since: Option<Position>,
    pub reverse: bool,
}

/// The gateway's answer to a command.
#[derive(Clone, Debug)]
pub enum Reply {
    Connect(ConnectReply),
    Subscribe(SubscribeReply),
    /// For a channel with a state instead of a history.
    SubscribeState(Payload),
    Unsubscribe,
    Publish,
    History {
        publications: Vec<Publication>,
        position: Position,
    },
    Presence(Vec<ClientInfo>),
    PresenceStats {
        clients: usize,
        users: usize,
    },
    Rpc(Payload),
    Refresh {
        client: String,
        ttl: u32,
    },
    Ping,
    Error(ErrorCode),
}

#[derive(Clone, Debug)]
pub struct ConnectReply {
    pub client: String,
    /// Seconds after which the client should refresh its token; `None` for guests, who have no token.
    pub ttl: Option<u32>,
    /// Seconds between the server's pings.
    pub ping: u32,
    /// For the clients of streams, whose later commands arrive by HTTP requests.
    pub stream: Option<StreamAddress>,
}

/// Address of a stream's session, which the client's later commands repeat.
#[derive(Clone)]
pub struct StreamAddress {
    /// The gateway that holds the stream.
    pub node: String,
    /// Secret: whoever knows the session can send commands in the client's name.
    pub session: String,
}

impl fmt::Debug for StreamAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamAddress").field("node", &self.node).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug)]
pub struct SubscribeReply {
    /// The channel's position after all of `publications`; live publications follow.
    pub position: Position,
    /// `None` if the client did not ask for recovery.
    pub recovered: Option<bool>,
    /// Contiguous, oldest first, up to `position`.
    pub publications: Vec<Publication>,
}

impl SubscribeReply {
    /// The reply's `offset`: the offset before `publications`; after a recovery, the offset that the client asked for.
    ///
    /// SDKs store the reply's offset before they hand out the publications, each of which advances the stored offset.
    /// If a handler fails or the connection ends in between, the next recovery begins after the last publication
    /// handed out.
    pub fn offset(&self) -> u64 {
        self.publications.first().map_or(self.position.offset, |first| first.offset - 1)
    }
}

#[cfg(test)]
mod tests;
