//! A connection without the session: reads, writes, pings, and ends on time.

use super::closing::ConnectionEnd;
use super::reader::{Arrival, Reader};
use super::writing::{Progress, Writing};
use crate::connection::Connection;
use crate::protocol::{codes, encode};
use crate::session::Services;
use crate::session::timing::{Clock, Pings, TimerAction};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use tokio::time::{Instant, Sleep};

/// The parts of a connection beside the session.
pub(super) struct Line<'a, F> {
    pub reader: &'a mut Reader,
    pub writing: Writing,
    pub clock: &'a Clock,
    pub services: &'a Services,
    pub tick: Pin<&'a mut Sleep>,
    pub farewell: Pin<&'a mut F>,
    pub is_leaving: bool,
    /// Set once the client is authenticated.
    pub connection: Option<Arc<Connection>>,
}

impl<F: Future<Output = ()>> Line<'_, F> {
    /// Waits for the next event and handles it: read, write, ping, or end the connection. Returns a message that has
    /// arrived; reads only with `may_read`. Safe to cancel.
    pub async fn attend(&mut self, may_read: bool) -> Result<Option<Arrival>, ConnectionEnd> {
        // Fields are used in place: each variable would enlarge the future of every idle connection.
        self.set_tick();
        tokio::select! {
            arrival = poll_fn(|cx| self.reader.poll_next(cx)), if may_read => return Ok(Some(arrival)),
            progress = self.writing.step(self.services) => match progress {
                Ok(Progress::Changed) => {}
                Ok(Progress::Moved) => {
                    let pings = Pings::of(&self.services.config);
                    self.clock.with(|timing| timing.moved(Instant::now(), pings));
                    self.record_activity();
                }
                Err(end) => {
                    // A write that fails, as after a reset: the client has closed just now.
                    if matches!(end, ConnectionEnd::Gone) {
                        self.record_activity();
                    }
                    return Err(end);
                }
            },
            () = self.tick.as_mut() => return self.tick(may_read),
            () = self.farewell.as_mut(), if !self.is_leaving => {
                // Ends the connection once the whole queue has been written.
                self.writing.outbox.close(codes::SHUTDOWN);
                self.is_leaving = true;
            }
        }
        Ok(None)
    }

    /// Sets the timer to the next ping or end. Not within [`Line::attend`], whose future would keep the time.
    fn set_tick(&mut self) {
        let next = self.clock.with(|timing| timing.next());
        if self.tick.deadline() != next {
            self.tick.as_mut().reset(next);
        }
    }

    /// Records a sign of life of the client, once the client is authenticated.
    pub fn record_activity(&self) {
        self.connection.iter().for_each(|connection| connection.record_activity());
    }

    fn tick<T>(&self, may_read: bool) -> Result<Option<T>, ConnectionEnd> {
        let pings = Pings::of(&self.services.config);
        match self.clock.with(|timing| timing.due(Instant::now(), pings, may_read)) {
            TimerAction::Nothing => {}
            TimerAction::Ping => drop(self.writing.outbox.push(encode::ping(self.writing.outbox.format()))),
            TimerAction::End(reason) => return Err(reason.into()),
        }
        Ok(None)
    }
}
