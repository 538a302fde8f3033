//! The kinds of channels, told apart by what stands before the colon of their names, if there is one.

use crate::event::INTERNAL;

/// What a channel carries, and so how it is subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Numbered publications with a history, signals of members, presence.
    Feed,
    /// The newest state of one user: no history, no presence, and nobody publishes into it.
    Status,
    /// What each subscriber may see of all records of a collection: nothing is kept, and nobody publishes into it.
    Updates,
}

const STATUS: &str = "status:";

impl Kind {
    pub fn of(channel: &str) -> Self {
        match channel {
            status if status.starts_with(STATUS) => Kind::Status,
            // The gateways' own.
            internal if internal.starts_with(INTERNAL) => Kind::Feed,
            bare if !bare.contains(':') => Kind::Updates,
            _ => Kind::Feed,
        }
    }
}

/// The channel of this user's status.
pub fn status_of(user: &str) -> String {
    format!("{STATUS}{user}")
}

/// Whose status the channel carries, if it is such a one.
pub fn user_of_status(channel: &str) -> Option<&str> {
    channel.strip_prefix(STATUS)
}
