//! Decoding of commands in two steps: id and command name first, then the content of the command.

use super::place;
use crate::protocol::codes::{self, ErrorCode};
use crate::protocol::{Command, HistoryRequest, Position, Request, Subscribe};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Bit of `subscribe.flag`: the client wants error 112 rather than `recovered:false`.
const FLAG_REJECT_UNRECOVERED: i64 = 2;

/// Why a frame could not be read. The SDKs never send such a frame, so the connection ends with 3501.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("not the JSON of a command: {}", place(.0))]
    Json(#[from] serde_json::Error),
    #[error("a command without an id")]
    NoId,
    #[error("an unknown command")]
    UnknownCommand,
}

/// The commands of one text frame, in order, up to and including the first that is malformed.
pub fn decode(frame: &str) -> impl Iterator<Item = Result<Command<'_>, DecodeError>> {
    let mut commands = serde_json::Deserializer::from_str(frame).into_iter::<CommandFrame>();
    let mut failed = false;
    std::iter::from_fn(move || {
        let command = commands.next().filter(|_| !failed)?.map_err(DecodeError::from).and_then(Command::try_from);
        failed = command.is_err();
        Some(command)
    })
}

/// Reads JSON `null` as an absent field, as the JSON form of Protobuf has it.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(field: D) -> Result<T, D::Error> {
    Option::deserialize(field).map(Option::unwrap_or_default)
}

#[derive(Deserialize)]
struct TokenFrame {
    #[serde(default, deserialize_with = "or_default")]
    token: String,
}

#[derive(Deserialize)]
struct ChannelFrame {
    channel: String,
}

#[derive(Deserialize)]
struct SubscribeFrame<'a> {
    channel: String,
    #[serde(default, deserialize_with = "or_default")]
    recover: bool,
    #[serde(default, deserialize_with = "or_default")]
    epoch: String,
    #[serde(default, deserialize_with = "or_default")]
    offset: u64,
    #[serde(default, deserialize_with = "or_default")]
    flag: i64,
    #[serde(default, deserialize_with = "or_default")]
    join_leave: bool,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    /// 0: a stream of publications; others (map, shared poll) are not offered.
    #[serde(rename = "type", default, deserialize_with = "or_default")]
    kind: i32,
    /// A filter on tags of publications; not offered, as publications have no tags here.
    #[serde(borrow, default)]
    tf: Option<&'a RawValue>,
    /// The compression of publications; `fossil` is the protocol's only algorithm.
    #[serde(default, deserialize_with = "or_default")]
    delta: String,
}

/// Fields of a subscribe's `data` that the gateway reads. Applications may send further fields, or other content.
#[derive(Default, Deserialize)]
struct SubscribeData {
    #[serde(default)]
    echo: Option<bool>,
}

#[derive(Deserialize)]
struct PublishFrame<'a> {
    channel: String,
    #[serde(borrow)]
    data: &'a RawValue,
    /// 0: a publication; 1: an entry of a map, which is not offered.
    #[serde(rename = "type", default, deserialize_with = "or_default")]
    kind: i32,
}

#[derive(Deserialize)]
struct HistoryFrame {
    channel: String,
    #[serde(default, deserialize_with = "or_default")]
    limit: i32,
    since: Option<PositionFrame>,
    #[serde(default, deserialize_with = "or_default")]
    reverse: bool,
}

#[derive(Deserialize)]
struct PositionFrame {
    #[serde(default, deserialize_with = "or_default")]
    offset: u64,
    #[serde(default, deserialize_with = "or_default")]
    epoch: String,
}

#[derive(Deserialize)]
struct RpcFrame<'a> {
    #[serde(default, deserialize_with = "or_default")]
    method: String,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// A command of the protocol: an id and the content of one command. Unknown fields belong to later versions and are
