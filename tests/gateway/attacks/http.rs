//! Malformed requests, unexpected requests and smuggled second requests, on both listeners.

use super::arena::Arena;
use crate::harness::DEADLINE;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

pub async fn run(arena: &mut Arena) {
    arena.begin("http");
    requests(arena).await;
    handshakes(arena).await;
    other_protocols(arena).await;
}

/// The statuses of the answers, until the gateway closes or is silent (`404`, `400 closed`), and the received text.
async fn raw(port: u16, bytes: &[u8]) -> (String, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("the gateway accepts");
    // The gateway may close before it has read the bytes.
    let _ = timeout(DEADLINE, stream.write_all(bytes)).await;
    let mut answer = Vec::new();
    let closed = timeout(Duration::from_millis(400), stream.read_to_end(&mut answer)).await.is_ok();
    let text = String::from_utf8_lossy(&answer).into_owned();
    let statuses = text.split("HTTP/1.").skip(1).filter_map(|answer| answer.split(' ').nth(1));
    let mut seen: Vec<&str> = statuses.collect();
    if seen.is_empty() && closed {
        seen.push("closed");
    }
    (seen.join(", "), text)
}

async fn requests(arena: &mut Arena) {
    let (port, admin) = (arena.gateway().port, arena.gateway().admin("").replace("http://127.0.0.1:", ""));
    let admin: u16 = admin.trim_end_matches('/').parse().expect("a port");
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    let socket = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\n");
    let cases: Vec<(&str, u16, String, &str)> = vec![
        ("/", port, get("/"), "404"),
        ("metrics on the public listener", port, get("/metrics"), "404"),
        ("readiness on the public listener", port, get("/readyz"), "404"),
        ("GET of the hooks", port, get("/hooks/pocketbase"), "405"),
        (
            "POST of the WebSocket",
            port,
            "POST /connection/websocket HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".into(),
            "405",
        ),
        ("the WebSocket without an upgrade", port, get("/connection/websocket"), "426"),
        ("a path with ..", port, socket("/connection/websocket/.."), "404"),
        ("a path with .. in it", port, socket("/x/../connection/websocket"), "404"),
        ("a path with //", port, socket("//connection/websocket"), "404"),
        ("a slash behind", port, socket("/connection/websocket/"), "101"),
        ("%2e%2e", port, socket("/connection/%2e%2e/connection/websocket"), "404"),
        ("a percent-encoded letter", port, socket("/connection/%77ebsocket"), "404"),
        ("a percent-encoded slash", port, socket("/connection%2fwebsocket"), "404"),
        ("capitals", port, socket("/CONNECTION/WEBSOCKET"), "404"),
        ("a backslash", port, socket("/connection\\websocket"), "404"),
        ("a semicolon", port, socket("/connection/websocket;x"), "404"),
        ("a NUL in the path", port, socket("/connection/websocket\0"), "400"),
        ("WebSocket on the admin listener", admin, socket("/connection/websocket"), "404"),
        ("WebSocket for the metrics", admin, socket("/nowhere"), "404"),
        (
            "hooks on the admin listener",
            admin,
            "POST /hooks/pocketbase HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".into(),
            "404",
        ),
        ("POST of the metrics", admin, "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".into(), "404"),
        ("CONNECT", port, "CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: x\r\n\r\n".into(), "404"),
        ("TRACE", port, "TRACE / HTTP/1.1\r\nHost: x\r\n\r\n".into(), "404"),
        ("a request to somewhere else", port, get("http://169.254.169.254/latest/meta-data"), "404"),
        ("a header of 64 KiB", port, format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(65_536)), "431"),
        ("10,000 headers", port, format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(10_000)), "431"),
        ("a path of 64 KiB", port, get(&format!("/{}", "x".repeat(65_536))), "431"),
        ("a line feed in a header", port, "GET / HTTP/1.1\r\nHost: x\r\nX: a\n b: c\r\n\r\n".into(), "400"),
        ("a space before the colon", port, "GET / HTTP/1.1\r\nHost : x\r\n\r\n".into(), "400"),
        ("HTTP/9.9", port, "GET / HTTP/9.9\r\n\r\n".into(), "400"),
        ("Content-Length twice", port, post("Content-Length: 4\r\nContent-Length: 5\r\n", "x"), "400"),
        ("Content-Length with a sign", port, post("Content-Length: +4\r\n", "xxxx"), "400"),
        ("Content-Length of 2^64", port, post("Content-Length: 18446744073709551616\r\n", "x"), "400"),
        ("an unknown Transfer-Encoding", port, post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"), "400"),
        ("a chunk of 2^64 bytes", port, post("Transfer-Encoding: chunked\r\n", "FFFFFFFFFFFFFFFFF\r\nx"), "400"),
        ("a chunk's length that is none", port, post("Transfer-Encoding: chunked\r\n", "zz\r\nx\r\n0\r\n\r\n"), "400"),
    ];
    for (name, port, request, expected) in cases {
        let (seen, _) = raw(port, request.as_bytes()).await;
        arena.score(name, expected, &seen).await;
    }
    // Two lengths: bytes after the first request must not be taken for a second request.
    for (name, head, expected) in [
        ("both lengths, CL first", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "401"),
        ("both lengths, TE first", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "401"),
        ("both lengths, one hidden", "Content-Length: 5\r\nTransfer-Encoding : chunked\r\n", "400"),
        ("both lengths, another coding", "Content-Length: 5\r\nTransfer-Encoding: identity\r\n", "400"),
    ] {
        let smuggled = post(head, "0\r\n\r\nGET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        let (seen, _) = raw(port, smuggled.as_bytes()).await;
        arena.score(&format!("{name}, with a request behind, which is not answered"), expected, &seen).await;
    }
}

