//! What PocketBase's outbox says: one change, its number, and the channels it goes to.

use crate::protocol::{Payload, json};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Channels that one event may go to.
const CHANNELS_MAX: usize = 1000;
/// SQLite's largest number: what is above was never given, and could not be counted on from.
const SEQ_MAX: u64 = i64::MAX as u64;
/// Bytes of a channel's name.
pub const CHANNEL_NAME_MAX: usize = 255;
/// Begins the names of channels that are the gateways' own.
pub const INTERNAL: char = '$';
/// Carries, to every gateway, what events say of access.
pub const ACCESS: &str = "$access";

#[derive(Clone, Debug, Hash, PartialEq)]
pub struct Event {
    /// From 1, without gaps, in commit order.
    pub seq: u64,
    pub channels: Vec<String>,
    /// `{"action","collection","record"}`, passed on as it came.
    pub data: Payload,
    /// What of it may concern access: a list of [`Change`](crate::access::changes::Change)s.
    pub access: Option<Payload>,
    /// If updates channels tell of it: what they need beside it, a [`Told`](crate::updates::Told).
    pub updates: Option<Payload>,
}

impl Event {
    /// Tells this event from another of the same number, as after a restore from a backup; never 0.
    pub fn fingerprint(&self) -> u64 {
        let parts = [Some(&self.data), self.access.as_ref(), self.updates.as_ref()];
        digest(parts.into_iter().flatten().map(Payload::as_bytes))
    }

    /// What all gateways have to know of it, if anything, in one message: `{"access","updates","data"}`, each where
    /// there is one.
    pub fn notice(&self) -> Option<Payload> {
        let data = self.updates.is_some().then_some(&self.data);
        let parts = [("access", self.access.as_ref()), ("updates", self.updates.as_ref()), ("data", data)];
        let mut notice = Vec::new();
        for (name, part) in parts.iter().filter_map(|(name, part)| Some((name, (*part)?))) {
            notice.push(if notice.is_empty() { b'{' } else { b',' });
            notice.extend_from_slice(format!("\"{name}\":").as_bytes());
            notice.extend_from_slice(part.as_bytes());
        }
        let some = !notice.is_empty();
        notice.push(b'}');
        some.then(|| Payload::trusted(notice.into()))
    }
}

/// 64 bits that stand for these bytes; never 0.
fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for part in parts {
        context.update(part);
    }
    u64::from_le_bytes(context.finish().as_ref().first_chunk().copied().unwrap_or_default()).max(1)
}

#[derive(Deserialize)]
struct EventFrame<'a> {
    seq: u64,
    channels: Vec<String>,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(borrow, default)]
    access: Option<&'a RawValue>,
    #[serde(borrow, default)]
    updates: Option<&'a RawValue>,
}

/// `{"events":[…]}`, as the hooks post it and as the outbox route answers it.
#[derive(Deserialize)]
struct EventsFrame<'a> {
    #[serde(borrow)]
    events: Vec<EventFrame<'a>>,
    /// The highest number ever given; only in the route's answer.
    #[serde(default)]
    last: u64,
    #[serde(default)]
    boot: String,
    /// Only in the route's answer.
    #[serde(default)]
    problems: Vec<String>,
    /// Only in the route's answer.
    #[serde(default)]
    delivery: Option<Delivery>,
}

/// How PocketBase's hooks call the gateway, and how their last request went.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
pub struct Delivery {
    /// `GATEWAY_URL` in PocketBase's environment, without a password.
    pub url: String,
    /// Why the last request failed; empty if it did not.
    pub error: String,
}

impl Delivery {
    /// What is wrong and how to mend it; only where there is an error.
    pub fn advice(&self) -> String {
        format!(
            "PocketBase's hooks do not reach the gateway at {} ({}), so changes arrive late: set GATEWAY_URL in PocketBase's \
             environment to the address at which it reaches the gateway's public listener, and restart PocketBase",
            self.url, self.error
        )
    }
}

/// Some events in ascending order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Events {
    pub events: Vec<Event>,
    /// The highest number that the outbox has ever given; 0 where not told.
    pub last: u64,
    /// Stands for the run of PocketBase that they come from: its data may be others after a restart.
    pub boot: u64,
    /// Sentences about `gateway.config.js` that no longer fits PocketBase's schema.
    pub problems: Vec<String>,
    /// How the hooks' last request to the gateway went; `None` where not told.
    pub delivery: Option<Delivery>,
}

