//! The steps of an import and of a verification: pairs of a section of the export and the kinds of rows from this section,
//! ordered by the references between records.

use super::mapping::ACCOUNTS;
use serde_json::Value;

/// A row for PocketBase.
pub struct Target {
    /// A collection, or the name of a second write to records of a collection.
    pub kind: &'static str,
    pub id: String,
    /// Key of the row in the old table.
    pub key: String,
    pub row: Value,
    /// True if the old row counts as imported or rejected together with this row.
    pub is_primary: bool,
}

/// The collection of a kind.
pub fn collection(kind: &str) -> &str {
    match kind {
        "blocked" => "users",
        "pinned" => "rooms",
        "friends" => "friend_requests",
        kind => kind,
    }
}

/// True for kinds with validation by PocketBase, record by record, which takes longer than a bulk insert.
pub fn is_validated(kind: &str) -> bool {
    !matches!(collection(kind), "messages" | "reactions" | "room_members" | "notifications" | "poll_votes")
}

pub struct Step {
    pub label: &'static str,
    pub section: &'static str,
    pub kinds: &'static [&'static str],
    /// True for the step that counts the section's rows.
    pub counts: bool,
}

const fn step(label: &'static str, section: &'static str, kinds: &'static [&'static str], counts: bool) -> Step {
    Step { label, section, kinds, counts }
}

pub const STEPS: &[Step] = &[
    step("users", "users", &["users"], true),
    step("accounts", ACCOUNTS, &["users"], false),
    step("blocked users", "users", &["blocked"], false),
    step("rooms", "rooms", &["rooms"], true),
    step("direct rooms", "direct_rooms", &["rooms"], true),
    step("hidden rooms", "direct_hidden", &[], true),
    step("members", "rooms", &["room_members"], false),
    step("direct members", "direct_rooms", &["room_members"], false),
    step("messages", "messages", &["messages", "reactions"], true),
    step("pins", "rooms", &["pins", "pinned"], false),
    step("polls", "polls", &["polls"], true),
    step("votes", "polls", &["poll_votes"], false),
    step("friends", "users", &["friends"], false),
    step("friend requests", "friend_requests", &["friend_requests"], true),
    step("notifications", "notifications", &["notifications"], true),
    step("achievements", "achievements", &["achievements"], true),
    step("room keys", "users", &["room_keys"], false),
];
