//! Requests that open no stream or deliver no commands: each has a code, is counted, and disturbs nobody.

use crate::harness::stream_client::{StreamClient, Transport};
use crate::harness::{DEADLINE, World, until};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

struct Answer {
    status: u16,
    head: String,
    body: Value,
}

/// Sends a request and reads the answer up to the end of the connection.
async fn exchange(port: u16, request: &[u8]) -> Answer {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.expect("the gateway accepts");
    socket.write_all(request).await.expect("it can be written");
    let mut answer = Vec::new();
    timeout(DEADLINE, socket.read_to_end(&mut answer)).await.expect("an end in time").expect("an answer");
    let answer = String::from_utf8(answer).expect("a text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Answer { status, head: head.to_ascii_lowercase(), body: serde_json::from_str(body).unwrap_or_default() }
}

fn request(line: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}").into()
}

#[tokio::test]
async fn bad_requests_have_a_code_and_a_counter() {
    let world = World::start(1, false, &[("GATEWAY_REQUEST_TIMEOUT", "2"), ("GATEWAY_MAX_FRAME_SIZE", "10000")]).await;
    let (_, users) = world.room(&["alice", "bob", "eve"]).await;
    let mut bystander = StreamClient::connect(world.gateway(), Transport::HttpStream, &users[1].token).await;
    let (session, node) = (bystander.session.clone(), bystander.node.clone());
    let large = "x".repeat(10_001);
    let emulation =
        |session: &str, node: &str, data: &str| json!({"session": session, "node": node, "data": data}).to_string();
    let other = "0".repeat(32);
    let handshake = "gateway_handshakes_refused_total{reason=";
    let emulated = "gateway_emulation_requests_total{outcome=";
    let post = |path: &'static str, body: String| request(&format!("POST {path}"), "", &body);
    let cases: Vec<(Vec<u8>, u16, &str, &str)> = vec![
        (post("/connection/http_stream", String::new()), 400, "no_commands", handshake),
        (request("GET /connection/sse", "", ""), 400, "no_commands", handshake),
        (post("/connection/http_stream", large.clone()), 413, "too_large", handshake),
        (post("/connection/sse", large.clone()), 413, "too_large", handshake),
        (request("GET /connection/http_stream?cf_connect=%7B%7D", "", ""), 405, "method_not_allowed", ""),
        (request(&format!("GET /connection/sse?cf_connect={}", "x".repeat(8200)), "", ""), 414, "uri_too_long", ""),
        (request("GET /connection/sse?cf_connect=%ff", "", ""), 400, "not_utf8", handshake),
        (request("GET /emulation", "", ""), 405, "method_not_allowed", ""),
        (post("/emulation", "nonsense".to_owned()), 400, "bad_request", emulated),
        (post("/emulation", "{}".to_owned()), 404, "unknown_session", emulated),
        (post("/emulation", emulation(&other, &node, "{}")), 404, "unknown_session", emulated),
        (post("/emulation", emulation(&session, &other, "{}")), 404, "unknown_session", emulated),
        (post("/emulation", emulation(&session, "another", "{}")), 404, "unknown_session", emulated),
        (post("/emulation", emulation(&session, &node, &large)), 413, "too_large", emulated),
        (post("/emulation", "x".repeat(30_000)), 413, "too_large", emulated),
        (
            request("POST /emulation", "Content-Type: application/octet-stream\r\n", "nonsense"),
            400,
            "bad_request",
            emulated,
        ),
    ];
    for (bytes, status, code, metric) in cases {
        let name = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        let metric = format!("{metric}\"{code}\"}}");
        let before = world.gateway().metric(&metric).await;
        let answer = exchange(world.gateway().port, &bytes).await;
        assert_eq!((answer.status, &answer.body["error"]["code"]), (status, &json!(code)), "{name}");
        if metric.starts_with("gateway") {
            assert_eq!(world.gateway().metric(&metric).await, before + 1.0, "{name}: {metric}");
        }
    }
    // A body that does not arrive.
    let slow = b"POST /connection/http_stream HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{";
    let answer = exchange(world.gateway().port, slow).await;
    assert_eq!((answer.status, &answer.body["error"]["code"]), (408, &json!("request_timeout")));
    let slow = b"POST /emulation HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{";
    assert_eq!(exchange(world.gateway().port, slow).await.status, 408);

    let reply = bystander.call("rpc", json!({"method": "unknown"})).await;
    assert_eq!(reply["error"]["code"], 104, "nobody is disturbed");
}

