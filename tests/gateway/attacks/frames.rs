//! Frames outside the protocol, too many frames, and frames above the size limit.

use super::arena::{Arena, outcome};
use crate::harness::client::Client;
use crate::harness::translation::{self, PROTOBUF};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::{Frame, coding};

fn data(kind: coding::Data, payload: impl Into<Vec<u8>>, last: bool) -> Message {
    let kind = if *PROTOBUF && kind == coding::Data::Text { coding::Data::Binary } else { kind };
    Message::Frame(Frame::message(payload.into(), coding::OpCode::Data(kind), last))
}

pub async fn run(arena: &mut Arena) {
    arena.begin("frames");
    let channel = arena.channel();
    let deep = |levels: usize| "[".repeat(levels);
    let rsv1 = || {
        let mut frame = Frame::message(r#"{"id":2,"ping":{}}"#, coding::OpCode::Data(coding::Data::Text), true);
        frame.header_mut().rsv1 = true;
        Message::Frame(frame)
    };
    let broken_text = if *PROTOBUF { "3501" } else { "1007" };
    let mut cases: Vec<(&str, Vec<Message>, &str)> = vec![
        ("binary", vec![Message::binary(b"{}".to_vec())], "3501"),
        ("not UTF-8", vec![data(coding::Data::Text, [0xff, 0xfe], true)], broken_text),
        ("half a character", vec![data(coding::Data::Text, [b'"', 0xe2, 0x82], true)], broken_text),
        ("too big by one byte", vec![Message::text(" ".repeat(65_537))], "1009"),
        ("10 MB", vec![Message::text("x".repeat(10_000_000))], "1009"),
        ("fragments that add up to 10 MB", fragments(1000, 10_000), "1009"),
        ("a continuation of nothing", vec![data(coding::Data::Continue, "x", true)], "1002"),
        ("a new message within another", vec![data(coding::Data::Text, "{", false), Message::text("{}")], "1002"),
        ("a frame said to be compressed", vec![rsv1()], "1002"),
    ];
    for (name, text) in [
        ("not JSON", "hello".to_owned()),
        ("cut off", "{".to_owned()),
        ("null", "null".to_owned()),
        ("a number", "7".to_owned()),
        ("an unknown command", r#"{"id":2,"explode":{}}"#.to_owned()),
        ("no id", format!(r#"{{"presence":{{"channel":"{channel}"}}}}"#)),
        ("id 0", r#"{"id":0,"ping":{}}"#.to_owned()),
        ("id negative", r#"{"id":-1,"ping":{}}"#.to_owned()),
        ("id 2^32", r#"{"id":4294967296,"ping":{}}"#.to_owned()),
        ("id a string", r#"{"id":"1","ping":{}}"#.to_owned()),
        ("id twice", r#"{"id":1,"id":2,"ping":{}}"#.to_owned()),
        ("a command twice", format!(r#"{{"id":1,"history":{{"channel":"{channel}"}},"history":{{"channel":"x"}}}}"#)),
        ("a pong without a ping", "{}".to_owned()),
        ("10,000 pongs without a ping", "{}\n".repeat(10_000)),
        ("30,000 opened brackets", deep(30_000)),
        ("30,000 opened brackets in a field", format!(r#"{{"id":1,"ping":{{"x":{}"#, deep(30_000))),
        ("a byte order mark", "\u{feff}{\"id\":1,\"ping\":{}}".to_owned()),
        ("NUL", "\0".to_owned()),
        ("a comment", "/* */{\"id\":1,\"ping\":{}}".to_owned()),
    ] {
        cases.push((name, vec![Message::text(text)], "3501"));
    }
    for (name, messages, expected) in cases {
        let mut client = Client::connect(arena.gateway(), &arena.eve.token).await;
        for message in messages {
            client.send_raw(message).await;
        }
        let seen = client.closed().await.0.to_string();
        arena.score(name, expected, &seen).await;
    }
    floods(arena).await;
}

/// Fragments of a message without an end.
fn fragments(count: usize, size: usize) -> Vec<Message> {
    let kind = |i| if i == 0 { coding::Data::Text } else { coding::Data::Continue };
    (0..count).map(|i| data(kind(i), vec![b' '; size], false)).collect()
}

/// Nothing forbids these frames, so they must be harmless.
async fn floods(arena: &mut Arena) {
    let pings = |range: std::ops::RangeInclusive<u32>| {
        range.map(|id| json!({"id": id, "ping": {}}).to_string()).collect::<Vec<_>>().join("\n")
    };
    let mut client = Client::connect(arena.gateway(), &arena.eve.token).await;
    client.send(&pings(1..=1000)).await;
    let seen = outcome(&mut client, 1000).await;
    arena.score("1,000 commands in one frame: each is answered", "ok", &seen).await;

    for _ in 0..5000 {
        client.send_raw(Message::Ping(vec![b'x'; 125].into())).await;
    }
    let seen = arena.command(&mut client, "ping", &json!({})).await;
    arena.score("5,000 pings of WebSocket's own", "ok", &seen).await;

    for message in fragments(5000, 0) {
        client.send_raw(message).await;
    }
    let ping = r#"{"id":7,"ping":{}}"#;
    let ping = if *PROTOBUF { translation::commands(ping) } else { ping.into() };
    client.send_raw(data(coding::Data::Continue, ping, true)).await;
    let seen = outcome(&mut client, 7).await;
    arena.score("5,000 empty fragments before a command", "ok", &seen).await;

    let mut client = Client::open(&arena.gateway().websocket()).await;
    for _ in 0..5000 {
        client.send_raw(Message::Ping(Vec::new().into())).await;
    }
    client.send("x").await;
    let seen = client.closed().await.0.to_string();
    arena.score("5,000 pings without a token, then nonsense", "3501", &seen).await;
}
