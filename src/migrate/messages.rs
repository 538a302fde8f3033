//! Messages and their reactions.

use super::dates;
use super::ids::{derived, is_replaced, target};
use super::passes::Out;
use super::plan::Plan;
use super::record::Record;
use super::spool::key_hash;
use serde_json::{Value, json};

const TYPES: &[&str] = &["text", "image", "file", "voice", "audio", "video", "poll", "system"];
const CONTENT_MAX: usize = 64 << 10;
const EMOJI_MAX: usize = 64;
const MENTIONS_MAX: usize = 100;

/// Whether PocketBase takes a content, given as JSON.
pub fn is_content(json: Option<&str>) -> bool {
    match json {
        None | Some("null") => false,
        // No character is shorter than a byte.
        Some(json) if json.len() <= CONTENT_MAX => true,
        Some(json) => match serde_json::from_str(json) {
            Ok(Value::String(text)) => text.chars().count() <= CONTENT_MAX,
            _ => json.chars().count() <= CONTENT_MAX,
        },
    }
}

/// A message row: the message and its reactions.
pub fn message(plan: &Plan, record: &Record, out: &mut Out) -> Result<(), String> {
    let original = record.text("id");
    if original.is_empty() {
        return Err("the message has no id".to_owned());
    }
    if plan.duplicates.contains(&key_hash(&record.key)) {
        return Err(format!("another row has the id {original:?}"));
    }
    let room = record.text("room_id");
    if room.is_empty() {
        return Err("the message has no room".to_owned());
    }
    let place = plan.room(&room).ok_or_else(|| format!("the room {room:?} is gone"))?;
    let id = target(&original);
    if is_replaced(&original) {
        out.replaced(&id, &original);
    }
    let key = &record.key;
    let (author, by_system) = author(plan, record, out);
    let (kind, content) = content(plan, record, out, &id, by_system)?;
    let edited = record.date("edited_at");
    let created = record.date("created_at").or_else(|| {
        out.repair("messages", key, "created_at", "no date; now the time of the last edit, else of the room");
        edited.clone()
    });
    let created = created.unwrap_or_else(|| place.created.clone());
    let edited = edited.or_else(|| record.flag("edited").then(|| created.clone())).unwrap_or_default();
    let later =
        [Some(edited.clone()), record.date("deleted_at"), record.date("updated_at")].into_iter().flatten().max();
    let updated = later.filter(|date| *date > created).unwrap_or_else(|| created.clone());
    let row = json!({
        "id": id, "room": place.id, "author": author, "content": content, "type": kind,
        "mentions": mentions(plan, record, out), "edited_at": edited, "reply_to": link(plan, record, out, "reply_to"),
        "forwarded_from": link(plan, record, out, "forwarded_from"), "forwarded": record.flag("forwarded"),
        "deleted": record.flag("deleted"), "created": created, "updated": updated,
    });
    out.primary("messages", &id, key, row);
    reactions(plan, record, out, &id, &created);
    Ok(())
}

/// The author's id, and whether the old chat's "system" wrote the message.
fn author(plan: &Plan, record: &Record, out: &mut Out) -> (String, bool) {
    let original = record.text("sender_id");
    match plan.user(&original) {
        Some(person) => (person.id.clone(), false),
        None if original == "system" => (String::new(), true),
        None => {
            out.repair("messages", &record.key, "sender_id", &format!("unknown user {original:?}"));
            (String::new(), false)
        }
    }
}

