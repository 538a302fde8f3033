//! Messages waiting while earlier messages of the client are handled.

use super::closing::ConnectionEnd;
use super::line::Line;
use super::reader::Arrival;
use crate::protocol::codes;
use crate::protocol::decode::ClientFrame;
use crate::protocol::format::Encoding;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;
use tungstenite::Message;
use tungstenite::error::Error;

/// Maximum bytes of messages waiting while earlier messages are handled. A message is read while there is room,
/// whatever its size up to `max_frame_size`.
const BACKLOG: usize = 16 * 1024;
/// Cost of a waiting message in addition to the message's bytes.
const ARRIVED: usize = 64;

/// Messages that arrived while earlier messages were handled, in order. [`BACKLOG`] limits the bytes: past the limit,
/// the connection is not read until there is room.
#[derive(Default)]
pub(super) struct Backlog {
    waiting: VecDeque<Arrived>,
    /// Bytes in `waiting`, plus [`ARRIVED`] per message.
    held: usize,
    /// The end of the connection after the waiting messages, and the time when the end was read.
    pub end: Option<(ConnectionEnd, Instant)>,
}

pub(super) enum Arrived {
    Frame(ClientFrame),
    /// A ping or pong of the WebSocket protocol, or surplus bytes of a stream: each costs as much as a command.
    Control,
}

impl Arrived {
    fn cost(&self) -> usize {
        ARRIVED + if let Arrived::Frame(frame) = self { frame.len() } else { 0 }
    }
}

impl Backlog {
    pub fn has_room(&self) -> bool {
        self.end.is_none() && self.held < BACKLOG
    }

    /// Takes an arrival. A pong takes effect at once. An error is a sign of life as well: a client that closes without
    /// reading everything resets the connection.
    pub fn take<F: Future<Output = ()>>(&mut self, arrival: Arrival, line: &Line<'_, F>) {
        line.record_activity();
        let arrived = match arrival {
            Arrival::Message(message) => of_websocket(message, line),
            Arrival::Commands(frame) => Ok(Arrived::Frame(frame)),
            Arrival::Surplus => Ok(Arrived::Control),
            Arrival::Overflow => Err(codes::FLOOD.into()),
            Arrival::Hangup => Err(ConnectionEnd::Gone),
        };
        match arrived {
            Ok(Arrived::Frame(frame)) if line.clock.with(|timing| timing.arrived(&frame)) => {
                line.services.metrics.commands.with_label_values(&["pong"]).inc();
            }
            Ok(arrived) => {
                self.held += arrived.cost();
                self.waiting.push_back(arrived);
            }
            Err(end) => self.end = Some((end, Instant::now())),
        }
    }

    /// Drops the waiting messages.
    pub fn clear(&mut self) {
        self.waiting.clear();
    }

    pub fn next(&mut self) -> Option<Arrived> {
        let next = self.waiting.pop_front()?;
        self.held -= next.cost();
        Some(next)
    }

    /// Whether the client has been gone for so long that the waiting messages are no longer handled.
    pub fn is_out_of_time(&self, patience: Duration) -> bool {
        self.end.as_ref().is_some_and(|(_, at)| at.elapsed() >= patience)
    }
}

/// A message of a WebSocket, or the end of the connection.
fn of_websocket<F>(message: Result<Message, Error>, line: &Line<'_, F>) -> Result<Arrived, ConnectionEnd> {
    let encoding = line.writing.outbox.format().encoding();
    match message {
        Ok(Message::Text(text)) if encoding == Encoding::Json => Ok(Arrived::Frame(ClientFrame::Json(text))),
        Ok(Message::Binary(bytes)) if encoding == Encoding::Protobuf => {
            Ok(Arrived::Frame(ClientFrame::Protobuf(bytes)))
        }
        // tungstenite answers pings itself, with its next read.
        Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => Ok(Arrived::Control),
        Ok(Message::Close(_)) => Err(ConnectionEnd::Client),
        Ok(Message::Text(_) | Message::Binary(_)) => {
            let kind = if encoding == Encoding::Json { "binary" } else { "text" };
            line.services.metrics.bad_frames.with_label_values(&[kind]).inc();
            Err(codes::BAD_REQUEST_FRAME.into())
        }
        Err(error) => Err(ConnectionEnd::of(&error, line.services)),
    }
}