/// Why a body of events cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    #[error("not a body of events: {}", json::place(.0))]
    Json(#[from] serde_json::Error),
    #[error("event {0}: a number from 1 to {SEQ_MAX} is expected, each above the one before")]
    Order(u64),
    #[error(
        "event {0}: too many channels, or a channel name that is empty, longer than {CHANNEL_NAME_MAX} bytes, or begins with {INTERNAL}"
    )]
    Channels(u64),
}

impl Events {
    pub fn parse(body: &[u8]) -> Result<Self, EventsError> {
        let frame: EventsFrame = serde_json::from_slice(body)?;
        let mut before = 0;
        let mut events = Vec::with_capacity(frame.events.len());
        for EventFrame { seq, channels, data, access, updates } in frame.events {
            if seq <= before || seq > SEQ_MAX {
                return Err(EventsError::Order(seq));
            }
            let named =
                |name: &String| !name.is_empty() && name.len() <= CHANNEL_NAME_MAX && !name.starts_with(INTERNAL);
            if channels.len() > CHANNELS_MAX || !channels.iter().all(named) {
                return Err(EventsError::Channels(seq));
            }
            before = seq;
            let (access, updates) = (access.map(Payload::from_raw), updates.map(Payload::from_raw));
            events.push(Event { seq, channels, data: Payload::from_raw(data), access, updates });
        }
        if frame.last > SEQ_MAX {
            return Err(EventsError::Order(frame.last));
        }
        let boot = digest([frame.boot.as_bytes()]);
        Ok(Self { events, last: frame.last, boot, problems: frame.problems, delivery: frame.delivery })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_stay_as_they_came() {
        let data = r#"{"record":{"content":"\u2028 “quotes” 🦀 \"\\ ","n":1.50}}"#;
        let body = format!(r#"{{"events":[{{"seq":3,"channels":["room:a"],"data":{data}}}],"last":9}}"#);
        let events = Events::parse(body.as_bytes()).unwrap();
        assert_eq!(events.last, 9);
        assert_eq!(events.events[0].data.as_bytes(), data.as_bytes());
    }

    #[test]
    fn why_a_body_is_refused_does_not_repeat_it() {
        for bad in [r#"{"events":"private"}"#, r#"{"events":[{"seq":"private"}]}"#, r#"{"events":private}"#] {
            let why = Events::parse(bad.as_bytes()).unwrap_err().to_string();
            assert!(why.contains("line 1, column") && !why.contains("private"), "{why}");
        }
    }

    #[test]
    fn a_notice_holds_what_concerns_all_gateways() {
        let notice = |more: &str| {
            let body = format!(r#"{{"events":[{{"seq":1,"channels":["room:a"],"data":{{"n":1}}{more}}}]}}"#);
            let notice = Events::parse(body.as_bytes()).unwrap().events[0].notice();
            notice.map(|notice| String::from_utf8(notice.as_bytes().to_vec()).unwrap())
        };
        assert_eq!(notice(""), None);
        assert_eq!(notice(r#","access":[2]"#).unwrap(), r#"{"access":[2]}"#);
        assert_eq!(notice(r#","updates":{"a":3}"#).unwrap(), r#"{"updates":{"a":3},"data":{"n":1}}"#);
        let all = r#"{"access":[2],"updates":{},"data":{"n":1}}"#;
        assert_eq!(notice(r#","updates":{},"access":[2]"#).unwrap(), all);
    }

    #[test]
    fn bodies_that_cannot_be_used_are_refused() {
        let event = |seq: u64, channel: &str| format!(r#"{{"seq":{seq},"channels":["{channel}"],"data":1}}"#);
        let body = |events: &[String]| format!(r#"{{"events":[{}]}}"#, events.join(","));
        for bad in [
            String::new(),
            "[]".into(),
            "{}".into(),
            body(&[event(0, "a")]),
            body(&[event(2, "a"), event(2, "a")]),
            body(&[event(2, "a"), event(1, "a")]),
            body(&[event(i64::MAX as u64 + 1, "a")]),
            r#"{"events":[],"last":18446744073709551615}"#.into(),
            body(&[event(1, "")]),
            body(&[event(1, &"x".repeat(256))]),
            body(&[event(1, ACCESS)]),
            r#"{"events":[{"seq":1,"channels":[]}]}"#.into(),
            r#"{"events":[{"seq":-1,"channels":[],"data":1}]}"#.into(),
        ] {
            assert!(Events::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
