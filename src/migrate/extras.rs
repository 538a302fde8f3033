//! Polls, notifications, friend requests, achievements.

use super::ids::{derived, target};
use super::messages::first_date;
use super::passes::Out;
use super::plan::Plan;
use super::record::Record;
use super::users::clip;
use serde_json::{Value, json};
use std::collections::HashSet;

const NOTIFICATION_TYPES: &[&str] = &["friend_request", "friend_accepted", "mention", "reaction", "room_invite"];
const CONTENT_MAX: usize = 500;
const ACHIEVEMENT_MAX: usize = 100;

/// Why a poll cannot be imported.
pub fn poll_fault(record: &Record) -> Option<&'static str> {
    if !record.has("id") {
        return Some("the poll has no id");
    }
    if record.flag("deleted") {
        return Some("deleted in the old chat");
    }
    if !record.has("question") {
        return Some("the poll has no question");
    }
    options(record).is_empty().then_some("the poll has no options")
}

fn options(record: &Record) -> Vec<String> {
    let text = |option: &Value| match option {
        Value::String(text) => Some(text.clone()),
        Value::Object(fields) => fields.get("text")?.as_str().map(str::to_owned),
        _ => None,
    };
    record
        .fields
        .get("options")
        .and_then(Value::as_array)
        .map(|all| all.iter().filter_map(text).collect())
        .unwrap_or_default()
}

pub fn poll(plan: &Plan, record: &Record, out: &mut Out) -> Result<(), String> {
    if let Some(fault) = poll_fault(record) {
        return Err(fault.to_owned());
    }
    let id = target(&record.text("id"));
    let message = plan.message(&record.text("message_id"));
    let room = message.as_ref().and_then(|message| plan.rooms.get(plan.messages.get(&super::ids::compact(message))?));
    let room = room.or_else(|| plan.room(&record.text("room_id"))).ok_or("the poll's message and room are gone")?;
    let author = plan.user(&record.text("created_by")).map(|person| person.id.clone()).unwrap_or_default();
    let created = first_date(record, &["created_at", "createdAt"]).unwrap_or_else(|| room.created.clone());
    let options = options(record);
    let mut counts = vec![0; options.len()];
    let mut voters = HashSet::new();
    for (option, users) in record.object("votes").into_iter().flatten() {
        let index = option.parse::<usize>().ok().filter(|index| *index < options.len());
        for user in users.as_array().into_iter().flatten().filter_map(Value::as_str) {
            let (Some(index), Some(person)) = (index, plan.user(user)) else {
                out.repair(
                    "poll_votes",
                    &record.key,
                    "votes",
                    &format!("no option {option:?}, or unknown user {user:?}"),
                );
                continue;
            };
            if !voters.insert(&person.id) {
                out.repair("poll_votes", &record.key, "votes", &format!("a second vote of {user:?}"));
                continue;
            }
            counts[index] += 1;
            let vote = derived("vote", &[&id, &person.id]);
            let row = json!({
                "id": vote, "poll": id, "user": person.id, "option": index, "created": created, "updated": created,
            });
            out.secondary("poll_votes", &vote, &record.key, row);
        }
    }
    let row = json!({
        "id": id, "room": room.id, "message": message.unwrap_or_default(), "author": author,
        "question": clip(out, record, "polls", "question", CONTENT_MAX), "options": options, "counts": counts,
        "anonymous": record.flag("anonymous"), "created": created, "updated": created,
    });
    out.primary("polls", &id, &record.key, row);
    Ok(())
}

