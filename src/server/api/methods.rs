//! Methods of the server API, called by PocketBase's own hooks and by other back ends. `proto/server-api.md` describes
//! the API for people.

use crate::broker::{Broker, BrokerError, PresenceStats};
use crate::channel::is_well_formed;
use crate::channel::{CONTROL, Kind};
use crate::control::message::Order;
use crate::log_lines::limited;
use crate::members::user_status::UserStatuses;
use crate::metrics::Metrics;
use crate::protocol::{ClientInfo, Payload};
use hyper::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Prefix of all methods' paths.
pub const PREFIX: &str = "/api/";
/// Maximum size of a request, in bytes.
pub const BODY_MAX: usize = 64 * 1024;
/// Maximum number of users per request.
const USERS_MAX: usize = 500;
/// User and client id of the publisher, as shown to subscribers. No PocketBase user has this id.
const SERVER: &str = "$server";

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Method {
    Publish,
    Presence,
    PresenceStats,
    Statuses,
    Disconnect,
    Unsubscribe,
}

/// Reason why a method was not executed.
pub enum ApiError {
    /// The request is invalid; the text says what to correct.
    Bad(String),
    /// PocketBase or Redis did not answer; a retry may succeed.
    Unavailable,
    /// More clients than `presence_max` are in the channel.
    Crowded,
}

impl ApiError {
    pub fn parts(&self) -> (StatusCode, &'static str, &str) {
        match self {
            ApiError::Bad(what) => (StatusCode::BAD_REQUEST, "bad_request", what),
            ApiError::Unavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Redis did not answer; try again")
            }
            ApiError::Crowded => (
                StatusCode::BAD_REQUEST,
                "too_many_clients",
                "the channel has more clients than presence_max; ask for presence_stats",
            ),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChannelParams {
    channel: String,
}

impl Method {
    pub fn of(path: &str) -> Option<Self> {
        Some(match path.strip_prefix(PREFIX)? {
            "publish" => Method::Publish,
            "presence" => Method::Presence,
            "presence_stats" => Method::PresenceStats,
            "statuses" => Method::Statuses,
            "disconnect" => Method::Disconnect,
            "unsubscribe" => Method::Unsubscribe,
            _ => return None,
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Method::Publish => "publish",
            Method::Presence => "presence",
            Method::PresenceStats => "presence_stats",
            Method::Statuses => "statuses",
            Method::Disconnect => "disconnect",
            Method::Unsubscribe => "unsubscribe",
        }
    }

    /// Whether the method only reads: then a repeated request is no replay.
    pub fn is_read_only(self) -> bool {
        matches!(self, Method::Presence | Method::PresenceStats | Method::Statuses)
    }
}

/// The parts of the gateway that the methods use.
pub struct Methods {
    pub broker: Arc<dyn Broker>,
    pub statuses: Arc<UserStatuses>,
    pub metrics: Metrics,
    /// Maximum time for a method.
    pub timeout: Duration,
}

impl Methods {
    pub async fn execute(&self, method: Method, body: &[u8]) -> Result<Value, ApiError> {
        let work = async {
            match method {
                Method::Publish => self.publish(body).await,
                Method::Presence => {
                    let clients: Vec<Value> = self.presence(body).await?.iter().map(|it| json!(it)).collect();
                    Ok(json!({"clients": clients}))
                }
                Method::PresenceStats => {
                    let PresenceStats { clients, users } = self.presence_stats(body).await?;
                    Ok(json!({"clients": clients, "users": users}))
                }
                Method::Statuses => self.statuses(body).await,
                Method::Disconnect => self.disconnect(body).await,
                Method::Unsubscribe => self.unsubscribe(body).await,
            }
        };
        let answer = timeout(self.timeout, work).await.unwrap_or(Err(ApiError::Unavailable))?;
        self.metrics.api_requests.with_label_values(&[method.name()]).inc();
        Ok(answer)
    }

    async fn publish(&self, body: &[u8]) -> Result<Value, ApiError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct PublishParams<'a> {
            channel: String,
            #[serde(borrow)]
            data: &'a RawValue,
        }
        let PublishParams { channel, data } = serde_json::from_slice(body).map_err(|error| bad(&error))?;
        has_members(&channel)?;
        // Data that clients' parsers may reject is not passed on.
        serde_json::from_str::<Value>(data.get()).map_err(|error| bad(&error))?;
        let server = ClientInfo { user: SERVER.into(), client: SERVER.into() };
        self.broker.signal(&channel, Payload::from_raw(data), server).await.map_err(|error| failed(&error))?;
        Ok(json!({}))
    }

    async fn presence(&self, body: &[u8]) -> Result<Vec<ClientInfo>, ApiError> {
        let ChannelParams { channel } = read(body)?;
        has_members(&channel)?;
        match self.broker.presence(&channel).await {
            Err(BrokerError::Crowded) => Err(ApiError::Crowded),
            listed => listed.map_err(|error| failed(&error)),
        }
    }

    async fn presence_stats(&self, body: &[u8]) -> Result<PresenceStats, ApiError> {
        let ChannelParams { channel } = read(body)?;
        has_members(&channel)?;
        self.broker.presence_stats(&channel).await.map_err(|error| failed(&error))
    }

    async fn statuses(&self, body: &[u8]) -> Result<Value, ApiError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct StatusesParams {
            users: Vec<String>,
        }
        let StatusesParams { users } = read(body)?;
        if users.len() > USERS_MAX {
            return Err(ApiError::Bad(format!("\"users\" has more than {USERS_MAX} entries")));
        }
        let states = self.statuses.of(&users).await.map_err(|error| failed(&error))?;
        let statuses: BTreeMap<&String, _> = users.iter().zip(states).collect();
        Ok(json!({"statuses": statuses}))
    }

    async fn disconnect(&self, body: &[u8]) -> Result<Value, ApiError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct DisconnectParams {
            user: String,
            #[serde(default)]
            reconnect: bool,
        }
        let DisconnectParams { user, reconnect } = read(body)?;
        self.order(&Order::Disconnect { user, reconnect }).await
    }

    async fn unsubscribe(&self, body: &[u8]) -> Result<Value, ApiError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct UnsubscribeParams {
            user: String,
            channel: String,
        }
        let UnsubscribeParams { user, channel } = read(body)?;
        is_a_channel(&channel)?;
        self.order(&Order::Unsubscribe { user, channel }).await
    }

    /// Sends an order to all gateways, including this gateway.
    async fn order(&self, order: &Order) -> Result<Value, ApiError> {
        let server = ClientInfo { user: SERVER.into(), client: SERVER.into() };
        self.broker.signal(CONTROL, order.message(), server).await.map_err(|error| failed(&error))?;
        Ok(json!({}))
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| bad(&error))
}

fn bad(error: &serde_json::Error) -> ApiError {
    ApiError::Bad(format!("the body is not valid for this method: {error}"))
}

fn failed(error: &BrokerError) -> ApiError {
    limited!(
        warn,
        "failed requests of the server API",
        %error,
        "the broker did not answer a request of the server API; the caller is told to retry"
    );
    ApiError::Unavailable
}

fn is_a_channel(channel: &str) -> Result<(), ApiError> {
    is_well_formed(channel).then_some(()).ok_or_else(|| ApiError::Bad("\"channel\" is not a valid channel name".into()))
}

fn has_members(channel: &str) -> Result<(), ApiError> {
    is_a_channel(channel)?;
    match Kind::of(channel) {
        Kind::Feed => Ok(()),
        Kind::Status | Kind::Updates => {
            Err(ApiError::Bad("channels of this kind take no publications and have no presence".into()))
        }
    }
}
