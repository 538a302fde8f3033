//! Golden frames in both encodings.

use super::decode::{ClientFrame, DecodeError};
use super::encode::Push;
use super::format::Format;
use super::frame::Frame;
use super::*;
use serde::Deserialize;

/// A line of `proto/golden/*.ndjson`: the frame in JSON and in Protobuf (hexadecimal), as far as an encoding has such a
/// frame, and the meaning of commands in this crate's Debug format.
#[derive(Deserialize)]
struct Golden {
    name: String,
    frame: String,
    protobuf: Option<String>,
    #[serde(default)]
    means: Vec<String>,
}

fn golden(text: &'static str) -> Vec<Golden> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn in_words(frame: &ClientFrame) -> Vec<String> {
    let words = frame.commands().map(|command| match command {
        Ok(Command { id, request }) => format!("{id} {request:?}"),
        Err(DecodeError::Json(_) | DecodeError::Protobuf(_) | DecodeError::CutOff) => "malformed".to_owned(),
        Err(error) => error.to_string(),
    });
    words.collect()
}

#[test]
fn golden_commands_mean_what_the_document_says_in_both_encodings() {
    let mut counts = (0, 0);
    for Golden { name, frame, protobuf, means } in golden(include_str!("../../proto/golden/commands.ndjson")) {
        assert_eq!(in_words(&ClientFrame::Json(frame.into())), means, "{name}");
        counts.0 += 1;
        if let Some(protobuf) = protobuf {
            assert_eq!(in_words(&ClientFrame::Protobuf(bytes(&protobuf).into())), means, "{name}");
            counts.1 += 1;
        }
    }
    assert!(counts.0 >= 40 && counts.1 >= 30, "{counts:?}");
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn publication(offset: u64, data: &str, info: Option<(&str, &str)>) -> Publication {
    let info = info.map(|(user, client)| ClientInfo { user: user.into(), client: client.into() });
    Publication { offset, at: 0, data: Payload::parse(data).unwrap(), info }
}

fn position(offset: u64) -> Position {
    Position { offset, epoch: "h3Kx".into() }
}

fn client(user: &str, client: &str) -> ClientInfo {
    ClientInfo { user: user.into(), client: client.into() }
}

/// The reply to `connect`; for a stream with session and node.
fn connected(ttl: Option<u32>, stream: Option<(&str, &str)>) -> Reply {
    let address = |(session, node): (&str, &str)| StreamAddress { session: session.into(), node: node.into() };
    Reply::Connect(ConnectReply { client: "c1".into(), ttl, ping: 25, stream: stream.map(address) })
}

/// The golden replies and pushes, by name.
fn made(format: Format) -> Vec<(&'static str, Frame)> {
    let message = || publication(7, r#"{"action":"create"}"#, None);
    let typing = || publication(0, "{\"type\":\n\"typing\"}", Some(("u1", "c1")));
    let state = r#"{"status":"away","last_seen":1795219200000,"version":1795219200000123}"#;
    let status = || Payload::parse(state).unwrap();
    let subscribe =
        |recovered, publications| Reply::Subscribe(SubscribeReply { position: position(7), recovered, publications });
    let reply = |id, reply: Reply| encode::reply(format, id, &reply);
    let push = |channel: &str, push: Push| encode::push(format, channel, &push);
    vec![
        ("connect", reply(1, connected(Some(3600), None))),
        ("connect as a guest", reply(1, connected(None, None))),
        ("connect over a stream", reply(1, connected(Some(3600), Some(("s1", "n1"))))),
        ("subscribe", reply(2, subscribe(None, vec![]))),
        ("subscribe recovered", reply(3, subscribe(Some(true), vec![message()]))),
        ("subscribe not recovered", reply(4, subscribe(Some(false), vec![]))),
        ("subscribe to a status", reply(14, Reply::SubscribeState(status()))),
        ("unsubscribe", reply(5, Reply::Unsubscribe)),
        ("publish", reply(6, Reply::Publish)),
        ("history", reply(7, Reply::History { publications: vec![message()], position: position(7) })),
        ("presence", reply(8, Reply::Presence(vec![client("u1", "c1"), client("u2", "c2")]))),
        ("presence stats", reply(9, Reply::PresenceStats { clients: 2, users: 1 })),
        ("refresh", reply(10, Reply::Refresh { client: "c1".into(), ttl: 3600 })),
        ("ping", reply(11, Reply::Ping)),
        ("rpc", reply(15, Reply::Rpc(status()))),
        ("error", reply(12, Reply::Error(codes::PERMISSION_DENIED))),
        ("temporary error", reply(13, Reply::Error(codes::INTERNAL))),
        ("publication", push("room:a\"b", Push::Publication(&message()))),
        ("signal", push("room:a", Push::Publication(&typing()))),
        ("status", push("status:u1", Push::Publication(&publication(0, state, None)))),
        ("join", push("room:a", Push::Movement(Movement::Join, &client("u1", "c1")))),
        ("leave", push("room:a", Push::Movement(Movement::Leave, &client("u1", "c1")))),
        ("unsubscribe push", push("room:a", Push::Unsubscribe(codes::INSUFFICIENT_STATE))),
        ("disconnect push", encode::disconnect(format, codes::SLOW)),
        ("server ping", encode::ping(format)),
    ]
}

#[test]
fn replies_and_pushes_are_the_golden_ones() {
    let golden = golden(include_str!("../../proto/golden/replies.ndjson"));
    let json: Vec<(&str, &str)> = golden.iter().map(|g| (g.name.as_str(), g.frame.as_str())).collect();
    let made_json = made(Format::WebSocketJson);
    let texts: Vec<_> = made_json.iter().map(|(name, it)| (*name, std::str::from_utf8(it.text()).unwrap())).collect();
    assert_eq!(texts, json);
    for (golden, (name, frame)) in golden.iter().zip(made(Format::WebSocketProtobuf)) {
        assert_eq!(Some(crate::hex::encode(frame.text())), golden.protobuf, "{name}");
    }
}

#[test]
fn the_pushes_of_a_channel_are_found_in_every_format() {
    use Format::*;
    for format in [WebSocketJson, WebSocketProtobuf, StreamJson, StreamProtobuf, Sse] {
        for channel in ["room:a", "room:a\"b", "room:"] {
            let is = format.pushes_of(channel);
            for (name, frame) in made(format) {
                let expected = match name {
                    "publication" => channel == "room:a\"b",
                    "signal" | "join" | "leave" | "unsubscribe push" => channel == "room:a",
                    _ => false,
                };
                assert_eq!(is(&frame), expected, "{name} and {channel} in {format:?}");
            }
        }
    }
}

/// Message, name and number of each field.
type Fields = Vec<(String, String, u32)>;

fn fields_of_proto(text: &str) -> Fields {
    let (mut message, mut fields) = ("", Fields::new());
    for line in text.lines().map(|line| line.split("//").next().unwrap().trim()) {
        if let Some(rest) = line.strip_prefix("message ") {
            message = rest.split(' ').next().unwrap();
        } else if let Some((field, number)) = line.trim_end_matches(';').split_once(" = ")
            && let Ok(number) = number.parse()
        {
            let name = field.rsplit(' ').next().unwrap();
            fields.push((message.to_lowercase(), name.to_owned(), number));
        }
    }
    fields
}

fn fields_of_rust(text: &str) -> Fields {
    let (mut message, mut number, mut fields) = ("", None, Fields::new());
    for line in text.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("pub struct ") {
            message = rest.split(' ').next().unwrap();
        } else if let Some((_, tag)) = line.split_once("tag = \"") {
            number = tag.split('"').next().unwrap().parse().ok();
        } else if let Some((name, _)) = line.strip_prefix("pub ").and_then(|line| line.split_once(':'))
            && let Some(number) = number.take()
        {
            fields.push((message.to_lowercase(), name.trim_start_matches("r#").to_owned(), number));
        }
    }
    fields
}

/// The file is generated by hand, see `proto/generate`.
#[test]
fn the_generated_messages_are_those_of_the_proto_file() {
    let proto = fields_of_proto(include_str!("../../proto/client.proto"));
    assert!(proto.len() > 60, "{}", proto.len());
    assert_eq!(fields_of_rust(include_str!("messages.rs")), proto);
}
