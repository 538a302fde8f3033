//! Outgoing messages, encoded and framed as written to sockets.
//!
//! A message is encoded once per [`Format`], framing included, for any number of receivers: a server's WebSocket frames
//! are not masked, so the bytes are the same for all.

use super::format::{Encoding, Format};
use bytes::Bytes;
use prost::encoding::{encode_varint, encoded_len_varint};

/// Longest header of a WebSocket frame that the gateway sends.
const HEADER_MAX: usize = 10;
/// Longest length in front of a Protobuf message.
const LENGTH_MAX: usize = 10;
/// First byte of a text message in a single WebSocket frame.
const TEXT: u8 = 0x81;
/// First byte of a binary message in a single WebSocket frame.
const BINARY: u8 = 0x82;
/// Begin and end of a server-sent event.
const EVENT: (&[u8], &[u8]) = (b"data: ", b"\n\n");

/// One encoded message, or several in a row. Clones share the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame(Bytes);

/// A message under construction.
pub struct Composer {
    format: Format,
    /// The message, with room for the framing in front.
    bytes: Vec<u8>,
    /// Begin of the written part of `bytes`.
    begin: usize,
}

impl Composer {
    /// With room for a message of `bytes` bytes.
    pub fn new(format: Format, bytes: usize) -> Self {
        let front = match format {
            Format::WebSocketJson => HEADER_MAX,
            Format::WebSocketProtobuf => HEADER_MAX + LENGTH_MAX,
            Format::StreamJson => 0,
            Format::StreamProtobuf => LENGTH_MAX,
            Format::Sse => EVENT.0.len(),
        };
        let mut room = Vec::with_capacity(front + bytes + EVENT.1.len());
        room.resize(front, 0);
        Self { format, begin: front, bytes: room }
    }

    /// Buffer to append the message to.
    pub fn out(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    pub fn finish(mut self) -> Frame {
        if self.format.encoding() == Encoding::Protobuf {
            let length = self.length() as u64;
            self.begin -= encoded_len_varint(length);
            encode_varint(length, &mut &mut self.bytes[self.begin..]);
        }
        match self.format {
            Format::WebSocketJson => self.prepend_header(TEXT),
            Format::WebSocketProtobuf => self.prepend_header(BINARY),
            Format::StreamJson => self.bytes.push(b'\n'),
            Format::StreamProtobuf => {}
            Format::Sse => {
                self.prepend(EVENT.0);
                self.bytes.extend_from_slice(EVENT.1);
            }
        }
        Frame(Bytes::from(self.bytes).slice(self.begin..))
    }

    fn length(&self) -> usize {
        self.bytes.len() - self.begin
    }

    fn prepend_header(&mut self, first: u8) {
        let (header, size) = header(first, self.length());
        self.prepend(&header[..size]);
    }

    fn prepend(&mut self, front: &[u8]) {
        self.bytes[self.begin - front.len()..self.begin].copy_from_slice(front);
        self.begin -= front.len();
    }
}

impl Frame {
    pub const fn from_static(encoded: &'static [u8]) -> Self {
        Self(Bytes::from_static(encoded))
    }

    /// For bytes that are encoded already.
    pub fn encoded(encoded: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(encoded))
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

    /// The first message without framing of the transport. Protobuf messages keep their length in front.
    pub fn message(&self, format: Format) -> &[u8] {
        match format {
            Format::WebSocketJson | Format::WebSocketProtobuf => self.text(),
            Format::StreamJson | Format::StreamProtobuf => &self.0,
            Format::Sse => self.0.get(EVENT.0.len()..).unwrap_or_default(),
        }
    }

    /// The content of the first WebSocket message.
    pub fn text(&self) -> &[u8] {
        let size = match self.0.get(1) {
            Some(127) => HEADER_MAX,
            Some(126) => 4,
            _ => 2,
        };
        self.0.get(size..).unwrap_or_default()
    }
}

/// Header of a WebSocket message with `length` bytes, and the length of the header.
fn header(first: u8, length: usize) -> ([u8; HEADER_MAX], usize) {
    let mut header = [0; HEADER_MAX];
    header[0] = first;
    if let (true, Ok(short)) = (length < 126, u8::try_from(length)) {
        header[1] = short;
        (header, 2)
    } else if let Ok(medium) = u16::try_from(length) {
        header[1] = 126;
        header[2..4].copy_from_slice(&medium.to_be_bytes());
        (header, 4)
    } else {
        header[1] = 127;
        header[2..].copy_from_slice(&(length as u64).to_be_bytes());
        (header, HEADER_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::encoding::decode_varint;
    use tungstenite::Message;
    use tungstenite::protocol::{Role, WebSocketContext};

    const LENGTHS: [usize; 8] = [0, 1, 125, 126, 127, 65_535, 65_536, 1_000_000];

    fn composed(format: Format, length: usize) -> (Vec<u8>, Frame) {
        let message = vec![b'x'; length];
        let mut composer = Composer::new(format, 0);
        composer.out().extend_from_slice(&message);
        (message, composer.finish())
    }

    #[test]
    fn a_client_reads_the_message_at_each_length_of_the_header() {
        for length in LENGTHS {
            for format in [Format::WebSocketJson, Format::WebSocketProtobuf] {
                let (message, frame) = composed(format, length);
                let mut wire = std::io::Cursor::new(frame.as_bytes().to_vec());
                let read = WebSocketContext::new(Role::Client, None).read(&mut wire).unwrap();
                assert_eq!(wire.position(), frame.len() as u64, "nothing is left over");
                if format == Format::WebSocketJson {
                    assert_eq!(
                        (frame.text(), read),
                        (&message[..], Message::text(String::from_utf8(message.clone()).unwrap()))
                    );
                } else {
                    assert!(read.is_binary());
                    let data = read.into_data();
                    assert_eq!(frame.message(format), data);
                    assert_eq!(without_length(&data), message);
                }
            }
        }
    }

    #[test]
    fn a_stream_s_message_ends_where_the_next_begins() {
        for length in LENGTHS {
            let (message, line) = composed(Format::StreamJson, length);
            assert_eq!(line.as_bytes(), [&message[..], b"\n"].concat());
            let (_, delimited) = composed(Format::StreamProtobuf, length);
            assert_eq!(without_length(delimited.as_bytes()), message);
            let (_, event) = composed(Format::Sse, length);
            assert_eq!(event.as_bytes(), [b"data: ", &message[..], b"\n\n"].concat());
            assert!(event.message(Format::Sse).starts_with(&message));
        }
    }

    fn without_length(mut delimited: &[u8]) -> &[u8] {
        let length = decode_varint(&mut delimited).unwrap();
        assert_eq!(length, delimited.len() as u64);
        delimited
    }
}
