//! Frames that wait, in order. Most clients have one at a time, which needs no memory of its own.

use crate::protocol::frame::Frame;
use std::collections::VecDeque;
use std::sync::Arc;

/// What each queued frame costs beside its own bytes: its place in the queue, twice, since a growing queue doubles.
pub const FRAME_OVERHEAD: usize = 2 * size_of::<Queued>();

/// What an empty queue keeps room for, in frames; what grew beyond is given back.
const ROOM: usize = 16;

pub struct Queued {
    pub frame: Frame,
    /// The channel of which this reply holds something.
    pub reply_of: Option<Arc<str>>,
}

impl Queued {
    /// Bytes, overhead included.
    pub fn cost(&self) -> usize {
        self.frame.len() + FRAME_OVERHEAD
    }
}

#[derive(Default)]
pub struct Queue {
    first: Option<Queued>,
    /// Empty where there is no first.
    rest: VecDeque<Queued>,
}

impl Queue {
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// The first, if there is no other.
    pub fn only(&self) -> Option<&Queued> {
        self.first.as_ref().filter(|_| self.rest.is_empty())
    }

    pub fn iter(&self) -> impl Iterator<Item = &Queued> {
        self.first.iter().chain(&self.rest)
    }

    pub fn push(&mut self, queued: Queued) {
        if self.first.is_none() {
            self.first = Some(queued);
        } else {
            self.rest.push_back(queued);
        }
    }

    /// Takes the first out if that `is` so.
    pub fn pop_if(&mut self, is: impl FnOnce(&Queued) -> bool) -> Option<Queued> {
        if !self.first.as_ref().is_some_and(is) {
            return None;
        }
        let next = self.rest.pop_front();
        if self.rest.is_empty() {
            self.rest.shrink_to(ROOM);
        }
        std::mem::replace(&mut self.first, next)
    }

    /// Takes out all that shall not stay, and returns what they cost.
    pub fn drop_unless(&mut self, mut stays: impl FnMut(&Queued) -> bool) -> usize {
        let mut cost = 0;
        let mut stays = |queued: &Queued| {
            let stays = stays(queued);
            cost += if stays { 0 } else { queued.cost() };
            stays
        };
        let all = self.first.take().into_iter().chain(std::mem::take(&mut self.rest));
        let mut left: VecDeque<Queued> = all.filter(|queued| stays(queued)).collect();
        self.first = left.pop_front();
        self.rest = left;
        cost
    }
}