/// ignored. The content stays raw here, so that an error in it can be answered under the id.
#[derive(Deserialize)]
struct CommandFrame<'a> {
    #[serde(default)]
    id: u32,
    #[serde(borrow)]
    connect: Option<&'a RawValue>,
    #[serde(borrow)]
    subscribe: Option<&'a RawValue>,
    #[serde(borrow)]
    unsubscribe: Option<&'a RawValue>,
    #[serde(borrow)]
    publish: Option<&'a RawValue>,
    #[serde(borrow)]
    presence: Option<&'a RawValue>,
    #[serde(borrow)]
    presence_stats: Option<&'a RawValue>,
    #[serde(borrow)]
    history: Option<&'a RawValue>,
    #[serde(borrow)]
    ping: Option<&'a RawValue>,
    #[serde(borrow)]
    send: Option<&'a RawValue>,
    #[serde(borrow)]
    rpc: Option<&'a RawValue>,
    #[serde(borrow)]
    refresh: Option<&'a RawValue>,
    #[serde(borrow)]
    sub_refresh: Option<&'a RawValue>,
}

impl<'a> TryFrom<CommandFrame<'a>> for Command<'a> {
    type Error = DecodeError;

    fn try_from(frame: CommandFrame<'a>) -> Result<Self, DecodeError> {
        let id = frame.id;
        let request = if let Some(body) = frame.connect {
            read("connect", body, |TokenFrame { token }| Ok(Request::Connect { token }))
        } else if let Some(body) = frame.subscribe {
            read("subscribe", body, subscribe)
        } else if let Some(body) = frame.unsubscribe {
            read("unsubscribe", body, |ChannelFrame { channel }| Ok(Request::Unsubscribe { channel }))
        } else if let Some(body) = frame.publish {
            read("publish", body, publish)
        } else if let Some(body) = frame.presence {
            read("presence", body, |ChannelFrame { channel }| Ok(Request::Presence { channel }))
        } else if let Some(body) = frame.presence_stats {
            read("presence_stats", body, |ChannelFrame { channel }| Ok(Request::PresenceStats { channel }))
        } else if let Some(body) = frame.history {
            read("history", body, |history| Ok(Request::History(history_request(history))))
        } else if frame.ping.is_some() {
            Request::Ping
        } else if frame.send.is_some() {
            return Ok(Command { id, request: Request::Send });
        } else if let Some(body) = frame.rpc {
            read("rpc", body, |RpcFrame { method, data }| Ok(Request::Rpc { method, data }))
        } else if let Some(body) = frame.refresh {
            read("refresh", body, |TokenFrame { token }| Ok(Request::Refresh { token }))
        } else if let Some(body) = frame.sub_refresh {
            read("sub_refresh", body, |ChannelFrame { channel }| Ok(Request::SubRefresh { channel }))
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
fn read<'a, T: Deserialize<'a>>(
    command: &'static str,
    body: &'a RawValue,
    make: impl FnOnce(T) -> Result<Request<'a>, ErrorCode>,
) -> Request<'a> {
    let content = serde_json::from_str(body.get()).map_err(|_| codes::BAD_REQUEST);
    content.and_then(make).unwrap_or_else(|error| Request::Refused { command, error })
}

fn subscribe(subscribe: SubscribeFrame<'_>) -> Result<Request<'_>, ErrorCode> {
    if subscribe.kind != 0 || subscribe.tf.is_some() {
        return Err(codes::NOT_AVAILABLE);
    }
    // A server may ignore `fossil`: a reply without `delta` announces uncompressed publications.
    if !matches!(&*subscribe.delta, "" | "fossil") {
        return Err(codes::BAD_REQUEST);
    }
    let data: SubscribeData = subscribe.data.and_then(|data| serde_json::from_str(data.get()).ok()).unwrap_or_default();
    Ok(Request::Subscribe(Subscribe {
        echo: data.echo.unwrap_or(true),
        channel: subscribe.channel,
        recover: subscribe.recover.then_some(Position { offset: subscribe.offset, epoch: subscribe.epoch }),
        reject_unrecovered: subscribe.flag & FLAG_REJECT_UNRECOVERED != 0,
        join_leave: subscribe.join_leave,
    }))
}

fn publish(PublishFrame { channel, data, kind }: PublishFrame<'_>) -> Result<Request<'_>, ErrorCode> {
    if kind == 0 { Ok(Request::Publish { channel, data }) } else { Err(codes::NOT_AVAILABLE) }
}

fn history_request(HistoryFrame { channel, limit, since, reverse }: HistoryFrame) -> HistoryRequest {
    let since = since.map(|PositionFrame { offset, epoch }| Position { offset, epoch });
    HistoryRequest { channel, limit, since, reverse }
}
