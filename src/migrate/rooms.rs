//! Rooms, direct rooms, their members and pins.

use super::ids::{compact, derived, target};
use super::passes::Out;
use super::plan::Plan;
use super::record::Record;
use super::steps::Target;
use super::users::clip;
use serde_json::json;

const NAME_MAX: usize = 200;

/// The new id of a room. A direct room is named by its two users, in either order.
pub fn room_id(original: &str) -> String {
    match original.split_once(':') {
        Some((a, b)) if !a.is_empty() && !b.is_empty() => direct_id(a, b),
        _ => target(original),
    }
}

pub fn direct_id(a: &str, b: &str) -> String {
    let (a, b) = (target(a), target(b));
    target(&if a < b { format!("{a}:{b}") } else { format!("{b}:{a}") })
}

/// The id of a row of `section`; `None` without the needed fields.
pub fn id_of(section: &str, record: &Record) -> Option<String> {
    if section == "direct_rooms" {
        let (a, b) = users_of(section, record)?;
        return Some(direct_id(&a, &b));
    }
    Some(record.text("id")).filter(|id| !id.is_empty()).map(|id| room_id(&id))
}

/// The two users of a direct room.
fn users_of(section: &str, record: &Record) -> Option<(String, String)> {
    if section == "direct_rooms" && record.has("a") && record.has("b") {
        return Some((record.text("a"), record.text("b")));
    }
    let names: &[&str] = if section == "direct_rooms" { &["participants"] } else { &["dm_participants", "members"] };
    names.iter().find_map(|name| match record.texts(name)[..] {
        [a, b] => Some((a.to_owned(), b.to_owned())),
        _ => None,
    })
}

fn is_direct(section: &str, record: &Record) -> bool {
    section == "direct_rooms" || matches!(record.text("type").as_str(), "dm" | "direct")
}

/// The key of a direct room, unique for a pair of users.
pub fn pair_of(section: &str, record: &Record) -> Option<String> {
    if !is_direct(section, record) {
        return None;
    }
    let (a, b) = users_of(section, record)?;
    let (a, b) = (target(&a), target(&b));
    Some(if a < b { format!("{a}:{b}") } else { format!("{b}:{a}") })
}

/// A room row: the room, its members and its pins.
pub fn room(plan: &Plan, section: &str, record: &Record, out: &mut Out) -> Result<(), String> {
    let id = id_of(section, record).ok_or("the row has no id")?;
    let place = plan.rooms.get(&compact(&id)).ok_or("the room is not in the plan")?;
    let (direct, deleted) = (is_direct(section, record), record.flag("deleted"));
    let kind = match record.text("type").as_str() {
        _ if direct => "direct",
        "public" if !deleted => "public",
        // Nobody sees a deleted room, and a public room is seen by all.
        "public" | "private" => "private",
        other => {
            out.repair("rooms", &record.key, "type", &format!("unknown type {other:?}; now private"));
            "private"
        }
    };
    let owner = owner(plan, record, out);
    let favorites = record.flag("is_favorites") && !direct && !owner.is_empty() && place.is_first;
    let pair = pair_of(section, record).filter(|_| place.is_first && !deleted).unwrap_or_default();
    let created = &place.created;
    if !record.has("created_at") || record.date("created_at").is_none() {
        out.repair("rooms", &record.key, "created_at", "no date; now the time of the export");
    }
    let updated = [record.date("deleted_at"), record.date("updated_at")].into_iter().flatten().max();
    let updated = updated.filter(|date| date > created).unwrap_or_else(|| created.clone());
    let name = if direct { String::new() } else { clip(out, record, "rooms", "name", NAME_MAX) };
    let row = json!({
        "id": id, "name": name, "type": kind, "owner": owner, "direct_key": pair, "favorites": favorites,
        "deleted": deleted, "created": created, "updated": updated,
    });
    out.primary("rooms", &id, &record.key, row);
    if !deleted {
        members(plan, section, record, out, &id, &owner, direct);
    } else if record.texts("members").len() + record.texts("dm_participants").len() > 0 {
        out.repair("room_members", &record.key, "members", "the room is deleted, and a deleted room has no members");
    }
    pins(plan, record, out, &id, created, &updated);
    Ok(())
}

