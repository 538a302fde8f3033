//! Signatures of accepted hook requests, kept for as long as their timestamps are valid.
//!
//! A recorded request that is sent again does no harm, since publishing is idempotent by outbox number. Refusing
//! replays is defence in depth, so dropping the oldest signatures past the limit is acceptable.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Maximum number of signatures, about 50 bytes each.
const MAX: usize = 50_000;

/// A std Mutex is enough: never held across an await.
#[derive(Default)]
pub struct Replays(Mutex<BTreeSet<(u64, u128)>>);

impl Replays {
    /// Records a verified signature; false if the signature is recorded already. `timestamp`: the request's timestamp,
    /// in Unix seconds. `oldest`: the oldest valid timestamp; signatures with older timestamps are dropped, since
    /// their requests are refused anyway.
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
        assert!(!replays.note(1000, 1, 1000), "a timestamp is valid to its last second");
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
