//! HTTP answers of both listeners: JSON bodies, and a common format for errors.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};

pub type Answer = Response<Full<Bytes>>;

pub fn text(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

pub fn json(status: StatusCode, body: &serde_json::Value) -> Answer {
    text(status, "application/json", body.to_string())
}

/// `{"error":{"code","message"}}`: a word for programs, a sentence for people.
pub fn error(status: StatusCode, code: &str, message: &str) -> Answer {
    json(status, &serde_json::json!({"error": {"code": code, "message": message}}))
}
