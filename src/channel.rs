//! Kinds of channels. The prefix of a channel's name, up to the colon, decides the kind; updates channels have no
//! colon.

use crate::event::INTERNAL;

/// The content of a channel, which decides how clients subscribe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Numbered publications with a history, signals of members, presence.
    Feed,
    /// The newest status of one user. No history, no presence; neither clients nor back ends can publish.
    Status,
    /// Changes of all records of a collection, filtered by each subscriber's access. No history; neither clients nor
    /// back ends can publish.
    Updates,
}

const STATUS: &str = "status:";

impl Kind {
    pub fn of(channel: &str) -> Self {
        match channel {
            status if status.starts_with(STATUS) => Kind::Status,
            // The gateways' internal channels.
            internal if internal.starts_with(INTERNAL) => Kind::Feed,
            bare if !bare.contains(':') => Kind::Updates,
            _ => Kind::Feed,
        }
    }
}

/// The status channel of a user.
pub fn status_of(user: &str) -> String {
    format!("{STATUS}{user}")
}

/// The user of a status channel; `None` for a channel of another kind.
pub fn user_of_status(channel: &str) -> Option<&str> {
    channel.strip_prefix(STATUS)
}
