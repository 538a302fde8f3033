//! PocketBase's tokens, made here: right ones for many users at once, and wrong ones.

use super::SECRET;
use super::pocketbase::PocketBase;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use konvert_gateway::config::{Config, Sources};
use konvert_gateway::metrics::Metrics;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// What these users' tokens are signed with, asked for as a gateway would, and the id of their collection.
pub async fn signing_keys(pocketbase: &PocketBase, users: &[String]) -> (Vec<String>, String) {
    let environment = vec![
        ("GATEWAY_SECRET".to_owned(), SECRET.to_owned()),
        ("GATEWAY_POCKETBASE_URL".to_owned(), pocketbase.url.clone()),
    ];
    let config = Config::load(&Sources { environment, ..Sources::default() }).expect("a configuration");
    let client = konvert_gateway::pocketbase::PocketBase::new(&config, Metrics::new().expect("metrics"));
    let (mut keys, mut collection) = (Vec::new(), String::new());
    for users in users.chunks(500) {
        let answer = client.keys(users).await.expect("PocketBase answers");
        keys.extend(
            answer.keys.iter().map(|key| key.as_ref().expect("the user exists").key.expose_secret().to_owned()),
        );
        collection = answer.collection;
    }
    (keys, collection)
}

pub async fn signing_key(pocketbase: &PocketBase, user: &str) -> (String, String) {
    let (mut keys, collection) = signing_keys(pocketbase, &[user.to_owned()]).await;
    (keys.remove(0), collection)
}

pub fn sign(algorithm: Algorithm, claims: &Value, key: &str) -> String {
    jsonwebtoken::encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(key.as_bytes())).expect("a token")
}

/// The claims of PocketBase's own tokens, valid for an hour.
pub fn claims(user: &str, collection: &str) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_secs();
    json!({"id": user, "type": "auth", "collectionId": collection, "exp": now + 3600, "refreshable": true})
}
