//! A channel of this node: subscribers, position or newest status, and attachment to the broker.

use super::feed::{Feed, RecentLimits};
use super::latest_status::LatestStatus;
use super::recovery::Reads;
use super::subscriber::Subscribers;
use crate::channel::Kind;
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;

pub(super) struct Channel {
    pub name: Arc<str>,
    /// Held during the broker's calls about the channel.
    pub attachment: tokio::sync::Mutex<Attachment>,
    // Never held across an await.
    state: Mutex<ChannelState>,
    pub reads: Reads,
}

/// Whether the broker delivers this channel to this node.
#[derive(PartialEq)]
pub(super) enum Attachment {
    Detached,
    Attached,
}

pub(super) struct ChannelState {
    pub content: Content,
    pub subscribers: Subscribers,
    /// Number of subscribes in progress, which keep the channel alive.
    pub joining: usize,
    /// True after the removal from the registry: holders of the channel have to look it up again.
    pub closed: bool,
}

/// Content of a channel by kind: a feed with a history, or the newest status alone.
pub(super) enum Content {
    Feed(Feed),
    Status(LatestStatus),
}

impl Channel {
    /// A channel without subscribers, detached from the broker.
    pub fn new(name: Arc<str>, limits: RecentLimits) -> Self {
        let content = Content::of(&name, limits);
        let state = ChannelState { content, subscribers: Subscribers::default(), joining: 0, closed: false };
        let attachment = tokio::sync::Mutex::new(Attachment::Detached);
        Self { name, attachment, state: Mutex::new(state), reads: Reads::default() }
    }

    pub fn state(&self) -> MutexGuard<'_, ChannelState> {
        self.state.lock()
    }
}

impl ChannelState {
    pub fn is_idle(&self) -> bool {
        self.subscribers.is_empty() && self.joining == 0
    }
}

impl Content {
    pub fn of(channel: &str, limits: RecentLimits) -> Self {
        match Kind::of(channel) {
            // Updates channels have no subscribers in the hub.
            Kind::Feed | Kind::Updates => Content::Feed(Feed::new(limits)),
            Kind::Status => Content::Status(LatestStatus::default()),
        }
    }

    pub fn is_live(&self) -> bool {
        match self {
            Content::Feed(feed) => feed.is_live(),
            Content::Status(status) => status.is_live(),
        }
    }

    /// Notes a possible gap. Returns true if the caller has to start a read, false during a read.
    pub fn doubt(&mut self) -> bool {
        match self {
            Content::Feed(feed) => feed.doubt(),
            Content::Status(status) => status.doubt(),
        }
    }

    pub fn feed(&mut self) -> Option<&mut Feed> {
        match self {
            Content::Feed(feed) => Some(feed),
            Content::Status(_) => None,
        }
    }

    pub fn status(&mut self) -> Option<&mut LatestStatus> {
        match self {
            Content::Feed(_) => None,
            Content::Status(status) => Some(status),
        }
    }
}
