//! PocketBase tokens made by the tests: valid tokens for many users at once, and invalid tokens.

use super::SECRET;
use super::pocketbase::PocketBase;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use konvert_gateway::config::{Config, Sources};
use konvert_gateway::metrics::Metrics;
use konvert_gateway::pocketbase::{AccountId, UserKey};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// The users' signing keys, requested as a gateway does, and the id of the collection `users`.
pub async fn signing_keys(pocketbase: &PocketBase, users: &[String]) -> (Vec<String>, String) {
    let collection = pocketbase.as_superuser("GET", "collections/users", &Value::Null).await["id"].take();
    let collection = collection.as_str().expect("an id").to_owned();
    let accounts = users.iter().map(|user| AccountId::new(&collection, user).expect("no empty ids"));
    let keys = accounts_of(pocketbase, &accounts.collect::<Vec<_>>()).await;
    let keys = keys.iter().map(|user| user.as_ref().expect("the user exists").key.expose_secret().to_owned());
    (keys.collect(), collection)
}

/// PocketBase's answers about accounts.
pub async fn accounts_of(pocketbase: &PocketBase, accounts: &[AccountId]) -> Vec<Option<UserKey>> {
    let environment = vec![
        ("GATEWAY_SECRET".to_owned(), SECRET.to_owned()),
        ("GATEWAY_POCKETBASE_URL".to_owned(), pocketbase.url.clone()),
    ];
    let config = Config::load(&Sources { environment, ..Sources::default() }).expect("a configuration");
    let client =
        konvert_gateway::pocketbase::PocketBase::new(&config, Metrics::new().expect("metrics")).expect("no TLS");
    let mut answers = Vec::new();
    for accounts in accounts.chunks(500) {
        answers.extend(client.keys(accounts).await.expect("PocketBase answers"));
    }
    answers
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
