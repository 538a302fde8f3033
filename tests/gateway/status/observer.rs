//! Observers: chains of states seen for one user, each uninterrupted from a subscribe reply on.

use super::stage::{Stage, now};
use crate::harness::client::Client;
use crate::harness::rng::Rng;
use konvert_gateway::broker::status_store::UserStatus;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

#[derive(Clone, Debug)]
pub struct Chain {
    pub user: String,
    /// The states with their times of arrival.
    pub states: Vec<(UserStatus, u64)>,
    /// End of the chain; `None` if it lasts to the end of the test.
    pub cut: Option<u64>,
}

pub struct Observer {
    stage: Arc<Stage>,
    gateway: usize,
    token: String,
    over: Arc<AtomicBool>,
    chains: Vec<Chain>,
    /// For each user, the index of the current chain.
    live: HashMap<String, usize>,
    /// Users whose subscription was refused for the moment, as while PocketBase is too busy.
    refused: Vec<String>,
}

impl Observer {
    pub fn new(stage: &Arc<Stage>, gateway: usize, token: &str, over: &Arc<AtomicBool>) -> Self {
        let (stage, over) = (Arc::clone(stage), Arc::clone(over));
        Self {
            stage,
            gateway,
            token: token.to_owned(),
            over,
            chains: Vec::new(),
            live: HashMap::new(),
            refused: Vec::new(),
        }
    }

    /// Watches users until the end, reconnecting to the observer's gateway when needed. `watching` counts the observers
    /// that have begun to watch all their users.
    pub async fn watch(mut self, users: Vec<String>, watching: Arc<AtomicUsize>) -> Vec<Chain> {
        let mut has_begun = false;
        while !self.over() {
            let Some(mut client) = self.connect().await else { continue };
            // In one frame, like SDKs after a reconnect, so that PocketBase is asked once.
            let ask =
                |(id, user): (u32, &String)| json!({"id": id, "subscribe": {"channel": channel(user)}}).to_string();
            let frame: Vec<String> = (10..).zip(&users).map(ask).collect();
            client.send(&frame.join("\n")).await;
            while !self.over() && self.take_one(&mut client, |id| users.get(id as usize - 10).cloned()).await {
                let refused = std::mem::take(&mut self.refused);
                let again: Vec<String> =
                    (10..).zip(&users).filter(|(_, user)| refused.contains(user)).map(ask).collect();
                if !again.is_empty() {
                    client.send(&again.join("\n")).await;
                }
                if !has_begun && self.live.len() == users.len() {
                    has_begun = true;
                    watching.fetch_add(1, Ordering::SeqCst);
                }
            }
            if !self.over() {
                self.cut_all();
            }
        }
        self.chains
    }

    /// Subscribes and unsubscribes at random. No change may fall between the reply and the pushes.
    pub async fn hop(mut self, users: Vec<String>, mut rng: Rng) -> Vec<Chain> {
        while !self.over() {
            let Some(mut client) = self.connect().await else { continue };
            let (mut id, mut asked) = (10, HashMap::new());
            let mut next = Instant::now();
            loop {
                if Instant::now() >= next {
                    let user = rng.pick(&users).clone();
                    id += 1;
                    if self.live.contains_key(&user) {
                        client.send(&json!({"id": id, "unsubscribe": {"channel": channel(&user)}}).to_string()).await;
                        self.cut(&user);
                    } else if !asked.values().any(|it| *it == user) {
                        client.send(&json!({"id": id, "subscribe": {"channel": channel(&user)}}).to_string()).await;
                        asked.insert(id, user);
                    }
                    next = Instant::now() + rng.millis(30..120);
                }
                if self.over() || !self.take_one(&mut client, |id| asked.remove(&id)).await {
                    break;
                }
                // Asked for again by chance.
                self.refused.clear();
            }
            if !self.over() {
                self.cut_all();
            }
        }
        self.chains
    }

    fn over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    async fn connect(&self) -> Option<Client> {
        let client = timeout(Duration::from_secs(2), async {
            let mut client = Client::try_open(&self.stage.direct_url(self.gateway)).await?;
            client.send(&json!({"id": 1, "connect": {"token": self.token}}).to_string()).await;
            client.text().await.ok()?.contains("\"connect\"").then_some(client)
        });
        let client = client.await.ok().flatten();
        if client.is_none() {
            sleep(Duration::from_millis(100)).await;
        }
        client
    }

    /// Processes frames for a moment; returns false once the connection is gone.
    async fn take_one(&mut self, client: &mut Client, mut asked: impl FnMut(u64) -> Option<String>) -> bool {
        let Ok(text) = timeout(Duration::from_millis(20), client.text()).await else { return true };
        let Ok(text) = text else { return false };
        for line in text.lines() {
            let frame: Value = serde_json::from_str(line).unwrap();
            let data = &frame["push"]["pub"]["data"];
            if data.is_object() {
                let user = frame["push"]["channel"].as_str().unwrap().strip_prefix("status:").unwrap();
                // After an unsubscribe, a push may still be under way.
                if let Some(&chain) = self.live.get(user) {
                    self.chains[chain].states.push((state(data), now()));
                }
            } else if let Some(user) = frame["id"].as_u64().filter(|id| *id >= 10).and_then(&mut asked) {
                let data = &frame["subscribe"]["data"];
                if frame["error"]["temporary"] == true {
                    self.refused.push(user);
                    continue;
                }
                assert!(data.is_object(), "{frame}");
                self.live.insert(user.clone(), self.chains.len());
                self.chains.push(Chain { user, states: vec![(state(data), now())], cut: None });
            }
        }
        true
    }

    fn cut(&mut self, user: &str) {
        if let Some(chain) = self.live.remove(user) {
            self.chains[chain].cut = Some(now());
        }
    }

    fn cut_all(&mut self) {
        let users: Vec<String> = self.live.keys().cloned().collect();
        users.iter().for_each(|user| self.cut(user));
    }
}

pub fn channel(user: &str) -> String {
    format!("status:{user}")
}

pub fn state(data: &Value) -> UserStatus {
    serde_json::from_value(data.clone()).unwrap_or_else(|error| panic!("{data}: {error}"))
}
