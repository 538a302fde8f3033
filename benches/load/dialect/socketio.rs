//! Socket.IO over Engine.IO 4, WebSocket only: connect with a token, then ask to join a room and wait for the answer.

use super::websocket::{handshake, message, text, upgraded};
use super::{Dialect, Ping, Place, Step, Ticket};
use serde_json::json;

pub struct SocketIo;

impl Dialect for SocketIo {
    fn hello(&self, _: &Ticket) -> Vec<u8> {
        handshake("/socket.io/?EIO=4&transport=websocket")
    }

    fn advance(&self, ticket: &Ticket, step: u32, received: &[u8], _: &mut Place) -> Result<Step, String> {
        let head = if step == 0 { upgraded(received)? } else { Some(0) };
        let Some((head, (content, length))) = head.and_then(|head| Some((head, message(&received[head..])?))) else {
            return Ok(Step::Wait);
        };
        let used = head + length;
        let send = |packet: String| Ok(Step::Send { used, bytes: text(&packet) });
        // Engine.IO packets: 0 is open, 4 is a message. Socket.IO packets: 0 is connect, 2 an event, 3 its
        // acknowledgement.
        match (step, &content[..]) {
            (0, [b'0', ..]) => send(format!("40{}", json!({"token": ticket.token}))),
            (1, [b'4', b'0', ..]) => send(format!("420{}", json!(["join", ticket.channel]))),
            (2, [b'4', b'3', ..]) => Ok(Step::Ready { used, content: Vec::new() }),
            _ => Err(String::from_utf8_lossy(&content).into_owned()),
        }
    }

    fn pings(&self) -> Vec<Ping> {
        vec![Ping { ping: b"\x81\x012", pong: text("3") }]
    }
}
