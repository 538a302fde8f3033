//! Writes a client's outbox to the socket while the socket was full, and watches for the outbox's end.

use super::closing::ConnectionEnd;
use crate::outbox::{Outbox, OutboxState};
use crate::protocol::codes;
use crate::session::Services;
use crate::stream::ClientStream;
use std::sync::Arc;
use tokio::time::{Instant, sleep_until};

/// Outcome of [`Writing::step`].
#[derive(PartialEq)]
pub(super) enum Progress {
    /// The outbox's standing has changed and has to be read again.
    Changed,
    /// The socket was full and has accepted bytes.
    Moved,
}

pub(super) struct Writing {
    pub stream: Arc<ClientStream>,
    pub outbox: Arc<Outbox>,
}

impl Writing {
    /// Waits for the next task of the outbox and does it. A client that does not read is disconnected once its queue
    /// is full or `write_timeout` is over. Safe to cancel.
    pub async fn step(&self, services: &Services) -> Result<Progress, ConnectionEnd> {
        let outbox = &self.outbox;
        match outbox.state() {
            OutboxState::Over(reason) => Err(reason.map_or(ConnectionEnd::Gone, ConnectionEnd::from)),
            OutboxState::Open => {
                outbox.changed().await;
                Ok(Progress::Changed)
            }
            // Boxed: few sockets are full at a time, and idle connections need not hold room for the wait.
            OutboxState::Full(since) => Box::pin(self.make_room(since + services.config.write_timeout)).await,
        }
    }

    async fn make_room(&self, deadline: Instant) -> Result<Progress, ConnectionEnd> {
        let Self { stream, outbox } = self;
        tokio::select! {
            writable = stream.writable() => match writable {
                Ok(()) => {
                    outbox.flush();
                    Ok(Progress::Moved)
                }
                Err(_) => Err(ConnectionEnd::Gone),
            },
            () = outbox.changed() => Ok(Progress::Changed),
            () = sleep_until(deadline) => Err(codes::SLOW.into()),
        }
    }
}
