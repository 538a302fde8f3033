//! PocketBase's realtime: an event stream, and a separate request that names the subscriptions.

use super::{Aside, Dialect, Place, Step, Ticket};
use serde_json::{Value, json};

pub struct Realtime;

impl Dialect for Realtime {
    fn hello(&self, _: &Ticket) -> Vec<u8> {
        b"GET /api/realtime HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n".to_vec()
    }

    /// The ticket's channel is the name of PocketBase's subscription.
    fn advance(&self, ticket: &Ticket, step: u32, received: &[u8], _: &mut Place) -> Result<Step, String> {
        if step > 0 {
            return Ok(Step::Ready { used: received.len(), content: Vec::new() });
        }
        let text = String::from_utf8_lossy(received);
        if !text.is_empty() && !text.starts_with("HTTP/1.1 200") {
            return Err(text.lines().next().unwrap_or_default().to_owned());
        }
        let event = text.lines().find_map(|line| line.strip_prefix("data:"));
        let Some(event) = event.filter(|_| text.contains("PB_CONNECT") && text.contains("\n\n")) else {
            return Ok(Step::Wait);
        };
        let event: Value = serde_json::from_str(event).map_err(|error| error.to_string())?;
        let body = json!({"clientId": event["clientId"], "subscriptions": [ticket.channel]}).to_string();
        let headers = match ticket.token.as_str() {
            "" => String::new(),
            token => format!("Authorization: {token}\r\n"),
        };
        Ok(Step::Aside { used: received.len(), request: Aside { target: "/api/realtime", headers, body } })
    }
}
