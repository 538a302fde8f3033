//! Access changes, as the hooks write them into the outbox beside every write that may grant or end access.

use crate::protocol::codes::{self, UnsubscribeCode};
use serde::Deserialize;

/// An event that may have changed access, as sent by the hooks. The fields that are present limit the scope; without
/// fields, the scope is everything.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Change {
    pub cause: Cause,
    #[serde(default)]
    pub user: Option<String>,
    #[serde(default)]
    pub channel: Option<String>,
    /// The part of a channel's name before its colon.
    #[serde(default)]
    pub namespace: Option<String>,
}

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

impl Change {
    pub const EVERYTHING: Self = Self { cause: Cause::Rules, user: None, channel: None, namespace: None };

    /// Whether the change may concern the user in the channel.
    pub fn concerns(&self, user: &str, channel: &str) -> bool {
        self.user.as_deref().is_none_or(|it| it == user)
            && self.channel.as_deref().is_none_or(|it| it == channel)
            && self.namespace.as_deref().is_none_or(|it| channel.split(':').next() == Some(it))
    }

    /// Whether accounts may have changed, and with them their keys.
    pub fn concerns_accounts(&self) -> bool {
        self.channel.is_none() && self.namespace.is_none()
    }
}
