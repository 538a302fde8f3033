//! Commands of a client's frame, in either encoding. An encoding reads the envelope and the content of each command; the
//! meaning of the content is the same for both, and decided here.

use super::codes::{self, ErrorCode};
use super::{
    Command, HistoryRequest, Payload, Position, Request, Subscribe, json,
    messages::{self, StreamPosition},
    protobuf,
};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tungstenite::Utf8Bytes;

/// Bit of `subscribe.flag`: the client wants error 112 rather than `recovered:false`.
const REJECT_UNRECOVERED: i64 = 2;

/// Frame of a client: one or several commands.
#[derive(Clone, Debug)]
pub enum ClientFrame {
    Json(Utf8Bytes),
    Protobuf(Bytes),
}

/// Why a frame could not be read. The SDKs never send such a frame, so the connection ends with 3501.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("not the JSON of a command: {}", json::place(.0))]
    Json(#[from] serde_json::Error),
    #[error("not the Protobuf of a command: {0}")]
    Protobuf(#[from] prost::DecodeError),
    #[error("cut off: a length beyond the end of the frame")]
    CutOff,
    #[error("a command without an id")]
    NoId,
    #[error("an unknown command")]
    UnknownCommand,
}

/// Pongs in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pongs {
    None,
    /// Beside other commands.
    Among,
    /// A pong and nothing else.
    Alone,
}

impl ClientFrame {
    pub fn len(&self) -> usize {
        self.bytes().len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Json(text) => text.as_bytes(),
            Self::Protobuf(bytes) => bytes,
        }
    }

    /// The commands in order, up to and including the first that is malformed.
    pub fn commands(&self) -> Commands<'_> {
        let rest = match self {
            Self::Json(text) => Rest::Json(json::envelopes(text)),
            Self::Protobuf(bytes) => Rest::Protobuf(bytes.clone()),
        };
        Commands { rest, failed: false }
    }

    /// Looks for pongs without decoding the frame.
    pub fn pongs(&self) -> Pongs {
        match self {
            Self::Json(text) => json::pongs(text),
            Self::Protobuf(bytes) => protobuf::pongs(bytes),
        }
    }
}

/// Decodes a frame's commands step by step.
pub struct Commands<'a> {
    rest: Rest<'a>,
    failed: bool,
}

enum Rest<'a> {
    Json(json::Envelopes<'a>),
    Protobuf(Bytes),
}

impl Iterator for Commands<'_> {
    type Item = Result<Command, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let command = match &mut self.rest {
            Rest::Json(envelopes) => envelopes.next()?.map_err(DecodeError::from).and_then(Envelope::command),
            Rest::Protobuf(bytes) => protobuf::next_envelope(bytes)?.and_then(Envelope::command),
        };
        self.failed = command.is_err();
        Some(command)
    }
}

/// A command before its content is decoded, so that an error in the content can be answered under the id. Unknown
/// fields belong to later versions and are ignored.
#[derive(Deserialize)]
pub(super) struct Envelope<C> {
    #[serde(default)]
    pub id: u32,
    pub connect: Option<C>,
    pub subscribe: Option<C>,
    pub unsubscribe: Option<C>,
    pub publish: Option<C>,
    pub presence: Option<C>,
    pub presence_stats: Option<C>,
    pub history: Option<C>,
    pub ping: Option<C>,
    pub send: Option<C>,
    pub rpc: Option<C>,
    pub refresh: Option<C>,
    pub sub_refresh: Option<C>,
}

/// Encoded content of a command.
pub(super) trait Content {
    /// `None`: not a message of this kind.
    fn read<M: prost::Message + Default + DeserializeOwned>(self) -> Option<M>;
}

