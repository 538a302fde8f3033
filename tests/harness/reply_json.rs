//! Protobuf commands and replies as the JSON that the same message has in the JSON encoding, for tests that run in both.

use bytes::Bytes;
use konvert_gateway::protocol::messages::{
    Command, ConnectRequest, HistoryRequest, PresenceStatsRequest, Publication, PublishRequest, Reply, RpcRequest,
    SubscribeRequest, UnsubscribeRequest,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// A command from its JSON.
pub fn command(json: &Value) -> Command {
    let mut command = Command { id: json["id"].as_u64().unwrap_or_default() as u32, ..Default::default() };
    fn read<T: for<'de> Deserialize<'de>>(json: &Value, name: &str) -> Option<T> {
        // From a text: payloads are read as raw JSON.
        json.get(name).map(|content| serde_json::from_str(&content.to_string()).expect(name))
    }
    command.connect = read::<ConnectRequest>(json, "connect");
    command.subscribe = read::<SubscribeRequest>(json, "subscribe");
    command.unsubscribe = read::<UnsubscribeRequest>(json, "unsubscribe");
    command.publish = read::<PublishRequest>(json, "publish");
    command.history = read::<HistoryRequest>(json, "history");
    command.presence_stats = read::<PresenceStatsRequest>(json, "presence_stats");
    command.rpc = read::<RpcRequest>(json, "rpc");
    command
}

/// A reply as JSON, with the parts that tests look at.
pub fn of(reply: Reply) -> Value {
    let mut json = Map::new();
    if reply.id > 0 {
        json.insert("id".into(), reply.id.into());
    }
    let mut put = |name: &str, content: Option<Value>| {
        if let Some(content) = content {
            json.insert(name.into(), content);
        }
    };
    put("error", reply.error.map(|it| json!({"code": it.code, "message": it.message})));
    put(
        "connect",
        reply.connect.map(|it| json!({"client": it.client, "ping": it.ping, "session": it.session, "node": it.node})),
    );
    put(
        "subscribe",
        reply.subscribe.map(|it| {
            let publications: Vec<Value> = it.publications.into_iter().map(publication).collect();
            json!({"offset": it.offset, "epoch": it.epoch, "recovered": it.recovered, "publications": publications})
        }),
    );
    put("unsubscribe", reply.unsubscribe.map(|_| json!({})));
    put("publish", reply.publish.map(|_| json!({})));
    put(
        "history",
        reply.history.map(|it| {
            let publications: Vec<Value> = it.publications.into_iter().map(publication).collect();
            json!({"offset": it.offset, "epoch": it.epoch, "publications": publications})
        }),
    );
    put(
        "presence_stats",
        reply.presence_stats.map(|it| json!({"num_clients": it.num_clients, "num_users": it.num_users})),
    );
    put("rpc", reply.rpc.map(|it| json!({"data": payload(&it.data)})));
    put(
        "push",
        reply.push.map(|push| {
            let mut json = json!({"channel": push.channel});
            if let Some(it) = push.r#pub {
                json["pub"] = publication(it);
            }
            if let Some(it) = push.unsubscribe {
                json["unsubscribe"] = json!({"code": it.code, "reason": it.reason});
            }
            if let Some(it) = push.disconnect {
                json["disconnect"] = json!({"code": it.code, "reason": it.reason});
            }
            json
        }),
    );
    Value::Object(json)
}

fn publication(it: Publication) -> Value {
    let mut json = json!({"data": payload(&it.data), "offset": it.offset});
    if let Some(info) = it.info {
        json["info"] = json!({"user": info.user, "client": info.client});
    }
    json
}

fn payload(data: &Bytes) -> Value {
    serde_json::from_slice(data).expect("a payload is JSON")
}
