//! A fair queue: a separate queue per asker; the queues are served in turn, a question at a time.

use super::Asker;
use std::collections::{HashMap, VecDeque};

pub(super) struct FairQueue<Q> {
    /// Askers with waiting questions, in serving order.
    turns: VecDeque<Asker>,
    questions: HashMap<Asker, VecDeque<Q>, foldhash::fast::RandomState>,
    len: usize,
}

impl<Q> Default for FairQueue<Q> {
    fn default() -> Self {
        Self { turns: VecDeque::new(), questions: HashMap::default(), len: 0 }
    }
}

impl<Q> FairQueue<Q> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn askers(&self) -> impl Iterator<Item = Asker> {
        self.turns.iter().copied()
    }

    pub fn push(&mut self, asker: Asker, question: Q) {
        let questions = self.questions.entry(asker).or_default();
        if questions.is_empty() {
            self.turns.push_back(asker);
        }
        questions.push_back(question);
        self.len += 1;
    }

    /// The next question and its asker. An asker is served again after the remaining waiting askers.
    pub fn pop(&mut self) -> Option<(Asker, Q)> {
        let asker = self.turns.pop_front()?;
        let questions = self.questions.get_mut(&asker)?;
        let question = questions.pop_front()?;
        self.len -= 1;
        if questions.is_empty() {
            self.questions.remove(&asker);
        } else {
            self.turns.push_back(asker);
        }
        Some((asker, question))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn askers_are_served_in_turn_and_each_in_order() {
        let mut queue = FairQueue::default();
        (0..4).for_each(|i| queue.push(Asker(1), i));
        queue.push(Asker(2), 10);
        queue.push(Asker(3), 20);
        queue.push(Asker(2), 11);
        assert_eq!((queue.len(), queue.askers().count()), (7, 3));
        let order: Vec<i32> = std::iter::from_fn(|| queue.pop()).map(|(_, question)| question).collect();
        assert_eq!(order, [0, 10, 20, 1, 11, 2, 3]);
        assert!(queue.is_empty() && queue.questions.is_empty());
    }
}
