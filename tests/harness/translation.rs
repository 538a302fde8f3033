//! Translation between the JSON that tests write and read, and Protobuf frames: with `TEST_ENCODING=protobuf`, the same
//! tests run in the other encoding.

use konvert_gateway::protocol::messages::{self, ClientInfo, Publication};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// Whether clients of the tests speak Protobuf.
pub static PROTOBUF: LazyLock<bool> =
    LazyLock::new(|| std::env::var("TEST_ENCODING").is_ok_and(|encoding| encoding == "protobuf"));

/// The commands of a text in Protobuf. Text that is not JSON is passed on as it is, and means nothing in Protobuf either.
pub fn commands(text: &str) -> Vec<u8> {
    let mut objects = serde_json::Deserializer::from_str(text).into_iter::<BTreeMap<String, &RawValue>>();
    let (mut frame, mut read) = (Vec::new(), 0);
    while let Some(Ok(object)) = objects.next() {
        let end = objects.byte_offset();
        if serde_json::from_str::<Fields>(&text[read..end]).is_err() {
            break;
        }
        frame.extend(command(&object));
        read = end;
    }
    let rest = &text[read..];
    // White space behind the last object means nothing; alone, it is too short or too long for a frame.
    if read == 0 || !rest.trim_ascii().is_empty() {
        frame.extend_from_slice(rest.as_bytes());
    }
    frame
}

/// Refuses commands without a counterpart: in Protobuf, the last of two fields counts, and an id is always a number of 32
/// bits.
#[derive(Deserialize)]
#[expect(dead_code, reason = "only whether the fields can be read counts")]
struct Fields {
    id: Option<u32>,
    ping: Option<IgnoredAny>,
    history: Option<IgnoredAny>,
    subscribe: Option<IgnoredAny>,
    publish: Option<IgnoredAny>,
}

fn command(command: &BTreeMap<String, &RawValue>) -> Vec<u8> {
    let mut message = Vec::new();
    for (name, content) in command {
        if name == "id" {
            encode_key(1, WireType::Varint, &mut message);
            encode_varint(content.get().parse().expect("an id"), &mut message);
        } else if content.get() != "null"
            && let Some((number, content)) = encoded(name, content)
        {
            encode_key(number, WireType::LengthDelimited, &mut message);
            encode_varint(content.len() as u64, &mut message);
            message.extend(content);
        }
    }
    let mut delimited = Vec::new();
    encode_varint(message.len() as u64, &mut delimited);
    delimited.extend(message);
    delimited
}

/// Field number and content of a request; `None` for an unknown request.
fn encoded(name: &str, content: &RawValue) -> Option<(u32, Vec<u8>)> {
    // A content of another shape becomes bytes that are no message.
    fn message<M: Message + Default + DeserializeOwned>(content: &RawValue) -> Vec<u8> {
        serde_json::from_str::<M>(content.get()).map_or_else(|_| vec![0xff], |message| message.encode_to_vec())
    }
    Some(match name {
        "connect" => (4, message::<messages::ConnectRequest>(content)),
        "subscribe" => (5, message::<messages::SubscribeRequest>(content)),
        "unsubscribe" => (6, message::<messages::UnsubscribeRequest>(content)),
        "publish" => (7, message::<messages::PublishRequest>(content)),
        "presence" => (8, message::<messages::PresenceRequest>(content)),
        "presence_stats" => (9, message::<messages::PresenceStatsRequest>(content)),
        "history" => (10, message::<messages::HistoryRequest>(content)),
        "ping" => (11, Vec::new()),
        "send" => (12, Vec::new()),
        "rpc" => (13, message::<messages::RpcRequest>(content)),
        "refresh" => (14, message::<messages::RefreshRequest>(content)),
        "sub_refresh" => (15, message::<messages::SubRefreshRequest>(content)),
        _ => return None,
    })
}

/// The replies of a Protobuf frame, one line of JSON each.
pub fn replies(mut frame: &[u8]) -> String {
    let mut lines = Vec::new();
    while !frame.is_empty() {
        let reply = messages::Reply::decode_length_delimited(&mut frame).expect("a frame is Protobuf");
        lines.push(json(&reply).to_string());
    }
    lines.join("\n")
}

