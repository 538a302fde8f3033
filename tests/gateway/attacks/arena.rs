//! Two gateways with an honest client on each, which must not be affected; collects the results.

use crate::harness::client::{Client, Place};
use crate::harness::gateway::Gateway;
use crate::harness::http::{Http, Response};
use crate::harness::pocketbase::User;
use crate::harness::{SECRET, World, until};
use konvert_gateway::signature::{SIGNATURE, Signer, TIMESTAMP};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::{Duration, Instant, SystemTime};
use tokio::time::timeout;

/// Time that an attacker waits for an answer.
const PATIENCE: Duration = Duration::from_secs(8);

pub struct Arena {
    pub world: World,
    pub http: Http,
    /// A private room of Alice's, with Bob as a member. Eve knows only the room's id.
    pub room: String,
    pub alice: User,
    pub bob: User,
    pub eve: User,
    honest: Vec<Client>,
    theme: &'static str,
    rows: Vec<(&'static str, String, String)>,
    failures: Vec<String>,
    people: usize,
    begun: Instant,
}

impl Arena {
    pub async fn new() -> Self {
        // Every attack comes from one address; the limits per address are tested in `tests/gateway/limits.rs`.
        let settings = [
            ("GATEWAY_MAX_HOOK_SIZE", "1000000"),
            ("GATEWAY_PRESENCE_TTL", "3"),
            ("GATEWAY_MAX_COMMANDS_PER_SECOND", "0"),
            ("GATEWAY_MAX_SIGNALS_PER_SECOND", "0"),
            ("GATEWAY_MAX_CONNECTIONS_PER_IP", "0"),
            ("GATEWAY_MAX_CONNECTIONS_PER_USER", "0"),
        ];
        let world = World::start(2, true, &settings).await;
        let (room, users) = world.room(&["alice", "bob", "eve"]).await;
        let mut honest = Vec::new();
        for gateway in 0..2 {
            honest.push(world.subscriber(gateway, &users[1], &room).await);
        }
        let [alice, bob, eve] = users.try_into().expect("three users");
        let (theme, rows, failures, people, begun) = ("", Vec::new(), Vec::new(), 0, Instant::now());
        Self { world, http: Http::new(), room, alice, bob, eve, honest, theme, rows, failures, people, begun }
    }

    /// Begins a theme: the table's heading for the attacks up to the next call.
    pub fn begin(&mut self, theme: &'static str) {
        self.theme = theme;
    }

    /// The attacked gateway, to which the hooks post.
    pub fn gateway(&self) -> &Gateway {
        self.world.gateway()
    }

    pub fn channel(&self) -> String {
        format!("room:{}", self.room)
    }

    /// Makes a new user, who is in no room.
    pub async fn somebody(&mut self) -> User {
        self.people += 1;
        self.world.pocketbase.user(&format!("somebody{}", self.people)).await
    }

    /// Makes a new user and a private room of Alice's with the user as a member. The third value is the membership's
    /// id.
    pub async fn member(&mut self) -> (User, String, String) {
        let user = self.somebody().await;
        let room = self.world.pocketbase.room(&self.alice).await;
        let membership = self.world.pocketbase.join(&room, &user).await;
        (user, room, membership["id"].as_str().expect("an id").to_owned())
    }

    pub async fn as_superuser(&self, method: &str, path: &str, body: &Value) -> Value {
        self.world.pocketbase.as_superuser(method, path, body).await
    }

    /// Records an attack's outcome and checks that the honest clients still get messages.
    pub async fn score(&mut self, name: &str, expected: &str, seen: &str) {
        if seen != expected {
            self.failures.push(format!("{}: {name}: {seen} instead of {expected}", self.theme));
        }
        self.rows.push((self.theme, name.to_owned(), expected.to_owned()));
        let content = format!("{} after {name}", self.rows.len());
        self.world.pocketbase.write(&self.room, &self.alice, &content).await;
        for (number, client) in self.honest.iter_mut().enumerate() {
            let publication = client.publication_but_of(&["rooms", "room_members"]).await;
            if publication["data"]["record"]["content"] != *content {
                self.failures.push(format!("{name}: the honest client {number} got {publication}"));
                while client.publication().await["data"]["record"]["content"] != *content {}
            }
        }
    }

    /// Expects a message that belongs to no attack.
    pub async fn expect_message(&mut self, content: &str) {
        for client in &mut self.honest {
            assert_eq!(client.message().await, content);
        }
    }

    /// Position of the room's history.
    pub async fn position(&mut self) -> Place {
        let channel = self.channel();
        self.honest[0].history_position(&channel).await
    }

