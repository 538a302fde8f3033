//! Access changes, as the hooks write them into the outbox beside every write that may grant or end access.

use super::Cause;
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
