//! Messages of the control channel: JSON objects with the parts `access`, `updates` with `data`, and `order`.

use crate::event::Change;
use crate::event::{Event, UpdatesRoute};
use crate::protocol::Payload;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Order of a back end to all gateways. Sent as a signal: a gateway that is cut off at that moment misses the order.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// End a user's connections; the empty key stands for all guests.
    Disconnect { user: String, reconnect: bool },
    /// End a user's subscriptions to a channel.
    Unsubscribe { user: String, channel: String },
}

impl Order {
    /// The message `{"order"}`.
    pub fn message(&self) -> Payload {
        #[derive(Serialize)]
        struct OrderMessage<'a> {
            order: &'a Order,
        }
        // Serialization cannot fail: the order contains only texts and flags.
        Payload::trusted(serde_json::to_vec(&OrderMessage { order: self }).unwrap_or_default().into())
    }
}

/// A received message; see [`Order::message`] and [`of_event`].
#[derive(Deserialize)]
pub(super) struct ControlMessage<'a> {
    #[serde(default)]
    pub access: Vec<Change>,
    pub updates: Option<UpdatesRoute>,
    pub order: Option<Order>,
    #[serde(borrow, default)]
    pub data: Option<&'a RawValue>,
}

/// The message `{"access","updates","data"}` of an event, with the parts that the event has. `None` without `access`
/// and `updates`.
pub fn of_event(event: &Event) -> Option<Payload> {
    let data = event.updates.is_some().then_some(&event.data);
    let parts = [("access", event.access.as_ref()), ("updates", event.updates.as_ref()), ("data", data)];
    let mut message = Vec::new();
    for (name, part) in parts.iter().filter_map(|(name, part)| Some((name, (*part)?))) {
        message.push(if message.is_empty() { b'{' } else { b',' });
        message.extend_from_slice(format!("\"{name}\":").as_bytes());
        message.extend_from_slice(part.as_bytes());
    }
    let some = !message.is_empty();
    message.push(b'}');
    some.then(|| Payload::trusted(message.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Events;

    #[test]
    fn the_message_of_an_event_holds_what_concerns_all_gateways() {
        let message = |more: &str| {
            let body = format!(r#"{{"events":[{{"seq":1,"channels":["room:a"],"data":{{"n":1}}{more}}}]}}"#);
            let message = of_event(&Events::parse(body.as_bytes()).unwrap().events[0]);
            message.map(|message| String::from_utf8(message.as_bytes().to_vec()).unwrap())
        };
        assert_eq!(message(""), None);
        assert_eq!(message(r#","access":[{"cause":"rules"}]"#).unwrap(), r#"{"access":[{"cause":"rules"}]}"#);
        assert_eq!(
            message(r#","updates":{"channels":[],"users":[]}"#).unwrap(),
            r#"{"updates":{"channels":[],"users":[]},"data":{"n":1}}"#
        );
        let all = r#"{"access":[{"cause":"rules"}],"updates":{"channels":["x"],"users":[]},"data":{"n":1}}"#;
        let more = r#","updates":{"channels":["x"],"users":[]},"access":[{"cause":"rules"}]"#;
        assert_eq!(message(more).unwrap(), all);
    }

    #[test]
    fn an_order_is_read_as_it_was_written() {
        let order = Order::Unsubscribe { user: "u".into(), channel: "room:a".into() };
        let message = order.message();
        let ControlMessage { access, updates, order, data } = serde_json::from_slice(message.as_bytes()).unwrap();
        assert!(access.is_empty() && updates.is_none() && data.is_none());
        let Some(Order::Unsubscribe { user, channel }) = order else { panic!("{order:?}") };
        assert_eq!((user.as_str(), channel.as_str()), ("u", "room:a"));
    }
}
