//! Client of the routes that the hooks add to PocketBase: keys, access checks, the outbox. Every request is signed,
//! limited in time, and counted.

#[cfg(test)]
pub(crate) mod answers;
pub(crate) mod batch;
mod messages;
pub(crate) mod version;

pub use messages::{AccountId, Check, Page, UserKey, Verdict, View, Views, Visible};

use crate::config::Config;
use crate::event::{Events, HookReport};
use crate::metrics::Metrics;
use crate::protocol::json;
use crate::signature::{SIGNATURE, Signer, TIMESTAMP};
use crate::tls::{self, Tls, TlsError};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use messages::KeysAnswer;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::Semaphore;

/// Maximum size of an answer, in bytes. The outbox route sends far less per answer.
const ANSWER_MAX: usize = 64 * 1024 * 1024;

/// With TLS if the URL begins with `https`.
type Connector = HttpsConnector<HttpConnector>;

/// Maximum number of concurrent calls, and so of connections: far more than PocketBase works on at once, and far fewer
/// than descriptors.
pub const CALLS: usize = 64;

/// Cheap to clone: clones share the connection pool.
#[derive(Clone)]
pub struct PocketBase {
    client: Client<Connector, Full<Bytes>>,
    /// Permits for concurrent calls, [`CALLS`] in total.
    calls: Arc<Semaphore>,
    url: String,
    signer: Signer,
    timeout: Duration,
    metrics: Metrics,
}

/// Reason why PocketBase gave no usable answer. All but `Refused` may be temporary.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PocketBaseError {
    #[error("PocketBase is unreachable: {0}")]
    Unreachable(String),
    #[error("PocketBase did not answer in time")]
    Timeout,
    /// A status other than 200, with the message of the body if the body has one.
    #[error("PocketBase answered {status}: {message}")]
    Refused { status: u16, message: String },
    #[error("PocketBase's answer is unreadable ({0}); do its hooks match this gateway's version?")]
    Unreadable(String),
    #[error("the question was dropped")]
    Abandoned,
}

