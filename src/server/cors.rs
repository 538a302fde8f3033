//! Cross-origin requests of browsers (the Fetch standard), for the streams and for `/emulation`: a page of an allowed
//! origin may read the answers. Cookies play no part, so no credentials are allowed.

use super::respond::Answer;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE,
    HeaderMap, HeaderValue, ORIGIN, VARY,
};
use hyper::{Response, StatusCode};

/// Seconds for which browsers may remember the answer to a preflight.
const MAX_AGE: &str = "3600";

/// The origin of a request, to be repeated in the answer once the origin has been checked.
pub fn origin(request: &HeaderMap) -> Option<HeaderValue> {
    request.get(ORIGIN).cloned()
}

/// Allows the page to read the answer. Caches are told that the answer depends on the origin.
pub fn allow(answer: &mut HeaderMap, origin: Option<HeaderValue>) {
    if let Some(origin) = origin {
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    answer.insert(VARY, HeaderValue::from_static("origin"));
}

/// The answer to a preflight, by which a browser asks whether a page may send a request. `methods`: those of the path.
pub fn preflight(methods: &'static str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::new()));
    *answer.status_mut() = StatusCode::NO_CONTENT;
    let headers = answer.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("content-type"));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE));
    answer
}
