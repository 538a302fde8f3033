//! Times of the relay's reads of the outbox: a pure calculation on instants that are passed in.

use crate::backoff::Backoff;
use std::time::Duration;
use tokio::time::Instant;

/// Longest time between two reads while the hooks post, in pull intervals.
const POSTPONED: u32 = 4;
/// Looks at the mark in a pull interval, while another gateway publishes.
const LOOKS: u32 = 4;
/// Interval of reads while rows arrive by reads alone, as when the gateway that PocketBase's hooks post to is down.
const ALONE: Duration = Duration::from_millis(200);
/// Shortest and longest pause after a failure.
const RETRY: std::ops::Range<Duration> = Duration::from_millis(100)..Duration::from_secs(3);

pub(super) struct ReadSchedule {
    pull_interval: Duration,
    /// Current interval: `pull_interval`, or shorter while rows arrive by reads alone.
    interval: Duration,
    last: Instant,
    next: Instant,
    backoff: Backoff,
}

impl ReadSchedule {
    /// The first read is due at once.
    pub fn new(pull_interval: Duration, now: Instant) -> Self {
        Self { pull_interval, interval: pull_interval, last: now, next: now, backoff: Backoff::new(RETRY) }
    }

    pub fn next(&self) -> Instant {
        self.next
    }

    /// A read begins.
    pub fn begin_read(&mut self, now: Instant) {
        self.last = now;
    }

    /// A post has arrived: postpones the next read, which would return rows that are on their way in the next post. No
    /// postponement after a failure.
    pub fn postpone(&mut self, now: Instant) {
        if self.backoff.is_reset() {
            let latest = self.last + POSTPONED * self.pull_interval;
            self.next = self.next.max(latest.min(now + self.pull_interval));
        }
    }

    /// Another gateway publishes: postpones the read that is due. Returns false if the read cannot wait. The next look
    /// comes soon: if that gateway dies now, the read is less late than an interval.
    pub fn defer(&mut self, now: Instant) -> bool {
        let latest = self.last + POSTPONED * self.pull_interval;
        let can_wait = self.backoff.is_reset() && now < latest;
        if can_wait {
            self.next = latest.min(now + self.pull_interval / LOOKS);
        }
        can_wait
    }

    /// The outbox holds a row that waits for nothing: reads at once.
    pub fn hurry(&mut self, now: Instant) {
        self.next = now;
    }

    /// A post was handled.
    pub fn end_post(&mut self) {
        self.interval = self.pull_interval;
    }

    /// A read has ended. `alone`: the hooks' posts do not arrive, or the read had new rows.
    pub fn end_read(&mut self, alone: bool, now: Instant) {
        self.interval = if alone { ALONE } else { 2 * self.interval }.min(self.pull_interval);
        // Keeps a pause between reads of a slow PocketBase.
        self.next = (self.last + self.interval).max(now + ALONE.min(self.interval));
    }

    pub fn succeed(&mut self) {
        self.backoff.reset();
    }

    /// The next read comes after a pause.
    pub fn fail(&mut self, now: Instant) {
        self.next = now + self.backoff.pause();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PULL: Duration = Duration::from_secs(2);

    fn schedule() -> (ReadSchedule, impl Fn(u64) -> Instant) {
        let start = Instant::now();
        (ReadSchedule::new(PULL, start), move |millis| start + Duration::from_millis(millis))
    }

    #[test]
    fn posts_postpone_the_next_read_up_to_four_intervals() {
        let (mut schedule, at) = schedule();
        schedule.begin_read(at(0));
        schedule.end_read(false, at(10));
        assert_eq!(schedule.next(), at(2000));
        for millis in [1000, 2500, 4000, 5500] {
            schedule.postpone(at(millis));
            assert_eq!(schedule.next(), at(millis + 2000), "an interval after the post");
        }
        schedule.postpone(at(7000));
        assert_eq!(schedule.next(), at(8000), "four intervals after the last read");
    }

    #[test]
    fn reads_wait_for_other_gateways_up_to_four_intervals_and_not_after_a_failure() {
        let (mut schedule, at) = schedule();
        schedule.begin_read(at(0));
        schedule.end_read(true, at(0));
        for (millis, next) in [(200, 700), (700, 1200), (7400, 7900), (7900, 8000)] {
            assert!(schedule.defer(at(millis)), "{millis}");
            assert_eq!(schedule.next(), at(next));
        }
        assert!(!schedule.defer(at(8000)), "four intervals after the last read");
        schedule.begin_read(at(8000));
        schedule.fail(at(8000));
        assert!(!schedule.defer(at(8100)), "the read after a failure cannot wait");
    }

    #[test]
    fn reads_with_new_rows_follow_each_other_fast_and_slow_down_without() {
        let (mut schedule, at) = schedule();
        let mut began = 0;
        for (alone, pause) in [(true, 200), (true, 200), (false, 400), (false, 800), (false, 1600), (false, 2000)] {
            schedule.begin_read(at(began));
            schedule.end_read(alone, at(began));
            assert_eq!(schedule.next(), at(began + pause));
            began += pause;
        }
        schedule.begin_read(at(began));
        schedule.end_read(true, at(began));
        schedule.end_post();
        schedule.begin_read(at(began + 200));
        schedule.end_read(false, at(began + 200));
        assert_eq!(schedule.next(), at(began + 2200), "a post ends the fast reads");
    }

    #[test]
    fn a_read_that_took_long_is_followed_by_a_pause() {
        let (mut schedule, at) = schedule();
        schedule.begin_read(at(0));
        schedule.end_read(false, at(5000));
        assert_eq!(schedule.next(), at(5200));
    }

    #[test]
    fn failures_pause_longer_each_time_and_are_not_postponed_by_posts() {
        let (mut schedule, at) = schedule();
        schedule.fail(at(0));
        assert_eq!(schedule.next(), at(100));
        schedule.postpone(at(50));
        assert_eq!(schedule.next(), at(100), "the read after a failure is not postponed");
        schedule.fail(at(100));
        assert!(schedule.next() > at(200) && schedule.next() <= at(300));
        schedule.succeed();
        schedule.fail(at(1000));
        assert_eq!(schedule.next(), at(1100));
    }
}
