//! Valid and invalid handshakes: RFC 6455, section 4, and HTTP's requirements for a request.

/// A request, and the expected status of the answer.
pub struct Case {
    pub name: &'static str,
    pub request: String,
    pub expected: u16,
    /// A header of the answer and its value; without a value, the header must be missing.
    pub header: Option<(&'static str, Option<&'static str>)>,
}

/// The connection ends without an answer.
const NO_ANSWER: u16 = 0;

const PATH: &str = "/connection/websocket";
/// The RFC's own example.
const RIGHT: &[(&str, &str)] = &[
    ("Host", "127.0.0.1"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Version", "13"),
];
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

fn request(line: &str, headers: &[(&str, &str)]) -> String {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("{line}\r\n{headers}\r\n")
}

/// The valid request.
pub fn right() -> String {
    request(&format!("GET {PATH} HTTP/1.1"), RIGHT)
}

/// The valid request with another value of a header, or without the header.
fn with(name: &str, value: Option<&str>) -> String {
    let changed = RIGHT.iter().filter_map(|(n, v)| if *n == name { Some((*n, value?)) } else { Some((*n, *v)) });
    request(&format!("GET {PATH} HTTP/1.1"), &changed.collect::<Vec<_>>())
}

fn and(name: &str, value: &str) -> String {
    request(&format!("GET {PATH} HTTP/1.1"), &[RIGHT, &[(name, value)]].concat())
}

fn line(line: &str) -> String {
    request(line, RIGHT)
}

pub fn all() -> Vec<Case> {
    let version = Some(("sec-websocket-version", Some("13")));
    let plain = |name, request, expected| Case { name, request, expected, header: None };
    let telling = |name, request, expected, header| Case { name, request, expected, header };
    vec![
        telling("right", right(), 101, Some(("sec-websocket-accept", Some(ACCEPT)))),
        plain("right, with a query", line(&format!("GET {PATH}?a=1 HTTP/1.1")), 101),
        plain("right, an absolute address", line(&format!("GET http://127.0.0.1{PATH} HTTP/1.1")), 101),
        plain(
            "right, in other letters",
            right()
                .replace("Upgrade: websocket", "UPGRADE: WebSocket")
                .replace("Connection: Upgrade", "connection: keep-alive, UPGRADE"),
            101,
        ),
        plain(
            "right, spaces around values",
            right()
                .replace(": ", ":   ")
                .replace("\r\n", "  \r\n")
                .replacen("HTTP/1.1  ", "HTTP/1.1", 1)
                .trim_end()
                .to_owned()
                + "\r\n\r\n",
            101,
        ),
        plain("from another origin", and("Origin", "http://elsewhere.example"), 101),
        telling(
            "permessage-deflate offered",
            and("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits"),
            101,
            Some(("sec-websocket-extensions", None)),
        ),
        telling("no subprotocol", right(), 101, Some(("sec-websocket-protocol", None))),
        telling(
            "subprotocol centrifuge-json",
            and("Sec-WebSocket-Protocol", "centrifuge-json"),
            101,
            Some(("sec-websocket-protocol", Some("centrifuge-json"))),
        ),
        telling(
            "one of two subprotocols",
            and("Sec-WebSocket-Protocol", "other, centrifuge-json"),
            101,
            Some(("sec-websocket-protocol", Some("centrifuge-json"))),
        ),
        telling("an empty subprotocol", and("Sec-WebSocket-Protocol", ""), 101, Some(("sec-websocket-protocol", None))),
        telling(
            "a list of empty subprotocols",
            and("Sec-WebSocket-Protocol", " , ,"),
            101,
            Some(("sec-websocket-protocol", None)),
        ),
        telling(
            "an empty subprotocol, then centrifuge-json in a second header",
            and("Sec-WebSocket-Protocol", "\r\nSec-WebSocket-Protocol: centrifuge-json"),
            101,
            Some(("sec-websocket-protocol", Some("centrifuge-json"))),
        ),
        plain("an empty subprotocol and one that is not spoken", and("Sec-WebSocket-Protocol", ", other"), 400),
        plain("subprotocol that is not spoken", and("Sec-WebSocket-Protocol", "other"), 400),
        plain("HTTP/1.0", line(&format!("GET {PATH} HTTP/1.0")), 400),
        plain("POST", line(&format!("POST {PATH} HTTP/1.1")), 405),
        plain("another path", line("GET /connection/websockets HTTP/1.1"), 404),
        plain("no Host", with("Host", None), 400),
        telling("no Upgrade", with("Upgrade", None), 426, Some(("upgrade", Some("websocket")))),
        plain("Upgrade to something else", with("Upgrade", Some("h2c")), 400),
        plain("no Connection", with("Connection", None), 400),
        plain("Connection: keep-alive", with("Connection", Some("keep-alive")), 400),
        plain("no key", with("Sec-WebSocket-Key", None), 400),
        plain("an empty key", with("Sec-WebSocket-Key", Some("")), 400),
        plain("a key of 15 bytes", with("Sec-WebSocket-Key", Some("AAAAAAAAAAAAAAAAAAAA")), 400),
        plain("a key of 17 bytes", with("Sec-WebSocket-Key", Some("AAAAAAAAAAAAAAAAAAAAAAA=")), 400),
        plain("a key that is not base64", with("Sec-WebSocket-Key", Some("dGhlIHNhbXBsZSBub25jZ!==")), 400),
        plain("two keys", and("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="), 400),
        telling("no version", with("Sec-WebSocket-Version", None), 426, version),
        telling("version 8", with("Sec-WebSocket-Version", Some("8")), 426, version),
        telling("version 14", with("Sec-WebSocket-Version", Some("14")), 426, version),
        telling("version 013", with("Sec-WebSocket-Version", Some("013")), 426, version),
        telling("versions 13 and 8", and("Sec-WebSocket-Version", "8"), 426, version),
        plain("a header without a name", and("", "x"), 400),
        plain("a header with a NUL", and("X-Y", "a\0b"), 400),
        plain("a body announced", and("Content-Length", "5"), 400),
        plain("a body in chunks announced", and("Transfer-Encoding", "chunked"), 400),
        plain("a head of 20000 bytes", and("X-Long", &"x".repeat(20_000)), 431),
        plain(
            "a hundred and one headers",
            request(&format!("GET {PATH} HTTP/1.1"), &[RIGHT, &[("X-Y", "z"); 96]].concat()),
            431,
        ),
        plain("not HTTP", "hello\r\n\r\n".to_owned(), 400),
        plain("TLS", "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{7c}\u{3}\u{3}\r\n\r\n".to_owned(), 400),
        plain("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), NO_ANSWER),
    ]
}