/// The owner's id; "system" owns rooms in the old chat and is no user.
fn owner(plan: &Plan, record: &Record, out: &mut Out) -> String {
    let original = record.text("created_by");
    match plan.user(&original) {
        Some(person) => person.id.clone(),
        None => {
            if !original.is_empty() && original != "system" {
                out.repair("rooms", &record.key, "created_by", &format!("unknown user {original:?}"));
            }
            String::new()
        }
    }
}

fn members(plan: &Plan, section: &str, record: &Record, out: &mut Out, room: &str, owner: &str, direct: bool) {
    let pair = users_of(section, record).filter(|_| direct).map(|(a, b)| vec![a, b]);
    let listed: Vec<String> = pair.unwrap_or_else(|| {
        ["members", "dm_participants", "participants"]
            .iter()
            .flat_map(|name| record.texts(name))
            .map(str::to_owned)
            .collect()
    });
    let mut ids: Vec<&str> = Vec::new();
    let marks = record.object("last_read");
    let created = &plan.rooms[&compact(room)].created;
    for original in &listed {
        let Some(person) = plan.user(original) else {
            out.repair("room_members", &record.key, "members", &format!("unknown user {original:?}"));
            continue;
        };
        if ids.contains(&person.id.as_str()) {
            continue;
        }
        if direct && ids.len() == 2 {
            out.repair(
                "room_members",
                &record.key,
                "members",
                &format!("a direct room has two members; left out {original:?}"),
            );
            continue;
        }
        ids.push(&person.id);
        let read = marks.and_then(|marks| marks.get(original)).and_then(super::dates::parse).unwrap_or_default();
        let hidden = plan.hidden.get(&(compact(room), compact(&person.id))).cloned().unwrap_or_default();
        let role = if person.id == owner { "owner" } else { "member" };
        let id = derived("member", &[room, &person.id]);
        let updated = (&read).max(created).max(&hidden);
        let row = json!({
            "id": id, "room": room, "user": person.id, "role": role, "last_read": read, "hidden_at": hidden,
            "muted": false, "created": created, "updated": updated,
        });
        out.secondary("room_members", &id, &record.key, row);
    }
}

/// Pins in their old order, one millisecond apart; the room's own field names the newest.
fn pins(plan: &Plan, record: &Record, out: &mut Out, room: &str, created: &str, updated: &str) {
    let current = record.text("pinned_message_id");
    let mut listed: Vec<&str> = record.texts("pinned_message_ids").into_iter().filter(|id| *id != current).collect();
    if !current.is_empty() {
        listed.push(&current);
    }
    let (mut number, mut newest) = (0, None);
    for original in listed {
        let Some(message) = plan.message(original).filter(|message| plan.is_in_room(message, room)) else {
            out.repair("pins", &record.key, "pinned_message_ids", &format!("no message {original:?} in this room"));
            continue;
        };
        let id = derived("pin", &[room, &message]);
        number += 1;
        // The pins' own times are not known.
        let time = format!("{}.{:03}Z", &created[..19], number % 1000);
        let row = json!({"id": id, "room": room, "message": message, "user": "", "created": time, "updated": time});
        out.secondary("pins", &id, &record.key, row);
        newest = Some(message);
    }
    if newest.is_some() || out.is_delta {
        let message = newest.unwrap_or_default();
        let row = json!({"id": room, "pinned_message": message, "created": created, "updated": updated, "amend": true});
        out.push(Target { kind: "pinned", id: room.to_owned(), key: record.key.clone(), row, is_primary: false });
    }
}
