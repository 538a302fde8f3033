//! State of a channel by kind: a feed with a history, or the current state alone.

use super::current::Current;
use super::feed::{Bounds, Feed};
use crate::channel::Kind;

pub(super) enum Flow {
    Feed(Feed),
    Current(Current),
}

impl Flow {
    pub fn of(channel: &str, bounds: Bounds) -> Self {
        match Kind::of(channel) {
            // Updates channels have no subscribers in the hub.
            Kind::Feed | Kind::Updates => Flow::Feed(Feed::new(bounds)),
            Kind::Status => Flow::Current(Current::default()),
        }
    }

    pub fn is_live(&self) -> bool {
        match self {
            Flow::Feed(feed) => feed.is_live(),
            Flow::Current(current) => current.is_live(),
        }
    }

    /// Notes a possible gap. Returns true if the caller has to start a read, false during a read.
    pub fn doubt(&mut self) -> bool {
        match self {
            Flow::Feed(feed) => feed.doubt(),
            Flow::Current(current) => current.doubt(),
        }
    }

    pub fn feed(&mut self) -> Option<&mut Feed> {
        match self {
            Flow::Feed(feed) => Some(feed),
            Flow::Current(_) => None,
        }
    }

    pub fn current(&mut self) -> Option<&mut Current> {
        match self {
            Flow::Feed(_) => None,
            Flow::Current(current) => Some(current),
        }
    }
}
