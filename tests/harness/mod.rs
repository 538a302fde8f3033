//! Real servers for the tests: PocketBase with the hooks, gateways and Redis, and a minimal client. Each server gets
//! a free port of 127.0.0.1 and ends when its handle is dropped.

// Each test binary uses only a part of the harness.
#![allow(dead_code)]

pub mod certificates;
pub mod client;
pub mod cluster;
pub mod gateway;
pub mod http;
pub mod nginx;
pub mod node;
pub mod pocketbase;
pub mod process;
pub mod prometheus;
pub mod proxy;
pub mod redis;
pub mod rng;
pub mod sentinels;
pub mod stream_client;
pub mod tokens;
pub mod translation;

use client::Client;
use gateway::Gateway;
use pocketbase::{PocketBase, User};
use redis::Redis;
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use tokio::net::{TcpSocket, TcpStream};

/// Time limit of every wait.
pub const DEADLINE: Duration = Duration::from_secs(20);
/// The secret of every server in the tests.
pub const SECRET: &str = "a secret for tests of 32 characters or more";

/// A PocketBase and its gateways; several gateways share a Redis.
pub struct World {
    pub gateways: Vec<Gateway>,
    pub pocketbase: PocketBase,
    pub redis: Option<Redis>,
}

impl World {
    /// One gateway with the in-process broker.
    pub async fn single() -> Self {
        Self::start(1, false, &[]).await
    }

    pub async fn start(gateways: usize, with_redis: bool, settings: &[(&str, &str)]) -> Self {
        let redis = with_redis.then(Redis::start);
        let url = redis.as_ref().map(Redis::url);
        let mut settings: Vec<(&str, &str)> = settings.to_vec();
        settings.extend(url.as_deref().map(|url| ("GATEWAY_REDIS_URL", url)));
        Self { redis, ..Self::start_beside(gateways, &settings).await }
    }

    /// Without a Redis of its own; `settings` may name a running Redis.
    pub async fn start_beside(gateways: usize, settings: &[(&str, &str)]) -> Self {
        let ports: Vec<u16> = (0..gateways).map(|_| process::free_port()).collect();
        let pocketbase = PocketBase::start(&format!("http://127.0.0.1:{}", ports[0])).await;
        let mut started = Vec::new();
        for port in ports {
            started.push(Gateway::start(port, &pocketbase.url, settings).await);
        }
        Self { gateways: started, pocketbase, redis: None }
    }

    pub fn gateway(&self) -> &Gateway {
        &self.gateways[0]
    }

    /// Creates users and a private room. Every user except the last is a member.
    pub async fn room(&self, names: &[&str]) -> (String, Vec<User>) {
        let mut users = Vec::new();
        for name in names {
            users.push(self.pocketbase.user(name).await);
        }
        let room = self.pocketbase.room(&users[0]).await;
        for user in &users[1..users.len() - 1] {
            self.pocketbase.join(&room, user).await;
        }
        (room, users)
    }

    /// A client, connected to a gateway and subscribed to a room.
    pub async fn subscriber(&self, gateway: usize, user: &User, room: &str) -> Client {
        let mut client = Client::connect(&self.gateways[gateway], &user.token).await;
        client.subscribe(&format!("room:{room}")).await;
        client
    }
}

/// Connects to a local server from one of the machine's addresses 127.x.x.x.
pub async fn connect_from(from: Ipv4Addr, port: u16) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    socket.connect((Ipv4Addr::LOCALHOST, port).into()).await
}

/// The body of a message.
pub fn message(room: &str, author: &User, content: &str) -> Value {
    json!({"room": room, "author": author.id, "content": content, "type": "text"})
}

/// Waits until `condition` returns a value.
pub async fn until<T, F: AsyncFnMut() -> Option<T>>(what: &str, condition: F) -> T {
    until_within(DEADLINE, what, condition).await
}

/// As [`until`], with another limit.
pub async fn until_within<T, F: AsyncFnMut() -> Option<T>>(limit: Duration, what: &str, mut condition: F) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
