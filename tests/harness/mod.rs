//! Real servers for the tests: PocketBase with the hooks, gateways, Redis; and a small client of our own. Each is
//! started on a free port of 127.0.0.1 and ended by its handle's drop.

// Each test binary uses its own part of this.
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
pub mod proxy;
pub mod redis;
pub mod rng;
pub mod sentinels;
pub mod tokens;

use client::Client;
use gateway::Gateway;
use pocketbase::{PocketBase, User};
use redis::Redis;
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use tokio::net::{TcpSocket, TcpStream};

/// For whatever is waited for.
pub const DEADLINE: Duration = Duration::from_secs(20);
/// The secret of all servers here.
pub const SECRET: &str = "a secret for tests of 32 characters or more";

/// A PocketBase with some gateways beside it; with more than one, a Redis that they share.
pub struct World {
    pub gateways: Vec<Gateway>,
    pub pocketbase: PocketBase,
    pub redis: Option<Redis>,
}

impl World {
    /// One gateway, in-process broker.
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

    /// With a Redis of the caller's own, if the settings name one.
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

    /// Some users, and a private room of which all but the last are members.
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

    /// A client that is connected to a gateway and subscribed to a room.
    pub async fn subscriber(&self, gateway: usize, user: &User, room: &str) -> Client {
        let mut client = Client::connect(&self.gateways[gateway], &user.token).await;
        client.subscribe(&format!("room:{room}")).await;
        client
    }
}

/// To a server of this machine, from another of its own addresses 127.x.x.x.
pub async fn connect_from(from: Ipv4Addr, port: u16) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    socket.connect((Ipv4Addr::LOCALHOST, port).into()).await
}

/// The body of a message.
pub fn message(room: &str, author: &User, content: &str) -> Value {
    json!({"room": room, "author": author.id, "content": content, "type": "text"})
}

/// Waits until `condition` gives something.
pub async fn until<T, F: AsyncFnMut() -> Option<T>>(what: &str, mut condition: F) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