pub fn notification(plan: &Plan, record: &Record, out: &mut Out) -> Result<(), String> {
    if record.flag("deleted") {
        return Err("deleted in the old chat".to_owned());
    }
    let kind = record.text("type");
    if !NOTIFICATION_TYPES.contains(&kind.as_str()) {
        return Err(format!("unknown type {kind:?}"));
    }
    let user = plan.user(&record.text("userId")).ok_or_else(|| format!("unknown user {:?}", record.text("userId")))?;
    let key = &record.key;
    let id = target(key);
    let mut missing = |name: &'static str| {
        out.repair("notifications", key, name, &format!("unknown: {:?}", record.text(name)));
        String::new()
    };
    let from = match plan.user(&record.text("fromUserId")) {
        Some(person) => person.id.clone(),
        None if record.has("fromUserId") => missing("fromUserId"),
        None => String::new(),
    };
    let place = if record.has("roomId") { "roomId" } else { "dm_id" };
    let room = match plan.room(&record.text(place)) {
        Some(room) => room.id.clone(),
        None if record.has(place) => missing(place),
        None => String::new(),
    };
    let message = match plan.message(&record.text("messageId")) {
        Some(message) => message,
        None if record.has("messageId") => missing("messageId"),
        None => String::new(),
    };
    let created = first_date(record, &["createdAt", "created_at"]).unwrap_or_else(|| user.created.clone());
    let row = json!({
        "id": id, "user": user.id, "type": kind, "from": from, "room": room, "message": message,
        "content": clip(out, record, "notifications", "content", CONTENT_MAX), "read": record.flag("read"),
        "created": created, "updated": created,
    });
    out.primary("notifications", &id, key, row);
    Ok(())
}

pub fn friend_request(plan: &Plan, record: &Record, out: &mut Out) -> Result<(), String> {
    let user =
        |name: &str| plan.user(&record.text(name)).ok_or_else(|| format!("unknown user {:?}", record.text(name)));
    let (from, to) = (user("fromUserId")?, user("toUserId")?);
    if from.id == to.id {
        return Err("a request to oneself".to_owned());
    }
    if plan.are_friends(&from.id, &to.id) {
        return Err("the two users are friends already".to_owned());
    }
    let status = match record.text("status").as_str() {
        "" => "pending".to_owned(),
        status @ ("pending" | "accepted" | "rejected") => status.to_owned(),
        status => return Err(format!("unknown status {status:?}")),
    };
    let created =
        first_date(record, &["createdAt", "created_at"]).unwrap_or_else(|| (&from.created).max(&to.created).clone());
    let id = derived("friend_request", &[&from.id, &to.id]);
    let row = json!({"id": id, "from": from.id, "to": to.id, "status": status, "created": created, "updated": created});
    out.primary("friend_requests", &id, &record.key, row);
    Ok(())
}

/// One row holds all achievements of a user.
pub fn achievements(plan: &Plan, record: &Record, out: &mut Out) -> Result<(), String> {
    let user = plan.user(&record.text("userId")).ok_or_else(|| format!("unknown user {:?}", record.text("userId")))?;
    for (name, value) in record.object("achievements").into_iter().flatten() {
        let progress = value.get("progress").and_then(Value::as_f64).filter(|progress| *progress >= 0.0).unwrap_or(0.0);
        if name.is_empty() || name.chars().count() > ACHIEVEMENT_MAX || !value.is_object() {
            out.repair("achievements", &record.key, "achievements", &format!("{name:?} is no achievement"));
            continue;
        }
        let unlocked = ["unlockedAt", "unlocked_at"].iter().find_map(|name| super::dates::parse(value.get(*name)?));
        let is_unlocked = value.get("isUnlocked").and_then(Value::as_bool).unwrap_or(unlocked.is_some());
        let unlocked = if is_unlocked { unlocked.unwrap_or_else(|| user.created.clone()) } else { String::new() };
        let id = derived("achievement", &[&user.id, name]);
        let created = if unlocked.is_empty() { &user.created } else { &unlocked };
        let row = json!({
            "id": id, "user": user.id, "achievement": name, "progress": progress, "unlocked_at": unlocked,
            "created": created, "updated": created,
        });
        out.secondary("achievements", &id, &record.key, row);
    }
    Ok(())
}
