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

    #[cfg(test)]
    pub fn held(&self) -> i64 {
        self.held.get()
    }

    #[cfg(test)]
    pub fn unlimited() -> Self {
        Self::new(usize::MAX, IntGauge::new("held", "for a test").unwrap())
    }
}
