//! Signed requests, of PocketBase's hooks and of back ends: reads the body within limits and verifies the signature.

use super::respond::{Answer, STOPPED_PAUSE, STOPPING, refused, retry_after};
use crate::config::{BasePath, Config};
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use crate::signature::{SIGNATURE, Signer, TIMESTAMP, VerifiedSignature};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::http::request::Parts;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Limits on reading a refused body: bytes and time.
const DISCARDED: usize = 32 * 1024 * 1024;
const DISCARDING: Duration = Duration::from_secs(1);

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
        match timeout(self.timeout, Limited::new(body, self.body_max).collect()).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(cause)) if cause.is::<LengthLimitError>() => Err(self.too_large()),
            Ok(Err(_)) => Err(Box::new(self.refuse(StatusCode::BAD_REQUEST, "incomplete", "the body ended early"))),
            Err(_) => {
                let slow = "the body took longer than request_timeout";
                Err(Box::new(self.refuse(StatusCode::REQUEST_TIMEOUT, "request_timeout", slow)))
            }
        }
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

/// Reads the rest of a refused body, within limits: closing the connection while the caller is still writing would
/// reset it and lose the answer.
pub async fn discard(mut body: Incoming) {
    let reading = async {
        let mut left = DISCARDED;
        while let Some(Ok(frame)) = body.frame().await {
            let size = frame.data_ref().map_or(0, Bytes::len);
            if size > left {
                return;
            }
            left -= size;
        }
    };
    // A caller that is too slow may miss the answer.
    let _ = timeout(DISCARDING, reading).await;
}
