//! Limits of a session, per connection and per user: rates of commands, reads, signals and status changes, the number
//! of subscriptions, and the number of a user's connections. [`crate::limits`] holds the counters.

use super::{Failure, Session};
use crate::connection::Connection;
use crate::limits::addresses::counted_as;
use crate::limits::bucket::{Bucket, Rate};
use crate::protocol::Request;
use crate::protocol::codes::{self, Disconnect, ErrorCode};
use std::net::IpAddr;
use tokio::time::Instant;

/// Weight of a recovery that fails: the broker may have read a whole history for nothing.
pub(super) const FAILED_RECOVERY: u32 = 5;
/// Publications and bytes of payload per charged command.
const PER_COMMAND: (usize, usize) = (30, 16 * 1024);

/// Cost of an answer in commands, in addition to the request itself.
pub(super) fn weight(publications: usize, bytes: usize) -> u32 {
    u32::try_from((publications / PER_COMMAND.0).max(bytes / PER_COMMAND.1)).unwrap_or(u32::MAX)
}

/// Key of a read budget: a user, or the guests of a network address.
#[derive(Hash)]
enum ReadBudget<'a> {
    User(&'a str),
    Guest(IpAddr),
}

/// Command rate of a connection.
pub struct Pace {
    commands: Bucket,
    /// Refilled at the same rate, but emptied by refusals only: empty after a full burst of refused commands, or after
    /// a while at twice the rate.
    patience: Bucket,
}

#[derive(Debug, PartialEq)]
pub enum RateCheck {
    Pass,
    Refuse,
    /// Commands continue although many were refused.
    Flood,
}

impl Pace {
    pub fn new(now: Instant) -> Self {
        Self { commands: Bucket::full(now), patience: Bucket::full(now) }
    }

    /// Counts a command.
    pub fn take(&mut self, rate: Option<&Rate>, now: Instant) -> RateCheck {
        match rate {
            Some(rate) if !self.commands.take(rate, now) => {
                if self.patience.take(rate, now) {
                    RateCheck::Refuse
                } else {
                    RateCheck::Flood
                }
            }
            _ => RateCheck::Pass,
        }
    }

    /// Charges commands after the fact: later commands are refused until the refill.
    pub fn charge(&mut self, rate: Option<&Rate>, commands: u32, now: Instant) {
        if let Some(rate) = rate {
            self.commands.charge(rate, commands, now);
        }
    }

    /// Number of commands that would pass now.
    pub fn left(&self, rate: Option<&Rate>, now: Instant) -> usize {
        rate.map_or(usize::MAX, |rate| self.commands.tokens(rate, now))
    }
}

impl Session {
    /// Counts a command. Pongs are not counted: without a ping before them they end the connection.
    pub(super) fn admit(&mut self, request: &Request) -> Result<(), Failure> {
        if matches!(request, Request::Pong) { Ok(()) } else { self.count() }
    }

    /// Counts a frame without commands, or a control frame of the WebSocket, at the price of a command.
    pub fn count_frame(&mut self) -> Result<(), Disconnect> {
        match self.count() {
            Err(Failure::Disconnect(reason)) => Err(reason),
            _ => Ok(()),
        }
    }

    fn count(&mut self) -> Result<(), Failure> {
        let failure = match self.pace.take(self.services.limits.commands.as_ref(), Instant::now()) {
            RateCheck::Pass => return Ok(()),
            RateCheck::Refuse => codes::TOO_MANY_REQUESTS.into(),
            RateCheck::Flood => codes::FLOOD.into(),
        };
        self.services.metrics.rate_limited.with_label_values(&["commands"]).inc();
        Err(failure)
    }

    /// Number of further commands that would pass now.
    pub(super) fn commands_left(&self) -> usize {
        self.pace.left(self.services.limits.commands.as_ref(), Instant::now())
    }

    /// Counts a read against the user's budget, for all connections to this gateway.
    pub(super) fn admit_read(&self, connection: &Connection) -> Result<(), Failure> {
        let passes = self.services.limits.reads.take(self.read_budget(connection), Instant::now());
        self.pass_read(passes)
    }

    /// Refuses a recovery while the user's budget is exhausted. Counts nothing: most returning clients have missed
    /// little, in many channels.
    pub(super) fn admit_recovery(&self, connection: &Connection) -> Result<(), Failure> {
        self.pass_read(self.may_read(connection))
    }

    fn pass_read(&self, passes: bool) -> Result<(), Failure> {
        if passes {
            return Ok(());
        }
        self.services.metrics.rate_limited.with_label_values(&["reads"]).inc();
        Err(codes::TOO_MANY_REQUESTS.into())
    }

    /// Whether the user's budget allows a read.
    pub(super) fn may_read(&self, connection: &Connection) -> bool {
        self.services.limits.reads.holds(self.read_budget(connection), Instant::now())
    }

    /// Charges the weight of an answer to the connection and to the user.
    pub(super) fn charge_read(&mut self, connection: &Connection, weight: u32) {
        self.charge_recovery(connection, weight);
        self.pace.charge(self.services.limits.commands.as_ref(), weight, Instant::now());
    }

