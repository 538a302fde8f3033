//! Pings, pong deadlines and the end of a connection: a pure calculation on instants that are passed in.

use crate::config::Config;
use crate::outbox;
use crate::protocol::codes::{self, Disconnect};
use crate::protocol::decode::{ClientFrame, Pongs};
use parking_lot::Mutex;
use std::time::Duration;
use tokio::time::Instant;

const YEAR: Duration = Duration::from_secs(31_536_000);
/// A deadline noticed this late means that this process stood still, not that the client is gone.
const LATE: Duration = Duration::from_secs(1);

/// Ping settings: the same for all connections, and not copied into connections.
#[derive(Clone, Copy)]
pub struct Pings {
    /// Time between two pings.
    interval: Duration,
    /// Maximum time for a client's answer to a ping.
    timeout: Duration,
    /// Time for the kernel's buffer of a slow client to drain, at the minimum speed that is tolerated.
    drain: Duration,
}

impl Pings {
    pub fn of(config: &Config) -> Self {
        let drain = config.write_timeout * outbox::KERNEL_BUFFER.div_ceil(outbox::STRIDE) as u32;
        Self { interval: config.ping_interval, timeout: config.pong_timeout, drain }
    }
}

/// A connection's [`Timing`], shared by the session and by the task that reads and writes while the session works.
///
/// A blocking mutex is enough: held for a few comparisons.
pub struct Clock(Mutex<Timing>);

impl Clock {
    pub fn new(config: &Config, now: Instant) -> Self {
        Self(Mutex::new(Timing::new(config, now)))
    }

    /// Reads or changes the timing.
    pub fn with<R>(&self, act: impl FnOnce(&mut Timing) -> R) -> R {
        act(&mut self.0.lock())
    }
}

pub struct Timing {
    /// Deadline for `connect`, and later for a fresh token. Guests have none.
    end: Option<Instant>,
    next_ping: Option<Instant>,
    pong_due: Option<Instant>,
    /// Time until which a ping may be delayed behind earlier bytes. `None`: the socket was never full. Boxed, since few
    /// sockets ever are.
    drained: Option<Box<Instant>>,
    is_authenticated: bool,
    /// Pongs that have arrived in frames not handled yet.
    early: u16,
}

/// The next thing to do.
#[derive(Debug, PartialEq)]
pub enum TimerAction {
    Nothing,
    Ping,
    End(Disconnect),
}

impl Timing {
    fn new(config: &Config, now: Instant) -> Self {
        Self::ending(now + config.connect_timeout)
    }

    fn ending(end: Instant) -> Self {
        let (next_ping, pong_due, drained) = (None, None, None);
        Self { end: Some(end), next_ping, pong_due, drained, is_authenticated: false, early: 0 }
    }

    /// The client is authenticated for the duration `valid`; `None`: without end.
    pub fn authenticated(&mut self, now: Instant, pings: Pings, valid: Option<Duration>) {
        // At most a year: a token may be valid for longer than an instant can reach.
        self.end = valid.map(|valid| now + valid.min(YEAR));
        self.is_authenticated = true;
        self.next_ping.get_or_insert(now + pings.interval);
    }

    /// Notes the arrival of a frame, which may be handled much later: a pong in the frame counts from now on. Returns
    /// true for a frame that contains only a pong and needs no handling.
    pub fn arrived(&mut self, frame: &ClientFrame) -> bool {
        if self.pong_due.is_none() {
            return false;
        }
        let pongs = frame.pongs();
        if pongs != Pongs::None {
            self.pong_due = None;
        }
        if pongs == Pongs::Among {
            self.early = self.early.saturating_add(1);
        }
        pongs == Pongs::Alone
    }

    /// Handles a pong. Returns whether there was a ping to answer.
    pub fn pong(&mut self) -> bool {
        if self.early > 0 {
            self.early -= 1;
            return true;
        }
        self.pong_due.take().is_some()
    }

    /// The client's socket was full and has accepted bytes: the client's time for a pong begins when the kernel's
    /// buffer has drained.
    pub fn moved(&mut self, now: Instant, pings: Pings) {
        let drained = now + pings.drain;
        **self.drained.get_or_insert_with(|| Box::new(drained)) = drained;
        self.pong_due = self.pong_due.map(|due| due.max(drained + pings.timeout));
    }

    /// Time of the next call of [`Timing::due`].
    pub fn next(&self) -> Instant {
        // Never empty: an end before `connect`, a next ping afterwards.
        let next = [self.end, self.next_ping, self.pong_due].into_iter().flatten().min();
        next.unwrap_or_else(|| Instant::now() + YEAR)
    }

