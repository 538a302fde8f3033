//! Many gateways over one simulated Redis beside a real PocketBase, with the same number of clients on each.
//!
//! Every user has one connection, and subscribes to the private room of the users on the same gateway, and to the hot
//! room, which is public. Events are posted to the first gateway, as PocketBase's hooks do.

use crate::Options;
use crate::crowd::Crowd;
use crate::gateway::Gateway;
use crate::harness::client::Client;
use crate::harness::http::Http;
use crate::harness::pocketbase::{PocketBase, User};
use crate::harness::{SECRET, until};
use crate::simulated_redis::SimulatedRedis;
use konvert_gateway::broker::Retention;
use konvert_gateway::signature::{SIGNATURE, Signer, TIMESTAMP};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};
use tokio_util::task::AbortOnDropHandle;

const HOOKS: &str = "/hooks/pocketbase";
/// Name of the chat's updates channel.
pub const UPDATES: &str = "room-updates";

/// The users and rooms in PocketBase.
pub struct Site {
    pub pocketbase: PocketBase,
    pub crowd: Crowd,
    pub hot: String,
    /// Author of messages in the hot room.
    pub author: User,
    /// Port of the gateway that PocketBase's hooks post to.
    pub port: u16,
}

impl Site {
    pub async fn start(port: u16, audience: crate::Audience) -> Self {
        let pocketbase = PocketBase::start(&format!("http://127.0.0.1:{port}")).await;
        let crowd = Crowd::seed(&pocketbase, audience).await;
        let author = pocketbase.user("author").await;
        let room = json!({"name": "Hot", "type": "public", "owner": author.id});
        let room = pocketbase.create("rooms", &author, &room).await;
        let hot = room["id"].as_str().expect("an id").to_owned();
        Self { pocketbase, crowd, hot, author, port }
    }
}

pub struct Stage<'a> {
    pub site: &'a Site,
    pub redis: std::sync::Arc<SimulatedRedis>,
    pub gateways: Vec<Gateway>,
    users_each: usize,
    http: Http,
    signer: Signer,
    boot: String,
    seq: u64,
    /// Readers of the clients' sockets.
    _clients: Vec<AbortOnDropHandle<()>>,
}

impl<'a> Stage<'a> {
    pub async fn start(site: &'a Site, options: &Options, count: usize, settings: &[(&str, &str)]) -> Self {
        let redis = SimulatedRedis::start(retention()).await;
        let mut gateways = Vec::new();
        for number in 0..count {
            let port = if number == 0 { site.port } else { 0 };
            gateways.push(Gateway::start(port, &site.pocketbase.url, settings, redis.node()).await);
        }
        let (boot, seq) = site.pocketbase.outbox().await;
        let (http, signer) = (Http::new(), Signer::new(&SECRET.into()));
        let users_each = options.users;
        let mut stage = Self { site, redis, gateways, users_each, http, signer, boot, seq, _clients: Vec::new() };
        for gateway in &stage.gateways {
            until("a relay that knows the outbox", async || {
                (gateway.metric(&stage.http, "gateway_relay_cursor", "").await >= seq as f64).then_some(())
            })
            .await;
        }
        stage.connect().await;
        stage
    }

    async fn connect(&mut self) {
        for gateway in 0..self.gateways.len() {
            for user in 0..self.users_each {
                let mut client = self.client(gateway, self.user(gateway, user)).await;
                for channel in [self.room(gateway), self.hot()] {
                    let request = json!({"channel": channel, "join_leave": true});
                    let reply = client.call("subscribe", request).await;
                    assert!(reply["subscribe"].is_object(), "{reply}");
                }
                self.keep(client);
            }
        }
    }

    /// A client of the gateway, connected and without subscriptions.
    pub async fn client(&self, gateway: usize, user: &User) -> Client {
        let mut client = Client::open(&self.gateways[gateway].websocket()).await;
        client.log_in(&user.token).await;
        client
    }

    /// Reads the client's socket from now on.
    fn keep(&mut self, mut client: Client) {
        let reader = tokio::spawn(async move { while client.text().await.is_ok() {} });
        self._clients.push(AbortOnDropHandle::new(reader));
    }

    /// Subscribes a client of each gateway to the updates channel.
    pub async fn subscribe_to_updates(&mut self) {
        for gateway in 0..self.gateways.len() {
            let mut client = self.client(gateway, self.user(gateway, 0)).await;
            client.subscribe(UPDATES).await;
            self.keep(client);
        }
    }

    /// A user with a client on the gateway.
    pub fn user(&self, gateway: usize, number: usize) -> &User {
        &self.site.crowd.users[gateway * self.users_each + number % self.users_each]
    }

    /// Channel of the gateway's own room.
    pub fn room(&self, gateway: usize) -> String {
        format!("room:{}", self.site.crowd.rooms[gateway])
    }

    pub fn hot(&self) -> String {
        format!("room:{}", self.site.hot)
    }

    /// Number of subscriptions to rooms, and so of questions after a changed rule.
    pub fn subscriptions(&self) -> usize {
        2 * self.users_each * self.gateways.len()
    }

    /// The gateway with the users and the room that events concern: not the gateway that the hooks post to, if there is
    /// another.
    pub fn concerned(&self) -> usize {
        1.min(self.gateways.len() - 1)
    }

    /// Posts an event, given as a JSON object without `seq`.
    pub async fn post(&mut self, event: &Value) {
        self.seq += 1;
        let mut event = event.clone();
        event["seq"] = self.seq.into();
        let body = json!({"boot": self.boot, "events": [event]}).to_string();
        let (timestamp, signature) = self.signer.sign(SystemTime::now(), "POST", HOOKS, body.as_bytes());
        let headers = [(TIMESTAMP, timestamp.as_str()), (SIGNATURE, signature.as_str())];
        let answer = self.http.send("POST", &self.gateways[0].url(HOOKS), &headers, body).await;
        let answer = answer.expect("the gateway answers");
        assert_eq!(answer.status, 202, "{}", answer.text);
    }

    /// Sum of a metric over all gateways.
    pub async fn metric(&self, name: &str, labels: &str) -> f64 {
        let mut sum = 0.0;
        for gateway in &self.gateways {
            sum += gateway.metric(&self.http, name, labels).await;
        }
        sum
    }
}

/// The defaults of the gateway's config.
fn retention() -> Retention {
    let (hour, day) = (Duration::from_secs(3600), Duration::from_secs(86_400));
    Retention {
        size: 500,
        ttl: hour,
        position_ttl: day,
        presence_ttl: Duration::from_secs(30),
        presence_max: 1000,
        status_grace: Duration::from_secs(10),
        last_seen_ttl: 30 * day,
        join_leave_max: 200,
        ..Retention::default()
    }
}
