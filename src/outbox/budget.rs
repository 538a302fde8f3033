//! Shared limit of the bytes queued for all clients.

use crate::log_lines::Seldom;
use prometheus::IntGauge;
use std::sync::LazyLock;

/// Limit of the bytes in all queues of the process. Clones share the counter.
#[derive(Clone)]
pub struct Budget {
    limit: i64,
    /// Counter of the held bytes, a single atomic integer, and at the same time the metric.
    held: IntGauge,
}

impl Budget {
    /// `limit` in bytes; `held`: bytes held now, initially 0.
    pub fn new(limit: usize, held: IntGauge) -> Self {
        Self { limit: i64::try_from(limit).unwrap_or(i64::MAX), held }
    }

    pub fn is_used_up(&self) -> bool {
        self.held.get() >= self.limit
    }

    /// Logs that a client is disconnected because the budget is used up.
    pub fn warn(&self) {
        static LOG: LazyLock<Seldom> = LazyLock::new(Seldom::default);
        if LOG.passes() {
            tracing::warn!(
                limit = self.limit,
                "the unsent frames of all clients together have reached max_total_queue_size: clients that read too \
                 slowly are disconnected (3008) and recover later; see gateway_disconnects_total"
            );
        }
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

    /// Counts bytes outside of the queues, for frames not encoded yet, until the value is dropped. `None` while the
    /// budget is used up.
    pub fn reserve(&self, bytes: usize) -> Option<Reservation> {
        (!self.is_used_up()).then(|| {
            self.add(bytes);
            Reservation { budget: self.clone(), bytes }
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

/// Bytes counted in a budget until the value is dropped.
pub struct Reservation {
    budget: Budget,
    bytes: usize,
}

impl Drop for Reservation {
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
        let first = budget.reserve(60).unwrap();
        let second = budget.reserve(60).unwrap();
        assert_eq!(budget.held(), 120);
        assert!(budget.reserve(1).is_none());
        drop(first);
        assert_eq!(budget.held(), 60);
        drop((second, budget.reserve(1)));
        assert_eq!(budget.held(), 0);
    }
}
