//! The protocol of the gateway and of Centrifugo, as the SDKs use it: connect, then subscribe, with recovery after a reconnect.

use super::websocket::{binary, handshake, message, text, upgraded};
use super::{Dialect, Ping, Place, Step, Ticket};
use konvert_gateway::protocol::messages::{Command, ConnectRequest, Reply, SubscribeRequest, SubscribeResult};
use prost::Message;
use serde_json::{Value, json};

/// Encodings of a gateway's clients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Encodings {
    Json,
    Protobuf,
    /// Every second client speaks Protobuf.
    Mixed,
}

impl Encodings {
    fn is_protobuf(self, ticket: &Ticket) -> bool {
        match self {
            Self::Json => false,
            Self::Protobuf => true,
            Self::Mixed => ticket.number % 2 == 1,
        }
    }
}

impl Dialect for Encodings {
    fn hello(&self, ticket: &Ticket) -> Vec<u8> {
        let query = if self.is_protobuf(ticket) { "?format=protobuf" } else { "" };
        handshake(&format!("/connection/websocket{query}"))
    }

    fn advance(&self, ticket: &Ticket, step: u32, received: &[u8], place: &mut Place) -> Result<Step, String> {
        let is_protobuf = self.is_protobuf(ticket);
        if step == 0 {
            let Some(used) = upgraded(received)? else { return Ok(Step::Wait) };
            let token = ticket.token.clone();
            let bytes = if is_protobuf {
                command(&Command { id: 1, connect: Some(ConnectRequest { token }), ..Default::default() })
            } else {
                text(&json!({"id": 1, "connect": {"token": token}}).to_string())
            };
            return Ok(Step::Send { used, bytes });
        }
        let Some((content, used)) = message(received) else { return Ok(Step::Wait) };
        let reply = if is_protobuf { protobuf(&content) } else { json(&content) }?;
        if step == 1 && reply.connect.is_some() {
            let (channel, offset, epoch) = (ticket.channel.clone(), place.offset, place.epoch.clone());
            let recover = !place.epoch.is_empty();
            let bytes = if is_protobuf {
                let subscribe = SubscribeRequest { channel, recover, offset, epoch, ..Default::default() };
                command(&Command { id: 2, subscribe: Some(subscribe), ..Default::default() })
            } else {
                let mut subscribe = json!({"channel": channel});
                if recover {
                    subscribe = json!({"channel": channel, "recover": true, "offset": offset, "epoch": epoch});
                }
                text(&json!({"id": 2, "subscribe": subscribe}).to_string())
            };
            return Ok(Step::Send { used, bytes });
        }
        let Some(result) = reply.subscribe else { return Err(format!("{reply:?}")) };
        (place.offset, place.epoch) = (result.offset, result.epoch);
        place.recovered = result.was_recovering.then_some(result.recovered);
        Ok(Step::Ready { used, content })
    }

    fn pings(&self) -> Vec<Ping> {
        let json = Ping { ping: b"{}", pong: text("{}") };
        let protobuf = Ping { ping: b"\x82\x01\0", pong: binary(&[0]) };
        match self {
            Self::Json => vec![json],
            Self::Protobuf => vec![protobuf],
            Self::Mixed => vec![json, protobuf],
        }
    }

    fn farewell(&self) -> Option<&'static [u8]> {
        // A lost message is noticed without it.
        (*self == Self::Json).then_some(br#""unsubscribe":{"code":"#)
    }
}

fn command(command: &Command) -> Vec<u8> {
    binary(&command.encode_length_delimited_to_vec())
}

fn protobuf(content: &[u8]) -> Result<Reply, String> {
    Reply::decode_length_delimited(content).map_err(|error| error.to_string())
}

/// The parts of a reply that a set-up needs.
fn json(content: &[u8]) -> Result<Reply, String> {
    let line = content.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let reply: Value = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    if reply["connect"].is_object() {
        return Ok(Reply { connect: Some(Default::default()), ..Default::default() });
    }
    let result = &reply["subscribe"];
    if !result.is_object() {
        return Err(reply.to_string());
    }
    let subscribe = SubscribeResult {
        offset: result["offset"].as_u64().unwrap_or_default(),
        epoch: result["epoch"].as_str().unwrap_or_default().to_owned(),
        was_recovering: result["was_recovering"] == true,
        recovered: result["recovered"] == true,
        ..Default::default()
    };
    Ok(Reply { subscribe: Some(subscribe), ..Default::default() })
}
