//! Questions waiting for a call, and the pace of calls.

use super::call_size::CallSize;
use super::queue::FairQueue;
use super::{Asker, AskerQuestions, Question};
use crate::limits::bucket::{Bucket, Rate};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Calls per second in the long run. Full calls are not counted.
const RATE: usize = 20;
/// Calls that may go out at once after a quiet time.
pub(super) const BURST: usize = 4;
/// Tokens reserved for askers without a recent call.
const RESERVE: u32 = 2;
/// Time for which an asker's call counts as recent.
const RECENT: Duration = Duration::from_secs(1);

/// Questions waiting for a call, and the token bucket of calls.
pub(super) struct PendingQuestions<K, V> {
    pub queue: FairQueue<Question<K, V>>,
    rate: Option<Rate>,
    calls: Bucket,
    /// Each asker's last call.
    recent: HashMap<Asker, Instant, foldhash::fast::RandomState>,
    pub size: Arc<CallSize>,
    /// Time of the last pruning of `recent`.
    pruned: Instant,
}

impl<K, V> PendingQuestions<K, V> {
    pub fn new(now: Instant) -> Self {
        let (queue, rate, recent) = (FairQueue::default(), Rate::new(RATE, BURST), HashMap::default());
        Self { queue, rate, calls: Bucket::full(now), recent, size: Arc::new(CallSize::new()), pruned: now }
    }

    pub fn add(&mut self, AskerQuestions { asker, questions }: AskerQuestions<K, V>) {
        questions.into_iter().for_each(|question| self.queue.push(asker, question));
    }

    /// Start time of the next call, as of the questions now in the queue.
    pub fn due(&self, now: Instant) -> Instant {
        let Some(rate) = self.rate.as_ref().filter(|_| self.queue.len() < self.size.get()) else { return now };
        let is_recent = |asker| self.recent.get(&asker).is_some_and(|at| now - *at < RECENT);
        let needed = if self.queue.askers().all(is_recent) { RESERVE + 1 } else { 1 };
        self.calls.holds_at(rate, needed)
    }

    /// Takes the questions of the next call.
    pub fn take(&mut self, now: Instant) -> Vec<Question<K, V>> {
        if now - self.pruned >= RECENT {
            self.recent.retain(|_, at| now - *at < RECENT);
            self.pruned = now;
        }
        let size = self.size.get();
        let mut taken = Vec::with_capacity(self.queue.len().min(size));
        while taken.len() < size
            && let Some((asker, question)) = self.queue.pop()
        {
            // The caller has given up.
            if question.answer.is_closed() {
                continue;
            }
            self.recent.insert(asker, now);
            taken.push(question);
        }
        if let Some(rate) = self.rate.as_ref().filter(|_| (1..size).contains(&taken.len())) {
            self.calls.take(rate, now);
        }
        taken
    }
}