fn post(head: &str, body: &str) -> String {
    format!("POST /hooks/pocketbase HTTP/1.1\r\nHost: x\r\n{head}\r\n{body}")
}

async fn handshakes(arena: &mut Arena) {
    let port = arena.gateway().port;
    let path = "/connection/websocket";
    let head = |rest: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n{rest}\r\n");
    for (name, request, expected) in [
        (
            "Upgrade: h2c",
            head("Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n"),
            "400",
        ),
        ("an upgrade to something else", head(&UPGRADE.replace("websocket", "tls")), "400"),
        ("no Connection: Upgrade", head(&UPGRADE.replace("Connection: Upgrade", "Connection: close")), "400"),
        ("version 8", head(&UPGRADE.replace("13", "8")), "426"),
        ("no key", head(&UPGRADE.replace("Sec-WebSocket-Key", "X")), "400"),
        ("HTTP/1.0", head(UPGRADE).replace("HTTP/1.1", "HTTP/1.0"), "400"),
        ("another subprotocol", head(&format!("{UPGRADE}Sec-WebSocket-Protocol: centrifuge-xml\r\n")), "400"),
        ("a subprotocol in bytes", head(&format!("{UPGRADE}Sec-WebSocket-Protocol: \u{e9}\r\n")), "400"),
    ] {
        let (seen, _) = raw(port, request.as_bytes()).await;
        arena.score(name, expected, &seen).await;
    }
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x-webkit-deflate-frame\r\n";
    let (seen, answer) = raw(port, head(&format!("{UPGRADE}{offer}")).as_bytes()).await;
    let extended = answer.to_lowercase().contains("sec-websocket-extensions");
    let seen = if seen == "101" && !extended { "not negotiated".to_owned() } else { answer };
    arena.score("an offer of compression", "not negotiated", &seen).await;
    // Bytes sent along with the handshake are a frame, not a second request.
    let (_, answer) = raw(port, format!("{}GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", head(UPGRADE)).as_bytes()).await;
    let seen = if answer.matches("HTTP/1.1").count() == 1 { "one answer" } else { "two answers" };
    arena.score("a request behind the handshake", "one answer", seen).await;
}

async fn other_protocols(arena: &mut Arena) {
    let port = arena.gateway().port;
    let hello = [&[0x16, 3, 1, 0, 0xc8, 1, 0, 0, 0xc4, 3, 3][..], &[7; 194]].concat();
    let noise: Vec<u8> = (0..5000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for (name, bytes, expected) in [
        ("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec(), "closed"),
        ("a ClientHello of TLS", hello, "400"),
        ("SSH", b"SSH-2.0-OpenSSH_9.6\r\n".to_vec(), "400"),
        ("a command of Redis", b"*1\r\n$8\r\nFLUSHALL\r\n".to_vec(), "400"),
        ("PROXY", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET / HTTP/1.1\r\n\r\n".to_vec(), "400"),
        ("noise", noise, "400"),
    ] {
        let (seen, _) = raw(port, &bytes).await;
        arena.score(name, expected, &seen).await;
    }
    // The number of open sockets is a limit; half-open sockets within the limit affect no other client.
    let mut half_open = Vec::new();
    for i in 0..300 {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("the gateway accepts");
        let begun: &[u8] = if i % 2 == 0 { b"" } else { b"GET / HT" };
        stream.write_all(begun).await.expect("it is open");
        half_open.push(stream);
    }
    let (seen, _) = raw(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    arena.score("300 requests that never end, beside one that does", "404", &seen).await;
    drop(half_open);
}
