//! The gateway's own protocol in JSON, as the SDKs use it: connect, then subscribe, with recovery after a reconnect.

use super::websocket::{handshake, message, text, upgraded};
use super::{Dialect, Place, Step, Ticket};
use serde_json::{Value, json};

pub struct Json;

impl Dialect for Json {
    fn hello(&self, _: &Ticket) -> Vec<u8> {
        handshake("/connection/websocket")
    }

    fn advance(&self, ticket: &Ticket, step: u32, received: &[u8], place: &mut Place) -> Result<Step, String> {
        if step == 0 {
            let Some(used) = upgraded(received)? else { return Ok(Step::Wait) };
            let connect = json!({"id": 1, "connect": {"token": ticket.token}});
            return Ok(Step::Send { used, bytes: text(&connect.to_string()) });
        }
        let Some((content, used)) = message(received) else { return Ok(Step::Wait) };
        let line = content.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let reply: Value = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        if step == 1 && reply["connect"].is_object() {
            let mut subscribe = json!({"channel": ticket.channel});
            if !place.epoch.is_empty() {
                subscribe["recover"] = true.into();
                subscribe["offset"] = place.offset.into();
                subscribe["epoch"] = place.epoch.as_str().into();
            }
            return Ok(Step::Send { used, bytes: text(&json!({"id": 2, "subscribe": subscribe}).to_string()) });
        }
        let result = &reply["subscribe"];
        if !result.is_object() {
            return Err(reply.to_string());
        }
        place.offset = result["offset"].as_u64().unwrap_or_default();
        result["epoch"].as_str().unwrap_or_default().clone_into(&mut place.epoch);
        place.recovered = result["was_recovering"].as_bool().map(|_| result["recovered"] == true);
        Ok(Step::Ready { used, content })
    }

    fn ping(&self) -> Option<(&'static [u8], Vec<u8>)> {
        Some((b"{}", text("{}")))
    }

    fn farewell(&self) -> Option<&'static [u8]> {
        Some(br#""unsubscribe":{"code":"#)
    }
}
