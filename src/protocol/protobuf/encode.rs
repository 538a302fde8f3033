//! Encoding of Protobuf replies and pushes.

use crate::protocol::codes::{Disconnect, ErrorCode, UnsubscribeCode};
use crate::protocol::encode::{Push, VERSION};
use crate::protocol::{ClientInfo, Movement, Payload, Publication, Reply, messages};
use bytes::Bytes;
use prost::Message;

pub(in crate::protocol) fn write_reply(out: &mut Vec<u8>, id: u32, reply: &Reply) {
    write(out, &messages::Reply { id, ..content(reply) });
}

pub(in crate::protocol) fn write_push(out: &mut Vec<u8>, channel: &str, push: &Push<'_>) {
    let mut message = messages::Push { channel: channel.to_owned(), ..Default::default() };
    match *push {
        Push::Publication(it) => message.r#pub = Some(publication(it)),
        Push::Movement(Movement::Join, info) => message.join = Some(messages::Join { info: Some(client_info(info)) }),
        Push::Movement(Movement::Leave, info) => {
            message.leave = Some(messages::Leave { info: Some(client_info(info)) })
        }
        Push::Unsubscribe(UnsubscribeCode { code, reason }) => {
            message.unsubscribe = Some(messages::Unsubscribe { code: code.into(), reason: reason.to_owned() });
        }
    }
    write(out, &messages::Reply { push: Some(message), ..Default::default() });
}

/// The push that ends a stream.
pub(in crate::protocol) fn write_disconnect(out: &mut Vec<u8>, Disconnect { code, reason }: Disconnect) {
    let disconnect = Some(messages::Disconnect { code: code.into(), reason: reason.to_owned() });
    let push = messages::Push { disconnect, ..Default::default() };
    write(out, &messages::Reply { push: Some(push), ..Default::default() });
}

fn write(out: &mut Vec<u8>, reply: &messages::Reply) {
    reply.encode(out).expect("a growing buffer has room");
}

fn content(reply: &Reply) -> messages::Reply {
    let empty = messages::Reply::default();
    match reply {
        Reply::Connect(connect) => messages::Reply {
            connect: Some(messages::ConnectResult {
                client: connect.client.clone(),
                version: VERSION.to_owned(),
                expires: connect.ttl.is_some(),
                ttl: connect.ttl.unwrap_or_default(),
                ping: connect.ping,
                pong: true,
                session: connect.stream.as_ref().map(|it| it.session.clone()).unwrap_or_default(),
                node: connect.stream.as_ref().map(|it| it.node.clone()).unwrap_or_default(),
            }),
            ..empty
        },
        Reply::Subscribe(subscribe) => messages::Reply {
            subscribe: Some(messages::SubscribeResult {
                recoverable: true,
                positioned: true,
                epoch: subscribe.position.epoch.clone(),
                offset: subscribe.offset(),
                was_recovering: subscribe.recovered.is_some(),
                recovered: subscribe.recovered.unwrap_or_default(),
                publications: subscribe.publications.iter().map(publication).collect(),
                data: Bytes::new(),
            }),
            ..empty
        },
        Reply::SubscribeState(state) => messages::Reply {
            subscribe: Some(messages::SubscribeResult { data: bytes(state), ..Default::default() }),
            ..empty
        },
        Reply::Unsubscribe => messages::Reply { unsubscribe: Some(messages::UnsubscribeResult {}), ..empty },
        Reply::Publish => messages::Reply { publish: Some(messages::PublishResult {}), ..empty },
        Reply::History { publications, position } => messages::Reply {
            history: Some(messages::HistoryResult {
                publications: publications.iter().map(publication).collect(),
                epoch: position.epoch.clone(),
                offset: position.offset,
            }),
            ..empty
        },
        Reply::Presence(clients) => messages::Reply {
            presence: Some(messages::PresenceResult {
                presence: clients.iter().map(|info| (info.client.to_string(), client_info(info))).collect(),
            }),
            ..empty
        },
        Reply::PresenceStats { clients, users } => messages::Reply {
            presence_stats: Some(messages::PresenceStatsResult {
                num_clients: u32::try_from(*clients).unwrap_or(u32::MAX),
                num_users: u32::try_from(*users).unwrap_or(u32::MAX),
            }),
            ..empty
        },
        Reply::Rpc(data) => messages::Reply { rpc: Some(messages::RpcResult { data: bytes(data) }), ..empty },
        Reply::Refresh { client, ttl } => messages::Reply {
            refresh: Some(messages::RefreshResult {
                client: client.clone(),
                version: VERSION.to_owned(),
                expires: true,
                ttl: *ttl,
            }),
            ..empty
        },
        Reply::Ping => messages::Reply { ping: Some(messages::PingResult {}), ..empty },
        Reply::Error(ErrorCode { code, message, temporary }) => messages::Reply {
            error: Some(messages::Error {
                code: (*code).into(),
                message: (*message).to_owned(),
                temporary: *temporary,
            }),
            ..empty
        },
    }
}

fn publication(publication: &Publication) -> messages::Publication {
    messages::Publication {
        data: bytes(&publication.data),
        info: publication.info.as_ref().map(client_info),
        offset: publication.offset,
    }
}

fn client_info(info: &ClientInfo) -> messages::ClientInfo {
    messages::ClientInfo { user: info.user.to_string(), client: info.client.to_string() }
}

fn bytes(payload: &Payload) -> Bytes {
    payload.0.clone()
}
