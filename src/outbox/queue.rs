//! FIFO queue of frames. The first frame is stored inline: most clients have one frame at a time, which needs no
//! allocation.

use crate::protocol::frame::Frame;
use std::collections::VecDeque;
use std::sync::Arc;

/// Cost of a queued frame beside the frame's bytes: a slot of the queue, twice, since a growing queue doubles.
pub const FRAME_OVERHEAD: usize = 2 * size_of::<Queued>();

/// Slots kept by an empty queue; further slots are freed.
const ROOM: usize = 16;

pub struct Queued {
    pub frame: Frame,
    /// Set for a reply with data of this channel.
    pub reply_of: Option<Arc<str>>,
}

impl Queued {
    /// Cost in bytes, overhead included.
    pub fn cost(&self) -> usize {
        self.frame.len() + FRAME_OVERHEAD
    }
}

#[derive(Default)]
pub struct Queue {
    first: Option<Queued>,
    /// Empty if `first` is `None`.
    rest: VecDeque<Queued>,
}

impl Queue {
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// The only frame; `None` for an empty queue or several frames.
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

    /// Removes the first frame if `is` returns true.
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

    /// Removes all frames for which `stays` returns false. Returns the total cost of the removed frames.
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
