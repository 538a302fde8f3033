//! Deleted parts of changed rows: memberships, reactions, pins, votes, room keys, achievements, friends. A delta removes
//! the records of deleted parts; for instance, a former member of a room in the old chat must not see the room here.

use super::gone::is_derived;
use super::ids::derived;
use super::plan::Plan;
use super::steps::Target;
use super::target::Pocket;
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};

/// Kinds of parts: the collection, the kind of the whole, and the field with the id of the whole.
const PARTS: &[(&str, &str, &str)] = &[
    ("room_members", "rooms", "room"),
    ("pins", "rooms", "room"),
    ("reactions", "messages", "message"),
    ("poll_votes", "polls", "poll"),
    ("room_keys", "users", "user"),
    ("achievements", ACHIEVERS, "user"),
];
/// Users with changed achievements.
const ACHIEVERS: &str = "users with achievements";
/// Ids per request.
const CHUNK: usize = 500;

#[derive(Default)]
pub struct Leftovers {
    /// Ids of the records of changed rows, by kind.
    ids: BTreeMap<&'static str, HashSet<String>>,
}

impl Leftovers {
    pub fn see(&mut self, kind: &'static str, rows: &[Target]) {
        self.ids.entry(kind).or_default().extend(rows.iter().map(|target| target.id.clone()));
        if kind == "achievements" {
            let users = rows.iter().filter_map(|target| target.row["user"].as_str().map(str::to_owned));
            self.ids.entry(ACHIEVERS).or_default().extend(users);
        }
    }

    /// Returns the number of removed records.
    pub async fn remove(&self, pocket: &Pocket, plan: &Plan) -> anyhow::Result<u64> {
        let mut removed = 0;
        for (part, parent, column) in PARTS {
            let is_left = |row: &Value| row["id"].as_str().is_some_and(|id| is_derived(id) && !self.has(part, id));
            removed += self.remove_of(pocket, part, parent, column, is_left).await?;
        }
        for column in ["from", "to"] {
            let is_left = |row: &Value| {
                let [id, from, to] = ["id", "from", "to"].map(|name| row[name].as_str().unwrap_or(""));
                id == derived("friend", &[from, to]) && !plan.are_friends(from, to)
            };
            removed += self.remove_of(pocket, "friend_requests", "users", column, is_left).await?;
        }
        Ok(removed)
    }

    fn has(&self, kind: &str, id: &str) -> bool {
        self.ids.get(kind).is_some_and(|ids| ids.contains(id))
    }

    async fn remove_of(
        &self,
        pocket: &Pocket,
        collection: &str,
        parent: &str,
        column: &str,
        is_left: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<u64> {
        let parents: Vec<&str> = self.ids.get(parent).into_iter().flatten().map(String::as_str).collect();
        let names: &[&str] = if collection == "friend_requests" { &["id", "from", "to"] } else { &["id"] };
        let mut removed = 0;
        for parents in parents.chunks(CHUNK) {
            let found = pocket.read_where(collection, column, parents, names).await?;
            let left: Vec<&str> =
                found.iter().filter(|row| is_left(row)).filter_map(|row| row["id"].as_str()).collect();
            if !left.is_empty() {
                removed += pocket.remove(collection, &left).await?.removed;
            }
        }
        Ok(removed)
    }
}
