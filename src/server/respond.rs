//! HTTP answers of both listeners: JSON bodies, and a common format for errors.

use crate::stream::ClientStream;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

pub type Answer = Response<Full<Bytes>>;

/// Result of a request.
pub enum Outcome {
    Answer(Answer),
    /// The socket leaves HTTP without an answer of hyper's: the function gets it, and writes the response itself.
    TakeOver(TakeOver),
}

pub type TakeOver = Box<dyn FnOnce(ClientStream) + Send>;

impl From<Answer> for Outcome {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer)
    }
}

pub fn text(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

pub fn json(status: StatusCode, body: &serde_json::Value) -> Answer {
    text(status, "application/json", body.to_string())
}

/// Keeps the answer out of all caches.
pub fn uncached(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// `{"error":{"code","message"}}`: a word for programs, a sentence for people.
pub fn error(status: StatusCode, code: &str, message: &str) -> Answer {
    json(status, &serde_json::json!({"error": {"code": code, "message": message}}))
}

/// Message of refusals while the gateway stops.
pub const STOPPING: &str = "this gateway is stopping; retry at another gateway, or here after the restart";

/// `Retry-After` of a stopping gateway, in seconds: a load balancer sends the next request to another gateway.
pub const STOPPED_PAUSE: &str = "1";

/// Adds `Retry-After`. The gateway does not close idle connections itself, since the close could cross with the next
/// request. The answer to that request closes the connection, as every refusal does.
pub fn retry_after(mut answer: Answer, seconds: &'static str) -> Answer {
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(seconds));
    answer
}

/// Attached to an answer until the refusal is logged, where the caller's address is known.
#[derive(Clone)]
pub struct Refused {
    pub reason: &'static str,
    pub message: String,
}

/// An error to be logged as a refused request.
pub fn refused(status: StatusCode, reason: &'static str, message: &str) -> Answer {
    let mut answer = error(status, reason, message);
    answer.extensions_mut().insert(Refused { reason, message: message.to_owned() });
    answer
}
