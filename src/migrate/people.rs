//! The users of the old chat, merged from accounts, password hashes and the table's `user:` rows, with unique e-mail
//! addresses and usernames.

use super::dates;
use super::hashes::Class;
use super::ids::{compact, target};
use super::record::Record;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};

const USERNAME_MAX: usize = 50;
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
