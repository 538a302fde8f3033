//! The JSON encoding: one object per command, reply or push, several separated by line feeds. [`decode`](mod@decode)
//! reads commands; [`encode`](super::encode) frames the replies and pushes that are written here.

mod decode;

pub(super) use decode::{Envelopes, envelopes, or_default, pongs, raw, text};

use super::codes::{Disconnect, ErrorCode, UnsubscribeCode};
use super::encode::{Push, VERSION};
use super::{ClientInfo, Movement, Publication, Reply};
use serde::Serialize;
use serde_json::error::Category;

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

/// Prefix of all pushes of a channel, and of no other message.
pub(super) fn push_begin(channel: &str) -> Vec<u8> {
    let mut out = Vec::new();
    begin_push(&mut out, channel);
    out.push(b',');
    out
}

fn begin_push(out: &mut Vec<u8>, channel: &str) {
    out.extend_from_slice(br#"{"push":{"channel":"#);
    write_json(out, channel);
}

pub(super) fn write_push(out: &mut Vec<u8>, channel: &str, push: &Push<'_>) {
    begin_push(out, channel);
    match push {
        Push::Publication(publication) => {
            out.extend_from_slice(br#","pub":"#);
            write_publication(out, publication);
        }
        Push::Movement(movement, info) => {
            #[derive(Serialize)]
            struct Client<'a> {
                info: &'a ClientInfo,
            }
            out.extend_from_slice(match movement {
                Movement::Join => br#","join":"#,
                Movement::Leave => br#","leave":"#,
            });
            write_json(out, &Client { info });
        }
        Push::Unsubscribe(UnsubscribeCode { code, reason }) => {
            #[derive(Serialize)]
            struct Unsubscribe {
                code: u16,
                reason: &'static str,
            }
            out.extend_from_slice(br#","unsubscribe":"#);
            write_json(out, &Unsubscribe { code: *code, reason });
        }
    }
    out.extend_from_slice(b"}}");
}

/// The push that ends a stream.
pub(super) fn write_disconnect(out: &mut Vec<u8>, Disconnect { code, reason }: Disconnect) {
    #[derive(Serialize)]
    struct End {
        code: u16,
        reason: &'static str,
    }
    out.extend_from_slice(br#"{"push":{"disconnect":"#);
    write_json(out, &End { code, reason });
    out.extend_from_slice(b"}}");
}

/// The reply to the command with this id.
pub(super) fn write_reply(out: &mut Vec<u8>, id: u32, reply: &Reply) {
    out.extend_from_slice(br#"{"id":"#);
    write_json(out, &id);
    out.push(b',');
    write_content(out, reply);
    out.push(b'}');
}

fn write_content(out: &mut Vec<u8>, reply: &Reply) {
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
                #[serde(skip_serializing_if = "Option::is_none")]
                session: Option<&'a str>,
                #[serde(skip_serializing_if = "Option::is_none")]
                node: Option<&'a str>,
            }
            out.extend_from_slice(br#""connect":"#);
            let &super::ConnectReply { ref client, ttl, ping, ref stream } = connect;
            let (session, node) = stream.as_ref().map(|it| (&*it.session, &*it.node)).unzip();
            let (version, expires) = (VERSION, ttl.is_some());
            write_json(out, &Connect { client, version, expires, ttl, ping, pong: true, session, node });
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
