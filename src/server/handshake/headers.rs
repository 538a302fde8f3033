//! Checks of a handshake's headers (RFC 6455, section 4.2.1) that tungstenite does not make.

use crate::protocol::format::Encoding;
use crate::server::respond::Answer;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderValue, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use hyper::{StatusCode, header::HeaderName};

/// The subprotocols, each with its encoding.
pub const SUBPROTOCOLS: [(&str, Encoding); 2] =
    [("centrifuge-json", Encoding::Json), ("centrifuge-protobuf", Encoding::Protobuf)];

/// Reason for refusing a handshake: a code for error bodies and metrics, and a sentence.
pub struct Fault {
    pub reason: &'static str,
    pub status: StatusCode,
    pub message: &'static str,
}

pub fn fault(headers: &HeaderMap) -> Option<Fault> {
    let fault = |reason, status, message| Some(Fault { reason, status, message });
    let bad = |message| fault("bad_handshake", StatusCode::BAD_REQUEST, message);
    let count = |name: HeaderName| headers.get_all(name).iter().count();
    let announces_length = headers.get_all(CONTENT_LENGTH).iter().any(|length| length != "0");
    if !headers.contains_key(UPGRADE) {
        let message = "this path accepts WebSocket connections only; connect with a Centrifuge SDK";
        fault("not_a_websocket", StatusCode::UPGRADE_REQUIRED, message)
    } else if count(HOST) != 1 {
        bad("one Host header is required")
    } else if announces_length || headers.contains_key(TRANSFER_ENCODING) {
        // A proxy in between may interpret a body differently than the gateway.
        bad("a handshake has no body")
    } else if count(SEC_WEBSOCKET_KEY) != 1 {
        bad("one Sec-WebSocket-Key header is required")
    } else if count(SEC_WEBSOCKET_VERSION) != 1 || headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|one| one != "13") {
        fault("unsupported_version", StatusCode::UPGRADE_REQUIRED, "only WebSocket version 13 is supported")
    } else {
        None
    }
}

/// The subprotocols that a client offers.
#[derive(Debug, PartialEq)]
pub enum Subprotocols {
    None,
    /// The first of [`SUBPROTOCOLS`] that the client offers.
    Ours(&'static str, Encoding),
    OnlyOthers,
}

/// Reads all `Sec-WebSocket-Protocol` headers as one list without empty elements (RFC 9110, section 5.6.1): clients
/// may send the header without a value if they offer no subprotocol.
pub fn subprotocols(headers: &HeaderMap) -> Subprotocols {
    let lists = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let mut offered = lists.flat_map(|list| list.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    let found = offered.try_fold(Subprotocols::None, |so_far, one| {
        if one.is_empty() {
            return Ok(so_far);
        }
        match SUBPROTOCOLS.iter().find(|(ours, _)| ours.as_bytes() == one) {
            Some((ours, encoding)) => Err(Subprotocols::Ours(ours, *encoding)),
            None => Ok(Subprotocols::OnlyOthers),
        }
    });
    match found {
        Ok(offers) | Err(offers) => offers,
    }
}

/// The encoding that the query asks for (`format=protobuf` or `cf_protocol=protobuf`), for clients that send no
/// subprotocol.
pub fn encoding(query: Option<&str>) -> Encoding {
    let mut parameters = query.unwrap_or_default().split('&');
    if parameters.any(|parameter| matches!(parameter, "format=protobuf" | "cf_protocol=protobuf")) {
        Encoding::Protobuf
    } else {
        Encoding::Json
    }
}

/// Adds the headers that HTTP and RFC 6455 (section 4.4) require with status 426.
pub fn invite(mut refusal: Answer) -> Answer {
    if refusal.status() == StatusCode::UPGRADE_REQUIRED {
        let headers = refusal.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    }
    refusal
}