    /// Charges the weight of a recovery to the user alone: after a reconnect, SDKs recover all channels at once.
    pub(super) fn charge_recovery(&self, connection: &Connection, weight: u32) {
        self.services.limits.reads.charge(self.read_budget(connection), weight, Instant::now());
    }

    /// The connection's read budget.
    fn read_budget<'a>(&self, connection: &'a Connection) -> ReadBudget<'a> {
        if connection.is_guest() {
            ReadBudget::Guest(counted_as(self.address))
        } else {
            ReadBudget::User(&connection.user)
        }
    }

    /// Refuses a subscription past `max_subscriptions` of the connection.
    pub(super) fn admit_subscription(&self, connection: &Connection) -> Result<(), ErrorCode> {
        let has_room = connection.channels().len() < self.services.config.max_subscriptions;
        has_room.then_some(()).ok_or(codes::LIMIT_EXCEEDED)
    }

    /// Counts a signal of the user in the channel.
    pub(super) fn admit_signal(&self, user: &str, channel: &str) -> Result<(), Failure> {
        if self.services.limits.signals.take((user, channel), Instant::now()) {
            return Ok(());
        }
        self.services.metrics.rate_limited.with_label_values(&["signals"]).inc();
        Err(codes::TOO_MANY_REQUESTS.into())
    }

    /// Counts a change of the user's status.
    pub(super) fn admit_status_change(&self, user: &str) -> Result<(), Failure> {
        if self.services.limits.statuses.take(user, Instant::now()) {
            return Ok(());
        }
        self.services.metrics.rate_limited.with_label_values(&["statuses"]).inc();
        Err(codes::TOO_MANY_REQUESTS.into())
    }

    /// Moves an authenticated client from `max_unauthenticated` to the limit of the user's connections, or of guests
    /// per address. A user is online afterwards.
    pub(super) async fn enter_connection_limit(&mut self, deadline: Instant) -> Result<(), Failure> {
        self.newcomer = None;
        let connection = self.connection()?;
        if connection.is_guest() {
            return self.enter_guest_limit();
        }
        let limit = self.services.config.max_connections_per_user.0;
        let is_entered = self.services.statuses.enter(connection, (limit > 0).then_some(limit), deadline).await;
        is_entered.then_some(()).ok_or(codes::CONNECTION_LIMIT.into())
    }

    fn enter_guest_limit(&mut self) -> Result<(), Failure> {
        self.guest = self.services.limits.guests.take(self.address).map(Box::new);
        if self.guest.is_some() {
            return Ok(());
        }
        self.services.metrics.guests_refused.with_label_values(&["max_guests_per_ip"]).inc();
        Err(codes::GUEST_LIMIT.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_burst_passes_then_some_are_refused_and_who_goes_on_is_a_flood() {
        let (rate, now) = (Rate::new(50, 10), Instant::now());
        let mut pace = Pace::new(now);
        let mut take = |count: usize, at| (0..count).map(|_| pace.take(rate.as_ref(), at)).collect::<Vec<_>>();
        assert!(take(10, now).iter().all(|check| *check == RateCheck::Pass));
        assert!(take(10, now).iter().all(|check| *check == RateCheck::Refuse));
        assert_eq!(take(1, now), [RateCheck::Flood]);
        let later = now + Duration::from_secs(1);
        assert!(take(10, later).iter().all(|check| *check == RateCheck::Pass), "after a pause, commands pass again");
        assert_eq!(take(1, later), [RateCheck::Refuse]);
    }

    #[test]
    fn a_bit_too_fast_is_refused_again_and_again_and_twice_as_fast_is_a_flood() {
        let (rate, start) = (Rate::new(50, 10), Instant::now());
        let checks = |every_ms: u64| {
            let mut pace = Pace::new(start);
            let checks =
                (0..10_000).map(move |i| pace.take(rate.as_ref(), start + Duration::from_millis(i * every_ms)));
            checks.collect::<Vec<_>>()
        };
        assert!(checks(20).iter().all(|check| *check == RateCheck::Pass));
        assert!(checks(11).contains(&RateCheck::Refuse) && !checks(11).contains(&RateCheck::Flood));
        assert!(checks(9).contains(&RateCheck::Flood));
    }

    #[test]
    fn a_large_answer_costs_later_commands() {
        assert_eq!((weight(1, 500), weight(300, 500), weight(3, 512 * 1024)), (0, 10, 32));
        let (rate, now) = (Rate::new(50, 20), Instant::now());
        let mut pace = Pace::new(now);
        pace.charge(rate.as_ref(), weight(3, 512 * 1024), now);
        assert_eq!(pace.take(rate.as_ref(), now), RateCheck::Refuse);
        // A debt of 12, and one token.
        assert_eq!(pace.take(rate.as_ref(), now + Duration::from_millis(259)), RateCheck::Refuse);
        assert_eq!(pace.take(rate.as_ref(), now + Duration::from_millis(260)), RateCheck::Pass);
    }

    #[test]
    fn without_a_rate_everything_passes() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        assert!((0..10_000).all(|_| pace.take(None, now) == RateCheck::Pass));
        assert_eq!(pace.left(None, now), usize::MAX);
    }
}
