//! Reads a client's messages: from the WebSocket, or from the inbox of a stream.

use super::reading::MessageReader;
use crate::inboxes::{InboxHandle, Received};
use crate::outbox::Outbox;
use crate::protocol::codes::Disconnect;
use crate::protocol::decode::ClientFrame;
use crate::protocol::encode;
use crate::stream::ClientStream;
use std::io::ErrorKind;
use std::sync::Arc;
use std::task::{self, Context, Poll};
use tungstenite::Message;
use tungstenite::error::Error;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;

/// Bytes per read of a stream's socket, on which nothing should arrive.
const SURPLUS: usize = 512;

pub(super) enum Reader {
    WebSocket(MessageReader),
    Stream(StreamReader),
}

/// An arrival from the client.
pub(super) enum Arrival {
    /// A message of the WebSocket, or the error of a read.
    Message(Result<Message, Error>),
    /// Commands from the inbox of a stream.
    Commands(ClientFrame),
    /// Bytes on a stream's socket after the request, dropped: the response promises the end of the connection, so that
    /// no further request may follow.
    Surplus,
    /// The inbox of a stream has lost commands.
    Overflow,
    /// The client has closed the connection of a stream.
    Hangup,
}

/// Reads the inbox of a stream, and notices the end of the connection.
pub(super) struct StreamReader {
    stream: Arc<ClientStream>,
    outbox: Arc<Outbox>,
    /// Boxed, since [`Reader`] is as large as the largest of its kinds.
    inbox: Box<InboxHandle>,
}

impl Reader {
    pub fn of_stream(stream: Arc<ClientStream>, outbox: Arc<Outbox>, inbox: InboxHandle) -> Self {
        Self::Stream(StreamReader { stream, outbox, inbox: Box::new(inbox) })
    }

    pub fn stream(&self) -> &Arc<ClientStream> {
        match self {
            Self::WebSocket(reader) => reader.stream(),
            Self::Stream(reader) => &reader.stream,
        }
    }

    pub fn outbox(&self) -> &Arc<Outbox> {
        match self {
            Self::WebSocket(reader) => reader.outbox(),
            Self::Stream(reader) => &reader.outbox,
        }
    }

    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Arrival> {
        match self {
            Self::WebSocket(reader) => reader.poll_next(cx).map(Arrival::Message),
            Self::Stream(reader) => reader.poll_next(cx),
        }
    }

    /// Queues the reason of the end: as a close frame, or as a push.
    pub fn end(&mut self, reason: Disconnect) -> Result<(), Error> {
        match self {
            Self::WebSocket(reader) => {
                reader.close(CloseFrame { code: reason.code.into(), reason: reason.reason.into() })
            }
            Self::Stream(StreamReader { outbox, .. }) => {
                outbox.push_last(encode::disconnect(outbox.format(), reason));
                Ok(())
            }
        }
    }

    /// Queues the close frame for a violation of the WebSocket protocol, which a stream cannot violate.
    pub fn reject(&mut self, code: CloseCode, reason: &'static str) -> Result<(), Error> {
        match self {
            Self::WebSocket(reader) => reader.close(CloseFrame { code, reason: reason.into() }),
            Self::Stream(_) => Ok(()),
        }
    }

    /// Queues the answer to the client's close frame. A stream's client has none.
    pub fn answer_close(&mut self) -> Result<(), Error> {
        match self {
            Self::WebSocket(reader) => reader.answer_close(),
            Self::Stream(_) => Ok(()),
        }
    }
}

impl StreamReader {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Arrival> {
        match self.inbox.poll_next(cx) {
            Poll::Ready(Received::Frame(frame)) => return Poll::Ready(Arrival::Commands(frame)),
            Poll::Ready(Received::Overflow) => return Poll::Ready(Arrival::Overflow),
            Poll::Pending => {}
        }
        loop {
            if task::ready!(self.stream.poll_read_ready(cx)).is_err() {
                return Poll::Ready(Arrival::Hangup);
            }
            match self.stream.try_read(&mut [0; SURPLUS]) {
                Ok(1..) => return Poll::Ready(Arrival::Surplus),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Ok(0) | Err(_) => return Poll::Ready(Arrival::Hangup),
            }
        }
    }
}
