//! The truth of a run: PocketBase's outbox, and its tables, which have to agree with the outbox.

use super::record::{Truth, key};
use super::topology::{Topology, World};
use super::writers::Answers;
use crate::harness::SECRET;
use konvert_gateway::event::{Event, Events};
use konvert_gateway::signature::{SIGNATURE, Signer, TIMESTAMP};
use secrecy::SecretString;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

const PAGE: u64 = 1000;

/// The outbox by channel, as far as it has been read.
#[derive(Default)]
pub struct Truths {
    pub channels: HashMap<Arc<str>, Truth>,
    /// Removals: membership id and left channel → sequence number of the membership's end there.
    pub removals: HashMap<(String, Arc<str>), u64>,
    after: u64,
}

impl Truths {
    /// Reads new rows without the hooks' notice.
    pub async fn read_on(&mut self, world: &World) {
        loop {
            let url = format!("{}/api/faults/events?after={}", world.pocketbase, self.after);
            let response = world.http.get(&url).await.expect("PocketBase answers");
            assert_eq!(response.status, 200, "{}", response.text);
            let page = Events::parse(response.text.as_bytes()).expect("a page of events");
            if page.events.is_empty() {
                return;
            }
            for event in page.events {
                self.add(event, world);
            }
        }
    }

    fn add(&mut self, event: Event, world: &World) {
        if event.seq != self.after + 1 {
            world.violation(format!("the outbox has a gap: {} follows {}", event.seq, self.after));
        }
        self.after = event.seq;
        let removed = removed_membership(&event);
        for channel in event.channels {
            if let Some(id) = &removed {
                self.removals.insert((id.clone(), channel.as_str().into()), event.seq);
            }
            let truth = self.channels.entry(channel.as_str().into()).or_default();
            if !truth.push(event.seq, key(event.data.as_bytes())) {
                world.violation(format!("event {} says the same as another one of {channel}", event.seq));
            }
        }
    }
}

/// The membership that ends with `event`; a move to another room ends it too.
fn removed_membership(event: &Event) -> Option<String> {
    event.access.as_ref()?;
    let data: Value = serde_json::from_slice(event.data.as_bytes()).expect("data is JSON");
    let ends = data["collection"] == "room_members" && data["action"] == "delete";
    ends.then(|| data["record"]["id"].as_str().expect("an id").to_owned())
}

/// Reads the outbox as the gateways do.
async fn events(world: &World, after: u64) -> Events {
    let target = format!("/api/gateway/events?after={after}&limit={PAGE}");
    let (timestamp, signature) = Signer::new(&SecretString::from(SECRET)).sign(SystemTime::now(), "GET", &target, b"");
    let headers = [(TIMESTAMP, timestamp.as_str()), (SIGNATURE, signature.as_str())];
    let url = format!("{}{target}", world.pocketbase);
    let response = world.http.send("GET", &url, &headers, "").await.expect("PocketBase answers");
    assert_eq!(response.status, 200, "{}", response.text);
    Events::parse(response.text.as_bytes()).expect("a page of events")
}

/// Compares three sources: the existing messages, the outbox, and the answers to the writers; and the outbox with its
/// earlier reads. Returns the number of messages.
pub async fn compare_tables(topology: &Topology, answers: &Answers, truths: &Truths) -> u64 {
    let world = &topology.world;
    let mut again = Truths::default();
    // Message → content according to the outbox, while the message exists.
    let mut by_outbox: HashMap<String, String> = HashMap::new();
    let mut ever: HashMap<String, Vec<String>> = HashMap::new();
    let mut after = 0;
    loop {
        let page = events(world, after).await;
        let Some(last) = page.events.last() else { break };
        after = last.seq;
        for event in page.events {
            let data: Value = serde_json::from_slice(event.data.as_bytes()).expect("data is JSON");
            again.add(event, world);
            if data["collection"] != "messages" {
                continue;
            }
            let text = |name: &str| data["record"][name].as_str().unwrap_or_default().to_owned();
            if data["action"] == "delete" {
                by_outbox.remove(&text("id"));
            } else {
                ever.entry(text("id")).or_default().push(text("content"));
                by_outbox.insert(text("id"), text("content"));
            }
        }
    }
    if again.channels != truths.channels {
        world.violation("the outbox is not what it was while the run went on".into());
    }
    let in_table = messages(topology).await;
    if in_table != by_outbox {
        let differing = in_table.iter().filter(|(id, content)| by_outbox.get(*id) != Some(content)).count();
        let what = format!("{} messages exist, {} by the outbox; {differing} differ", in_table.len(), by_outbox.len());
        world.violation(format!("outbox and table disagree: {what}"));
    }
    for (id, contents) in &answers.acknowledged {
        let written = ever.get(id).map_or(&[][..], Vec::as_slice);
        for content in contents.iter().filter(|content| !written.contains(content)) {
            world.violation(format!("message {id} was acknowledged and is not in the outbox: {content}"));
        }
    }
    for id in answers.deleted.iter().filter(|id| by_outbox.contains_key(*id)) {
        world.violation(format!("the deletion of message {id} was acknowledged and is not in the outbox"));
    }
    for content in ever.values().flatten().filter(|content| answers.rolled_back.contains(*content)) {
        world.violation(format!("a batch was rolled back and is in the outbox: {content}"));
    }
    in_table.len() as u64
}

async fn messages(topology: &Topology) -> HashMap<String, String> {
    let pocketbase = topology.pocketbase.lock().await;
    let mut found = HashMap::new();
    for page in 1.. {
        let path =
            format!("collections/messages/records?perPage={PAGE}&page={page}&skipTotal=1&sort=id&fields=id,content");
        let answer = pocketbase.as_superuser("GET", &path, &Value::Null).await;
        let items = answer["items"].as_array().expect("a page of records");
        for item in items {
            let text = |name: &str| item[name].as_str().unwrap_or_default().to_owned();
            found.insert(text("id"), text("content"));
        }
        if (items.len() as u64) < PAGE {
            break;
        }
    }
    found
}