    /// `is_listening`: whether the connection is being read. Without reading, a missing pong proves nothing.
    pub fn due(&mut self, now: Instant, pings: Pings, is_listening: bool) -> TimerAction {
        if self.end.is_some_and(|end| now >= end) {
            return TimerAction::End(if self.is_authenticated { codes::EXPIRED } else { codes::STALE });
        }
        if let Some(due) = self.pong_due.filter(|due| now >= *due) {
            if is_listening && now < due + LATE {
                return TimerAction::End(codes::NO_PONG);
            }
            self.pong_due = Some(now + pings.timeout);
        }
        if self.next_ping.is_none_or(|due| now < due) {
            return TimerAction::Nothing;
        }
        self.next_ping = Some(now + pings.interval);
        if self.pong_due.is_some() {
            // The last ping may still be on its way.
            return TimerAction::Nothing;
        }
        self.pong_due = Some(self.drained.as_ref().map_or(now, |drained| now.max(**drained)) + pings.timeout);
        TimerAction::Ping
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PINGS: Pings =
        Pings { interval: Duration::from_secs(25), timeout: Duration::from_secs(10), drain: Duration::from_secs(20) };

    fn json(text: &str) -> ClientFrame {
        ClientFrame::Json(text.into())
    }

    fn timing(now: Instant) -> Timing {
        Timing::ending(now + Duration::from_secs(10))
    }

    /// Authenticated without end, and pinged after 25 s.
    fn pinged(start: Instant) -> Timing {
        let mut timing = timing(start);
        timing.authenticated(start, PINGS, None);
        assert_eq!(timing.due(start + PINGS.interval, PINGS, true), TimerAction::Ping);
        timing
    }

    #[test]
    fn who_never_connects_is_stale() {
        let start = Instant::now();
        let mut timing = timing(start);
        assert_eq!(timing.next(), start + Duration::from_secs(10));
        assert_eq!(timing.due(start + Duration::from_secs(9), PINGS, true), TimerAction::Nothing);
        assert_eq!(timing.due(start + Duration::from_secs(10), PINGS, true), TimerAction::End(codes::STALE));
    }

    #[test]
    fn pings_go_on_while_they_are_answered_and_end_it_when_not() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut timing = timing(start);
        timing.authenticated(start, PINGS, Some(Duration::from_secs(3600)));
        assert_eq!((timing.next(), timing.due(at(25), PINGS, true)), (at(25), TimerAction::Ping));
        assert_eq!(timing.next(), at(35));
        assert!(timing.pong());
        assert!(!timing.pong());
        assert_eq!((timing.next(), timing.due(at(50), PINGS, true)), (at(50), TimerAction::Ping));
        assert_eq!(timing.due(at(60), PINGS, true), TimerAction::End(codes::NO_PONG));
    }

    #[test]
    fn a_refresh_moves_the_end_and_not_the_pings() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut timing = timing(start);
        timing.authenticated(start, PINGS, Some(Duration::from_secs(30)));
        timing.authenticated(at(20), PINGS, Some(Duration::from_secs(30)));
        assert_eq!(timing.due(at(25), PINGS, true), TimerAction::Ping);
        assert!(timing.pong());
        assert_eq!(timing.due(at(49), PINGS, true), TimerAction::Nothing);
        assert_eq!(timing.due(at(50), PINGS, true), TimerAction::End(codes::EXPIRED));
        timing.authenticated(start, PINGS, Some(Duration::MAX));
    }

    #[test]
    fn a_guest_stays_for_as_long_as_it_answers() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut timing = timing(start);
        timing.authenticated(start, PINGS, None);
        assert_eq!((timing.next(), timing.due(at(25), PINGS, true)), (at(25), TimerAction::Ping));
        assert!(timing.pong());
        assert_eq!((timing.next(), timing.due(at(40_000_000), PINGS, true)), (at(50), TimerAction::Ping));
        assert_eq!(timing.due(at(40_000_010), PINGS, true), TimerAction::End(codes::NO_PONG));
    }

    #[test]
    fn a_pong_counts_when_it_arrives_and_is_taken_when_it_is_handled() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut timing = pinged(start);
        assert!(!timing.arrived(&json(r#"{"id":1,"ping":{}}"#)) && timing.pong_due.is_some());
        assert!(!timing.arrived(&json("{\"id\":1,\"ping\":{}}\n{}")), "there is more in this frame");
        assert_eq!(
            (timing.due(at(36), PINGS, true), timing.due(at(50), PINGS, true)),
            (TimerAction::Nothing, TimerAction::Ping)
        );
        assert!(timing.arrived(&json(" {}\n")), "a pong alone");
        assert!(!timing.arrived(&json("{}")), "no ping is unanswered");
        assert!(timing.pong() && !timing.pong(), "the pong of the first frame, handled late");
    }

    #[test]
    fn a_slow_client_s_time_for_a_pong_begins_when_the_kernel_s_buffer_has_left() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut timing = pinged(start);
        timing.moved(at(34), PINGS);
        assert_eq!(timing.due(at(50), PINGS, true), TimerAction::Nothing, "no second ping behind the first");
        assert_eq!(timing.due(at(63), PINGS, true), TimerAction::Nothing);
        assert_eq!(timing.due(at(64), PINGS, true), TimerAction::End(codes::NO_PONG));
        let mut timing = self::timing(start);
        timing.authenticated(start, PINGS, None);
        timing.moved(at(20), PINGS);
        assert_eq!(timing.due(at(25), PINGS, true), TimerAction::Ping);
        assert_eq!(timing.next(), at(50));
    }

    #[test]
    fn a_missing_pong_proves_nothing_while_nothing_is_read_or_after_a_standstill() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut timing = pinged(start);
        assert_eq!(timing.due(at(35), PINGS, false), TimerAction::Nothing);
        assert_eq!(timing.due(at(45), PINGS, true), TimerAction::End(codes::NO_PONG));
        let mut timing = pinged(start);
        assert_eq!(timing.due(at(60), PINGS, true), TimerAction::Nothing, "this process stood still");
        assert_eq!(timing.due(at(70), PINGS, true), TimerAction::End(codes::NO_PONG));
    }
}
