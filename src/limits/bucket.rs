//! A token bucket for rates, stored as the instant at which the bucket would be full again (the "generic cell rate
//! algorithm"): 16 bytes per bucket, and no refills in the background.

use std::time::Duration;
use tokio::time::Instant;

/// Refill rate and capacity of a bucket.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Time between two tokens.
    interval: Duration,
    /// Time from empty to full.
    depth: Duration,
}

impl Rate {
    /// `None` for `per_second` = 0: no limit. A bucket holds at least one token.
    pub fn new(per_second: usize, burst: usize) -> Option<Self> {
        let interval = Duration::from_secs(1).checked_div(u32::try_from(per_second).unwrap_or(u32::MAX))?;
        let burst = u32::try_from(burst.max(1)).unwrap_or(u32::MAX);
        Some(Self { interval, depth: interval.saturating_mul(burst) })
    }
}

/// A bucket, full at first.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    full_at: Instant,
}

impl Bucket {
    pub fn full(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// Takes a token; false for an empty bucket.
    pub fn take(&mut self, rate: &Rate, now: Instant) -> bool {
        let missing = self.full_at.saturating_duration_since(now) + rate.interval;
        let taken = missing <= rate.depth;
        if taken {
            self.full_at = now + missing;
        }
        taken
    }

    /// Takes tokens without a check. The bucket may owe as many tokens as it can hold.
    pub fn charge(&mut self, rate: &Rate, tokens: u32, now: Instant) {
        let missing = self.full_at.saturating_duration_since(now).saturating_add(rate.interval.saturating_mul(tokens));
        self.full_at = now + missing.min(rate.depth.saturating_mul(2));
    }

    /// Number of tokens in the bucket.
    pub fn tokens(&self, rate: &Rate, now: Instant) -> usize {
        let held = rate.depth.saturating_sub(self.full_at.saturating_duration_since(now));
        usize::try_from(held.as_nanos() / rate.interval.as_nanos().max(1)).unwrap_or(usize::MAX)
    }

    /// Instant from which the bucket holds `tokens` tokens, unless some are taken before. May lie in the past.
    pub fn holds_at(&self, rate: &Rate, tokens: u32) -> Instant {
        (self.full_at + rate.interval * tokens).checked_sub(rate.depth).unwrap_or(self.full_at)
    }

    /// Whether the bucket is full: a new bucket would behave the same.
    pub fn is_full(&self, now: Instant) -> bool {
        self.full_at <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let (start, rate) = (Instant::now(), Rate::new(10, 5).unwrap());
        let mut bucket = Bucket::full(start);
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(bucket.tokens(&rate, start), 5);
        assert!((0..5).all(|_| bucket.take(&rate, start)));
        assert!(!bucket.take(&rate, at(99)));
        assert_eq!(bucket.tokens(&rate, at(99)), 0);
        assert!(bucket.take(&rate, at(100)));
        assert!(!bucket.take(&rate, at(100)), "a refusal costs nothing, and a token is taken once");
        assert!(!bucket.is_full(at(599)));
        assert!(bucket.is_full(at(600)));
        assert!((0..5).all(|_| bucket.take(&rate, at(10_000))));
        assert!(!bucket.take(&rate, at(10_000)), "it never holds more than the burst");
    }

    #[test]
    fn what_is_charged_beyond_the_tokens_is_owed_within_a_bound() {
        let (start, rate) = (Instant::now(), Rate::new(10, 5).unwrap());
        let mut bucket = Bucket::full(start);
        let at = |ms| start + Duration::from_millis(ms);
        bucket.charge(&rate, 7, start);
        assert_eq!((bucket.tokens(&rate, at(299)), bucket.tokens(&rate, at(300))), (0, 1));
        bucket.charge(&rate, 1_000_000, start);
        assert_eq!((bucket.tokens(&rate, at(599)), bucket.tokens(&rate, at(600))), (0, 1));
    }

    #[test]
    fn what_passes_in_the_long_run_is_burst_and_rate() {
        let (start, rate) = (Instant::now(), Rate::new(50, 500).unwrap());
        let mut bucket = Bucket::full(start);
        let passed = (0..60_000).filter(|ms| bucket.take(&rate, start + Duration::from_millis(*ms))).count();
        assert!((500 + 60 * 50 - 1..=500 + 60 * 50 + 1).contains(&passed), "{passed}");
    }

    #[test]
    fn no_rate_is_no_limit_and_extremes_do_not_overflow() {
        assert!(Rate::new(0, 5).is_none());
        let now = Instant::now();
        for (per_second, burst) in [(1, usize::MAX), (usize::MAX, usize::MAX), (usize::MAX, 0), (1, 0)] {
            let rate = Rate::new(per_second, burst).unwrap();
            let mut bucket = Bucket::full(now);
            assert!(bucket.take(&rate, now), "{per_second} {burst}");
        }
    }
}
