//! The layout of the old chat's table: which keys hold which kind of row. The layouts of chats made with Figma Make are
//! built in; other layouts are described in a TOML file, whose entries come first:
//!
//! ```toml
//! [[map]]
//! prefix = "chat_msg:"            # keys that begin with this text
//! section = "messages"            # kind of the rows; "ignore" for lists that other rows repeat
//! key = ["room_id", "id"]         # names of the key's parts after the prefix, used where the value lacks the field
//! fields = { text = "content", from = "sender_id", ts = "created_at" } # old name = known name
//! ```

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Sections of `export.json` with rows of the table, in the file's order.
pub const SECTIONS: &[&str] = &[
    "users",
    "rooms",
    "direct_rooms",
    "direct_hidden",
    "friend_requests",
    "polls",
    "notifications",
    "achievements",
    "messages",
];
/// Section of lists that other rows repeat: the rows are counted and kept, not imported.
pub const INDEX: &str = "indexes";
/// Sections with rows that do not come from the table.
pub const ACCOUNTS: &str = "accounts";
pub const HASHES: &str = "password_hashes";
pub const FILES: &str = "files";

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub prefix: String,
    pub section: String,
    #[serde(default)]
    pub key: Vec<String>,
    #[serde(default)]
    pub fields: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    #[serde(default)]
    pub map: Vec<Entry>,
}

/// Prefix, section and parts of the key of the built-in layouts. A longer prefix wins.
const BUILT_IN: &[(&str, &str, &[&str])] = &[
    ("user:", "users", &["id"]),
    ("profile:", "users", &["id"]),
    ("username:", INDEX, &[]),
    ("room:", "rooms", &["id"]),
    ("channel:", "rooms", &["id"]),
    ("conversation:", "rooms", &["id"]),
    ("chat:", "rooms", &["id"]),
    ("message:", "messages", &["room_id", "id"]),
    ("messages:", "messages", &["room_id"]),
    ("msg:", "messages", &["room_id", "id"]),
    ("room_messages:", INDEX, &[]),
    ("dm:", "direct_rooms", &["a", "b"]),
    ("dm_messages:", INDEX, &[]),
    ("dm_hidden:", "direct_hidden", &["a", "b", "user"]),
    ("poll:", "polls", &["id"]),
    ("poll_message:", INDEX, &[]),
    ("notification:", "notifications", &[]),
    ("user_notifications:", INDEX, &[]),
    ("user_rooms:", INDEX, &[]),
    ("friend_request:", "friend_requests", &["fromUserId", "toUserId"]),
    ("achievements:", "achievements", &["userId"]),
];

/// Other names of known fields in chats made with Figma Make. The known name wins if a value has both.
const ALIASES: &[(&str, &[(&str, &str)])] = &[
    (
        "messages",
        &[
            ("roomId", "room_id"),
            ("conversationId", "room_id"),
            ("channelId", "room_id"),
            ("chatId", "room_id"),
            ("senderId", "sender_id"),
            ("userId", "sender_id"),
            ("user_id", "sender_id"),
            ("authorId", "sender_id"),
            ("text", "content"),
            ("message", "content"),
            ("createdAt", "created_at"),
            ("timestamp", "created_at"),
            ("replyTo", "reply_to"),
            ("replyToId", "reply_to"),
            ("editedAt", "edited_at"),
            ("deletedAt", "deleted_at"),
        ],
    ),
    (
        "users",
        &[
            ("userName", "username"),
            ("displayName", "display_name"),
            ("name", "display_name"),
            ("createdAt", "created_at"),
            ("publicKey", "public_key"),
            ("avatarUrl", "avatar_url"),
            ("muted_until", "mute_until"),
            ("banned_until", "ban_until"),
            ("lastActivity", "last_activity"),
            ("statusText", "status_text"),
            ("blockedUsers", "blocked_users"),
        ],
    ),
    (
        "rooms",
        &[
            ("createdBy", "created_by"),
            ("ownerId", "created_by"),
            ("createdAt", "created_at"),
            ("participants", "members"),
            ("lastRead", "last_read"),
            ("isFavorites", "is_favorites"),
        ],
    ),
];

