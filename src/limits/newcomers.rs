//! Connections without a token yet, `max_unauthenticated` at most. Beyond the limit, a new connection displaces
//! the oldest, which is closed with [`codes::DISPLACED`] and may reconnect.

use super::pending::{Displace, Pending, Wait};
use crate::outbox::Outbox;
use crate::protocol::codes;
use parking_lot::Mutex;
use prometheus::IntGauge;
use std::sync::{Arc, Weak};

pub struct Newcomers {
    pending: Arc<Pending<Newcomer>>,
    count: IntGauge,
}

/// A connection without a token, from the handshake on; the outbox exists after the handshake.
#[derive(Default)]
pub struct Newcomer(Mutex<Stage>);

#[derive(Default)]
enum Stage {
    #[default]
    Handshake,
    Open(Weak<Outbox>),
    Displaced,
}

/// Place in the table, until the token is verified or the connection ends. Given back by drop.
pub struct NewcomerPlace {
    wait: Wait<Newcomer>,
    count: IntGauge,
}

impl Newcomers {
    /// `count`: gauge of connections without a token.
    pub fn new(limit: usize, count: IntGauge) -> Self {
        Self { pending: Pending::new(limit), count }
    }

    /// Adds a connection, and displaces the oldest past the limit. The metric of disconnects counts displaced connections.
    pub fn enter(&self) -> NewcomerPlace {
        let (wait, _) = self.pending.enter(Newcomer::default());
        self.count.inc();
        NewcomerPlace { wait, count: self.count.clone() }
    }
}

impl NewcomerPlace {
    /// Registers the outbox after the handshake. Closes the outbox if the connection was displaced during the handshake.
    pub fn opened(&self, outbox: &Arc<Outbox>) {
        let mut stage = self.wait.entry().0.lock();
        match *stage {
            Stage::Displaced => outbox.close(codes::DISPLACED),
            Stage::Handshake | Stage::Open(_) => *stage = Stage::Open(Arc::downgrade(outbox)),
        }
    }
}

impl NewcomerPlace {
    /// The token has arrived: while PocketBase is asked about it, the connection is not displaced any more.
    pub fn keep(&self) {
        self.wait.keep();
    }
}

impl Drop for NewcomerPlace {
    fn drop(&mut self) {
        self.count.dec();
    }
}

impl Displace for Newcomer {
    fn displace(&self) {
        let mut stage = self.0.lock();
        if let Stage::Open(outbox) = &*stage
            && let Some(outbox) = outbox.upgrade()
        {
            outbox.close(codes::DISPLACED);
        }
        *stage = Stage::Displaced;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::OutboxState;

    #[test]
    fn the_oldest_is_closed_before_and_after_its_handshake() {
        let count = IntGauge::new("count", "for a test").unwrap();
        let newcomers = Newcomers::new(1, count.clone());
        let outboxes = [Outbox::alone(1000), Outbox::alone(1000), Outbox::alone(1000)];
        let states = || outboxes.each_ref().map(|outbox| outbox.state());
        let first = newcomers.enter();
        first.opened(&outboxes[0]);
        assert_eq!(outboxes[0].state(), OutboxState::Open);
        let second = newcomers.enter();
        let displaced = OutboxState::Over(Some(codes::DISPLACED));
        assert_eq!(states(), [displaced, OutboxState::Open, OutboxState::Open]);
        let third = newcomers.enter();
        second.opened(&outboxes[1]);
        third.opened(&outboxes[2]);
        assert_eq!(states(), [displaced, displaced, OutboxState::Open]);
        assert_eq!(count.get(), 3, "a connection counts until its end");
        third.keep();
        let fourth = newcomers.enter();
        assert_eq!(states()[2], OutboxState::Open, "its token has arrived");
        drop((first, second, third, fourth));
        let _fourth = newcomers.enter();
        assert_eq!((count.get(), states()[2]), (1, OutboxState::Open));
    }
}