impl PocketBase {
    /// Fails if TLS is required and cannot be set up.
    pub fn new(config: &Config, metrics: Metrics) -> Result<Self, TlsError> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(config.pocketbase_timeout));
        connector.enforce_http(false);
        // Unused for http://, so the system's authorities are not read.
        let tls = if config.pocketbase_url.is_https() {
            Tls::new(config.pocketbase_ca_file.as_ref(), None, "pocketbase_ca_file")?
        } else {
            Tls::trusting_nobody()?
        };
        let connector = Connector::from((connector, tls.config()));
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(CALLS)
            .build(connector);
        let (url, signer) = (config.pocketbase_url.0.clone(), Signer::new(&config.secret));
        let calls = Arc::new(Semaphore::new(CALLS));
        Ok(Self { client, calls, url, signer, timeout: config.pocketbase_timeout, metrics })
    }

    /// Accounts with signing keys, bans, mutes and blocked users, in the order of the question.
    pub async fn keys(&self, users: &[AccountId]) -> Result<Vec<Option<UserKey>>, PocketBaseError> {
        #[derive(Serialize)]
        struct KeysRequest<'a> {
            users: &'a [AccountId],
        }
        Ok(self.post::<KeysAnswer>("keys", &KeysRequest { users }).await?.keys)
    }

    /// One verdict per check, in order.
    pub async fn authorize(&self, checks: &[Check]) -> Result<Vec<Verdict>, PocketBaseError> {
        #[derive(Serialize)]
        struct AuthorizeRequest<'a> {
            checks: &'a [Check],
        }
        #[derive(Deserialize)]
        struct AuthorizeAnswer {
            results: Vec<Verdict>,
        }
        Ok(self.post::<AuthorizeAnswer>("authorize", &AuthorizeRequest { checks }).await?.results)
    }

    /// A page of the records after the id `after` that a user, or a class ("~" and its name), may view in an updates
    /// channel. PocketBase looks at `rows` records at a time, for a fraction of a second.
    pub async fn visible(
        &self,
        channel: &str,
        user: &str,
        after: &str,
        rows: usize,
    ) -> Result<Visible, PocketBaseError> {
        #[derive(Serialize)]
        struct VisibleRequest<'a> {
            channel: &'a str,
            user: &'a str,
            after: &'a str,
            rows: usize,
        }
        self.post("visible", &VisibleRequest { channel, user, after, rows }).await
    }

    /// Whether users or classes may view records of an updates channel, and the records themselves. PocketBase answers
    /// as many of the first checks as it can in a fraction of a second.
    pub async fn view(&self, channel: &str, checks: &[View]) -> Result<Views, PocketBaseError> {
        #[derive(Serialize)]
        struct ViewRequest<'a> {
            channel: &'a str,
            checks: &'a [View],
        }
        self.post("view", &ViewRequest { channel, checks }).await
    }

    /// The outbox rows after `after`, at most `limit` (1 to 1000; PocketBase sends fewer if rows are large).
    ///
    /// A row that is not JSON makes the whole answer unreadable. The limit is then halved until only that row is left,
    /// which becomes an unreadable event.
    pub async fn events(&self, after: u64, limit: u16) -> Result<Events, PocketBaseError> {
        let mut limit = limit;
        loop {
            let query = format!("?after={after}&limit={limit}");
            let body = self.call("events", Method::GET, &query, Bytes::new()).await?;
            match Events::page(&body, limit) {
                Ok(Some(events)) => return Ok(events),
                Ok(None) => limit /= 2,
                Err(error) => return Err(PocketBaseError::Unreadable(error.to_string())),
            }
        }
    }

    /// Confirms that all rows up to `seq` are published, so that PocketBase may trim its outbox. Returns whether a
    /// further call would trim more rows.
    pub async fn confirm(&self, seq: u64) -> Result<bool, PocketBaseError> {
        #[derive(Serialize)]
        struct Confirmation {
            seq: u64,
        }
        #[derive(Deserialize)]
        struct ConfirmAnswer {
            #[serde(default)]
            more: bool,
        }
        Ok(self.post::<ConfirmAnswer>("confirm", &Confirmation { seq }).await?.more)
    }

    /// Asks PocketBase to call the gateway, as its hooks do. Returns the outcome.
    pub async fn probe(&self) -> Result<HookReport, PocketBaseError> {
        self.post("probe", &serde_json::json!({})).await
    }

    async fn post<A: DeserializeOwned>(
        &self,
        route: &'static str,
        question: &impl Serialize,
    ) -> Result<A, PocketBaseError> {
        // An answer may contain keys, which must not get into logs.
        let unreadable = |error: serde_json::Error| PocketBaseError::Unreadable(json::place(&error));
        let body = serde_json::to_vec(question).map_err(unreadable)?;
        let answer = self.call(route, Method::POST, "", body.into()).await?;
        serde_json::from_slice(&answer).map_err(unreadable)
    }

    async fn call(
        &self,
        route: &'static str,
        method: Method,
        query: &str,
        body: Bytes,
    ) -> Result<Bytes, PocketBaseError> {
        let timer = self.metrics.pocketbase_seconds.with_label_values(&[route]).start_timer();
        let answer = tokio::time::timeout(self.timeout, self.exchange(route, method, query, body)).await;
        timer.observe_duration();
        let answer = answer.unwrap_or(Err(PocketBaseError::Timeout));
        if answer.is_err() {
            self.metrics.pocketbase_failures.with_label_values(&[route]).inc();
        }
        answer
    }

    async fn exchange(&self, route: &str, method: Method, query: &str, body: Bytes) -> Result<Bytes, PocketBaseError> {
        let unreachable = |error: &(dyn std::error::Error + 'static)| {
            let problem = tls::problem(error, "pocketbase");
            PocketBaseError::Unreachable(problem.unwrap_or_else(|| root_cause(error)))
        };
        let target = format!("/api/gateway/{route}{query}");
        let (timestamp, signature) = self.signer.sign(SystemTime::now(), method.as_str(), &target, &body);
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{target}", self.url))
            .header(TIMESTAMP, timestamp)
            .header(SIGNATURE, signature)
            .header(hyper::header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| unreachable(&error))?;
        // The semaphore is never closed; an error would only lift the limit.
        let _place = self.calls.acquire().await.ok();
        let response = self.client.request(request).await.map_err(|error| unreachable(&error))?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
        let body = body.map_err(|error| PocketBaseError::Unreachable(error.to_string()))?.to_bytes();
        if status == 200 { Ok(body) } else { Err(PocketBaseError::Refused { status, message: message(&body, status) }) }
    }
}

/// The message of an error body, in the format of the hooks or of PocketBase.
fn message(body: &[u8], status: u16) -> String {
    #[derive(Deserialize)]
    struct ErrorDetail {
        message: String,
    }
    #[derive(Deserialize)]
    struct ErrorBody {
        error: Option<ErrorDetail>,
        message: Option<String>,
    }
    let parsed: Option<ErrorBody> = serde_json::from_slice(body).ok();
    let reason = parsed.and_then(|body| body.error.map(|inner| inner.message).or(body.message));
    match (reason, status) {
        (Some(reason), 404) => format!("{reason} (are the gateway's hooks in PocketBase's pb_hooks?)"),
        (Some(reason), _) => reason,
        (None, _) => "no reason given".to_owned(),
    }
}

/// The innermost cause, such as "Connection refused": the outer causes only say that something failed.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
