//! Names and kinds of channels. The prefix of a channel's name, up to the colon, decides the kind; updates channels have
//! no colon.

/// Maximum bytes of a channel's name. PocketBase's ids have 15 characters unless configured otherwise.
pub const NAME_MAX: usize = 1024;
/// First character of the names of internal channels, for the gateways only.
pub const INTERNAL: char = '$';

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

/// The gateways' own channel, which carries the messages of [`control`](crate::control) to every gateway.
pub const CONTROL: &str = "$access";
/// Prefix of the nodes' own channels, each of which carries messages to one gateway.
const NODE: &str = "$node:";
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

/// Whether a channel's name is valid. Names may contain every character that a collection's settings may allow in ids:
/// letters of any language, but no white space and no control characters. Names are compared byte by byte, as ids are
/// in PocketBase's database.
pub fn is_well_formed(channel: &str) -> bool {
    !channel.is_empty()
        && channel.len() <= NAME_MAX
        && !channel.starts_with(INTERNAL)
        && (channel.bytes().all(|byte| byte.is_ascii_graphic())
            || !channel.contains(|c: char| c.is_control() || c.is_whitespace()))
}

/// The channel of a node, for [`Broker::send`](crate::broker::Broker::send).
pub fn of_node(node: &str) -> String {
    format!("{NODE}{node}")
}

/// The status channel of a user.
pub fn status_of(user: &str) -> String {
    format!("{STATUS}{user}")
}

/// The user of a status channel; `None` for a channel of another kind.
pub fn user_of_status(channel: &str) -> Option<&str> {
    channel.strip_prefix(STATUS)
}
