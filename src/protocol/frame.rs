//! Outgoing WebSocket messages, encoded as written to sockets.
//!
//! A message is encoded once, header included, for any number of receivers: a server's frames are not masked, so the
//! bytes are the same for all.

use bytes::Bytes;

/// Longest header of a frame that the gateway sends.
const HEADER_MAX: usize = 10;
/// First byte of a text message in a single frame.
const TEXT: u8 = 0x81;

/// One encoded message, or several in a row. Clones share the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame(Bytes);

/// A text message under construction.
pub struct Text(Vec<u8>);

impl Text {
    /// With room for `bytes` bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        let mut text = Vec::with_capacity(HEADER_MAX + bytes);
        text.resize(HEADER_MAX, 0);
        Self(text)
    }

    /// Buffer to append the text to.
    pub fn out(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }

    pub fn finish(mut self) -> Frame {
        let length = self.0.len() - HEADER_MAX;
        let (header, size) = header(length);
        self.0[HEADER_MAX - size..HEADER_MAX].copy_from_slice(&header[..size]);
        Frame(Bytes::from(self.0).slice(HEADER_MAX - size..))
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

    /// The text of the first message.
    pub fn text(&self) -> &[u8] {
        let size = match self.0.get(1) {
            Some(127) => HEADER_MAX,
            Some(126) => 4,
            _ => 2,
        };
        self.0.get(size..).unwrap_or_default()
    }
}

/// Header of a text with `length` bytes, and the length of the header.
fn header(length: usize) -> ([u8; HEADER_MAX], usize) {
    let mut header = [0; HEADER_MAX];
    header[0] = TEXT;
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
    use tungstenite::Message;
    use tungstenite::protocol::{Role, WebSocketContext};

    #[test]
    fn a_client_reads_what_was_written_at_each_length_of_the_header() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536, 1_000_000] {
            let text = "x".repeat(length);
            let mut composing = Text::with_capacity(0);
            composing.out().extend_from_slice(text.as_bytes());
            let frame = composing.finish();
            assert_eq!(frame.text(), text.as_bytes());
            let mut wire = std::io::Cursor::new(frame.as_bytes().to_vec());
            let read = WebSocketContext::new(Role::Client, None).read(&mut wire).unwrap();
            assert_eq!(read, Message::text(text));
            assert_eq!(wire.position(), frame.len() as u64, "nothing is left over");
        }
    }
}