impl<C: Content> Envelope<C> {
    fn command(self) -> Result<Command, DecodeError> {
        let id = self.id;
        let request = if let Some(content) = self.connect {
            read("connect", content, |messages::ConnectRequest { token }| Ok(Request::Connect { token }))
        } else if let Some(content) = self.subscribe {
            read("subscribe", content, subscribe)
        } else if let Some(content) = self.unsubscribe {
            read("unsubscribe", content, |messages::UnsubscribeRequest { channel }| {
                Ok(Request::Unsubscribe { channel: named(channel)? })
            })
        } else if let Some(content) = self.publish {
            read("publish", content, publish)
        } else if let Some(content) = self.presence {
            read("presence", content, |messages::PresenceRequest { channel }| {
                Ok(Request::Presence { channel: named(channel)? })
            })
        } else if let Some(content) = self.presence_stats {
            read("presence_stats", content, |messages::PresenceStatsRequest { channel }| {
                Ok(Request::PresenceStats { channel: named(channel)? })
            })
        } else if let Some(content) = self.history {
            read("history", content, history)
        } else if self.ping.is_some() {
            Request::Ping
        } else if self.send.is_some() {
            return Ok(Command { id, request: Request::Send });
        } else if let Some(content) = self.rpc {
            read("rpc", content, rpc)
        } else if let Some(content) = self.refresh {
            read("refresh", content, |messages::RefreshRequest { token }| Ok(Request::Refresh { token }))
        } else if let Some(content) = self.sub_refresh {
            read("sub_refresh", content, |messages::SubRefreshRequest { channel, .. }| {
                Ok(Request::SubRefresh { channel: named(channel)? })
            })
        } else if id == 0 {
            return Ok(Command { id, request: Request::Pong });
        } else {
            return Err(DecodeError::UnknownCommand);
        };
        if id == 0 { Err(DecodeError::NoId) } else { Ok(Command { id, request }) }
    }
}

/// Decodes a command's content and passes it to `make`. A content of another shape gives a refusal with error 107, an
/// error of `make` a refusal with that error.
fn read<M: prost::Message + Default + DeserializeOwned>(
    command: &'static str,
    content: impl Content,
    make: impl FnOnce(M) -> Result<Request, ErrorCode>,
) -> Request {
    let message = content.read().ok_or(codes::BAD_REQUEST);
    message.and_then(make).unwrap_or_else(|error| Request::Refused { command, error })
}

/// The name of a channel. An empty name is the same as none in Protobuf.
fn named(channel: String) -> Result<String, ErrorCode> {
    if channel.is_empty() { Err(codes::BAD_REQUEST) } else { Ok(channel) }
}

fn subscribe(request: messages::SubscribeRequest) -> Result<Request, ErrorCode> {
    /// Fields of a subscribe's `data` that the gateway reads. Applications may send further fields, or other content.
    #[derive(Default, Deserialize)]
    struct Data {
        #[serde(default)]
        echo: Option<bool>,
    }
    // Maps and shared polls are not offered, and publications have no tags to filter by.
    if request.r#type != 0 || request.tf.is_some() {
        return Err(codes::NOT_AVAILABLE);
    }
    // A server may ignore `fossil`: a reply without `delta` announces uncompressed publications.
    if !matches!(&*request.delta, "" | "fossil") {
        return Err(codes::BAD_REQUEST);
    }
    let data: Data = serde_json::from_slice(&request.data).unwrap_or_default();
    Ok(Request::Subscribe(Subscribe {
        echo: data.echo.unwrap_or(true),
        channel: named(request.channel)?,
        recover: request.recover.then_some(Position { offset: request.offset, epoch: request.epoch }),
        reject_unrecovered: request.flag & REJECT_UNRECOVERED != 0,
        join_leave: request.join_leave,
    }))
}

fn publish(messages::PublishRequest { channel, data, r#type }: messages::PublishRequest) -> Result<Request, ErrorCode> {
    // 1: an entry of a map, which is not offered.
    if r#type != 0 {
        return Err(codes::NOT_AVAILABLE);
    }
    Ok(Request::Publish { channel: named(channel)?, data: payload(&data)? })
}

fn history(request: messages::HistoryRequest) -> Result<Request, ErrorCode> {
    let messages::HistoryRequest { channel, limit, since, reverse } = request;
    let since = since.map(|StreamPosition { offset, epoch }| Position { offset, epoch });
    Ok(Request::History(HistoryRequest { channel: named(channel)?, limit, since, reverse }))
}

fn rpc(messages::RpcRequest { method, data }: messages::RpcRequest) -> Result<Request, ErrorCode> {
    let data = if data.is_empty() { None } else { Some(payload(&data)?) };
    Ok(Request::Rpc { method, data })
}

/// The JSON value in a field of type `bytes`.
fn payload(data: &[u8]) -> Result<Payload, ErrorCode> {
    serde_json::from_slice::<&RawValue>(data).map(Payload::from_raw).map_err(|_| codes::BAD_REQUEST)
}
