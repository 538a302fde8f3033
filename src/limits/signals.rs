//! How often a user may publish into a channel, on this node.

use super::bucket::{Bucket, Rate};
use dashmap::DashMap;
use std::hash::BuildHasher;
use std::sync::Weak;
use std::time::Duration;
use tokio::time::Instant;

/// Buckets that are kept at most, 32 bytes each. A bucket that has filled up is forgotten, so this many would
/// have to be published into within seconds.
const MAX: usize = 100_000;
/// Between two rounds of forgetting.
const SWEEP: Duration = Duration::from_secs(5);

pub struct SignalRates {
    rate: Option<Rate>,
    /// By a hash of user and channel, seeded per process: two that collide would share a bucket, and no more.
    buckets: DashMap<u64, Bucket, foldhash::fast::RandomState>,
    hasher: foldhash::quality::RandomState,
}

impl SignalRates {
    /// 0 per second: no limit.
    pub fn new(per_second: usize, burst: usize) -> Self {
        let rate = Rate::new(per_second, burst);
        Self { rate, buckets: DashMap::default(), hasher: foldhash::quality::RandomState::default() }
    }

    /// Whether this user may publish into this channel now, which then counts.
    pub fn take(&self, user: &str, channel: &str, now: Instant) -> bool {
        let Some(rate) = &self.rate else { return true };
        let key = self.hasher.hash_one((user, channel));
        if self.buckets.len() >= MAX && !self.buckets.contains_key(&key) {
            self.forget(now);
            if self.buckets.len() >= MAX {
                return false;
            }
        }
        self.buckets.entry(key).or_insert_with(|| Bucket::full(now)).take(rate, now)
    }

    /// Runs for as long as `rates` lives.
    pub async fn sweep(rates: Weak<Self>) {
        loop {
            tokio::time::sleep(SWEEP).await;
            let Some(rates) = rates.upgrade() else { return };
            rates.forget(Instant::now());
        }
    }

    fn forget(&self, now: Instant) {
        self.buckets.retain(|_, bucket| !bucket.is_full(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_user_and_channel_has_a_bucket_of_its_own() {
        let (rates, now) = (SignalRates::new(10, 2), Instant::now());
        assert!(rates.take("a", "room:1", now) && rates.take("a", "room:1", now));
        assert!(!rates.take("a", "room:1", now));
        assert!(rates.take("a", "room:2", now) && rates.take("b", "room:1", now));
        assert!(rates.take("a", "room:1", now + Duration::from_millis(100)));
    }

    #[test]
    fn memory_is_bounded_and_comes_back() {
        let (rates, now) = (SignalRates::new(10, 2), Instant::now());
        for i in 0..MAX {
            assert!(rates.take("a", &i.to_string(), now));
        }
        assert!(!rates.take("b", "room:1", now), "no room for one more");
        assert!(rates.take("a", "0", now), "those that are known go on");
        assert!(rates.take("b", "room:1", now + Duration::from_secs(1)));
        assert_eq!(rates.buckets.len(), 1);
    }

    #[test]
    fn no_rate_is_no_limit() {
        let (rates, now) = (SignalRates::new(0, 2), Instant::now());
        assert!((0..1000).all(|_| rates.take("a", "room:1", now)) && rates.buckets.is_empty());
    }
}
