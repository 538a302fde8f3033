//! Streams, for clients that cannot open a WebSocket: an HTTP response without end, as lines or length-delimited
//! Protobuf (`/connection/http_stream`) or as server-sent events (`/connection/sse`).
//!
//! The request brings the client's first commands, and later commands arrive at [`emulation`](super::emulation). The
//! end of the response is the end of the connection: neither a length nor chunks. So the outbox writes frames to the
//! socket as for a WebSocket, and hyper gives the socket away ([`Outcome::TakeOver`]).

use super::admission::Caller;
use super::body::{self, Unreadable};
use super::cors;
use super::entrance::{Admitted, Entrance};
use super::respond::{Answer, Outcome};
use crate::protocol::format::{Encoding, Format};
use crate::protocol::frame::Frame;
use crate::socket;
use crate::stream::ClientStream;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, StatusCode};
use std::sync::Arc;

pub const HTTP_STREAM: &str = "/connection/http_stream";
pub const SSE: &str = "/connection/sse";

/// Parameter of the query with the first commands. Browsers can send no body for server-sent events.
const COMMANDS: &str = "cf_connect";
/// Content type of Protobuf commands and replies.
const PROTOBUF: &str = "application/octet-stream";
/// Begin of server-sent events: an empty line, which has proxies pass the head of the response on.
const EVENTS_BEGIN: &[u8] = b"\r\n";

pub struct Streams {
    entrance: Arc<Entrance>,
}

impl Streams {
    pub fn new(entrance: Arc<Entrance>) -> Self {
        Self { entrance }
    }

    /// Answers a request to [`HTTP_STREAM`], by POST, or to [`SSE`], by GET or POST.
    pub async fn answer(
        &self,
        is_sse: bool,
        request: Request<Incoming>,
        caller: Arc<Caller>,
    ) -> Result<Outcome, Box<Answer>> {
        self.entrance.check_intake()?;
        self.entrance.check_origin(request.headers())?;
        let (parts, body) = request.into_parts();
        let format = match encoding(&parts.headers) {
            _ if is_sse => Format::Sse,
            Encoding::Json => Format::StreamJson,
            Encoding::Protobuf => Format::StreamProtobuf,
        };
        let commands =
            if parts.method == Method::GET { from_query(parts.uri.query()) } else { self.read(body).await? };
        self.check(format, &commands)?;
        // Again, since the body may have taken a while.
        self.entrance.check_intake()?;
        let admitted = self.entrance.admit(&parts.headers, caller)?;
        let head = head(format, cors::origin(&parts.headers));
        let entrance = Arc::clone(&self.entrance);
        Ok(Outcome::TakeOver(Box::new(move |stream| begin(&entrance, stream, format, admitted, head, commands))))
    }

    async fn read(&self, body: Incoming) -> Result<Bytes, Box<Answer>> {
        let config = &self.entrance.services.config;
        body::read(body, config.max_frame_size, config.request_timeout).await.map_err(|unreadable| {
            let (status, message) = match unreadable {
                Unreadable::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "the body exceeds max_frame_size"),
                Unreadable::Incomplete => (StatusCode::BAD_REQUEST, "the body ended early"),
                Unreadable::TimedOut => (StatusCode::REQUEST_TIMEOUT, "the body took longer than request_timeout"),
            };
            Box::new(self.entrance.refuse(unreadable.reason(), status, message))
        })
    }

    fn check(&self, format: Format, commands: &Bytes) -> Result<(), Box<Answer>> {
        let refuse = |reason, status, message| Err(Box::new(self.entrance.refuse(reason, status, message)));
        if commands.is_empty() {
            let message = "the request has no commands: send them in the body, or for GET in the parameter cf_connect";
            refuse("no_commands", StatusCode::BAD_REQUEST, message)
        } else if commands.len() > self.entrance.services.config.max_frame_size {
            refuse("too_large", StatusCode::PAYLOAD_TOO_LARGE, "the commands exceed max_frame_size")
        } else if format.encoding() == Encoding::Json && std::str::from_utf8(commands).is_err() {
            let message = "JSON commands must be UTF-8; for Protobuf, send content-type application/octet-stream";
            refuse("not_utf8", StatusCode::BAD_REQUEST, message)
        } else {
            Ok(())
        }
    }
}

