//! FIFO queue of frames. The first frame is stored inline: most clients have one frame at a time, which needs no
//! allocation.

use crate::protocol::frame::Frame;
use std::collections::VecDeque;
use std::sync::Arc;

/// Cost of a queued frame beside the frame's bytes: a slot of the queue, twice, since a growing queue doubles.
pub const FRAME_OVERHEAD: usize = 2 * size_of::<Queued>();

/// Cost of a queued frame in bytes, overhead included.
pub fn cost(frame: &Frame) -> usize {
    frame.len() + FRAME_OVERHEAD
}

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
        cost(&self.frame)
    }
}

#[derive(Default)]
pub struct Queue {
    first: Option<Queued>,
    /// Empty if `first` is `None`.
    #[expect(clippy::box_collection, reason = "most clients have no second frame, and save 24 bytes each")]
    rest: Option<Box<VecDeque<Queued>>>,
}

impl Queue {
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// The only frame; `None` for an empty queue or several frames.
    pub fn only(&self) -> Option<&Queued> {
        self.first.as_ref().filter(|_| self.rest().next().is_none())
    }

    pub fn iter(&self) -> impl Iterator<Item = &Queued> {
        self.first.iter().chain(self.rest())
    }

    fn rest(&self) -> impl Iterator<Item = &Queued> {
        self.rest.iter().flat_map(|rest| rest.iter())
    }

    pub fn push(&mut self, queued: Queued) {
        if self.first.is_none() {
            self.first = Some(queued);
        } else {
            self.rest.get_or_insert_default().push_back(queued);
        }
    }

    /// Frees the room for further frames of an empty queue.
    pub fn release(&mut self) {
        if self.is_empty() {
            self.rest = None;
        }
    }

    /// Removes the first frame if `is` returns true.
    pub fn pop_if(&mut self, is: impl FnOnce(&Queued) -> bool) -> Option<Queued> {
        if !self.first.as_ref().is_some_and(is) {
            return None;
        }
        let next = self.rest.as_mut().and_then(|rest| {
            let next = rest.pop_front();
            if rest.is_empty() {
                rest.shrink_to(ROOM);
            }
            next
        });
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
        self.first = self.first.take().filter(&mut stays);
        if let Some(rest) = &mut self.rest {
            rest.retain(&mut stays);
            rest.shrink_to(ROOM);
            if self.first.is_none() {
                self.first = rest.pop_front();
            }
        }
        cost
    }
}
