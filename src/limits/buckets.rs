//! Table of token buckets, of bounded size: the rates of signals per user and channel, and of reads per user, on a
//! node.

use super::bucket::{Bucket, Rate};
use crate::tasks::{self, Task};
use dashmap::DashMap;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// Maximum number of buckets, 32 bytes per bucket. Full buckets are forgotten within seconds.
const MAX: usize = 100_000;
/// Between two rounds of forgetting.
const SWEEP: Duration = Duration::from_secs(5);

pub struct Buckets {
    rate: Option<Rate>,
    /// By a hash of the key, seeded per process: two keys that collide would share a bucket, and no more.
    buckets: DashMap<u64, Bucket, foldhash::fast::RandomState>,
    hasher: foldhash::quality::RandomState,
}

impl Buckets {
    /// 0 per second: no limit.
    pub fn new(per_second: usize, burst: usize) -> Self {
        let rate = Rate::new(per_second, burst);
        Self { rate, buckets: DashMap::default(), hasher: foldhash::quality::RandomState::default() }
    }

    /// Takes a token from the key's bucket; false for an empty bucket.
    pub fn take(&self, key: impl Hash, now: Instant) -> bool {
        let Some(rate) = &self.rate else { return true };
        let key = self.hasher.hash_one(key);
        if self.buckets.len() >= MAX && !self.buckets.contains_key(&key) {
            self.forget(now);
            if self.buckets.len() >= MAX {
                return false;
            }
        }
        self.buckets.entry(key).or_insert_with(|| Bucket::full(now)).take(rate, now)
    }

    /// Takes tokens without a check. The key's bucket may owe as many as it can hold.
    pub fn charge(&self, key: impl Hash, tokens: u32, now: Instant) {
        let Some(rate) = self.rate.as_ref().filter(|_| tokens > 0) else { return };
        let key = self.hasher.hash_one(key);
        if self.buckets.len() < MAX || self.buckets.contains_key(&key) {
            self.buckets.entry(key).or_insert_with(|| Bucket::full(now)).charge(rate, tokens, now);
        }
    }

    /// Whether the key's bucket holds a token.
    pub fn holds(&self, key: impl Hash, now: Instant) -> bool {
        let Some(rate) = &self.rate else { return true };
        let bucket = self.buckets.get(&self.hasher.hash_one(key));
        bucket.is_none_or(|bucket| bucket.tokens(rate, now) > 0)
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.buckets.len()
    }

    /// Starts the sweep of full buckets.
    pub fn start_sweep(self: &Arc<Self>) -> AbortOnDropHandle<()> {
        let buckets = Arc::clone(self);
        tasks::spawn(Task::RateSweep, async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                buckets.forget(Instant::now());
            }
        })
    }

    /// Drops full buckets.
    pub fn forget(&self, now: Instant) {
        self.buckets.retain(|_, bucket| !bucket.is_full(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_user_and_channel_has_a_bucket_of_its_own() {
        let (rates, now) = (Buckets::new(10, 2), Instant::now());
        assert!(rates.take(("a", "room:1"), now) && rates.take(("a", "room:1"), now));
        assert!(!rates.take(("a", "room:1"), now));
        assert!(rates.take(("a", "room:2"), now) && rates.take(("b", "room:1"), now));
        assert!(rates.take(("a", "room:1"), now + Duration::from_millis(100)));
    }

    #[test]
    fn debts_are_paid_before_a_token_is_held_again() {
        let (rates, now) = (Buckets::new(10, 2), Instant::now());
        rates.charge("a", 4, now);
        assert!(!rates.holds("a", now) && !rates.take("a", now) && rates.holds("b", now));
        // Four tokens were taken from a bucket of two: two are owed, and a third has to be refilled.
        assert!(!rates.take("a", now + Duration::from_millis(299)));
        assert!(rates.holds("a", now + Duration::from_millis(300)));
        assert!(rates.take("a", now + Duration::from_millis(300)));
    }

    #[test]
    fn memory_is_bounded_and_comes_back() {
        let (rates, now) = (Buckets::new(10, 2), Instant::now());
        for i in 0..MAX {
            assert!(rates.take(("a", &i.to_string()), now));
        }
        assert!(!rates.take(("b", "room:1"), now), "no room for one more");
        assert!(rates.take(("a", "0"), now), "known keys keep their buckets");
        assert!(rates.take(("b", "room:1"), now + Duration::from_secs(1)));
        assert_eq!(rates.buckets.len(), 1);
    }

    #[test]
    fn no_rate_is_no_limit() {
        let (rates, now) = (Buckets::new(0, 2), Instant::now());
        assert!((0..1000).all(|_| rates.take(("a", "room:1"), now)) && rates.buckets.is_empty());
    }
}
