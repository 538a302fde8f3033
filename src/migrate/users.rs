//! The rows of a user: the user's record, blocked users, friendships, keys of rooms.

use super::dates::FOREVER;
use super::hashes::Class;
use super::ids::{compact, derived};
use super::passes::Out;
use super::people::Person;
use super::plan::Plan;
use super::record::Record;
use super::steps::Target;
use serde_json::{Value, json};
use std::collections::HashSet;

const ROLES: &[&str] = &["user", "vip", "moderator", "admin"];
const KEY_MAX: usize = 8192;

/// A `user:` row: the user, blocked users, friendships, keys of rooms.
pub fn user(plan: &Plan, record: &Record, out: &mut Out) -> Result<(), String> {
    let person = plan.user(&record.text("id")).filter(|_| record.has("id")).ok_or("the row has no id")?;
    for (field, reason) in &person.repairs {
        out.repair("users", &record.key, field, reason);
    }
    let mut row = base(person);
    let role = record.text("role");
    if ROLES.contains(&role.as_str()) {
        row["role"] = json!(role);
    } else if !role.is_empty() {
        out.repair("users", &record.key, "role", &format!("unknown role {role:?}; now \"user\""));
    }
    row["name"] = json!(clip(out, record, "users", "display_name", 255));
    row["status_text"] = json!(clip(out, record, "users", "status_text", 200));
    row["public_key"] = json!(whole(out, record, "users", "public_key", KEY_MAX));
    row["last_activity"] = json!(record.date("last_activity").unwrap_or_default());
    row["banned_until"] = json!(sanction(record, "banned", "ban_until"));
    row["muted_until"] = json!(sanction(record, "muted", "mute_until"));
    if record.flag("deleted") {
        row["deleted"] = json!(true);
        row["banned_until"] = json!(FOREVER); // the old chat refuses the login of deleted users
    }
    out.primary("users", &person.id, &record.key, row);
    blocked(plan, person, record, out);
    friends(plan, person, record, out);
    room_keys(plan, person, record, out);
    Ok(())
}

/// An account without a row in the table: the old chat makes the row at the first login.
pub fn bare(person: &Person, out: &mut Out) {
    let key = format!("account:{}", person.id);
    for (field, reason) in &person.repairs {
        out.repair("users", &key, field, reason);
    }
    out.secondary("users", &person.id, &key, base(person));
}

fn base(person: &Person) -> Value {
    let mut row = json!({
        "id": person.id, "email": person.email, "emailVisibility": false, "username": person.username, "name": "",
        "role": "user", "verified": person.verified, "public_key": "", "status_text": "", "banned_until": "",
        "muted_until": "", "last_activity": "", "deleted": false, "created": person.created, "updated": person.updated,
        "password_pending": person.hash.is_none() && person.class != Some(Class::Empty),
    });
    if let Some(hash) = &person.hash {
        row["hash"] = json!(hash);
    }
    row
}

/// The end of a ban or of muting; without a date, never. The old chat writes `mute_until` and reads `muted_until`.
fn sanction(record: &Record, flag: &str, until: &str) -> String {
    if !record.flag(flag) {
        return String::new();
    }
    record.date(until).unwrap_or_else(|| FOREVER.to_owned())
}

fn blocked(plan: &Plan, person: &Person, record: &Record, out: &mut Out) {
    let mut ids = Vec::new();
    for original in record.texts("blocked_users") {
        match plan.user(original) {
            Some(other) if !ids.contains(&other.id) && other.id != person.id => ids.push(other.id.clone()),
            Some(_) => {}
            None => out.repair("blocked", &record.key, "blocked_users", &format!("unknown user {original:?}")),
        }
    }
    if !ids.is_empty() || out.is_delta {
        let row = json!({
            "id": person.id, "blocked": ids, "created": person.created, "updated": person.updated, "amend": true,
        });
        out.push(Target { kind: "blocked", id: person.id.clone(), key: record.key.clone(), row, is_primary: false });
    }
}

/// Friends are listed by one or both users; each pair is one accepted request.
fn friends(plan: &Plan, person: &Person, record: &Record, out: &mut Out) {
    let mut done = HashSet::new();
    for original in record.texts("friends") {
        let Some(other) = plan.user(original).filter(|other| other.id != person.id) else {
            out.repair("friends", &record.key, "friends", &format!("unknown user {original:?}"));
            continue;
        };
        let mutual = plan.friends.contains(&(compact(&other.id), compact(&person.id)));
        if !done.insert(&other.id) || (mutual && person.id > other.id) {
            continue;
        }
        let (from, to) = if person.id < other.id { (&person.id, &other.id) } else { (&other.id, &person.id) };
        let created = (&person.created).max(&other.created);
        let id = derived("friend", &[from, to]);
        let row =
            json!({"id": id, "from": from, "to": to, "status": "accepted", "created": created, "updated": created});
        out.push(Target { kind: "friends", id, key: record.key.clone(), row, is_primary: false });
    }
}

fn room_keys(plan: &Plan, person: &Person, record: &Record, out: &mut Out) {
    for (room, key) in record.object("room_keys").into_iter().flatten() {
        let (place, key) = (plan.room(room), key.as_str().unwrap_or(""));
        let Some(place) = place.filter(|_| !key.is_empty() && key.len() <= KEY_MAX) else {
            out.repair(
                "room_keys",
                &record.key,
                "room_keys",
                &format!("room {room:?} is unknown, or the key is no text of up to {KEY_MAX} characters"),
            );
            continue;
        };
        let id = derived("room_key", &[&place.id, &person.id, "1"]);
        let row = json!({
            "id": id, "room": place.id, "user": person.id, "encrypted_key": key, "key_version": 1,
            "created": person.created, "updated": person.created,
        });
        out.secondary("room_keys", &id, &record.key, row);
    }
}

/// A text cut to `max` characters, with a repair.
pub fn clip(out: &mut Out, record: &Record, kind: &'static str, name: &'static str, max: usize) -> String {
    let text = record.text(name);
    if text.chars().count() <= max {
        return text;
    }
    out.repair(kind, &record.key, name, &format!("cut to {max} characters"));
    text.chars().take(max).collect()
}

/// A text that is worthless in part, such as a key: left out if too long.
fn whole(out: &mut Out, record: &Record, kind: &'static str, name: &'static str, max: usize) -> String {
    let text = record.text(name);
    if text.chars().count() <= max {
        return text;
    }
    out.repair(kind, &record.key, name, &format!("longer than {max} characters; left out"));
    String::new()
}
