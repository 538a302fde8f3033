//! Causes of access changes, and for each cause the code and reason of an ended subscription. `revocation.rs` chooses
//! the codes of ended connections.

use crate::protocol::codes::{self, UnsubscribeCode};
use serde::Deserialize;

/// Cause of a change. Of several causes, the greatest is reported: the deletion of a room also deletes its
/// memberships.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// Request of a back end; the hooks never send it.
    #[serde(skip)]
    Server,
    /// The user's own record.
    User,
    /// A record that the rule depends on.
    Related,
    /// A record that concerns a single user in a single channel, such as a membership.
    Member,
    /// The guarded record.
    Record,
    /// The guarded record was deleted.
    Deleted,
    /// A collection: rules, fields or token secret. Also every cause unknown to this version.
    #[serde(other)]
    Rules,
}

impl Cause {
    /// Code for a client whose subscription ends for this cause.
    pub fn code(self) -> UnsubscribeCode {
        match self {
            Cause::Server => codes::BY_SERVER,
            Cause::Member => codes::REMOVED,
            Cause::Record => codes::CLOSED,
            Cause::Deleted => codes::DELETED,
            Cause::Rules => codes::RULES_CHANGED,
            Cause::User | Cause::Related => codes::ACCESS_ENDED,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Cause::Server => "server",
            Cause::User => "user",
            Cause::Member => "member",
            Cause::Record => "record",
            Cause::Deleted => "deleted",
            Cause::Related => "related",
            Cause::Rules => "rules",
        }
    }
}
