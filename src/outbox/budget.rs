//! How much may wait for all clients together.

use prometheus::IntGauge;

/// What all queues of the process may hold together. Clones share it.
#[derive(Clone)]
pub struct Budget {
    limit: i64,
    /// The counter itself, which is a single atomic integer, and its way to the operator.
    held: IntGauge,
}

impl Budget {
    /// `limit` in bytes; `held` is what they hold now, and starts at 0.
    pub fn new(limit: usize, held: IntGauge) -> Self {
        Self { limit: i64::try_from(limit).unwrap_or(i64::MAX), held }
    }

    pub fn is_used_up(&self) -> bool {
        self.held.get() >= self.limit
    }

    pub fn add(&self, bytes: usize) {
        if bytes > 0 {
            self.held.add(bytes as i64);
        }
    }

    pub fn give_back(&self, bytes: usize) {
        if bytes > 0 {
            self.held.sub(bytes as i64);
        }
    }

    /// Counts bytes outside of the queues, which are still to become frames, until the value is dropped. `None` while the
    /// budget is used up.
    pub fn hold(&self, bytes: usize) -> Option<Held> {
        (!self.is_used_up()).then(|| {
            self.add(bytes);
            Held { budget: self.clone(), bytes }
        })
    }

    #[cfg(test)]
    pub fn held(&self) -> i64 {
        self.held.get()
    }

    #[cfg(test)]
    pub fn unlimited() -> Self {
        Self::new(usize::MAX, IntGauge::new("held", "for a test").unwrap())
    }
}

/// Bytes that are counted in a budget until the value is dropped.
pub struct Held {
    budget: Budget,
    bytes: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_bytes_count_until_they_are_dropped_and_none_are_held_past_the_limit() {
        let budget = Budget::new(100, IntGauge::new("held", "for a test").unwrap());
        let first = budget.hold(60).unwrap();
        let second = budget.hold(60).unwrap();
        assert_eq!(budget.held(), 120);
        assert!(budget.hold(1).is_none());
        drop(first);
        assert_eq!(budget.held(), 60);
        drop((second, budget.hold(1)));
        assert_eq!(budget.held(), 0);
    }
}
