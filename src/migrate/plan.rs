//! What rows refer to: everybody and everything that the export has, read once before the first write. A reference to
//! anything else is left out of its row and reported.

use super::dates;
use super::document::Document;
use super::files::{self, FilePlan};
use super::hashes::Class;
use super::ids::{compact, target};
use super::mapping::{ACCOUNTS, FILES, HASHES};
use super::messages;
use super::people::{self, Person};
use super::record::{Record, Row, records};
use super::rooms::{direct_id, room_id};
use super::spool::key_hash;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// A room of the export.
pub struct Place {
    pub id: String,
    pub created: String,
    /// Whether this room gets the key of its pair of users, or the mark of favourites, of which there is one each.
    pub is_first: bool,
}

pub struct Plan {
    pub document: Document,
    pub users: HashMap<u128, Person>,
    pub rooms: HashMap<u128, Place>,
    /// The room of each message.
    pub messages: HashMap<u128, u128>,
    /// The poll of a message.
    pub polls: HashMap<u128, String>,
    /// Friends: both directions, as far as listed.
    pub friends: HashSet<(u128, u128)>,
    /// When a user has hidden a direct room.
    pub hidden: HashMap<(u128, u128), String>,
    pub files: FilePlan,
    /// Rows whose id another row has already, by the hash of their key.
    pub duplicates: HashSet<u64>,
    /// Accounts without a row in the table.
    pub bare_accounts: Vec<u128>,
    /// Password hashes by class.
    pub classes: std::collections::BTreeMap<Class, u64>,
}

/// The parts of a message's value that the plan needs. Other layouts take the slow path.
#[derive(Deserialize)]
struct Brief<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    room_id: Cow<'a, str>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
}

impl Plan {
    /// `public_url`: address under which PocketBase's files will be reached.
    pub fn read(folder: &Path, public_url: &str) -> anyhow::Result<Self> {
        let mut draft = Draft::default();
        let mapping = super::mapping::Mapping::default();
        let header = Document::header(folder)?;
        let mapping = if header.mapping.map.is_empty() { mapping } else { header.mapping };
        let document = Document::open(folder, |section, line| {
            draft.enter(&mapping, section, line);
            Ok(())
        })?;
        Ok(draft.finish(document, public_url))
    }

    pub fn user(&self, original: &str) -> Option<&Person> {
        self.users.get(&compact(&target(original)))
    }

    pub fn room(&self, original: &str) -> Option<&Place> {
        self.rooms.get(&compact(&room_id(original)))
    }

    /// The new id of a message that is imported.
    pub fn message(&self, original: &str) -> Option<String> {
        let id = target(original);
        self.messages.contains_key(&compact(&id)).then_some(id)
    }

    pub fn is_in_room(&self, message: &str, room: &str) -> bool {
        self.messages.get(&compact(message)) == Some(&compact(room))
    }

    pub fn are_friends(&self, one: &str, other: &str) -> bool {
        let (one, other) = (compact(one), compact(other));
        self.friends.contains(&(one, other)) || self.friends.contains(&(other, one))
    }
}

#[derive(Default)]
struct Draft {
    people: people::Draft,
    rooms: HashMap<u128, Place>,
    direct_keys: HashSet<String>,
    favorites: HashSet<u128>,
    messages: HashMap<u128, u128>,
    polls: HashMap<u128, String>,
    friends: HashSet<(u128, u128)>,
    hidden: HashMap<(u128, u128), String>,
    files: Vec<Value>,
    avatars: Vec<(&'static str, String, String)>,
    duplicates: HashSet<u64>,
}

impl Draft {
    /// Rows that cannot be read are reported later, by the pass that writes their section.
    fn enter(&mut self, mapping: &super::mapping::Mapping, section: &str, line: &str) {
        let Ok(row) = serde_json::from_str::<Row<'_>>(line) else { return };
        match section {
            ACCOUNTS => return self.people.account(row.value.get()),
            HASHES => return self.people.hash(row.value.get()),
            FILES => return self.files.extend(serde_json::from_str(row.value.get())),
            "messages" => {
                if let Ok(brief) = serde_json::from_str::<Brief<'_>>(row.value.get()) {
                    let content = brief.content.map(RawValue::get);
                    return self.message(&row.key, &brief.id, &brief.room_id, messages::is_content(content));
                }
            }
            _ => {}
        }
        for record in records(mapping, section, &row).unwrap_or_default() {
            self.record(section, &record);
        }
    }

