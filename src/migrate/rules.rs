//! Access rules for a sample of users: they see their rooms and the public rooms, and no other room of the export.

use super::dates;
use super::plan::Plan;
use super::steps::Target;
use super::target::Pocket;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};

const SIZE: usize = 8;
const PAGE: usize = 500;

#[derive(Default)]
pub struct Sample {
    /// Rooms of each sampled user.
    rooms_of: BTreeMap<String, HashSet<String>>,
    public: HashSet<String>,
    private: HashSet<String>,
    messages: HashMap<String, u64>,
}

impl Sample {
    /// Users spread over all ids.
    pub fn of(plan: &Plan) -> Self {
        let mut ids: Vec<&String> = plan.users.values().map(|person| &person.id).collect();
        ids.sort_unstable();
        let step = (ids.len() / SIZE).max(1);
        let rooms_of = ids.into_iter().step_by(step).take(SIZE).map(|id| (id.clone(), HashSet::new())).collect();
        Self { rooms_of, ..Self::default() }
    }

    /// Number of users.
    pub fn size(&self) -> usize {
        self.rooms_of.len()
    }

    /// Takes note of expected rows.
    pub fn see(&mut self, kind: &str, rows: &[Target]) {
        for Target { id, row, .. } in rows {
            match kind {
                // Banned users see nothing.
                "users" if row["banned_until"].as_str().is_some_and(|until| *until > *dates::now()) => {
                    self.rooms_of.remove(id);
                }
                "rooms" if row["type"] == "public" => {
                    self.public.insert(id.clone());
                }
                "rooms" => {
                    self.private.insert(id.clone());
                }
                "room_members" => {
                    if let Some(rooms) = row["user"].as_str().and_then(|user| self.rooms_of.get_mut(user)) {
                        rooms.extend(row["room"].as_str().map(str::to_owned));
                    }
                }
                "messages" => *self.messages.entry(row["room"].as_str().unwrap_or("").to_owned()).or_default() += 1,
                _ => {}
            }
        }
    }
}

/// The differences between what users should see and what they see.
pub async fn check(pocket: &Pocket, sample: &Sample) -> anyhow::Result<Vec<Value>> {
    let mut differences = Vec::new();
    for (user, rooms) in &sample.rooms_of {
        let Ok(token) = pocket.impersonate(user).await else {
            differences.push(json!({"kind": "rules", "id": user, "problem": "missing"}));
            continue;
        };
        let seen = visible_rooms(pocket, &token).await?;
        let mut differs = |room: &String, problem: &str| {
            differences.push(json!({"kind": "rules", "id": user, "room": room, "problem": problem}))
        };
        for room in sample.public.iter().chain(rooms).filter(|room| !seen.contains(*room)) {
            differs(room, "the user does not see a room that is theirs or public");
        }
        for room in seen.iter().filter(|room| sample.private.contains(*room) && !rooms.contains(*room)) {
            differs(room, "the user sees a foreign room");
        }
        if let Some(foreign) =
            sample.private.iter().filter(|room| !rooms.contains(*room)).max_by_key(|room| sample.messages.get(*room))
            && count(pocket, &token, foreign).await? > 0
        {
            differs(foreign, "the user sees messages of a foreign room");
        }
        if let Some(own) = rooms.iter().max_by_key(|room| sample.messages.get(*room))
            && count(pocket, &token, own).await? < sample.messages.get(own).copied().unwrap_or(0)
        {
            differs(own, "the user does not see all messages of a room of theirs");
        }
    }
    Ok(differences)
}

async fn visible_rooms(pocket: &Pocket, token: &str) -> anyhow::Result<HashSet<String>> {
    let mut seen = HashSet::new();
    for page in 1.. {
        let path = format!("/api/collections/rooms/records?perPage={PAGE}&page={page}&sort=id&fields=id&skipTotal=1");
        let answer: Value = pocket.as_user(token, &path).await?.json()?;
        let ids: Vec<String> = answer["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|item| Some(item["id"].as_str()?.to_owned()))
            .collect();
        let is_last = ids.len() < PAGE;
        seen.extend(ids);
        if is_last {
            break;
        }
    }
    Ok(seen)
}

/// Messages of a room that the user sees.
async fn count(pocket: &Pocket, token: &str, room: &str) -> anyhow::Result<u64> {
    let path = format!("/api/collections/messages/records?perPage=1&fields=id&filter=room%3D%22{room}%22");
    let answer: Value = pocket.as_user(token, &path).await?.json()?;
    Ok(answer["totalItems"].as_u64().unwrap_or(0))
}
