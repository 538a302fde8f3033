//! Deleted rows: rows of the last export that are missing in the old chat's table now. A delta removes the records of
//! deleted rows from PocketBase, and imports the rows that refer to deleted rows again.

use super::ids::{compact, derived, target};
use super::mapping::{ACCOUNTS, Mapping};
use super::plan::Plan;
use super::record::{Record, Row, records};
use super::rooms::{direct_id, id_of};
use super::spool::key_hash;
use super::target::{Pocket, Removed};
use std::collections::{BTreeMap, HashSet};

/// Records per request, which is one transaction: PocketBase also removes or updates all records with a reference to a
/// removed record.
const CHUNK: usize = 100;
/// Section with the dates of hiding of direct rooms.
const HIDDEN: &str = "direct_hidden";
/// Characters between ids in keys, in the ids of direct rooms, and in addresses of files.
const BETWEEN_IDS: [char; 2] = [':', '/'];

/// Collections in the order of removal: parts before wholes.
const COLLECTIONS: &[&str] =
    &["notifications", "friend_requests", "achievements", "polls", "messages", "rooms", "users"];

#[derive(Debug, Default)]
pub struct Gone {
    pub count: u64,
    /// Ids in PocketBase by collection; for achievements, ids of users.
    ids: BTreeMap<&'static str, Vec<String>>,
    pub dependents: Dependents,
}

/// References to deleted rows.
#[derive(Debug, Default)]
pub struct Dependents {
    /// Old ids of deleted users, rooms and messages. The import of a row with such an id gives a new result.
    names: HashSet<String>,
    /// Direct rooms with a new or deleted date of hiding; the date is a field of the membership.
    rooms: HashSet<u128>,
}

impl Gone {
    /// Adds a deleted row.
    pub fn add(&mut self, mapping: &Mapping, section: &str, row: &Row<'_>) {
        self.count += 1;
        if section == ACCOUNTS {
            if let Some(id) = row.key.strip_prefix("account:") {
                self.user(id);
            }
            return;
        }
        for record in records(mapping, section, row).unwrap_or_default() {
            self.record(section, &record);
        }
    }

    /// Adds the new and changed dates of hiding, by the hashes of changed keys.
    pub fn add_hidden(&mut self, plan: &Plan, changed: &HashSet<u64>) -> anyhow::Result<()> {
        plan.document.section(HIDDEN, |line| {
            let row: Row<'_> = serde_json::from_str(line)?;
            if changed.contains(&key_hash(&row.key)) {
                for record in records(&plan.document.header.mapping, HIDDEN, &row).unwrap_or_default() {
                    self.record(HIDDEN, &record);
                }
            }
            Ok(())
        })
    }

    fn user(&mut self, id: &str) {
        self.push("users", target(id));
        self.name(id);
    }

    fn name(&mut self, id: &str) {
        if !id.is_empty() {
            self.dependents.names.insert(id.to_owned());
        }
    }

    fn push(&mut self, collection: &'static str, id: String) {
        self.ids.entry(collection).or_default().push(id);
    }

    fn record(&mut self, section: &str, record: &Record) {
        let id = record.text("id");
        match section {
            HIDDEN => {
                self.dependents.rooms.insert(compact(&direct_id(&record.text("a"), &record.text("b"))));
            }
            "friend_requests" => {
                let [from, to] = ["fromUserId", "toUserId"].map(|name| target(&record.text(name)));
                self.push("friend_requests", derived("friend_request", &[&from, &to]));
            }
            "notifications" => self.push("notifications", target(&record.key)),
            "achievements" => self.push("achievements", target(&record.text("userId"))),
            "rooms" | "direct_rooms" => {
                if let Some(room) = id_of(section, record) {
                    self.push("rooms", room);
                    self.name(&id);
                    self.name(&format!("{}:{}", record.text("a"), record.text("b")));
                }
            }
            _ if id.is_empty() => {}
            "users" => self.user(&id),
            "messages" => {
                self.push("messages", target(&id));
                self.name(&id);
            }
            "polls" => {
                self.push("polls", target(&id));
                self.name(&record.text("message_id"));
            }
            _ => {}
        }
    }

