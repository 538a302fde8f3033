//! Filters of the rows for an import: the rows changed since the last export, or the rows of a single user.

use super::gone::Dependents;
use super::ids::dashed;
use super::ledger::Ledger;
use super::mapping::Mapping;
use super::passes;
use super::people::Person;
use super::plan::Plan;
use super::record::Row;
use super::spool::key_hash;
use super::steps::{STEPS, Target};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::Arc;

/// A filter of rows; the default takes every row.
#[derive(Clone, Default)]
pub struct Filter {
    /// Hashes of the keys of new, changed and deleted rows.
    pub changed: Option<Arc<HashSet<u64>>>,
    /// With `changed`: also takes unchanged rows with references to deleted rows.
    pub dependents: Option<Arc<Dependents>>,
    pub only: Option<Arc<Only>>,
}

/// The rows for a trial import of a single user: the user's record, rooms with the owners, and messages by the user.
#[derive(Default)]
pub struct Only {
    user: String,
    users: HashSet<String>,
    rooms: HashSet<String>,
}

impl Only {
    pub fn of(plan: &Plan, email: &str) -> anyhow::Result<Self> {
        let email = email.trim().to_lowercase();
        let person = plan.users.values().find(|person| person.email == email);
        let user =
            person.ok_or_else(|| anyhow::anyhow!("no user of the export has the e-mail address {email}"))?.id.clone();
        let mut only = Self { users: HashSet::from([user.clone()]), user, rooms: HashSet::new() };
        let ledger = Mutex::new(Ledger::silent());
        for step in STEPS.iter().filter(|step| step.kinds == ["room_members"] || step.kinds == ["rooms"]) {
            passes::rows_of(plan, step, &Filter::default(), &ledger, |targets| {
                for target in targets {
                    if target.kind == "room_members" && target.row["user"] == *only.user {
                        only.rooms.insert(target.row["room"].as_str().unwrap_or_default().to_owned());
                    }
                }
                Ok(())
            })?;
        }
        let mut owners = Vec::new();
        for step in STEPS.iter().filter(|step| step.kinds == ["rooms"]) {
            passes::rows_of(plan, step, &Filter::default(), &ledger, |targets| {
                owners.extend(
                    targets
                        .iter()
                        .filter(|t| only.rooms.contains(&t.id))
                        .filter_map(|t| t.row["owner"].as_str().map(str::to_owned)),
                );
                Ok(())
            })?;
        }
        only.users.extend(owners.into_iter().filter(|owner| !owner.is_empty()));
        Ok(only)
    }

    pub fn wants(&self, target: &Target) -> bool {
        let text = |name: &str| target.row[name].as_str().unwrap_or_default();
        match target.kind {
            "users" => self.users.contains(&target.id),
            "rooms" => self.rooms.contains(&target.id),
            "room_members" => self.rooms.contains(text("room")) && self.users.contains(text("user")),
            "messages" => self.rooms.contains(text("room")) && text("author") == self.user,
            "friends" | "friend_requests" => self.users.contains(text("from")) && self.users.contains(text("to")),
            "notifications" => text("user") == self.user && text("from").is_empty(),
            "reactions" | "achievements" | "room_keys" => text("user") == self.user,
            _ => false,
        }
    }

    pub fn owns(&self, user: &str) -> bool {
        self.user == user
    }
}

impl Filter {
    /// True if the filter takes the row.
    pub fn takes(&self, mapping: &Mapping, section: &str, row: &Row<'_>) -> bool {
        let Some(changed) = &self.changed else { return true };
        let is_changed = changed.contains(&key_hash(&row.key))
            || section == "users" && row.key.rsplit_once(':').is_some_and(|(_, id)| is_account_changed(changed, id));
        is_changed || self.dependents.as_ref().is_some_and(|dependents| dependents.has(mapping, section, row))
    }

    /// True if the filter takes an account without a row in the table.
    pub fn takes_account(&self, person: &Person) -> bool {
        let Some(changed) = &self.changed else { return true };
        let id = dashed(&person.id);
        is_account_changed(changed, &id) || self.dependents.as_ref().is_some_and(|dependents| dependents.has_user(&id))
    }
}

/// True for the old id of a user with a changed account or password hash.
fn is_account_changed(changed: &HashSet<u64>, id: &str) -> bool {
    changed.contains(&key_hash(&format!("account:{id}"))) || changed.contains(&key_hash(&format!("hash:{id}")))
}
