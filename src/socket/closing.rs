//! The end of a connection: its reason, and the closing handshake.

use super::reader::Reader;
use crate::protocol::codes::{self, Disconnect};
use crate::session::Services;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tungstenite::error::{CapacityError, Error, ProtocolError};
use tungstenite::protocol::frame::coding::CloseCode;

/// Maximum time for each step of closing a connection: writing the rest, and waiting for the client's end.
const CLOSING: Duration = Duration::from_secs(1);

/// Reason why a connection ended.
pub(super) enum ConnectionEnd {
    /// The gateway ends the connection and sends the reason.
    Disconnect(Disconnect),
    /// The client violated the WebSocket protocol itself: a close code below 3000.
    Violation(CloseCode, &'static str),
    /// The client closed.
    Client,
    /// The connection is lost: no close frame can be sent.
    Gone,
}

impl From<Disconnect> for ConnectionEnd {
    fn from(reason: Disconnect) -> Self {
        ConnectionEnd::Disconnect(reason)
    }
}

impl ConnectionEnd {
    /// The end after a failed read.
    pub fn of(error: &Error, services: &Services) -> Self {
        let (kind, end) = match error {
            Error::Capacity(CapacityError::MessageTooLong { .. }) => ("too_big", codes::FRAME_TOO_BIG.into()),
            Error::Utf8(_) => ("utf8", ConnectionEnd::Violation(CloseCode::Invalid, "text that is not UTF-8")),
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => return ConnectionEnd::Gone,
            Error::Protocol(_) => {
                ("websocket", ConnectionEnd::Violation(CloseCode::Protocol, "WebSocket protocol violated"))
            }
            _ => return ConnectionEnd::Gone,
        };
        services.metrics.bad_frames.with_label_values(&[kind]).inc();
        end
    }

    /// Counts the connection's end.
    pub fn count(&self, services: &Services) {
        let code = match self {
            ConnectionEnd::Disconnect(reason) => reason.code.to_string(),
            ConnectionEnd::Violation(code, _) => u16::from(*code).to_string(),
            ConnectionEnd::Client | ConnectionEnd::Gone => "client".to_owned(),
        };
        services.metrics.disconnects.with_label_values(&[&code]).inc();
    }
}

/// Writes the queue and the reason of the end, and gives the client a moment to read them.
pub(super) async fn close(mut reader: Reader, end: ConnectionEnd) {
    let (stream, outbox) = (Arc::clone(reader.stream()), Arc::clone(reader.outbox()));
    // Frames that were queued before the end, such as an error reply, still leave.
    outbox.close(codes::SHUTDOWN);
    let queued = match end {
        ConnectionEnd::Gone => return outbox.hang_up(),
        // The answer to the client's own close frame waits to be written.
        ConnectionEnd::Client => reader.answer_close(),
        ConnectionEnd::Violation(code, reason) => reader.reject(code, reason),
        ConnectionEnd::Disconnect(reason) => {
            if reason == codes::SLOW {
                outbox.abort(reason);
            }
            reader.end(reason)
        }
    };
    if let Err(error) = queued {
        tracing::trace!(%error, "the client closed first");
    }
    // The inbox of a stream ends here: later commands are refused.
    drop(reader);
    let _ = timeout(CLOSING, async {
        outbox.flush();
        while !outbox.is_empty() {
            stream.writable().await?;
            outbox.flush();
        }
        io::Result::Ok(())
    })
    .await;
    // Unread input would turn the end of the connection into a reset, which can overtake the close frame.
    let _ = timeout(CLOSING, async {
        socket2::SockRef::from(&*stream).shutdown(std::net::Shutdown::Write)?;
        let mut unread = vec![0; 4096];
        loop {
            stream.readable().await?;
            match stream.try_read(&mut unread) {
                Ok(0) => return io::Result::Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    })
    .await;
    outbox.hang_up();
}
