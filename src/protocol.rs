//! What travels between client and gateway: the Centrifuge client protocol, version 2.
//!
//! Types and encodings only, no I/O: [`Command`] is what a client asks, [`Reply`] what it gets back,
//! [`codes`] the numbers that both sides agree on, [`json`] the JSON encoding, [`frame`]
//! what it is wrapped into. `proto/README.md` describes
//! the same for people, and its golden frames are read by the tests here.

pub mod codes;
pub mod frame;
pub mod json;

use bytes::Bytes;
use codes::ErrorCode;
use serde_json::value::RawValue;
use std::sync::Arc;

/// A JSON value on one line, passed on without being parsed or printed again.
///
/// JSON frames are separated by line feeds, so a line feed inside a payload would tear the receiver's frame
/// apart. Between tokens it means nothing and becomes a space; inside strings JSON does not allow one.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
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

    /// For bytes that were a `Payload` before: what a broker has stored.
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

/// Where a channel's history stands: the number of its last publication, and which history it is.
///
/// Offsets count from 1 without gaps within one epoch; a new epoch means that the old history is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    pub offset: u64,
    pub epoch: String,
}

/// Who is behind a connection, as other subscribers may see it. There is one of these in each place that knows of the
/// connection, so that they share their texts.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ClientInfo {
    pub user: Arc<str>,
    pub client: Arc<str>,
}

/// What a client does to a channel's presence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Movement {
    Join,
    Leave,
}

/// One message of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// Its number in the channel's history; 0 for what is not kept (typing and other signals).
    pub offset: u64,
    /// Time of the outbox row in Unix milliseconds; 0: unknown, as in a history read from Redis. Never sent to clients.
    pub at: u64,
    pub data: Payload,
    /// The client that published it; `None` for what PocketBase published.
    pub info: Option<ClientInfo>,
}

/// What a client sends.
#[derive(Debug)]
pub struct Command<'a> {
    /// Repeated in the reply; 0 where none is expected (`send`, pong).
    pub id: u32,
    pub request: Request<'a>,
}

#[derive(Debug)]
pub enum Request<'a> {
    Connect {
        token: String,
    },
    Subscribe(Subscribe),
    Unsubscribe {
        channel: String,
    },
    Publish {
        channel: String,
        data: &'a RawValue,
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
        data: Option<&'a RawValue>,
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
    /// A known command with content of another shape, or with a request for a feature that is not offered.
    Refused {
        command: &'static str,
        error: ErrorCode,
    },
}

impl Request<'_> {
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

#[derive(Debug)]
pub struct Subscribe {
    pub channel: String,
    /// The position up to which the client has everything, with an empty epoch for any; `None` for a first subscribe.
    pub recover: Option<Position>,
    /// Answer an unrecoverable position with error 112 instead of `recovered:false`.
    pub reject_unrecovered: bool,
    /// Tell who comes and goes.
    pub join_leave: bool,
    /// Whether the connection gets its own signals too: `data.echo`, which is true unless it says otherwise.
    pub echo: bool,
}

#[derive(Debug)]
pub struct HistoryRequest {
    pub channel: String,
    /// How many at most; 0: only the position; negative: as many as the server allows.
    pub limit: i32,
    pub since: Option<Position>,
    pub reverse: bool,
}

/// What the gateway answers to a command.
#[derive(Debug)]
pub enum Reply {
    Connect(ConnectReply),
    Subscribe(SubscribeReply),
    /// Of a channel that has a state instead of a history.
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

#[derive(Debug)]
pub struct ConnectReply {
    pub client: String,
    /// Seconds after which the client should refresh its token; `None` for guests, who have none.
    pub ttl: Option<u32>,
    /// Seconds between the server's pings.
    pub ping: u32,
}

#[derive(Debug)]
pub struct SubscribeReply {
    /// The channel's position with all of `publications` applied; live publications follow it.
    pub position: Position,
    /// `None` where the client did not ask to recover.
    pub recovered: Option<bool>,
    /// Contiguous, oldest first, up to `position`.
    pub publications: Vec<Publication>,
}

impl SubscribeReply {
    /// The reply's `offset`: the offset before `publications`; after a recovery the offset that the client asked for.
    ///
    /// SDKs store the reply's offset before handing out its publications, each of which advances the stored offset. If a
    /// handler fails or the connection ends in between, the next recovery begins after the last handed-out publication.
    pub fn offset(&self) -> u64 {
        self.publications.first().map_or(self.position.offset, |first| first.offset - 1)
    }
}