    /// The last five rows of the outbox, in the form in which gateways read them.
    pub async fn newest_events(&self) -> Value {
        let cursor = self.gateway().metric("gateway_relay_cursor").await as u64;
        let target = format!("/api/gateway/events?after={}&limit=5", cursor - 5);
        let (timestamp, signature) = Signer::new(&SECRET.into()).sign(SystemTime::now(), "GET", &target, b"");
        let headers = [(TIMESTAMP, timestamp.as_str()), (SIGNATURE, signature.as_str())];
        let url = format!("{}{target}", self.world.pocketbase.url);
        let mut answer = self.http.send("GET", &url, &headers, "").await.expect("PocketBase answers").json();
        assert_eq!(answer["events"].as_array().map(Vec::len), Some(5), "{answer}");
        answer["events"].take()
    }

    pub async fn end(self) {
        for gateway in &self.world.gateways {
            let panics = gateway.metric("gateway_session_panics_total").await;
            assert_eq!(panics, 0.0, "{}", gateway.process.log());
            assert!(!gateway.process.log().contains("panicked"), "{}", gateway.process.log());
        }
        let mut table = String::from("| attack | refused with | honest clients undisturbed |\n|---|---|---|\n");
        for (theme, name, expected) in &self.rows {
            writeln!(table, "| {theme}: {} | {expected} | yes |", name.replace('|', "\\|")).expect("memory");
        }
        let mut summary = String::from("| theme | attacks | refused with |\n|---|---:|---|\n");
        for rows in self.rows.chunk_by(|(one, ..), (other, ..)| one == other) {
            let outcomes: BTreeSet<&str> = rows.iter().map(|(_, _, expected)| expected.as_str()).collect();
            let outcomes = outcomes.into_iter().collect::<Vec<_>>().join(", ");
            writeln!(summary, "| {} | {} | {outcomes} |", rows[0].0, rows.len()).expect("memory");
        }
        println!("{table}\n{summary}\n{} attacks in {:.0} s", self.rows.len(), self.begun.elapsed().as_secs_f64());
        assert!(self.failures.is_empty(), "{} failed:\n{}", self.failures.len(), self.failures.join("\n"));
    }

    /// Outcome of `connect` with `token`.
    pub async fn connect(&self, token: &str) -> String {
        let mut client = Client::open(&self.gateway().websocket()).await;
        client.send(&json!({"id": 1, "connect": {"token": token}}).to_string()).await;
        outcome(&mut client, 1).await
    }

    /// Outcome of a command of a connected client.
    pub async fn command(&self, client: &mut Client, command: &str, request: &Value) -> String {
        client.send(&json!({"id": 4_000_000, command: request}).to_string()).await;
        outcome(client, 4_000_000).await
    }

    /// Outcome of an HTTP request: the status, and the code word of the error.
    pub async fn request(&self, method: &str, url: &str, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> String {
        match self.http.send(method, url, headers, body.into()).await {
            Ok(response) => in_words(&response),
            Err(_) => "cut off".to_owned(),
        }
    }

    pub async fn unsubscribed_within_a_second(&self, client: &mut Client) -> String {
        match timeout(Duration::from_secs(1), client.unsubscribed()).await {
            Ok(unsubscribed) => unsubscribed["code"].to_string(),
            Err(_) => "nothing".to_owned(),
        }
    }

    /// Waits until gateway `number` refuses the user's subscribe to the channel.
    pub async fn until_refused(&self, number: usize, user: &User, channel: &str) {
        let mut client = Client::connect(&self.world.gateways[number], &user.token).await;
        until("a refusal", async || {
            let refused = client.call("subscribe", json!({"channel": channel})).await["error"]["code"] == 103;
            client.call("unsubscribe", json!({"channel": channel})).await;
            refused.then_some(())
        })
        .await;
    }
}

pub fn in_words(response: &Response) -> String {
    match response.json()["error"]["code"].as_str() {
        Some(word) => format!("{} {word}", response.status),
        None => response.status.to_string(),
    }
}

/// Outcome in a client's next frames: the reply to its command (`error 103`, or `ok`), or the close code.
pub async fn outcome(client: &mut Client, id: u32) -> String {
    loop {
        let Ok(next) = timeout(PATIENCE, client.text()).await else { return "nothing".to_owned() };
        let frame: Value = match next {
            Ok(text) => serde_json::from_str(&text).expect("a frame is JSON"),
            Err(Some(close)) => return u16::from(close.code).to_string(),
            Err(None) => return "cut off".to_owned(),
        };
        if frame["id"] == id {
            return match frame["error"]["code"].as_u64() {
                Some(code) => format!("error {code}"),
                None => "ok".to_owned(),
            };
        }
    }
}