    /// Removes the records of deleted rows, except where a second row has the same id.
    pub async fn remove(&self, pocket: &Pocket, plan: &Plan) -> anyhow::Result<Removed> {
        let mut sum = Removed::default();
        for collection in COLLECTIONS {
            let is_gone = |id: &&String| match *collection {
                "users" => !plan.users.contains_key(&compact(id)),
                "rooms" => !plan.rooms.contains_key(&compact(id)),
                "messages" => !plan.messages.contains_key(&compact(id)),
                _ => true,
            };
            let all = self.ids.get(collection).map_or(&[][..], Vec::as_slice);
            let ids: Vec<&str> = all.iter().filter(is_gone).map(String::as_str).collect();
            for ids in ids.chunks(CHUNK) {
                let part = if *collection == "achievements" {
                    let found = pocket.read_where(collection, "user", ids, &["id"]).await?;
                    let imported: Vec<&str> =
                        found.iter().filter_map(|row| row["id"].as_str()).filter(|id| is_derived(id)).collect();
                    pocket.remove(collection, &imported).await?
                } else {
                    pocket.remove(collection, ids).await?
                };
                sum.removed += part.removed;
                sum.kept += part.kept;
            }
        }
        Ok(sum)
    }
}

/// True for ids of the length of [`derived`]. PocketBase's own ids are shorter.
pub fn is_derived(id: &str) -> bool {
    id.len() == derived("", &[]).len()
}

impl Dependents {
    /// True for a row with a reference to a deleted row.
    pub fn has(&self, mapping: &Mapping, section: &str, row: &Row<'_>) -> bool {
        let names = |text: &str| {
            text.split('"').map(|part| part.trim_end_matches('\\')).any(|part| {
                self.names.contains(part)
                    || (part.contains(BETWEEN_IDS) && part.split(BETWEEN_IDS).any(|id| self.names.contains(id)))
            })
        };
        if !self.names.is_empty() && (names(&row.key) || names(row.value.get())) {
            return true;
        }
        section == "direct_rooms"
            && !self.rooms.is_empty()
            && records(mapping, section, row)
                .unwrap_or_default()
                .iter()
                .any(|record| id_of(section, record).is_some_and(|id| self.rooms.contains(&compact(&id))))
    }

    /// True for the old id of a deleted account or `user:` row.
    pub fn has_user(&self, id: &str) -> bool {
        self.names.contains(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(gone: &Gone, section: &str, json: &str) -> bool {
        gone.dependents.has(&Mapping::default(), section, &serde_json::from_str(json).expect("a row"))
    }

    #[test]
    fn rows_that_name_something_gone_depend_on_it() {
        let mut gone = Gone::default();
        let row = r#"{"key":"user:0f8fad5b-d9cb-469f-a165-70867728950e","value":{"email":"a@b.c"}}"#;
        gone.add(&Mapping::default(), "users", &serde_json::from_str(row).expect("a row"));
        for value in [
            r#"{"sender_id":"0f8fad5b-d9cb-469f-a165-70867728950e"}"#,
            r#"{"room_id":"aaa:0f8fad5b-d9cb-469f-a165-70867728950e"}"#,
            r#"{"content":"https://a.b/object/sign/c/0f8fad5b-d9cb-469f-a165-70867728950e/1.png?token=x"}"#,
            r#""{\"sender_id\":\"0f8fad5b-d9cb-469f-a165-70867728950e\"}""#,
        ] {
            assert!(has(&gone, "messages", &format!(r#"{{"key":"message:1","value":{value}}}"#)), "{value}");
        }
        assert!(has(
            &gone,
            "friend_requests",
            r#"{"key":"friend_request:x:0f8fad5b-d9cb-469f-a165-70867728950e","value":{}}"#
        ));
        assert!(!has(&gone, "messages", r#"{"key":"message:1","value":{"sender_id":"0f8fad5b"}}"#));
    }

    #[test]
    fn a_direct_room_depends_on_the_dates_of_its_hiding() {
        let mut gone = Gone::default();
        let row = r#"{"key":"dm_hidden:aaaaaaaaaaaaaaaa:bbbbbbbbbbbbbbbb:aaaaaaaaaaaaaaaa","value":{"hidden_at":"2025-01-01"}}"#;
        gone.add(&Mapping::default(), HIDDEN, &serde_json::from_str(row).expect("a row"));
        assert!(has(&gone, "direct_rooms", r#"{"key":"dm:bbbbbbbbbbbbbbbb:aaaaaaaaaaaaaaaa","value":{}}"#));
        assert!(!has(&gone, "direct_rooms", r#"{"key":"dm:aaaaaaaaaaaaaaaa:cccccccccccccccc","value":{}}"#));
    }
}
