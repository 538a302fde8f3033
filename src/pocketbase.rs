//! Client of the routes that the hooks add to PocketBase: keys, access checks, the outbox. Every request is signed,
//! limited in time, and counted.

pub mod batch;

use crate::config::Config;
use crate::event::{Delivery, Events};
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
use secrecy::SecretString;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::HashMap;
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

/// Whether a user may subscribe to a channel.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Allowed,
    Denied,
    /// No such kind of channel is configured.
    Unknown,
}

/// Identifies an account in PocketBase: `COLLECTIONID/ID`, both from a token's claims; empty for guests.
#[derive(Clone, Debug, Default, Hash, PartialEq, Eq, Serialize)]
pub struct AccountId(Arc<str>);

impl AccountId {
    /// `None` for an empty part, or a slash in the collection's id: then two accounts could share an `AccountId`.
    pub fn new(collection: &str, id: &str) -> Option<Self> {
        let clear = !collection.is_empty() && !collection.contains('/') && !id.is_empty();
        clear.then(|| Self(format!("{collection}/{id}").into()))
    }

    pub fn guest() -> Self {
        Self::default()
    }

    pub fn is_guest(&self) -> bool {
        self.0.is_empty()
    }
}

/// A user, by key, and the channel that the user wants to subscribe to. The empty key stands for guests.
#[derive(Clone, Debug, Hash, PartialEq, Eq, Serialize)]
pub struct Check {
    pub user: Arc<str>,
    pub channel: Arc<str>,
}

/// A user, or "~" and the name of a class of users, and a record that the user or class may or may not view.
#[derive(Clone, Debug, Hash, PartialEq, Eq, Serialize)]
pub struct View {
    pub user: Arc<str>,
    pub record: Arc<str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Views {
    /// Answers to the first checks, in order, at least one: whether the record may be viewed; `None` if there is no
    /// such record.
    pub results: Vec<Option<bool>>,
    /// The current records that at least one of the askers may view, by id.
    #[serde(default)]
    pub records: HashMap<Arc<str>, Box<RawValue>>,
    /// Only if readers of one record may get different fields: the record as its reader gets it, by index of the
    /// check.
    #[serde(default)]
    pub own: HashMap<usize, Box<RawValue>>,
    /// Whether readers of one record may get different fields.
    #[serde(default)]
    pub per_reader: bool,
    /// Ids of records that are too large for an event, and therefore absent.
    #[serde(default)]
    pub truncated: Vec<Arc<str>>,
}

/// A page of the records of an updates channel that a user or a class may view.
#[derive(Deserialize)]
pub struct Visible {
    /// Namespace of the records' channels.
    pub namespace: String,
    pub collection: String,
    /// `None` if there is no such user or class.
    pub page: Option<Page>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Page {
    /// The user's class; `None` if users of this channel share no set of records.
    pub class: Option<Arc<str>>,
    /// With a class: the records that name the user, split by whether the user may view them (`yes`, `no`). Otherwise:
    /// all records that the user or the class may view (`yes`), and `no` is empty.
    pub yes: Vec<Arc<str>>,
    #[serde(default)]
    pub no: Vec<Arc<str>>,
    /// Id after which the next page begins; `None` for the last page.
    pub next: Option<Arc<str>>,
}

/// The accounts in the order of the question; `None` for unknown records, for collections outside the hooks' config,
/// and for guests if the config allows none.
#[derive(Deserialize)]
struct Keys {
    keys: Vec<Option<UserKey>>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UserKey {
    /// The user's key, which names the user everywhere in the gateway: the record's id for the first auth collection,
    /// `COLLECTION/ID` for further auth collections, empty for guests.
    pub user: Arc<str>,
    /// The signing key of the user's tokens; absent for guests.
    #[serde(default)]
    pub key: SecretString,
    /// Unix milliseconds; 0: not banned.
    #[serde(default)]
    pub banned_until: u64,
    #[serde(default)]
    pub muted_until: u64,
    /// The keys of blocked users.
    #[serde(default)]
    pub blocked: Vec<String>,
}

impl UserKey {
    /// A user with only a signing key.
    pub fn signing(user: &str, key: &str) -> Self {
        Self { user: user.into(), key: key.into(), banned_until: 0, muted_until: 0, blocked: Vec::new() }
    }
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
        struct Question<'a> {
            users: &'a [AccountId],
        }
        Ok(self.post::<Keys>("keys", &Question { users }).await?.keys)
    }

    /// One verdict per check, in order.
    pub async fn authorize(&self, checks: &[Check]) -> Result<Vec<Verdict>, PocketBaseError> {
        #[derive(Serialize)]
        struct Question<'a> {
            checks: &'a [Check],
        }
        #[derive(Deserialize)]
        struct Answer {
            results: Vec<Verdict>,
        }
        Ok(self.post::<Answer>("authorize", &Question { checks }).await?.results)
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
        struct Question<'a> {
            channel: &'a str,
            user: &'a str,
            after: &'a str,
            rows: usize,
        }
        self.post("visible", &Question { channel, user, after, rows }).await
    }

    /// Whether users or classes may view records of an updates channel, and the records themselves. PocketBase answers
    /// as many of the first checks as it can in a fraction of a second.
    pub async fn view(&self, channel: &str, checks: &[View]) -> Result<Views, PocketBaseError> {
        #[derive(Serialize)]
        struct Question<'a> {
            channel: &'a str,
            checks: &'a [View],
        }
        self.post("view", &Question { channel, checks }).await
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
        struct Answer {
            #[serde(default)]
            more: bool,
        }
        Ok(self.post::<Answer>("confirm", &Confirmation { seq }).await?.more)
    }

    /// Asks PocketBase to call the gateway, as its hooks do. Returns the outcome.
    pub async fn probe(&self) -> Result<Delivery, PocketBaseError> {
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
    struct Inner {
        message: String,
    }
    #[derive(Deserialize)]
    struct Body {
        error: Option<Inner>,
        message: Option<String>,
    }
    let parsed: Option<Body> = serde_json::from_slice(body).ok();
    let told = parsed.and_then(|body| body.error.map(|inner| inner.message).or(body.message));
    match (told, status) {
        (Some(told), 404) => format!("{told} (are the gateway's hooks in PocketBase's pb_hooks?)"),
        (Some(told), _) => told,
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
