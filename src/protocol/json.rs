//! The JSON encoding: one object per command or reply, several separated by line feeds in one text frame. Replies and
//! pushes are encoded here; [`decode`](mod@decode) reads commands.

mod decode;

pub use decode::{DecodeError, decode};

use super::codes::ErrorCode;
use super::frame::{Frame, Text};
use super::{ClientInfo, Movement, Payload, Publication, Reply};
use bytes::Bytes;
use serde::Serialize;
use serde_json::error::Category;
use serde_json::value::RawValue;

/// The server's ping, and the client's answer to it: an empty object.
pub const PING: Frame = Frame::from_static(b"\x81\x02{}");

/// Kind and place of an error in a JSON text, without the text: serde_json's own messages may repeat a whole string,
/// and so bring keys or messages into logs.
pub fn place(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        Category::Syntax | Category::Io => "not JSON",
        Category::Eof => "cut off",
        Category::Data => "not of the expected shape",
    };
    format!("{what} at line {}, column {}", error.line(), error.column())
}

/// A publication for a channel's subscribers: encoded once and shared.
pub fn publication_push(channel: &str, publication: &Publication) -> Frame {
    let mut text = Text::with_capacity(publication.data.len() + channel.len() + 96);
    let out = text.out();
    begin_push(out, channel);
    out.extend_from_slice(br#","pub":"#);
    write_publication(out, publication);
    out.extend_from_slice(b"}}");
    text.finish()
}

/// Prefix of all pushes of a channel, and of no other frame.
pub fn push_begin(channel: &str) -> Bytes {
    let mut out = Vec::new();
    begin_push(&mut out, channel);
    out.push(b',');
    out.into()
}

fn begin_push(out: &mut Vec<u8>, channel: &str) {
    out.extend_from_slice(br#"{"push":{"channel":"#);
    write_json(out, channel);
}

/// Push about a client that joined or left a channel.
pub fn movement_push(channel: &str, movement: Movement, info: &ClientInfo) -> Frame {
    #[derive(Serialize)]
    struct Who<'a> {
        info: &'a ClientInfo,
    }
    let mut text = Text::with_capacity(128);
    let out = text.out();
    begin_push(out, channel);
    out.extend_from_slice(match movement {
        Movement::Join => br#","join":"#,
        Movement::Leave => br#","leave":"#,
    });
    write_json(out, &Who { info });
    out.extend_from_slice(b"}}");
    text.finish()
}

/// Push about a subscription that the server ended.
pub fn unsubscribe_push(channel: &str, code: super::codes::UnsubscribeCode) -> Frame {
    #[derive(Serialize)]
    struct Unsubscribe {
        code: u16,
        reason: &'static str,
    }
    let mut text = Text::with_capacity(128);
    let out = text.out();
    begin_push(out, channel);
    out.extend_from_slice(br#","unsubscribe":"#);
    write_json(out, &Unsubscribe { code: code.code, reason: code.reason });
    out.extend_from_slice(b"}}");
    text.finish()
}

/// The reply to the command with this id.
pub fn reply(id: u32, reply: &Reply) -> Frame {
    let mut text = Text::with_capacity(128);
    let out = text.out();
    out.extend_from_slice(br#"{"id":"#);
    write_json(out, &id);
    out.push(b',');
    write_reply(out, reply);
    out.push(b'}');
    text.finish()
}

fn write_reply(out: &mut Vec<u8>, reply: &Reply) {
    match reply {
        Reply::Connect(connect) => {
            #[derive(Serialize)]
            struct Connect<'a> {
                client: &'a str,
                version: &'static str,
                #[serde(skip_serializing_if = "std::ops::Not::not")]
                expires: bool,
                #[serde(skip_serializing_if = "Option::is_none")]
                ttl: Option<u32>,
                ping: u32,
                pong: bool,
            }
            out.extend_from_slice(br#""connect":"#);
            let &super::ConnectReply { ref client, ttl, ping } = connect;
            write_json(out, &Connect { client, version: VERSION, expires: ttl.is_some(), ttl, ping, pong: true });
        }
        Reply::Subscribe(subscribe) => {
            out.extend_from_slice(br#""subscribe":{"recoverable":true,"positioned":true,"epoch":"#);
            write_json(out, &subscribe.position.epoch);
            out.extend_from_slice(br#","offset":"#);
            write_json(out, &subscribe.offset());
            if let Some(recovered) = subscribe.recovered {
                out.extend_from_slice(br#","was_recovering":true,"recovered":"#);
                write_json(out, &recovered);
            }
            if !subscribe.publications.is_empty() {
                out.extend_from_slice(br#","publications":"#);
                write_publications(out, &subscribe.publications);
            }
            out.push(b'}');
        }
        Reply::SubscribeState(state) => {
            out.extend_from_slice(br#""subscribe":{"data":"#);
            out.extend_from_slice(state.as_bytes());
            out.push(b'}');
        }
        Reply::Rpc(data) => {
            out.extend_from_slice(br#""rpc":{"data":"#);
            out.extend_from_slice(data.as_bytes());
            out.push(b'}');
        }
        Reply::Unsubscribe => out.extend_from_slice(br#""unsubscribe":{}"#),
        Reply::Publish => out.extend_from_slice(br#""publish":{}"#),
        Reply::History { publications, position } => {
            out.extend_from_slice(br#""history":{"publications":"#);
            write_publications(out, publications);
            out.extend_from_slice(br#","epoch":"#);
            write_json(out, &position.epoch);
            out.extend_from_slice(br#","offset":"#);
            write_json(out, &position.offset);
            out.push(b'}');
        }
        Reply::Presence(clients) => {
            out.extend_from_slice(br#""presence":{"presence":"#);
            let by_client: std::collections::BTreeMap<&str, &ClientInfo> =
                clients.iter().map(|info| (&*info.client, info)).collect();
            write_json(out, &by_client);
            out.push(b'}');
        }
        Reply::PresenceStats { clients, users } => {
            #[derive(Serialize)]
            struct Stats {
                num_clients: usize,
                num_users: usize,
            }
            out.extend_from_slice(br#""presence_stats":"#);
            write_json(out, &Stats { num_clients: *clients, num_users: *users });
        }
        Reply::Refresh { client, ttl } => {
            #[derive(Serialize)]
            struct Refresh<'a> {
                client: &'a str,
                version: &'static str,
                expires: bool,
                ttl: u32,
            }
            out.extend_from_slice(br#""refresh":"#);
            write_json(out, &Refresh { client, version: VERSION, expires: true, ttl: *ttl });
        }
        Reply::Ping => out.extend_from_slice(br#""ping":{}"#),
        Reply::Error(ErrorCode { code, message, temporary }) => {
            #[derive(Serialize)]
            struct Error {
                code: u16,
                message: &'static str,
                #[serde(skip_serializing_if = "std::ops::Not::not")]
                temporary: bool,
            }
            out.extend_from_slice(br#""error":"#);
            write_json(out, &Error { code: *code, message, temporary: *temporary });
        }
    }
}

const VERSION: &str = concat!("konvert-gateway ", env!("CARGO_PKG_VERSION"));

fn write_publications(out: &mut Vec<u8>, publications: &[Publication]) {
    out.push(b'[');
    for (i, publication) in publications.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write_publication(out, publication);
    }
    out.push(b']');
}

fn write_publication(out: &mut Vec<u8>, publication: &Publication) {
    out.extend_from_slice(br#"{"data":"#);
    out.extend_from_slice(publication.data.as_bytes());
    if let Some(info) = &publication.info {
        out.extend_from_slice(br#","info":"#);
        write_json(out, info);
    }
    if publication.offset > 0 {
        out.extend_from_slice(br#","offset":"#);
        write_json(out, &publication.offset);
    }
    out.push(b'}');
}

fn write_json<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).expect("strings, numbers and maps of them always encode");
}

impl Payload {
    /// From the text of a JSON value, for tests and for the gateway's own messages.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str::<&RawValue>(text).map(Self::from_raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Command, ConnectReply, Position, SubscribeReply, codes};
    use serde::Deserialize;

    /// A line of `proto/golden/*.ndjson`: the frame, and the meaning in this crate's Debug format.
    #[derive(Deserialize)]
    struct Golden {
        name: String,
        frame: String,
        #[serde(default)]
        means: Vec<String>,
    }

    fn golden(text: &'static str) -> Vec<Golden> {
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn in_words(frame: &str) -> Vec<String> {
        decode(frame)
            .map(|command| match command {
                Ok(Command { id, request }) => format!("{id} {request:?}"),
                Err(DecodeError::Json(_)) => "malformed".to_owned(),
                Err(error) => error.to_string(),
            })
            .collect()
    }

    #[test]
    fn golden_commands_mean_what_the_document_says() {
        let frames = golden(include_str!("../../proto/golden/commands.ndjson"));
        assert!(frames.len() >= 20);
        for Golden { name, frame, means } in frames {
            assert_eq!(in_words(&frame), means, "{name}");
        }
    }

    fn publication(offset: u64, data: &str, info: Option<(&str, &str)>) -> Publication {
        let info = info.map(|(user, client)| ClientInfo { user: user.into(), client: client.into() });
        Publication { offset, at: 0, data: Payload::parse(data).unwrap(), info }
    }

    fn position(offset: u64) -> Position {
        Position { offset, epoch: "h3Kx".into() }
    }

    #[test]
    fn replies_and_pushes_are_the_golden_ones() {
        let message = || publication(7, r#"{"action":"create"}"#, None);
        let typing = || publication(0, "{\"type\":\n\"typing\"}", Some(("u1", "c1")));
        let info = |user: &str, client: &str| ClientInfo { user: user.into(), client: client.into() };
        let status =
            || Payload::parse(r#"{"status":"away","last_seen":1795219200000,"version":1795219200000123}"#).unwrap();
        let subscribe = |recovered, publications| {
            Reply::Subscribe(SubscribeReply { position: position(7), recovered, publications })
        };
        let made: Vec<(&str, Frame)> = vec![
            ("connect", reply(1, &Reply::Connect(ConnectReply { client: "c1".into(), ttl: Some(3600), ping: 25 }))),
            (
                "connect as a guest",
                reply(1, &Reply::Connect(ConnectReply { client: "c1".into(), ttl: None, ping: 25 })),
            ),
            ("subscribe", reply(2, &subscribe(None, vec![]))),
            ("subscribe recovered", reply(3, &subscribe(Some(true), vec![message()]))),
            ("subscribe not recovered", reply(4, &subscribe(Some(false), vec![]))),
            ("subscribe to a status", reply(14, &Reply::SubscribeState(status()))),
            ("unsubscribe", reply(5, &Reply::Unsubscribe)),
            ("publish", reply(6, &Reply::Publish)),
            ("history", reply(7, &Reply::History { publications: vec![message()], position: position(7) })),
            ("presence", reply(8, &Reply::Presence(vec![info("u1", "c1"), info("u2", "c2")]))),
            ("presence stats", reply(9, &Reply::PresenceStats { clients: 2, users: 1 })),
            ("refresh", reply(10, &Reply::Refresh { client: "c1".into(), ttl: 3600 })),
            ("ping", reply(11, &Reply::Ping)),
            ("rpc", reply(15, &Reply::Rpc(status()))),
            ("error", reply(12, &Reply::Error(codes::PERMISSION_DENIED))),
            ("temporary error", reply(13, &Reply::Error(codes::INTERNAL))),
            ("publication", publication_push("room:a\"b", &message())),
            ("signal", publication_push("room:a", &typing())),
            ("status", publication_push("status:u1", &Publication { offset: 0, at: 0, data: status(), info: None })),
            ("join", movement_push("room:a", Movement::Join, &info("u1", "c1"))),
            ("leave", movement_push("room:a", Movement::Leave, &info("u1", "c1"))),
            ("unsubscribe push", unsubscribe_push("room:a", codes::INSUFFICIENT_STATE)),
            ("server ping", PING),
        ];
        let golden = golden(include_str!("../../proto/golden/replies.ndjson"));
        let golden: Vec<(&str, &str)> = golden.iter().map(|g| (g.name.as_str(), g.frame.as_str())).collect();
        let made: Vec<(&str, &str)> = made.iter().map(|(n, b)| (*n, std::str::from_utf8(b.text()).unwrap())).collect();
        assert_eq!(made, golden);
    }
}