impl Mapping {
    pub fn from_toml(text: &str) -> anyhow::Result<Self> {
        let mapping: Self = toml::from_str(text).context("the mapping file is no valid TOML of [[map]] entries")?;
        for entry in &mapping.map {
            if !SECTIONS.contains(&entry.section.as_str()) && entry.section != "ignore" {
                let known = SECTIONS.join(", ");
                bail!("the mapping file names the section \"{}\"; the sections are {known} and ignore", entry.section);
            }
        }
        Ok(mapping)
    }

    /// The section of a key's row; `None` if nothing matches.
    pub fn section(&self, key: &str) -> Option<&str> {
        if let Some(entry) = self.entry(key) {
            return Some(if entry.section == "ignore" { INDEX } else { &entry.section });
        }
        built_in(key).map(|(_, section, _)| *section)
    }

    /// The mapping file's entry with the longest prefix of the key.
    fn entry(&self, key: &str) -> Option<&Entry> {
        self.map.iter().filter(|entry| key.starts_with(&entry.prefix)).max_by_key(|entry| entry.prefix.len())
    }

    /// Known names of the key's parts, with their values. With one part too few, the first name is left out:
    /// `message:<id>` has no room.
    pub fn parts<'k>(&self, key: &'k str) -> Vec<(String, &'k str)> {
        let (prefix, names): (&str, Vec<&str>) = match self.entry(key) {
            Some(entry) => (&entry.prefix, entry.key.iter().map(String::as_str).collect()),
            None => match built_in(key) {
                Some((prefix, _, names)) => (prefix, names.to_vec()),
                None => return Vec::new(),
            },
        };
        let Some(rest) = key.strip_prefix(prefix) else { return Vec::new() };
        let parts: Vec<&str> = rest.splitn(names.len().max(1), ':').collect();
        let names =
            names.into_iter().skip(if parts.len() == 1 && !rest.is_empty() && prefix == "message:" { 1 } else { 0 });
        names.map(str::to_owned).zip(parts).filter(|(_, part)| !part.is_empty()).collect()
    }

    /// Calls `rename(old, known)` for the other names of a section's fields.
    pub fn renames(&self, section: &str, key: &str, mut rename: impl FnMut(&str, &str)) {
        if let Some(entry) = self.entry(key) {
            entry.fields.iter().for_each(|(old, known)| rename(old, known));
        }
        let aliases = ALIASES.iter().find(|(name, _)| *name == section).map_or(&[][..], |(_, aliases)| aliases);
        aliases.iter().for_each(|(old, known)| rename(old, known));
    }
}

fn built_in(key: &str) -> Option<&'static (&'static str, &'static str, &'static [&'static str])> {
    BUILT_IN.iter().filter(|(prefix, ..)| key.starts_with(prefix)).max_by_key(|(prefix, ..)| prefix.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_file_comes_before_the_built_in_layout() {
        let text = "[[map]]\nprefix = \"message:\"\nsection = \"polls\"\n[map.fields]\nq = \"question\"";
        let mapping = Mapping::from_toml(text).unwrap();
        assert_eq!(mapping.section("message:1"), Some("polls"));
        assert_eq!(mapping.section("user:1"), Some("users"));
        assert_eq!(mapping.section("theme"), None);
        assert!(Mapping::from_toml("[[map]]\nprefix = \"x\"\nsection = \"nothing\"").is_err());
    }

    #[test]
    fn parts_of_keys_get_names() {
        let mapping = Mapping::default();
        assert_eq!(mapping.parts("message:m1"), [("id".to_owned(), "m1")]);
        assert_eq!(mapping.parts("message:c1:m1"), [("room_id".to_owned(), "c1"), ("id".to_owned(), "m1")]);
        assert_eq!(mapping.parts("dm:a:b"), [("a".to_owned(), "a"), ("b".to_owned(), "b")]);
    }
}
