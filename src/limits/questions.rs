//! Rate of questions to PocketBase on behalf of one user (or one guest's address), on this node.
//!
//! Cached answers are free. A question costs one token, and a refusal one more: users ask about what they may see, and
//! whoever makes up ids gets refusals.

use super::bucket::{Bucket, Rate};
use dashmap::DashMap;
use tokio::time::Instant;

/// Buckets that are kept at most, 32 bytes each. A full bucket is forgotten; past this number, nobody else is limited.
const MAX: usize = 1_000_000;

pub struct QuestionRates {
    /// `None`: no limit.
    rate: Option<Rate>,
    /// By asker.
    buckets: DashMap<u64, Bucket, foldhash::fast::RandomState>,
}

impl QuestionRates {
    /// 0 per second: no limit.
    pub fn new(per_second: usize, burst: usize) -> Self {
        Self { rate: Rate::new(per_second, burst), buckets: DashMap::default() }
    }

    /// Whether this asker may ask so many questions now, which then count. The last questions before the limit may be
    /// more than there are tokens; the difference is owed.
    pub fn take(&self, asker: u64, questions: usize, now: Instant) -> bool {
        let Some(rate) = &self.rate else { return true };
        if self.buckets.len() >= MAX && !self.buckets.contains_key(&asker) {
            return true;
        }
        let mut bucket = self.buckets.entry(asker).or_insert_with(|| Bucket::full(now));
        let may = bucket.tokens(rate, now) > 0;
        if may {
            bucket.charge(rate, questions, now);
        }
        may
    }

    /// So many questions were refused.
    pub fn refused(&self, asker: u64, questions: usize, now: Instant) {
        if let Some(rate) = &self.rate
            && let Some(mut bucket) = self.buckets.get_mut(&asker)
        {
            bucket.charge(rate, questions, now);
        }
    }

    /// Drops full buckets.
    pub fn forget(&self, now: Instant) {
        self.buckets.retain(|_, bucket| !bucket.is_full(now));
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
        assert_eq!(rates.buckets.len(), 1);
    }

    #[test]
    fn no_rate_is_no_limit() {
        let (rates, now) = (QuestionRates::new(0, 2), Instant::now());
        assert!((0..1000).all(|_| rates.take(1, 500, now)) && rates.buckets.is_empty());
    }
}