fn content(
    plan: &Plan,
    record: &Record,
    out: &mut Out,
    id: &str,
    by_system: bool,
) -> Result<(&'static str, String), String> {
    let given = record.text("type");
    let mut kind = TYPES.iter().find(|kind| **kind == given).copied().unwrap_or_else(|| {
        if !given.is_empty() {
            out.repair("messages", &record.key, "type", &format!("unknown type {given:?}; now text"));
        }
        "text"
    });
    if by_system {
        kind = "system";
    }
    let content = match record.fields.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(value @ (Value::Object(_) | Value::Array(_))) => {
            out.repair("messages", &record.key, "content", "an object; now its JSON text");
            value.to_string()
        }
        Some(value @ (Value::Number(_) | Value::Bool(_))) => {
            out.repair("messages", &record.key, "content", "no text; now its JSON text");
            value.to_string()
        }
        Some(Value::Null) | None => return Err("the message has no content".to_owned()),
    };
    let length = content.chars().count();
    if length > CONTENT_MAX {
        return Err(format!("the content has {length} characters; PocketBase takes {CONTENT_MAX}"));
    }
    if kind == "poll" {
        // The content stays the text of the poll: question and options.
        if plan.polls.contains_key(&super::ids::compact(id)) {
            return Ok(("poll", content));
        }
        out.repair("messages", &record.key, "type", "the poll is gone; the message is now text");
        return Ok(("text", content));
    }
    Ok((kind, plan.files.rewritten(&content).unwrap_or(content)))
}

fn link(plan: &Plan, record: &Record, out: &mut Out, name: &'static str) -> String {
    let original = record.text(name);
    if original.is_empty() {
        return String::new();
    }
    plan.message(&original).unwrap_or_else(|| {
        out.repair("messages", &record.key, name, &format!("no message {original:?}"));
        String::new()
    })
}

fn mentions(plan: &Plan, record: &Record, out: &mut Out) -> Vec<String> {
    let mut ids: Vec<String> = Vec::new();
    for original in record.texts("mentions") {
        match plan.user(original) {
            Some(person) if ids.contains(&person.id) => {}
            Some(person) if ids.len() < MENTIONS_MAX => ids.push(person.id.clone()),
            Some(_) => out.repair("messages", &record.key, "mentions", &format!("more than {MENTIONS_MAX} mentions")),
            None => out.repair("messages", &record.key, "mentions", &format!("unknown user {original:?}")),
        }
    }
    ids
}

/// Reactions as `{emoji: [users]}`, or as a list of `{emoji, userId}`.
fn reactions(plan: &Plan, record: &Record, out: &mut Out, message: &str, created: &str) {
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    let mut repair = |reason: &str| out.repair("reactions", &record.key, "reactions", reason);
    match record.fields.get("reactions") {
        Some(Value::Object(map)) => {
            for (emoji, users) in map {
                match users.as_array() {
                    Some(users) => pairs.extend(users.iter().filter_map(|user| Some((emoji.as_str(), user.as_str()?)))),
                    None => repair(&format!("{emoji:?} has no list of users")),
                }
            }
        }
        Some(Value::Array(list)) => {
            for entry in list {
                match pair(entry) {
                    Some(pair) => pairs.push(pair),
                    None => repair("an entry without emoji or user"),
                }
            }
        }
        Some(Value::Null) | None => {}
        Some(_) => repair("no object of emoji"),
    }
    pairs.sort_unstable();
    pairs.dedup(); // the same reaction twice is one
    for (emoji, user) in pairs {
        reaction(plan, record, out, (message, created), emoji, user);
    }
}

fn pair(entry: &Value) -> Option<(&str, &str)> {
    let user = ["userId", "user_id", "user"].iter().find_map(|name| entry.get(name)?.as_str())?;
    Some((entry.get("emoji")?.as_str()?, user))
}

fn reaction(plan: &Plan, record: &Record, out: &mut Out, (message, created): (&str, &str), emoji: &str, user: &str) {
    let Some(person) = plan.user(user) else {
        return out.repair("reactions", &record.key, "reactions", &format!("unknown user {user:?}"));
    };
    if emoji.is_empty() || emoji.chars().count() > EMOJI_MAX {
        return out.repair("reactions", &record.key, "reactions", "an emoji must have 1 to 64 characters");
    }
    let id = derived("reaction", &[message, &person.id, emoji]);
    let row = json!({
        "id": id, "message": message, "user": person.id, "emoji": emoji, "created": created, "updated": created,
    });
    out.secondary("reactions", &id, &record.key, row);
}

/// The first of several fields that holds a date.
pub fn first_date(record: &Record, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| dates::parse(record.fields.get(*name)?))
}
