//! Format of a connection's messages: the encoding, and the framing of the transport.

use super::frame::Frame;
use super::{json, protobuf};
use std::cell::{OnceCell, RefCell};

/// Encoding of commands, replies and pushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Json,
    Protobuf,
}

/// Encoding and framing of the messages to one client. Clients of one format get the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Text messages of a WebSocket.
    WebSocketJson,
    /// Binary messages of a WebSocket, each with length-delimited replies.
    WebSocketProtobuf,
    /// A response of lines, each with one reply.
    StreamJson,
    /// A response of length-delimited replies.
    StreamProtobuf,
    /// Server-sent events, each with one reply.
    Sse,
}

impl Format {
    pub fn encoding(self) -> Encoding {
        match self {
            Self::WebSocketJson | Self::StreamJson | Self::Sse => Encoding::Json,
            Self::WebSocketProtobuf | Self::StreamProtobuf => Encoding::Protobuf,
        }
    }

    /// A predicate on encoded frames: true for pushes of this channel.
    pub fn pushes_of(self, channel: &str) -> impl Fn(&Frame) -> bool + use<'_> {
        let begin = match self.encoding() {
            Encoding::Json => json::push_begin(channel),
            Encoding::Protobuf => Vec::new(),
        };
        move |frame| {
            let message = frame.message(self);
            match self.encoding() {
                Encoding::Json => message.starts_with(&begin),
                Encoding::Protobuf => protobuf::is_push_of(message, channel),
            }
        }
    }
}

/// Frames of one message, by format. Each frame is made on first use. The first frame is stored inline, since most
/// messages have receivers of a single format.
#[derive(Default)]
pub struct PerFormat {
    first: OnceCell<(Format, Frame)>,
    others: RefCell<Vec<(Format, Frame)>>,
}

impl PerFormat {
    /// Whether there is no frame yet.
    pub fn is_empty(&self) -> bool {
        self.first.get().is_none()
    }

    /// The frame of this format; made with `make` on first use.
    pub fn get(&self, format: Format, make: impl Fn(Format) -> Frame) -> Frame {
        let (first, frame) = self.first.get_or_init(|| (format, make(format)));
        if *first == format {
            return frame.clone();
        }
        let mut others = self.others.borrow_mut();
        if let Some((_, frame)) = others.iter().find(|(other, _)| *other == format) {
            return frame.clone();
        }
        let frame = make(format);
        others.push((format, frame.clone()));
        frame
    }
}