pub fn json(reply: &messages::Reply) -> Value {
    let mut fields = Map::new();
    let mut set = |name: &str, value: Option<Value>| value.and_then(|value| fields.insert(name.to_owned(), value));
    set("id", (reply.id > 0).then(|| reply.id.into()));
    set(
        "error",
        reply
            .error
            .as_ref()
            .map(|it| present(json!({"code": it.code, "message": it.message, "temporary": it.temporary}))),
    );
    set("push", reply.push.as_ref().map(push));
    set(
        "connect",
        reply.connect.as_ref().map(|it| {
            let messages::ConnectResult { client, version, expires, ttl, ping, pong, session, node } = it;
            present(json!({
                "client": client, "version": version, "expires": expires, "ttl": ttl, "ping": ping, "pong": pong,
                "session": session, "node": node,
            }))
        }),
    );
    set(
        "subscribe",
        reply.subscribe.as_ref().map(|it| {
            let mut result = present(json!({
                "recoverable": it.recoverable, "positioned": it.positioned, "epoch": it.epoch,
                "was_recovering": it.was_recovering,
            }));
            if !it.data.is_empty() {
                result["data"] = data(&it.data);
            }
            if it.positioned {
                result["offset"] = it.offset.into();
            }
            if it.was_recovering {
                result["recovered"] = it.recovered.into();
            }
            if !it.publications.is_empty() {
                result["publications"] = it.publications.iter().map(publication).collect();
            }
            result
        }),
    );
    set("unsubscribe", reply.unsubscribe.as_ref().map(|_| json!({})));
    set("publish", reply.publish.as_ref().map(|_| json!({})));
    set("presence", reply.presence.as_ref().map(|it| {
        json!({"presence": it.presence.iter().map(|(id, info)| (id.clone(), client(info))).collect::<Map<_, _>>()})
    }));
    set(
        "presence_stats",
        reply.presence_stats.as_ref().map(|it| json!({"num_clients": it.num_clients, "num_users": it.num_users})),
    );
    set(
        "history",
        reply.history.as_ref().map(|it| {
            let publications: Vec<Value> = it.publications.iter().map(publication).collect();
            json!({"publications": publications, "epoch": it.epoch, "offset": it.offset})
        }),
    );
    set("ping", reply.ping.as_ref().map(|_| json!({})));
    set("rpc", reply.rpc.as_ref().map(|it| json!({"data": data(&it.data)})));
    set(
        "refresh",
        reply
            .refresh
            .as_ref()
            .map(|it| json!({"client": it.client, "version": it.version, "expires": it.expires, "ttl": it.ttl})),
    );
    fields.into()
}

fn push(push: &messages::Push) -> Value {
    let messages::Push { channel, r#pub, join, leave, unsubscribe, disconnect } = push;
    let info = |info: &Option<ClientInfo>| json!({"info": info.as_ref().map(client)});
    present(json!({
        "channel": channel,
        "pub": r#pub.as_ref().map(publication),
        "join": join.as_ref().map(|it| info(&it.info)),
        "leave": leave.as_ref().map(|it| info(&it.info)),
        "unsubscribe": unsubscribe.as_ref().map(|it| json!({"code": it.code, "reason": it.reason})),
        "disconnect": disconnect.as_ref().map(|it| json!({"code": it.code, "reason": it.reason})),
    }))
}

fn publication(it: &Publication) -> Value {
    let mut publication = present(json!({"info": it.info.as_ref().map(client), "offset": it.offset}));
    publication["data"] = data(&it.data);
    publication
}

fn client(info: &ClientInfo) -> Value {
    json!({"user": info.user, "client": info.client})
}

/// A field of type `bytes`.
fn data(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("a payload is JSON")
}

/// An object without the fields that JSON leaves out: null, false, 0 and the empty string.
fn present(object: Value) -> Value {
    let Value::Object(mut fields) = object else { return object };
    fields.retain(|_, value| !(value.is_null() || *value == false || *value == 0 || *value == ""));
    fields.into()
}
