//! Signatures of hook requests that were taken already, for as long as their timestamps are good.
//!
//! Sending a recorded request again does no harm: publishing is idempotent by outbox number. That it is refused
//! all the same is defence in depth, so forgetting the oldest when there are too many is good enough.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Signatures remembered at most; each takes some 50 bytes.
const MAX: usize = 50_000;

/// A std Mutex is enough: never held across an await.
#[derive(Default)]
pub struct Replays(Mutex<BTreeSet<(u64, u128)>>);

impl Replays {
    /// Notes a signature that has been verified; false where it has been noted before. `timestamp` is its own, in
    /// Unix seconds; those from before `oldest` are refused by themselves and need not be remembered.
    pub fn note(&self, timestamp: u64, signature: u128, oldest: u64) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = seen.insert((timestamp, signature));
        while seen.len() > MAX || seen.first().is_some_and(|&(timestamp, _)| timestamp < oldest) {
            seen.pop_first();
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_passes_once_while_it_is_good() {
        let replays = Replays::default();
        assert!(replays.note(1000, 1, 700));
        assert!(replays.note(1000, 2, 700));
        assert!(!replays.note(1000, 1, 700));
        assert!(!replays.note(1000, 1, 1000), "to its last second");
        assert!(replays.note(1301, 3, 1001));
        assert_eq!(replays.0.lock().unwrap().len(), 1);
    }

    #[test]
    fn memory_is_bounded() {
        let replays = Replays::default();
        for i in 0..MAX as u64 + 10 {
            assert!(replays.note(1000 + i / 1000, u128::from(i), 0));
        }
        assert_eq!(replays.0.lock().unwrap().len(), MAX);
        assert!(!replays.note(1000 + MAX as u64 / 1000, MAX as u128, 0), "the newest are kept");
    }
}
