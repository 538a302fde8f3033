//! Users: from the accounts, their password hashes and the table's `user:` rows.

use super::dates::{self, FOREVER};
use super::hashes::Class;
use super::ids::{compact, derived, target};
use super::passes::{Out, Target};
use super::plan::Plan;
use super::record::Record;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};

const ROLES: &[&str] = &["user", "vip", "moderator", "admin"];
const USERNAME_MAX: usize = 50;
const KEY_MAX: usize = 8192;
/// Addresses of users without an own: the domain is reserved and never receives mail.
const NO_MAIL: &str = "users.invalid";

/// A user as imported, as far as it depends on other users or on the account.
#[derive(Clone, Debug)]
pub struct Person {
    pub id: String,
    pub email: String,
    pub username: String,
    pub verified: bool,
    pub hash: Option<String>,
    pub class: Option<Class>,
    pub created: String,
    pub updated: String,
    /// What differs from the old chat: field and reason.
    pub repairs: Vec<(&'static str, String)>,
}

struct Account {
    id: String,
    email: String,
    username: String,
    verified: bool,
    created: Option<String>,
    updated: Option<String>,
}

struct RowBrief {
    id: String,
    email: String,
    username: String,
    created: Option<String>,
    updated: Option<String>,
}

#[derive(Default)]
pub struct Draft {
    accounts: HashMap<u128, Account>,
    hashes: HashMap<u128, String>,
    rows: HashMap<u128, RowBrief>,
}

pub struct People {
    pub users: HashMap<u128, Person>,
    pub bare: Vec<u128>,
    pub classes: BTreeMap<Class, u64>,
}

impl Draft {
    /// An account as GoTrue describes it.
    pub fn account(&mut self, json: &str) {
        let Ok(value) = serde_json::from_str::<Value>(json) else { return };
        let Some(id) = value["id"].as_str().map(target) else { return };
        let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
        let account = Account {
            email: text(&value["email"]),
            username: text(&value["user_metadata"]["username"]),
            verified: !value["email_confirmed_at"].is_null() || !value["confirmed_at"].is_null(),
            created: dates::parse(&value["created_at"]),
            updated: dates::parse(&value["updated_at"]),
            id,
        };
        self.accounts.insert(compact(&account.id), account);
    }

    pub fn hash(&mut self, json: &str) {
        let Ok(value) = serde_json::from_str::<Value>(json) else { return };
        if let (Some(id), Some(hash)) = (value["id"].as_str(), value["hash"].as_str()) {
            self.hashes.insert(compact(&target(id)), hash.to_owned());
        }
    }

    /// A `user:` row; false if another row has this id.
    pub fn row(&mut self, id: &str, record: &Record) -> bool {
        let brief = RowBrief {
            id: id.to_owned(),
            email: record.text("email"),
            username: record.text("username"),
            created: record.date("created_at"),
            updated: [record.date("updated_at"), record.date("deleted_at")].into_iter().flatten().max(),
        };
        let is_new = !self.rows.contains_key(&compact(id));
        if is_new {
            self.rows.insert(compact(id), brief);
        }
        is_new
    }

    /// Oldest users choose their names first, users with an account before the others.
    pub fn finish(mut self, exported_at: &str) -> People {
        let mut order: Vec<(bool, String, String, u128)> = Vec::new();
        let all: HashSet<u128> = self.rows.keys().chain(self.accounts.keys()).copied().collect();
        for hash in all {
            let (row, account) = (self.rows.get(&hash), self.accounts.get(&hash));
            let created = account.and_then(|a| a.created.clone()).or_else(|| row.and_then(|r| r.created.clone()));
            let id = row.map(|r| &r.id).or(account.map(|a| &a.id)).cloned().unwrap_or_default();
            order.push((account.is_none(), created.unwrap_or_else(|| exported_at.to_owned()), id, hash));
        }
        order.sort();
        let (mut names, mut emails) = (HashSet::new(), HashSet::new());
        let mut people = People { users: HashMap::new(), bare: Vec::new(), classes: BTreeMap::new() };
        for (_, created, id, hash) in order {
            let (row, account) = (self.rows.remove(&hash), self.accounts.remove(&hash));
            let mut repairs = Vec::new();
            let email = email(&id, row.as_ref(), account.as_ref(), &mut emails, &mut repairs);
            let username = username(&id, row.as_ref(), account.as_ref(), &email, &mut names, &mut repairs);
            let stored = self.hashes.remove(&hash);
            let class = stored.as_deref().map(Class::of);
            if let Some(class) = class {
                *people.classes.entry(class).or_default() += 1;
            }
            let updated =
                [account.as_ref().and_then(|a| a.updated.clone()), row.as_ref().and_then(|r| r.updated.clone())];
            let updated =
                updated.into_iter().flatten().max().filter(|date| *date > created).unwrap_or_else(|| created.clone());
            if row.is_none() {
                people.bare.push(hash);
            }
            let verified = account.is_some_and(|account| account.verified);
            let usable = stored.filter(|_| class == Some(Class::Bcrypt));
            people
                .users
                .insert(hash, Person { id, email, username, verified, hash: usable, class, created, updated, repairs });
        }
        people
    }
}

type Repairs = Vec<(&'static str, String)>;

fn email(
    id: &str,
    row: Option<&RowBrief>,
    account: Option<&Account>,
    taken: &mut HashSet<String>,
    repairs: &mut Repairs,
) -> String {
    let original = account
        .map(|a| a.email.as_str())
        .filter(|email| !email.is_empty())
        .or(row.map(|r| r.email.as_str()))
        .unwrap_or("");
    let email = original.trim().to_lowercase();
    let fault = match email.split_once('@') {
        _ if email.is_empty() => "the user has no e-mail address",
        Some((name, domain)) if !name.is_empty() && domain.contains('.') && !email.contains(char::is_whitespace) => {
            if taken.insert(email.clone()) {
                return email;
            }
            "another user has this e-mail address"
        }
        _ => "this is no e-mail address",
    };
    repairs.push(("email", format!("{fault}: {original:?}")));
    format!("{id}@{NO_MAIL}")
}

fn username(
    id: &str,
    row: Option<&RowBrief>,
    account: Option<&Account>,
    email: &str,
    taken: &mut HashSet<String>,
    repairs: &mut Repairs,
) -> String {
    let names = [row.map(|r| r.username.as_str()), account.map(|a| a.username.as_str())];
    let original = names.into_iter().flatten().map(str::trim).find(|name| !name.is_empty());
    let fallback = email.split('@').next().filter(|_| !email.ends_with(NO_MAIL)).unwrap_or(id);
    let wanted: String = original.unwrap_or(fallback).chars().take(USERNAME_MAX).collect();
    let mut name = wanted.clone();
    for number in 2.. {
        if taken.insert(name.to_lowercase()) {
            break;
        }
        let suffix = format!("_{number}");
        name = wanted.chars().take(USERNAME_MAX - suffix.len()).chain(suffix.chars()).collect();
    }
    match original {
        None => repairs.push(("username", "the user has no username".to_owned())),
        Some(original) if original != name => repairs.push(("username", format!("{original:?} is taken or too long"))),
        Some(_) => {}
    }
    name
}

// ---- rows

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
    if !ids.is_empty() {
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
