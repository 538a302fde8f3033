//! Connections, subscriptions and refusals of one user on this gateway, for the admin page.

use super::{Admin, CHECK};
use crate::connection::Connection;
use crate::hub::subscriber::SubscriptionState;
use crate::server::respond::{Answer, error, json};
use hyper::StatusCode;
use serde_json::{Value, json};
use tokio::time::timeout;

/// Maximum number of connections in an answer.
const CONNECTIONS: usize = 50;
/// Maximum number of subscriptions in an answer, over all connections.
const SUBSCRIPTIONS: usize = 1000;
/// Maximum length of a user's key, in bytes.
const KEY_MAX: usize = 512;

impl Admin {
    /// `query`: `key=…`, percent-encoded, with the whole key of the user.
    pub(super) async fn user(&self, query: &str) -> Answer {
        let Some(user) = key(query) else {
            let message = format!("ask for /user?key=… with the key of a user, {KEY_MAX} bytes at most");
            return error(StatusCode::BAD_REQUEST, "bad_request", &message);
        };
        let (connections, open) = self.services.connections.first_of(&user, CONNECTIONS);
        let mut left = SUBSCRIPTIONS;
        let shown: Vec<Value> = connections.iter().map(|connection| self.connection(connection, &mut left)).collect();
        json(
            StatusCode::OK,
            &json!({
                "user": user,
                "open": open,
                "everywhere": self.everywhere(&user).await,
                "connections": shown,
                "refusals": self.services.refusals.of(&user),
            }),
        )
    }

    /// Number of the user's connections to all gateways. `None`: unknown, while Redis does not answer.
    async fn everywhere(&self, user: &str) -> Option<usize> {
        timeout(CHECK, self.services.statuses.connections(user)).await.ok()?.ok()
    }

    /// `left`: the number of further subscriptions in the answer. Times are in seconds before now.
    fn connection(&self, connection: &Connection, left: &mut usize) -> Value {
        let age = connection.age().as_secs();
        let (channels, all) = {
            let channels = connection.channels();
            (channels.first(*left), channels.len())
        };
        *left -= channels.len();
        let subscriptions: Vec<Value> = channels
            .into_iter()
            .map(|(channel, since)| {
                let is_suspended =
                    self.services.hub.subscription_state(&channel, connection.id) == SubscriptionState::Suspended;
                json!({"channel": channel, "since": age.saturating_sub(since.into()), "suspended": is_suspended})
            })
            .collect();
        json!({
            "client": connection.client,
            "since": age,
            "seen": connection.seen().elapsed().as_secs(),
            "subscriptions": subscriptions,
            "all_subscriptions": all,
        })
    }
}

/// The user's key in a query, percent-decoded. `None` without a key, or with an impossible key.
fn key(query: &str) -> Option<String> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix("key="))?;
    if value.is_empty() || value.len() > 3 * KEY_MAX {
        return None;
    }
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, after @ ..] = rest {
        (rest, _) = match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                (after, bytes.push(digit(high)? << 4 | digit(low)?))
            }
            (b'%', _) => return None,
            (b'+', after) => (after, bytes.push(b' ')),
            (byte, after) => (after, bytes.push(*byte)),
        };
    }
    String::from_utf8(bytes).ok().filter(|key| key.len() <= KEY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_decoded_and_impossible_keys_refused() {
        for (query, expected) in [
            ("key=abc", "abc"),
            ("x=1&key=a%2Fb%20c+d", "a/b c d"),
            ("key=%D0%B0%D0%BD%D1%8F", "аня"),
            ("key=a%2fb", "a/b"),
        ] {
            assert_eq!(key(query).as_deref(), Some(expected), "{query}");
        }
        let long = format!("key={}", "a".repeat(KEY_MAX + 1));
        for query in ["", "key=", "user=abc", "key=%", "key=%4", "key=%zz", "key=%ff", &long] {
            assert_eq!(key(query), None, "{query}");
        }
    }
}
