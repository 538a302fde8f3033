//! Signed requests, of PocketBase's hooks and of back ends: reads the body within limits and verifies the signature.

use super::body::{self, Unreadable};
use super::respond::{Answer, STOPPED_PAUSE, STOPPING, refused, retry_after};
use crate::config::{BasePath, Config};
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use crate::signature::{SIGNATURE, Signer, TIMESTAMP, VerifiedSignature};
use bytes::Bytes;
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::http::request::Parts;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

pub struct SignedRequests {
    signer: Signer,
    base_path: BasePath,
    /// `max_hook_size`.
    body_max: usize,
    /// `request_timeout`.
    timeout: Duration,
    metrics: Metrics,
    /// Requests that a stop waits for.
    under_way: TaskTracker,
    shutdown: Arc<Shutdown>,
}

impl SignedRequests {
    pub fn new(config: &Config, metrics: Metrics, under_way: TaskTracker, shutdown: Arc<Shutdown>) -> Self {
        let signer = Signer::new(&config.secret).accepting(&config.secret_second);
        let (base_path, body_max, timeout) = (config.base_path.clone(), config.max_hook_size, config.request_timeout);
        Self { signer, base_path, body_max, timeout, metrics, under_way, shutdown }
    }

    /// A stop waits for the request while the token lives. New requests are refused once the stop has closed the
    /// intake.
    pub fn begin(&self) -> Result<TaskTrackerToken, Box<Answer>> {
        let token = self.under_way.token();
        if self.shutdown.is_intake_closed() {
            let answer = self.refuse(StatusCode::SERVICE_UNAVAILABLE, "draining", STOPPING);
            return Err(Box::new(retry_after(answer, STOPPED_PAUSE)));
        }
        Ok(token)
    }

    /// Reads a body of at most `max_hook_size`, within `request_timeout`.
    pub async fn read(&self, body: Incoming) -> Result<Bytes, Box<Answer>> {
        body::read(body, self.body_max, self.timeout).await.map_err(|unreadable| {
            let (status, message) = match unreadable {
                Unreadable::TooLarge => return self.too_large(),
                Unreadable::Incomplete => (StatusCode::BAD_REQUEST, "the body ended early"),
                Unreadable::TimedOut => (StatusCode::REQUEST_TIMEOUT, "the body took longer than request_timeout"),
            };
            Box::new(self.refuse(status, unreadable.reason(), message))
        })
    }

    pub fn verify(&self, parts: &Parts, body: &[u8]) -> Result<VerifiedSignature, Box<Answer>> {
        let header = |name| parts.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        // Signed without the base path: the signer does not know whether a proxy cuts the base path off.
        let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
        let target = self.base_path.strip(target).unwrap_or(target);
        let (signature, request) = ((header(TIMESTAMP), header(SIGNATURE)), (parts.method.as_str(), target, body));
        self.signer
            .verify(SystemTime::now(), signature, request)
            .map_err(|error| Box::new(self.refuse(StatusCode::UNAUTHORIZED, error.code(), &error.to_string())))
    }

    pub fn too_large(&self) -> Box<Answer> {
        Box::new(self.refuse(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "the body exceeds max_hook_size"))
    }

    pub fn replayed(&self) -> Box<Answer> {
        let message = "this request was taken before; sign every request anew";
        Box::new(self.refuse(StatusCode::CONFLICT, "replayed", message))
    }

    /// A counted refusal.
    pub fn refuse(&self, status: StatusCode, reason: &'static str, message: &str) -> Answer {
        self.metrics.hooks_refused.with_label_values(&[reason]).inc();
        refused(status, reason, message)
    }
}