/// A page may open streams and send commands only if its origin is allowed, and may then read the answers.
#[tokio::test]
async fn pages_of_allowed_origins_get_in_and_others_do_not() {
    let world = World::start(1, false, &[("GATEWAY_ALLOWED_ORIGINS", "https://chat.example")]).await;
    let (_, users) = world.room(&["alice", "bob", "eve"]).await;
    let port = world.gateway().port;
    let connect = json!({"id": 1, "connect": {"token": users[1].token}}).to_string();
    let paths = ["/connection/http_stream", "/connection/sse", "/emulation"];
    for path in paths {
        let ask = "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type\r\n";
        let preflight = request(&format!("OPTIONS {path}"), &format!("Origin: https://chat.example\r\n{ask}"), "");
        let answer = exchange(port, &preflight).await;
        assert_eq!(answer.status, 204, "{path}");
        for header in [
            "\r\naccess-control-allow-origin: https://chat.example",
            "\r\naccess-control-allow-headers: content-type",
            "\r\naccess-control-max-age: ",
            "\r\nvary: origin",
        ] {
            assert!(answer.head.contains(header), "{path}: {header} is not in {}", answer.head);
        }
        let methods = answer.head.split("access-control-allow-methods: ").nth(1).expect("methods");
        assert!(methods.starts_with(if path == paths[1] { "get, post, options" } else { "post, options" }), "{path}");
        for (line, body) in [("OPTIONS", ""), ("POST", connect.as_str())] {
            let foreign = request(&format!("{line} {path}"), "Origin: https://evil.example\r\n", body);
            let answer = exchange(port, &foreign).await;
            assert_eq!((answer.status, &answer.body["error"]["code"]), (403, &json!("origin")), "{line} {path}");
            assert!(!answer.head.contains("access-control-allow-origin"), "{}", answer.head);
        }
    }
    // A refusal is readable for an allowed page.
    let empty = request("POST /emulation", "Origin: https://chat.example\r\n", "{}");
    let answer = exchange(port, &empty).await;
    assert!(answer.status == 404 && answer.head.contains("access-control-allow-origin: https://chat.example"));

    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.expect("the gateway accepts");
    let allowed = request("POST /connection/http_stream", "Origin: https://chat.example\r\n", &connect);
    socket.write_all(&allowed).await.expect("it can be written");
    let (mut text, mut some) = (String::new(), vec![0; 4096]);
    while !text.contains("\"connect\"") {
        let size = timeout(DEADLINE, socket.read(&mut some)).await.expect("in time").expect("a response");
        assert!(size > 0, "ended after {text}");
        text.push_str(std::str::from_utf8(&some[..size]).expect("a text"));
    }
    assert!(text.contains("access-control-allow-origin: https://chat.example\r\n"), "{text}");
}

#[tokio::test]
async fn streams_take_the_same_places_as_websockets() {
    let settings = [("GATEWAY_MAX_CONNECTIONS", "2"), ("GATEWAY_MAX_CONNECTIONS_PER_USER", "1")];
    let world = World::start(1, false, &settings).await;
    let (_, users) = world.room(&["alice", "bob", "eve"]).await;
    let port = world.gateway().port;
    let alice = StreamClient::connect(world.gateway(), Transport::Sse, &users[0].token).await;
    let connect = json!({"id": 1, "connect": {"token": users[0].token}});
    let mut second = StreamClient::open(world.gateway(), Transport::HttpStream, std::slice::from_ref(&connect)).await;
    assert_eq!(second.closed().await, 3504, "max_connections_per_user");
    drop(second);
    let open = async |count: f64| (world.gateway().metric("gateway_connections").await == count).then_some(());
    until("a free place", async || open(1.0).await).await;
    let bob = StreamClient::connect(world.gateway(), Transport::HttpStream, &users[1].token).await;
    let third = request("POST /connection/http_stream", "", &connect.to_string());
    let answer = exchange(port, &third).await;
    assert_eq!((answer.status, &answer.body["error"]["code"]), (503, &json!("max_connections")));
    assert!(answer.head.contains("retry-after: "), "{}", answer.head);
    drop((alice, bob));
    until("free places", async || open(0.0).await).await;
    StreamClient::connect(world.gateway(), Transport::Sse, &users[0].token).await;
}
