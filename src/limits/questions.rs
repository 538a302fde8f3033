//! Rate of questions to PocketBase on behalf of a user (or a guest's address), on this node.
//!
//! Cached answers are free. A question costs one token, and a refusal one more: honest users ask about channels that
//! they may see, and guessed ids get refusals.

use super::buckets::Buckets;
use tokio::time::Instant;

/// Buckets by asker.
pub struct QuestionRates(Buckets);

impl QuestionRates {
    /// 0 per second: no limit.
    pub fn new(per_second: usize, burst: usize) -> Self {
        Self(Buckets::new(per_second, burst))
    }

    /// Takes a token per question; false for an empty bucket. A last call may take more tokens than the bucket holds;
    /// the difference is a debt.
    pub fn take(&self, asker: u64, questions: usize, now: Instant) -> bool {
        let may = self.0.holds(asker, now);
        if may {
            self.refused(asker, questions, now);
        }
        may
    }

    /// Charges refused questions a second time.
    pub fn refused(&self, asker: u64, questions: usize, now: Instant) {
        self.0.charge(asker, u32::try_from(questions).unwrap_or(u32::MAX), now);
    }

    /// Drops full buckets.
    pub fn forget(&self, now: Instant) {
        self.0.forget(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn refusals_cost_more_and_each_asker_has_its_own_bucket() {
        let (rates, start) = (QuestionRates::new(100, 1000), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        let (guesser, honest) = (1, 2);
        assert!(rates.take(guesser, 500, start));
        rates.refused(guesser, 500, start);
        assert!(!rates.take(guesser, 1, start) && rates.take(honest, 500, start) && rates.take(honest, 500, start));
        assert!(rates.take(guesser, 500, at(10)), "one token is enough for a last call");
        rates.refused(guesser, 500, at(10));
        assert!(!rates.take(guesser, 1, at(10_000)) && rates.take(guesser, 1, at(10_100)));
        rates.forget(at(10_000));
        assert_eq!(rates.0.count(), 1);
    }

    #[test]
    fn no_rate_is_no_limit() {
        let (rates, now) = (QuestionRates::new(0, 2), Instant::now());
        assert!((0..1000).all(|_| rates.take(1, 500, now)) && rates.0.count() == 0);
    }
}
