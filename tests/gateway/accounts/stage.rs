//! PocketBase with the application of `tests/gateway/accounts/pocketbase`, and gateways.

use crate::harness::client::Client;
use crate::harness::gateway::Gateway;
use crate::harness::pocketbase::{PocketBase, User};
use crate::harness::process::free_port;
use crate::harness::redis::Redis;
use serde_json::{Value, json};
use std::path::Path;

pub struct Stage {
    pub gateways: Vec<Gateway>,
    pub pocketbase: PocketBase,
    _redis: Option<Redis>,
}

impl Stage {
    pub async fn new(settings: &[(&str, &str)]) -> Self {
        Self::start(1, None, settings).await
    }

    /// Two gateways with one Redis.
    pub async fn pair() -> Self {
        Self::start(2, Some(Redis::start()), &[]).await
    }

    async fn start(gateways: usize, redis: Option<Redis>, settings: &[(&str, &str)]) -> Self {
        let ports: Vec<u16> = (0..gateways).map(|_| free_port()).collect();
        let application = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gateway/accounts/pocketbase");
        let pocketbase = PocketBase::start_application(application, &format!("http://127.0.0.1:{}", ports[0])).await;
        let url = redis.as_ref().map(Redis::url);
        let mut settings = settings.to_vec();
        settings.extend(url.as_deref().map(|url| ("GATEWAY_REDIS_URL", url)));
        let mut started = Vec::new();
        for port in ports {
            started.push(Gateway::start(port, &pocketbase.url, &settings).await);
        }
        Self { gateways: started, pocketbase, _redis: redis }
    }

    pub fn gateway(&self) -> &Gateway {
        &self.gateways[0]
    }

    /// A new record's id.
    pub async fn create(&self, collection: &str, record: &Value) -> String {
        let path = format!("collections/{collection}/records");
        let made = self.pocketbase.as_superuser("POST", &path, record).await;
        made["id"].as_str().expect("an id").to_owned()
    }

    pub async fn update(&self, collection: &str, id: &str, change: &Value) {
        self.pocketbase.as_superuser("PATCH", &format!("collections/{collection}/records/{id}"), change).await;
    }

    pub async fn delete(&self, collection: &str, id: &str) {
        self.pocketbase.as_superuser("DELETE", &format!("collections/{collection}/records/{id}"), &Value::Null).await;
    }

    /// The name of a channel.
    pub async fn room(&self, visibility: &str) -> String {
        format!("room:{}", self.create("rooms", &json!({"visibility": visibility})).await)
    }

    /// A member and a staff user with the same id.
    pub async fn twins(&self) -> (User, User) {
        let member = self.pocketbase.account("members", "ann").await;
        let staff = self.pocketbase.account("staff", "tom").await;
        self.pocketbase.change_id("staff", &staff.id, &member.id);
        let staff = self.pocketbase.log_in_again_to("staff", "tom").await;
        assert_eq!(member.id, staff.id);
        (member, staff)
    }

    pub async fn guest(&self) -> Client {
        let mut client = Client::open(&self.gateway().websocket()).await;
        let reply = client.call("connect", json!({})).await;
        assert!(reply["connect"]["client"].is_string(), "{reply}");
        client
    }

    pub async fn connect(&self, user: &User) -> Client {
        Client::connect(self.gateway(), &user.token).await
    }
}

/// `ok`, or the code of the error.
pub async fn subscribe(client: &mut Client, channel: &str) -> String {
    let reply = client.call("subscribe", json!({"channel": channel})).await;
    reply["error"]["code"].as_u64().map_or("ok".to_owned(), |code| code.to_string())
}

/// The outcome of `connect` with a token: `ok`, an error code, or a close code.
pub async fn how_connected(gateway: &Gateway, token: &str) -> String {
    let mut client = Client::open(&gateway.websocket()).await;
    client.send(&json!({"id": 1, "connect": {"token": token}}).to_string()).await;
    how_answered(&mut client).await
}

/// The outcome in the next reply.
pub async fn how_answered(client: &mut Client) -> String {
    match client.text().await {
        Ok(text) => {
            let reply: Value = serde_json::from_str(&text).expect("a frame is JSON");
            reply["error"]["code"].as_u64().map_or("ok".to_owned(), |code| code.to_string())
        }
        Err(close) => close.map_or("cut off".to_owned(), |close| u16::from(close.code).to_string()),
    }
}
