//! Records to remove at a delta: memberships, reactions, pins and votes that a changed row no longer has, and records
//! whose row is gone. A user who was removed from a room in the old chat must not see the room here.

use super::ids::{derived, target};
use super::passes::Target;
use super::target::Pocket;
use serde_json::json;
use std::collections::BTreeMap;

/// Parts of other rows: their collection, the parent's kind, and the field with the parent's id.
const PARTS: &[(&str, &str, &str)] = &[
    ("room_members", "rooms", "room"),
    ("pins", "rooms", "room"),
    ("reactions", "messages", "message"),
    ("poll_votes", "polls", "poll"),
];
const CHUNK: usize = 500;

#[derive(Default)]
pub struct Leftovers {
    /// Ids of the changed rows' records, by kind.
    ids: BTreeMap<&'static str, Vec<String>>,
}

impl Leftovers {
    pub fn see(&mut self, kind: &'static str, rows: &[Target]) {
        self.ids.entry(kind).or_default().extend(rows.iter().map(|target| target.id.clone()));
    }

    /// Returns the number of removed records.
    pub async fn remove(&self, pocket: &Pocket, gone: &[String]) -> anyhow::Result<u64> {
        let mut removed = 0;
        for (part, parent, column) in PARTS {
            let keep = self.ids.get(part).map_or(&[][..], Vec::as_slice);
            for parents in self.ids.get(parent).map_or(&[][..], Vec::as_slice).chunks(CHUNK) {
                removed += pocket.remove(part, &json!({"column": column, "parents": parents, "keep": keep})).await?;
            }
        }
        let mut ids: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (collection, id) in gone.iter().filter_map(|key| record_of(key)) {
            ids.entry(collection).or_default().push(id);
        }
        for (collection, ids) in ids {
            for ids in ids.chunks(CHUNK) {
                removed += pocket.remove(collection, &json!({"ids": ids})).await?;
            }
        }
        Ok(removed)
    }
}

/// The record of a row that is gone. Users and rooms stay: the old chat marks them as deleted, and their removal would
/// take messages with them.
fn record_of(key: &str) -> Option<(&'static str, String)> {
    if key.starts_with("notification:") {
        return Some(("notifications", target(key)));
    }
    if let Some(rest) = key.strip_prefix("friend_request:") {
        let (from, to) = rest.split_once(':')?;
        return Some(("friend_requests", derived("friend_request", &[&target(from), &target(to)])));
    }
    let rest = key.strip_prefix("message:")?;
    Some(("messages", target(rest.rsplit(':').next()?)))
}
