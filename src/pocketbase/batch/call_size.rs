//! Adaptive size of calls: slow calls shrink the next calls.

use super::QuestionResult;
use crate::pocketbase::PocketBaseError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Questions per call: the default limit of a connection's subscriptions. PocketBase takes up to 500.
pub(super) const BATCH: usize = 256;
/// Minimum size of shrunk calls.
pub(super) const BATCH_MIN: usize = 16;
/// Target for the longest time of a call. A full call below half of the target lets calls grow again.
const CALL: Duration = Duration::from_millis(100);

/// Size of the next calls: halved after a timeout or a call longer than [`CALL`], doubled after a fast full call.
pub(super) struct CallSize(AtomicUsize);

impl CallSize {
    pub fn new() -> Self {
        Self(AtomicUsize::new(BATCH))
    }

    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Adjusts the size after a call with `questions` questions and the duration `took`.
    pub fn learn<V>(&self, questions: usize, took: Duration, answer: &QuestionResult<V>) {
        let size = self.get();
        let is_slow = matches!(answer, Err(PocketBaseError::Timeout)) || took > CALL;
        // Concurrent slow calls have halved the size already.
        let next = if is_slow && questions > size / 2 {
            (questions / 2).clamp(BATCH_MIN, size)
        } else if answer.is_ok() && took < CALL / 2 && questions >= size {
            (size * 2).min(BATCH)
        } else {
            return;
        };
        self.0.store(next, Ordering::Relaxed);
    }
}
