//! Replies and pushes as frames, in the format of the receiver.

use super::codes::{Disconnect, UnsubscribeCode};
use super::format::{Encoding, Format};
use super::frame::{Composer, Frame};
use super::{ClientInfo, Movement, Publication, Reply, json, protobuf};

/// The gateway's version in replies.
pub(super) const VERSION: &str = concat!("konvert-gateway ", env!("CARGO_PKG_VERSION"));

/// Message about a channel that is not an answer to a command.
pub enum Push<'a> {
    Publication(&'a Publication),
    /// A client has joined or left.
    Movement(Movement, &'a ClientInfo),
    /// The gateway has ended the subscription.
    Unsubscribe(UnsubscribeCode),
}

/// The reply to the command with this id.
pub fn reply(format: Format, id: u32, reply: &Reply) -> Frame {
    let mut composer = Composer::new(format, 128);
    match format.encoding() {
        Encoding::Json => json::write_reply(composer.out(), id, reply),
        Encoding::Protobuf => protobuf::write_reply(composer.out(), id, reply),
    }
    composer.finish()
}

/// A push to a channel's subscribers, to be shared by all of this format.
pub fn push(format: Format, channel: &str, push: &Push<'_>) -> Frame {
    let size = if let Push::Publication(publication) = push { publication.data.len() } else { 32 };
    let mut composer = Composer::new(format, size + channel.len() + 96);
    match format.encoding() {
        Encoding::Json => json::write_push(composer.out(), channel, push),
        Encoding::Protobuf => protobuf::write_push(composer.out(), channel, push),
    }
    composer.finish()
}

/// The push that ends a stream, in place of a WebSocket's close frame.
pub fn disconnect(format: Format, reason: Disconnect) -> Frame {
    let mut composer = Composer::new(format, 96);
    match format.encoding() {
        Encoding::Json => json::write_disconnect(composer.out(), reason),
        Encoding::Protobuf => protobuf::write_disconnect(composer.out(), reason),
    }
    composer.finish()
}

/// The server's ping: an empty reply, which the client answers with an empty command.
pub fn ping(format: Format) -> Frame {
    Frame::from_static(match format {
        Format::WebSocketJson => b"\x81\x02{}",
        Format::WebSocketProtobuf => b"\x82\x01\0",
        Format::StreamJson => b"{}\n",
        Format::StreamProtobuf => b"\0",
        Format::Sse => b"data: {}\n\n",
    })
}
