//! JSON over HTTP, for PocketBase and the gateway's endpoints.

use super::SECRET;
use super::gateway::Gateway;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::RETRY_AFTER;
use hyper::{Method, Request};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use konvert_gateway::signature::{SIGNATURE, Signer, TIMESTAMP};
use serde_json::Value;
use std::time::SystemTime;

#[derive(Clone)]
pub struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
}

pub struct Response {
    pub status: u16,
    /// The header Retry-After.
    pub retry_after: Option<String>,
    pub text: String,
}

impl Response {
    /// The body as JSON; null if the body is no JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }
}

impl Http {
    pub fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self { client: Client::builder(TokioExecutor::new()).build(connector) }
    }

    pub async fn send(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Response, String> {
        let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).expect("a method")).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).expect("a request");
        let response = self.client.request(request).await.map_err(|error| format!("{url}: {error:?}"))?;
        let status = response.status().as_u16();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = response.into_body().collect().await.map_err(|error| format!("{url}: {error}"))?.to_bytes();
        Ok(Response { status, retry_after, text: String::from_utf8_lossy(&body).into_owned() })
    }

    /// Posts a signed body, as PocketBase's hooks do.
    pub async fn post_events(&self, gateway: &Gateway, body: String) -> Result<Response, String> {
        let target = "/hooks/pocketbase";
        let signer = Signer::new(&SECRET.into());
        let (timestamp, signature) = signer.sign(SystemTime::now(), "POST", target, body.as_bytes());
        let headers = [(TIMESTAMP, timestamp.as_str()), (SIGNATURE, signature.as_str())];
        self.send("POST", &gateway.url(target), &headers, body).await
    }

    pub async fn get(&self, url: &str) -> Result<Response, String> {
        self.send("GET", url, &[], Bytes::new()).await
    }
}
