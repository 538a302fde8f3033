//! Exponential backoff with jitter: pauses between attempts of a failing operation.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::Range;
use std::time::Duration;

/// Pauses that double from the shortest to the longest. Each pause but the first is shortened at random, by up to a
/// quarter, so that many clients of a server that has failed do not return at the same time.
#[derive(Debug)]
pub struct Backoff {
    range: Range<Duration>,
    next: Duration,
}

impl Backoff {
    /// `range`: shortest and longest pause.
    pub fn new(range: Range<Duration>) -> Self {
        Self { next: range.start, range }
    }

    /// Starts anew with the shortest pause, after a success.
    pub fn reset(&mut self) {
        self.next = self.range.start;
    }

    /// Whether no attempt has failed since the start or the last reset.
    pub fn is_reset(&self) -> bool {
        self.next == self.range.start
    }

    /// The pause before the next attempt, in whole milliseconds from the second pause on.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        let is_first = self.is_reset();
        self.next = (pause * 2).min(self.range.end);
        if is_first { pause } else { pause - jitter(pause / 4) }
    }
}

/// A random number of whole milliseconds, up to `limit`.
fn jitter(limit: Duration) -> Duration {
    // The standard library's hasher keys are random, which is enough for a pause.
    let random = RandomState::new().build_hasher().finish();
    Duration::from_millis(random % (limit.as_millis() as u64 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_are_shortened_by_a_quarter_at_most() {
        let (start, end) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut backoff = Backoff::new(start..end);
        for _ in 0..2 {
            assert!(backoff.is_reset());
            assert_eq!(backoff.pause(), start, "the first pause is exact");
            for full in [200, 400, 800, 1000, 1000].map(Duration::from_millis) {
                let pause = backoff.pause();
                assert!(pause <= full && pause >= full * 3 / 4, "{pause:?} of {full:?}");
            }
            assert!(!backoff.is_reset());
            backoff.reset();
        }
    }
}