    /// Rows that will be rejected are left out, since nothing may refer to their messages.
    fn message(&mut self, key: &str, id: &str, room: &str, is_content: bool) {
        if id.is_empty() || room.is_empty() || !is_content {
            return;
        }
        let id = compact(&target(id));
        if let std::collections::hash_map::Entry::Vacant(e) = self.messages.entry(id) {
            e.insert(compact(&room_id(room)));
        } else {
            self.duplicates.insert(key_hash(key));
        }
    }

    fn record(&mut self, section: &str, record: &Record) {
        match section {
            "messages" => {
                let content = record.fields.get("content").map(Value::to_string);
                let is_content = messages::is_content(content.as_deref());
                self.message(&record.key, &record.text("id"), &record.text("room_id"), is_content);
            }
            "users" => self.user(record),
            "rooms" | "direct_rooms" => self.room(section, record),
            "direct_hidden" => {
                let room = direct_id(&record.text("a"), &record.text("b"));
                if let Some(date) = record.date("hidden_at") {
                    self.hidden.insert((compact(&room), compact(&target(&record.text("user")))), date);
                }
            }
            "polls" if super::extras::poll_fault(record).is_none() && record.has("message_id") => {
                self.polls.insert(compact(&target(&record.text("message_id"))), target(&record.text("id")));
            }
            _ => {}
        }
    }

    fn user(&mut self, record: &Record) {
        let id = record.text("id");
        if id.is_empty() {
            return;
        }
        let id = target(&id);
        if !self.people.row(&id, record) {
            self.duplicates.insert(key_hash(&record.key));
            return;
        }
        for friend in record.texts("friends") {
            self.friends.insert((compact(&id), compact(&target(friend))));
        }
        for name in ["avatar_path", "avatar", "avatar_url"] {
            if record.has(name) {
                self.avatars.push(("users", id, record.text(name)));
                break;
            }
        }
    }

    fn room(&mut self, section: &str, record: &Record) {
        let Some(id) = super::rooms::id_of(section, record) else { return };
        let hash = compact(&id);
        if self.rooms.contains_key(&hash) {
            self.duplicates.insert(key_hash(&record.key));
            return;
        }
        let is_first = match super::rooms::pair_of(section, record) {
            Some(pair) if !record.flag("deleted") => self.direct_keys.insert(pair),
            Some(_) => false,
            None => !record.flag("is_favorites") || self.favorites.insert(compact(&target(&record.text("created_by")))),
        };
        if record.has("avatar_url") {
            self.avatars.push(("rooms", id.clone(), record.text("avatar_url")));
        }
        self.rooms.insert(hash, Place { id, created: record.date("created_at").unwrap_or_default(), is_first });
    }

    fn finish(mut self, document: Document, public_url: &str) -> Plan {
        let exported_at = dates::parse(&Value::String(document.header.exported_at.clone())).unwrap_or_else(dates::now);
        for place in self.rooms.values_mut().filter(|place| place.created.is_empty()) {
            place.created.clone_from(&exported_at);
        }
        let rooms = &self.rooms;
        // Messages of unknown rooms are rejected, so nothing may refer to them.
        self.messages.retain(|_, room| rooms.contains_key(room));
        let messages = &self.messages;
        self.polls.retain(|message, _| messages.contains_key(message));
        let people = self.people.finish(&exported_at);
        let files = files::plan(&self.files, &self.avatars, &people.users, &document.header.salt, public_url);
        Plan {
            document,
            users: people.users,
            rooms: self.rooms,
            messages: self.messages,
            polls: self.polls,
            friends: self.friends,
            hidden: self.hidden,
            files,
            duplicates: self.duplicates,
            bare_accounts: people.bare,
            classes: people.classes,
        }
    }
}
