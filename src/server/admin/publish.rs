//! Test messages of operators: `POST /publish` with the admin token.

use super::Admin;
use crate::server::api::methods::Method;
use crate::server::respond::{Answer, json};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use http_body_util::{BodyExt, Limited};
use hyper::Request;
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderMap};
use secrecy::ExposeSecret;
use serde::Deserialize;
use std::net::IpAddr;
use tokio::time::timeout;

/// Maximum size of a request's body, in bytes.
const BODY_MAX: usize = 4096;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TestMessage {
    channel: String,
    text: String,
}

impl Admin {
    pub(super) fn can_publish(&self) -> bool {
        !self.services.config.admin_token.expose_secret().is_empty()
    }

    /// Publishes `{"type":"test","text":…}` to all subscribers of a channel, on all gateways, as the server API does.
    pub(super) async fn publish(&self, request: Request<Incoming>, peer: IpAddr) -> Answer {
        if !self.can_publish() {
            let message = "this page is read-only; set GATEWAY_ADMIN_TOKEN to publish test messages";
            return self.refuse(peer, StatusCode::FORBIDDEN, "read_only", message);
        }
        if !self.is_authorized(request.headers()) {
            let message = "the token is not GATEWAY_ADMIN_TOKEN";
            return self.refuse(peer, StatusCode::UNAUTHORIZED, "bad_token", message);
        }
        let reading = Limited::new(request.into_body(), BODY_MAX).collect();
        let body = match timeout(self.services.config.request_timeout, reading).await {
            Ok(Ok(body)) => body.to_bytes(),
            _ => {
                let message = format!("a complete body of {BODY_MAX} bytes at most is required");
                return self.refuse(peer, StatusCode::BAD_REQUEST, "bad_request", &message);
            }
        };
        let TestMessage { channel, text } = match serde_json::from_slice(&body) {
            Ok(message) => message,
            Err(error) => {
                let message = format!("the body must be {{\"channel\":…,\"text\":…}}: {error}");
                return self.refuse(peer, StatusCode::BAD_REQUEST, "bad_request", &message);
            }
        };
        let body = serde_json::json!({"channel": channel, "data": {"type": "test", "text": text}}).to_string();
        match self.methods.execute(Method::Publish, body.as_bytes()).await {
            Ok(answer) => {
                tracing::info!(%peer, channel, "a test message was published from the admin page");
                json(StatusCode::OK, &answer)
            }
            Err(error) => {
                let (status, reason, message) = error.parts();
                self.refuse(peer, status, reason, message)
            }
        }
    }

    fn is_authorized(&self, headers: &HeaderMap) -> bool {
        let token = self.services.config.admin_token.expose_secret().as_bytes();
        let given = headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        given.is_some_and(|given| verify_slices_are_equal(given, token).is_ok())
    }
}
