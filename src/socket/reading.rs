//! Reads messages from a client's socket with tungstenite.

use crate::outbox::Outbox;
use crate::protocol::frame::Frame;
use crate::stream::ClientStream;
use bytes::Bytes;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::task::{self, Context, Poll};
use tungstenite::Message;
use tungstenite::error::Error;
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext};

/// Read buffer of a connection being read; an idle connection has none. Enough for a client's usual frame;
/// larger frames get more room.
const READ_BUFFER: usize = 1024;
/// tungstenite's buffer for writes, which go to the outbox at once.
const WRITE_BUFFER: usize = 1024;

pub(super) struct MessageReader {
    /// `None` while no message of the client is half read or unanswered: most connections are idle most of the time,
    /// and save half a kilobyte.
    reader: Option<Box<WebSocketContext>>,
    through: Through,
    max_frame_size: usize,
}

impl MessageReader {
    /// `early`: bytes that arrived with the handshake.
    pub fn new(stream: Arc<ClientStream>, outbox: Arc<Outbox>, early: &Bytes, max_frame_size: usize) -> Self {
        // A copy: hyper's own buffer of 8 KiB would otherwise become the buffer of the connection.
        let reader = Some(reader(early.to_vec(), max_frame_size));
        Self { reader, through: Through { stream, outbox, unread: early.len() }, max_frame_size }
    }

    pub fn stream(&self) -> &Arc<ClientStream> {
        &self.through.stream
    }

    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.through.outbox
    }

    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, Error>> {
        loop {
            if self.reader.is_none() {
                task::ready!(self.through.stream.poll_read_ready(cx))?;
            }
            let (reader, through) = self.parts();
            match reader.read(through) {
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                    if self.through.unread == 0 {
                        self.reader = None;
                    }
                    task::ready!(self.through.stream.poll_read_ready(cx))?;
                }
                Ok(message) => {
                    self.through.unread -= least_size(&message);
                    return Poll::Ready(Ok(message));
                }
                failed => return Poll::Ready(failed),
            }
        }
    }

    /// Queues a close frame.
    pub fn close(&mut self, frame: CloseFrame) -> Result<(), Error> {
        let (reader, through) = self.parts();
        reader.close(through, Some(frame))
    }

    /// Queues the answer to the client's close frame.
    pub fn answer_close(&mut self) -> Result<(), Error> {
        let (reader, through) = self.parts();
        reader.flush(through)
    }

    fn parts(&mut self) -> (&mut WebSocketContext, &mut Through) {
        let reader = self.reader.get_or_insert_with(|| reader(Vec::new(), self.max_frame_size));
        (reader, &mut self.through)
    }
}

/// The socket as tungstenite sees it. Writes go into the outbox, so that tungstenite's frames stand between the
/// gateway's frames and never within one.
struct Through {
    stream: Arc<ClientStream>,
    outbox: Arc<Outbox>,
    /// Bytes read by tungstenite that belong to no message yet; too many if frames were longer than
    /// necessary. 0: tungstenite's buffer is empty.
    unread: usize,
}

impl Read for Through {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.stream.try_read(buffer)?;
        self.unread += size;
        Ok(size)
    }
}

impl Write for Through {
    fn write(&mut self, encoded: &[u8]) -> io::Result<usize> {
        self.outbox.push_last(Frame::encoded(encoded));
        Ok(encoded.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn reader(early: Vec<u8>, limit: usize) -> Box<WebSocketContext> {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BUFFER)
        .max_frame_size(Some(limit))
        .max_message_size(Some(limit));
    Box::new(WebSocketContext::from_partially_read(early, Role::Server, Some(config)))
}

/// Minimum number of bytes sent by a client for a message: one frame with the shortest header.
fn least_size(message: &Message) -> usize {
    if message.is_close() {
        // tungstenite may have replaced the client's reason. Nothing follows a close frame anyway.
        return 0;
    }
    let payload = message.len();
    let header = match payload {
        0..=125 => 6,
        126..=0xffff => 8,
        _ => 14,
    };
    header + payload
}

#[cfg(test)]
#[path = "reading_tests.rs"]
mod tests;
