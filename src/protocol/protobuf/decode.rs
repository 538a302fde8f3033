//! Decoding of Protobuf commands, and the channel of an encoded push.

use crate::protocol::decode::{Content, DecodeError, Envelope, Pongs};
use bytes::Bytes;
use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint};
use serde::de::DeserializeOwned;

/// Field of a reply that contains a push, and field of a push that contains the channel's name (`proto/client.proto`).
const PUSH: u32 = 4;
const CHANNEL: u32 = 2;

/// A command with undecoded content; the fields are those of `Command` in `proto/client.proto`.
#[derive(Clone, PartialEq, Message)]
struct RawCommand {
    #[prost(uint32, tag = "1")]
    id: u32,
    #[prost(bytes = "bytes", optional, tag = "4")]
    connect: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "5")]
    subscribe: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "6")]
    unsubscribe: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "7")]
    publish: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "8")]
    presence: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "9")]
    presence_stats: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "10")]
    history: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "11")]
    ping: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "12")]
    send: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "13")]
    rpc: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "14")]
    refresh: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "15")]
    sub_refresh: Option<Bytes>,
}

/// Takes the next command off a frame; `None` at the end of the frame.
pub(in crate::protocol) fn next_envelope(frame: &mut Bytes) -> Option<Result<Envelope<Bytes>, DecodeError>> {
    if frame.is_empty() {
        return None;
    }
    Some(next_message(frame).and_then(|message| Ok(RawCommand::decode(message)?.into())))
}

/// Takes the next length and message off a frame.
fn next_message(frame: &mut Bytes) -> Result<Bytes, DecodeError> {
    let length = decode_varint(frame)?;
    match usize::try_from(length) {
        Ok(length) if length <= frame.len() => Ok(frame.split_to(length)),
        _ => Err(DecodeError::CutOff),
    }
}

pub(in crate::protocol) fn pongs(frame: &Bytes) -> Pongs {
    let mut rest = frame.clone();
    let (mut pongs, mut others) = (false, false);
    while !rest.is_empty() {
        match next_message(&mut rest) {
            Ok(message) if message.is_empty() => pongs = true,
            Ok(_) => others = true,
            Err(_) => break,
        }
    }
    match (pongs, others || !rest.is_empty()) {
        (false, _) => Pongs::None,
        (true, true) => Pongs::Among,
        (true, false) => Pongs::Alone,
    }
}

/// Whether an encoded reply, with its length in front, is a push of this channel.
pub(in crate::protocol) fn is_push_of(delimited: &[u8], channel: &str) -> bool {
    let name = || {
        let mut reply = delimited;
        decode_varint(&mut reply).ok()?;
        first_field(first_field(reply, PUSH)?, CHANNEL)
    };
    name() == Some(channel.as_bytes())
}

/// The content of a message's first field, if the field has this number.
fn first_field(mut message: &[u8], number: u32) -> Option<&[u8]> {
    let (tag, wire_type) = decode_key(&mut message).ok()?;
    if (tag, wire_type) != (number, WireType::LengthDelimited) {
        return None;
    }
    let length = usize::try_from(decode_varint(&mut message).ok()?).ok()?;
    message.get(..length)
}

impl Content for Bytes {
    fn read<M: Message + Default + DeserializeOwned>(self) -> Option<M> {
        M::decode(self).ok()
    }
}

impl From<RawCommand> for Envelope<Bytes> {
    fn from(command: RawCommand) -> Self {
        let RawCommand { id, connect, subscribe, unsubscribe, publish, presence, .. } = command;
        let RawCommand { presence_stats, history, ping, send, rpc, refresh, sub_refresh, .. } = command;
        Self {
            id,
            connect,
            subscribe,
            unsubscribe,
            publish,
            presence,
            presence_stats,
            history,
            ping,
            send,
            rpc,
            refresh,
            sub_refresh,
        }
    }
}
