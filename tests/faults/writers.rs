//! Writers through PocketBase's REST API: creates, updates, deletes and batches, of which some are rolled back.

use super::topology::{World, count, lock};
use crate::harness::pocketbase::User;
use crate::harness::rng::Rng;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::RwLock;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Time limit for an answer; PocketBase may be paused or killed.
const ANSWER: Duration = Duration::from_secs(10);
/// Number of recent messages that a writer keeps, to change and delete them.
const REMEMBERED: usize = 100;
/// Number of requests in a batch.
const BATCH: usize = 16;

/// PocketBase's answers to writes, for the comparison with its tables at the end.
#[derive(Default)]
pub struct Answers {
    /// Message → contents of successful writes.
    pub acknowledged: HashMap<String, HashSet<String>>,
    pub deleted: HashSet<String>,
    /// Contents of writes that were rolled back.
    pub rolled_back: HashSet<String>,
}

pub struct Writer {
    number: usize,
    world: Arc<World>,
    user: User,
    rng: Rng,
    written: u64,
    /// Room and id of each message.
    messages: Vec<(usize, String)>,
    answers: Arc<Mutex<Answers>>,
}

/// Result of a request. `Unknown` means that the effect is uncertain.
enum Outcome {
    Done(Value),
    Refused(u16, String),
    Unknown,
}

impl Writer {
    pub fn new(number: usize, world: &Arc<World>, rng: Rng, answers: &Arc<Mutex<Answers>>) -> Self {
        let (world, user) = (Arc::clone(world), world.users[number].clone());
        Self { number, world, user, rng, written: 0, messages: Vec::new(), answers: Arc::clone(answers) }
    }

    /// Writes until `stop`, except while the gate is locked.
    pub async fn run(mut self, gate: Arc<RwLock<()>>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let open = gate.read().await;
            match self.rng.below(100) {
                0..60 => self.create().await,
                60..75 => self.update().await,
                75..86 => self.delete().await,
                _ => self.batch().await,
            }
            drop(open);
            sleep(self.rng.millis(20..110)).await;
        }
    }

    /// A unique content of varying length.
    fn content(&mut self) -> String {
        self.written += 1;
        let padding = "x".repeat(self.rng.below(200));
        format!("writer {} message {} {padding}", self.number, self.written)
    }

    /// Some rooms are busy and some are quiet: in a quiet room, no next message repairs a fault.
    fn room(&mut self) -> usize {
        let rooms = self.world.rooms.len();
        self.rng.below(rooms).min(self.rng.below(rooms))
    }

    fn message(&mut self, room: usize) -> (String, Value) {
        let content = self.content();
        let id = &self.world.rooms[room].id;
        let body = json!({"room": id, "author": self.user.id, "content": content, "type": "text"});
        (content, body)
    }

    fn remember(&mut self, room: usize, record: &Value, content: &str) {
        let Some(id) = record["id"].as_str() else { return };
        lock(&self.answers).acknowledged.entry(id.to_owned()).or_default().insert(content.to_owned());
        if self.messages.len() == REMEMBERED {
            let forgotten = self.rng.below(REMEMBERED);
            self.messages.swap_remove(forgotten);
        }
        self.messages.push((room, id.to_owned()));
    }

    async fn create(&mut self) {
        let room = self.room();
        let (content, body) = self.message(room);
        match self.send("POST", "collections/messages/records", &body).await {
            Outcome::Done(record) => self.remember(room, &record, &content),
            Outcome::Refused(status, text) => self.refused("create", status, &text),
            Outcome::Unknown => {}
        }
    }

    async fn update(&mut self) {
        if self.messages.is_empty() {
            return;
        }
        let (_, id) = self.rng.pick(&self.messages).clone();
        let content = self.content();
        match self.send("PATCH", &format!("collections/messages/records/{id}"), &json!({"content": content})).await {
            Outcome::Done(_) => {
                lock(&self.answers).acknowledged.entry(id).or_default().insert(content);
            }
            Outcome::Refused(status, text) => self.refused("update", status, &text),
            Outcome::Unknown => {}
        }
    }

    async fn delete(&mut self) {
        if self.messages.is_empty() {
            return;
        }
        let place = self.rng.below(self.messages.len());
        // Only once, whatever the outcome.
        let (_, id) = self.messages.swap_remove(place);
        match self.send("DELETE", &format!("collections/messages/records/{id}"), &Value::Null).await {
            Outcome::Done(_) => {
                lock(&self.answers).deleted.insert(id);
            }
            Outcome::Refused(status, text) => self.refused("delete", status, &text),
            Outcome::Unknown => {}
        }
    }

    async fn batch(&mut self) {
        let mut requests = Vec::new();
        let mut messages = Vec::new();
        let only = self.rng.chance(50).then(|| self.room());
        for _ in 0..2 + self.rng.below(BATCH - 1) {
            let room = only.unwrap_or_else(|| self.room());
            let (content, body) = self.message(room);
            requests.push(json!({"method": "POST", "url": "/api/collections/messages/records", "body": body}));
            messages.push((room, content));
        }
        let fails = self.rng.chance(30);
        if fails {
            let body = json!({"room": "no-such-room", "author": self.user.id, "content": "fails", "type": "text"});
            requests.push(json!({"method": "POST", "url": "/api/collections/messages/records", "body": body}));
        }
        count(&self.world.counts.batches);
        match self.send("POST", "batch", &json!({"requests": requests})).await {
            Outcome::Done(_) if fails => self.world.violation("a batch that has to fail did not".into()),
            Outcome::Done(results) => {
                for (i, (room, content)) in messages.into_iter().enumerate() {
                    self.remember(room, &results[i]["body"], &content);
                }
            }
            // PocketBase limits a batch to three seconds; a batch takes longer if PocketBase is paused during it.
            Outcome::Refused(400, text)
                if fails || text.contains(r#""data":{},"message":"Batch transaction failed.""#) =>
            {
                count(&self.world.counts.rolled_back);
                lock(&self.answers).rolled_back.extend(messages.into_iter().map(|(_, content)| content));
            }
            Outcome::Refused(status, text) => self.refused("batch", status, &text),
            Outcome::Unknown => {}
        }
    }

    fn refused(&self, what: &str, status: u16, text: &str) {
        self.world.violation(format!("PocketBase refused a {what} with {status}: {text}"));
    }

    async fn send(&self, method: &str, path: &str, body: &Value) -> Outcome {
        let headers = [("authorization", self.user.token.as_str()), ("content-type", "application/json")];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let url = format!("{}/api/{path}", self.world.pocketbase);
        count(&self.world.counts.writes);
        match timeout(ANSWER, self.world.http.send(method, &url, &headers, body)).await {
            Ok(Ok(response)) if response.status < 300 => Outcome::Done(response.json()),
            Ok(Ok(response)) => Outcome::Refused(response.status, response.text),
            _ => {
                count(&self.world.counts.unanswered);
                // PocketBase is down; no need to retry at once.
                sleep(Duration::from_millis(100)).await;
                Outcome::Unknown
            }
        }
    }
}