/// The encoding of a request's body.
pub(super) fn encoding(headers: &HeaderMap) -> Encoding {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case(PROTOBUF) { Encoding::Protobuf } else { Encoding::Json }
}

/// Starts a connection: the head of the response, then the replies to `commands`.
fn begin(entrance: &Entrance, stream: ClientStream, format: Format, admitted: Admitted, head: Frame, commands: Bytes) {
    let inbox = entrance.services.inboxes.open(format.encoding());
    let connection = entrance.connect(stream, format, admitted, Some(inbox.address()));
    entrance.services.metrics.streams_total.with_label_values(&[transport(format)]).inc();
    connection.outbox.push(head);
    if inbox.begin(commands).is_err() {
        tracing::error!("a new inbox refused the first commands; please report this bug");
    }
    entrance.spawn(socket::serve_stream(connection, inbox));
}

/// Name of the transport in metrics, as in the SDKs.
fn transport(format: Format) -> &'static str {
    if format == Format::Sse { "sse" } else { "http_stream" }
}

/// Head of the response. No proxy may keep the response back to compress, buffer or store it.
fn head(format: Format, origin: Option<HeaderValue>) -> Frame {
    let mut headers = HeaderMap::new();
    let content_type = match format {
        Format::Sse => "text/event-stream",
        Format::StreamProtobuf => PROTOBUF,
        _ => "application/x-ndjson",
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    cors::allow(&mut headers, origin);
    let mut head = b"HTTP/1.1 200 OK\r\n".to_vec();
    for (name, value) in &headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    if format == Format::Sse {
        head.extend_from_slice(EVENTS_BEGIN);
    }
    Frame::encoded(&head)
}

/// The commands in a query, as browsers encode them (application/x-www-form-urlencoded); empty without the parameter.
fn from_query(query: Option<&str>) -> Bytes {
    let mut parameters = query.unwrap_or_default().split('&').filter_map(|parameter| parameter.split_once('='));
    let value = parameters.find(|(name, _)| *name == COMMANDS).map(|(_, value)| value);
    decoded(value.unwrap_or_default()).into()
}

/// Decodes `+` and `%XX`. A `%` without two digits stands for itself.
fn decoded(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let escaped = || crate::hex::decode(std::str::from_utf8(after.get(..2)?).ok()?);
        let (byte, size) = match *first {
            b'+' => (b' ', 0),
            b'%' => escaped().map_or((b'%', 0), |[byte]: [u8; 1]| (byte, 2)),
            other => (other, 0),
        };
        out.push(byte);
        rest = &after[size..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_in_a_query_as_browsers_write_it() {
        let query = "a=b&cf_connect=%7B%22id%22%3A1%2C%22connect%22%3A%7B%22token%22%3A%22a+b%C3%A9%22%7D%7D&c";
        assert_eq!(from_query(Some(query)), r#"{"id":1,"connect":{"token":"a bé"}}"#);
        for (query, expected) in [("cf_connect=%", "%"), ("cf_connect=%4", "%4"), ("cf_connect=%zz%41", "%zzA")] {
            assert_eq!(from_query(Some(query)), expected);
        }
        for without in [None, Some(""), Some("cf_connect"), Some("xcf_connect=a")] {
            assert_eq!(from_query(without), "");
        }
    }

    #[test]
    fn a_response_begins_with_a_head_that_promises_the_end_of_the_connection() {
        for format in [Format::StreamJson, Format::StreamProtobuf, Format::Sse] {
            let head = head(format, Some(HeaderValue::from_static("https://chat.example")));
            let text = std::str::from_utf8(head.as_bytes()).unwrap();
            assert!(text.contains("\r\nconnection: close\r\n") && text.contains("\r\n\r\n"), "{text}");
            assert!(text.contains("\r\naccess-control-allow-origin: https://chat.example\r\n"), "{text}");
            assert_eq!(text.ends_with("\r\n\r\n\r\n"), format == Format::Sse, "{text}");
            assert!(!text.contains("content-length") && !text.contains("transfer-encoding"), "{text}");
        }
    }
}
