//! HTTP client with retries: backoff after network errors and temporary statuses, and `Retry-After` respected.

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{HeaderMap, RETRY_AFTER};
use hyper::{Method, Request, Response};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use konvert_gateway::tls::Tls;
use std::time::Duration;

/// Maximum bytes of an answer that is kept in memory.
const ANSWER_MAX: usize = 256 << 20;
/// Time limit of one attempt, until the answer's head.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Attempts of one request. The waits in between add up to about a minute.
const ATTEMPTS: u32 = 8;
const LONGEST_WAIT: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The beginning of the body, for error messages.
    pub fn excerpt(&self) -> String {
        String::from_utf8_lossy(&self.body).chars().take(300).collect()
    }

    pub fn json<T: serde::de::DeserializeOwned>(&self) -> anyhow::Result<T> {
        serde_json::from_slice(&self.body).with_context(|| format!("unreadable answer: {}", self.excerpt()))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// One request, which may be sent several times.
#[derive(Clone)]
pub struct Call {
    pub method: Method,
    pub url: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Bytes,
}

impl Call {
    pub fn get(url: String) -> Self {
        Self { method: Method::GET, url, headers: Vec::new(), body: Bytes::new() }
    }

    pub fn post(url: String, body: impl Into<Bytes>) -> Self {
        let headers = vec![("content-type", "application/json".to_owned())];
        Self { method: Method::POST, url, headers, body: body.into() }
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.retain(|(other, _)| *other != name);
        self.headers.push((name, value.into()));
        self
    }

    pub fn headers(mut self, headers: &[(&'static str, String)]) -> Self {
        self.headers.extend_from_slice(headers);
        self
    }
}

impl Http {
    /// `url`: an address that will be called; without `https`, the system's certificate authorities are not needed.
    pub fn new(url: &str) -> anyhow::Result<Self> {
        let tls =
            if url.starts_with("https://") { Tls::new(None, None, "SSL_CERT_FILE")? } else { Tls::trusting_nobody()? };
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(15)));
        connector.enforce_http(false);
        let client = Client::builder(TokioExecutor::new()).build(HttpsConnector::from((connector, tls.config())));
        Ok(Self { client })
    }

    /// The answer, whatever its status; temporary failures are retried.
    pub async fn call(&self, call: &Call) -> anyhow::Result<Answer> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let result = match self.open(call).await {
                Ok(response) => collect(response).await,
                Err(error) => Err(error),
            };
            let wait = match &result {
                Ok(answer) if !is_temporary(answer.status) || attempt >= ATTEMPTS => return result,
                Ok(answer) => asked_wait(&answer.headers).unwrap_or(backoff(attempt)),
                Err(_) if attempt >= ATTEMPTS => {
                    return result.with_context(|| format!("{} {}", call.method, call.url));
                }
                Err(_) => backoff(attempt),
            };
            tokio::time::sleep(wait.min(LONGEST_WAIT)).await;
        }
    }

    /// As [`Self::call`], and any status other than 2xx is an error.
    pub async fn expect(&self, call: &Call) -> anyhow::Result<Answer> {
        let answer = self.call(call).await?;
        if !answer.is_success() {
            bail!("{} {} answered {}: {}", call.method, call.url, answer.status, answer.excerpt());
        }
        Ok(answer)
    }

    /// One attempt, with the body still to be read.
    pub async fn open(&self, call: &Call) -> anyhow::Result<Response<Incoming>> {
        let mut request = Request::builder().method(call.method.clone()).uri(&call.url);
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(call.body.clone())).context("the address is not valid")?;
        let response = tokio::time::timeout(TIMEOUT, self.client.request(request)).await;
        response.context("no answer in time")?.map_err(|error| anyhow::anyhow!("{}", whole(&error)))
    }
}

async fn collect(response: Response<Incoming>) -> anyhow::Result<Answer> {
    let (head, body) = response.into_parts();
    let body = tokio::time::timeout(TIMEOUT, Limited::new(body, ANSWER_MAX).collect()).await;
    let body = body.context("the answer stalled")?.map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?;
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body: body.to_bytes() })
}

/// An error with its causes.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// Rate limits, and failures of a server or of a proxy in front. Storage answers 544 when its database is slow.
fn is_temporary(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504 | 520..=524 | 544)
}

fn asked_wait(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn backoff(attempt: u32) -> Duration {
    Duration::from_millis(250 << attempt.min(7))
}

/// Percent-encodes everything but unreserved characters; `keep` names further characters to leave.
pub fn encode(text: &str, keep: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || keep.as_bytes().contains(&byte);
        if plain {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// The inverse of [`encode`]; bytes that are no UTF-8 and incomplete escapes stay as they are.
pub fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = bytes.get(at + 1..at + 3).and_then(|pair| std::str::from_utf8(pair).ok());
        match (bytes[at], escape.and_then(|pair| u8::from_str_radix(pair, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}
