//! When a connection has to be pinged, and when it has to end: a pure calculation on instants that are passed in.

use crate::config::Config;
use crate::protocol::codes::{self, Disconnect};
use std::time::Duration;
use tokio::time::Instant;

const YEAR: Duration = Duration::from_secs(31_536_000);

/// Alike for all connections, so that none of them holds it.
#[derive(Clone, Copy)]
pub struct Pings {
    /// Between two.
    interval: Duration,
    /// How long a client may take to answer one.
    timeout: Duration,
}

impl Pings {
    pub fn of(config: &Config) -> Self {
        Self { interval: config.ping_interval, timeout: config.pong_timeout }
    }
}

pub struct Timing {
    /// Deadline for `connect`, and later for a fresh token; past it, `ended_by`. Guests have none.
    end: Option<Instant>,
    ended_by: Disconnect,
    next_ping: Option<Instant>,
    pong_due: Option<Instant>,
}

/// What the time has come for.
#[derive(Debug, PartialEq)]
pub enum Due {
    Nothing,
    Ping,
    End(Disconnect),
}

impl Timing {
    pub fn new(config: &Config, now: Instant) -> Self {
        Self { end: Some(now + config.connect_timeout), ended_by: codes::STALE, next_ping: None, pong_due: None }
    }

    /// The client is authenticated for as long as `valid`; `None`: without end.
    pub fn authenticated(&mut self, now: Instant, pings: Pings, valid: Option<Duration>) {
        // A year at most: a token may be valid for longer than an instant can reach.
        self.end = valid.map(|valid| now + valid.min(YEAR));
        self.ended_by = codes::EXPIRED;
        self.next_ping.get_or_insert(now + pings.interval);
    }

    /// The client answered a ping; returns whether there was one to answer.
    pub fn pong(&mut self) -> bool {
        self.pong_due.take().is_some()
    }

    /// When [`Timing::due`] should be asked next.
    pub fn next(&self) -> Instant {
        // Never empty: an end before `connect`, a next ping afterwards.
        let next = [self.end, self.next_ping, self.pong_due].into_iter().flatten().min();
        next.unwrap_or_else(|| Instant::now() + YEAR)
    }

    pub fn due(&mut self, now: Instant, pings: Pings) -> Due {
        if self.end.is_some_and(|end| now >= end) {
            Due::End(self.ended_by)
        } else if self.pong_due.is_some_and(|due| now >= due) {
            Due::End(codes::NO_PONG)
        } else if self.next_ping.is_some_and(|due| now >= due) {
            self.next_ping = Some(now + pings.interval);
            self.pong_due = Some(now + pings.timeout);
            Due::Ping
        } else {
            Due::Nothing
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PINGS: Pings = Pings { interval: Duration::from_secs(25), timeout: Duration::from_secs(10) };

    fn timing(now: Instant) -> Timing {
        Timing { end: Some(now + Duration::from_secs(10)), ended_by: codes::STALE, next_ping: None, pong_due: None }
    }

    #[test]
    fn who_never_connects_is_stale() {
        let start = Instant::now();
        let mut timing = timing(start);
        assert_eq!(timing.next(), start + Duration::from_secs(10));
        assert_eq!(timing.due(start + Duration::from_secs(9), PINGS), Due::Nothing);
        assert_eq!(timing.due(start + Duration::from_secs(10), PINGS), Due::End(codes::STALE));
    }

    #[test]
    fn pings_go_on_while_they_are_answered_and_end_it_when_not() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut timing = timing(start);
        timing.authenticated(start, PINGS, Some(Duration::from_secs(3600)));
        assert_eq!((timing.next(), timing.due(at(25), PINGS)), (at(25), Due::Ping));
        assert_eq!(timing.next(), at(35));
        assert!(timing.pong());
        assert!(!timing.pong());
        assert_eq!((timing.next(), timing.due(at(50), PINGS)), (at(50), Due::Ping));
        assert_eq!(timing.due(at(60), PINGS), Due::End(codes::NO_PONG));
    }

    #[test]
    fn a_refresh_moves_the_end_and_not_the_pings() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut timing = timing(start);
        timing.authenticated(start, PINGS, Some(Duration::from_secs(30)));
        timing.authenticated(at(20), PINGS, Some(Duration::from_secs(30)));
        assert_eq!(timing.due(at(25), PINGS), Due::Ping);
        assert!(timing.pong());
        assert_eq!(timing.due(at(49), PINGS), Due::Nothing);
        assert_eq!(timing.due(at(50), PINGS), Due::End(codes::EXPIRED));
        timing.authenticated(start, PINGS, Some(Duration::MAX));
    }

    #[test]
    fn a_guest_stays_for_as_long_as_it_answers() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut timing = timing(start);
        timing.authenticated(start, PINGS, None);
        assert_eq!((timing.next(), timing.due(at(25), PINGS)), (at(25), Due::Ping));
        assert!(timing.pong());
        assert_eq!((timing.next(), timing.due(at(40_000_000), PINGS)), (at(50), Due::Ping));
        assert_eq!(timing.due(at(40_000_010), PINGS), Due::End(codes::NO_PONG));
    }
}
