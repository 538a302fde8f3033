//! The Pusher protocol, version 7: a subscription to a private channel, signed with the application's secret.

use super::websocket::{handshake, message, text, upgraded};
use super::{Dialect, Ping, Place, Step, Ticket};
use aws_lc_rs::hmac;
use serde_json::{Value, json};

pub struct Pusher {
    pub key: &'static str,
    pub secret: &'static str,
}

/// HMAC-SHA256 in lowercase hexadecimal.
pub fn hmac_sha256(secret: &str, text: &str) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), text.as_bytes());
    tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Dialect for Pusher {
    fn hello(&self, _: &Ticket) -> Vec<u8> {
        handshake(&format!("/app/{}?protocol=7&client=load&version=1", self.key))
    }

    fn advance(&self, ticket: &Ticket, step: u32, received: &[u8], _: &mut Place) -> Result<Step, String> {
        let head = if step == 0 { upgraded(received)? } else { Some(0) };
        let Some((head, (content, length))) = head.and_then(|head| Some((head, message(&received[head..])?))) else {
            return Ok(Step::Wait);
        };
        let (event, used): (Value, usize) =
            (serde_json::from_slice(&content).map_err(|error| error.to_string())?, head + length);
        match event["event"].as_str() {
            Some("pusher:connection_established") => {
                // The data is a JSON text inside a JSON string.
                let data: Value = serde_json::from_str(event["data"].as_str().unwrap_or_default()).unwrap_or_default();
                let socket = data["socket_id"].as_str().ok_or("no socket_id")?;
                let signature = hmac_sha256(self.secret, &format!("{socket}:{}", ticket.channel));
                let data = json!({"channel": ticket.channel, "auth": format!("{}:{signature}", self.key)});
                let subscribe = json!({"event": "pusher:subscribe", "data": data});
                Ok(Step::Send { used, bytes: text(&subscribe.to_string()) })
            }
            Some("pusher_internal:subscription_succeeded") => Ok(Step::Ready { used, content: Vec::new() }),
            _ => Err(event.to_string()),
        }
    }

    fn pings(&self) -> Vec<Ping> {
        vec![Ping { ping: b"pusher:ping", pong: text(r#"{"event":"pusher:pong","data":{}}"#) }]
    }
}
