//! Events of PocketBase's outbox: one change per event, with a number and the event's channels.
//!
//! A body of events (a post of the hooks, or an answer of the outbox route) is refused only if the rows' numbers are
//! unreadable. A single unreadable row becomes an empty event, which keeps the row's place in the order; see [`row`].

mod row;

pub use row::truncated_data;

use crate::protocol::{Payload, json};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Maximum number of channels per event.
const CHANNELS_MAX: usize = 1000;
/// Maximum bytes of an event's `data`. Larger data is truncated to the record's id, since a client's queue
/// (`max_queue_size`, 1 MiB by default) needs room for other frames too. The limit is the same on every gateway: two
/// gateways with different content under the same number would look like two outboxes. PocketBase's hooks truncate
/// earlier (`outbox.maxEventBytes`), so this limit concerns rows of older hooks only.
pub const DATA_MAX: usize = 512 * 1024;
/// SQLite's largest integer. The outbox never assigns a larger number, and counting could not continue from one.
const SEQ_MAX: u64 = i64::MAX as u64;
/// Maximum bytes of a channel's name. PocketBase's ids have 15 characters unless configured otherwise.
pub const CHANNEL_NAME_MAX: usize = 1024;
/// First character of the names of internal channels, for the gateways only.
pub const INTERNAL: char = '$';
/// Internal channel that carries the events' notices ([`Event::notice`]) to every gateway.
pub const ACCESS: &str = "$access";

/// Whether an event holds the whole row.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq)]
pub enum Completeness {
    #[default]
    Whole,
    /// The record was too large: the event has the record's id alone, and `"truncated":true`.
    Truncated,
    /// The row is unreadable: the event has no channels, and `data` is the row.
    Unreadable,
}

#[derive(Clone, Debug, Hash, PartialEq)]
pub struct Event {
    /// From 1, without gaps, in commit order.
    pub seq: u64,
    /// Time of the row by PocketBase's clock, in Unix milliseconds; 0: unknown.
    pub at: u64,
    pub channels: Vec<String>,
    /// `{"action","collection","record"}`, passed on unchanged.
    pub data: Payload,
    /// Access changes: a list of [`Change`](crate::access::changes::Change)s.
    pub access: Option<Payload>,
    /// The part for updates channels, if any: an [`UpdatesPart`](crate::updates::UpdatesPart).
    pub updates: Option<Payload>,
    pub completeness: Completeness,
    /// Number of channels dropped by the hooks for invalid names.
    pub dropped: u64,
}

impl Event {
    /// Hash that distinguishes events with the same number, as after a restore from a backup; never 0.
    pub fn fingerprint(&self) -> u64 {
        let parts = [Some(&self.data), self.access.as_ref(), self.updates.as_ref()];
        digest(parts.into_iter().flatten().map(Payload::as_bytes))
    }

    /// The message to all gateways, `{"access","updates","data"}`, with the parts that the event has. `None` without
    /// `access` and `updates`.
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

/// 64-bit hash of the concatenated parts; never 0.
fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for part in parts {
        context.update(part);
    }
    u64::from_le_bytes(context.finish().as_ref().first_chunk().copied().unwrap_or_default()).max(1)
}

/// `{"events":[…]}`, in a post of the hooks or an answer of the outbox route.
#[derive(Deserialize)]
struct EventsFrame<'a> {
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
    /// In the route's answer, the highest number ever assigned; in a post, the number of the last event.
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

/// The hooks' address of the gateway, and the result of the hooks' last request.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
pub struct Delivery {
    /// `GATEWAY_URL` in PocketBase's environment, without a password.
    pub url: String,
    /// Error of the last request; empty after a success.
    pub error: String,
}

impl Delivery {
    /// Describes the failure and the remedy. Valid only with an error.
    pub fn advice(&self) -> String {
        format!(
            "PocketBase's hooks do not reach the gateway at {} ({}), so changes arrive late: set GATEWAY_URL in PocketBase's \
             environment to the address at which it reaches the gateway's public listener, and restart PocketBase",
            self.url, self.error
        )
    }
}

/// The end of the outbox route's answer, after the events.
#[derive(Deserialize)]
struct End {
    last: u64,
    #[serde(default)]
    problems: Vec<String>,
    #[serde(default)]
    delivery: Option<Delivery>,
}

/// A list of events in ascending order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Events {
    pub events: Vec<Event>,
    /// In the route's answer, the highest number ever assigned by the outbox; 0: unknown.
    pub last: u64,
    /// Identifies the run of PocketBase that sent the events: after a restart, PocketBase may have other data.
    pub boot: u64,
    /// Sentences about parts of `gateway.config.js` that no longer fit PocketBase's schema.
    pub problems: Vec<String>,
    /// Result of the hooks' last request to the gateway; `None`: unknown.
    pub delivery: Option<Delivery>,
}

/// Errors of a body of events.
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    #[error("the body is not a list of events: {}", json::place(.0))]
    Json(#[from] serde_json::Error),
    #[error("event {0} of the body has no number (\"seq\")")]
    NoNumber(usize),
    #[error("event number {0} is invalid: numbers are ascending, from 1 to {SEQ_MAX} and at most \"last\"")]
    Order(u64),
    #[error("more than the requested {0} events")]
    TooMany(u16),
}

impl Events {
    /// Reads a body. Unreadable rows become [`Completeness::Unreadable`] events.
    pub fn parse(body: &[u8]) -> Result<Self, EventsError> {
        let frame: EventsFrame = serde_json::from_slice(body)?;
        if frame.last > SEQ_MAX {
            return Err(EventsError::Order(frame.last));
        }
        let highest = if frame.last == 0 { SEQ_MAX } else { frame.last };
        let mut before = 0;
        let mut events = Vec::with_capacity(frame.events.len());
        for (i, row) in frame.events.into_iter().enumerate() {
            let event = row::read(row).ok_or(EventsError::NoNumber(i + 1))?;
            if event.seq <= before || event.seq > highest {
                return Err(EventsError::Order(event.seq));
            }
            before = event.seq;
            events.push(event);
        }
        Ok(Self {
            events,
            last: frame.last,
            boot: boot_of(&frame.boot),
            problems: frame.problems,
            delivery: frame.delivery,
        })
    }

    /// Reads the outbox route's answer to a request for at most `limit` rows. `None`: a row makes the answer of several
    /// rows unreadable, for example with invalid JSON; the caller requests fewer rows. A single row of this kind
    /// becomes an unreadable event.
    pub fn page(answer: &[u8], limit: u16) -> Result<Option<Self>, EventsError> {
        let unreadable = match Self::parse(answer) {
            Ok(events) if events.events.len() <= usize::from(limit) => return Ok(Some(events)),
            Ok(_) => EventsError::TooMany(limit),
            Err(error) => error,
        };
        if limit > 1 { Ok(None) } else { Self::salvage(answer).map(Some).ok_or(unreadable) }
    }

    /// Reads an answer around an unreadable single row: the row's number, and the parts before and after the row.
    /// `None`: not an answer of the outbox route.
    fn salvage(answer: &[u8]) -> Option<Self> {
        let position = |text: &[u8]| answer.windows(text.len()).position(|part| part == text);
        let end = answer.windows(row::LAST.len()).rposition(|part| part == row::LAST)?;
        let End { last, problems, delivery } = serde_json::from_slice(&[b"{", &answer[end + 2..]].concat()).ok()?;
        let first = position(row::FIRST)?;
        let seq = row::number(&answer[first + row::FIRST.len()..])?;
        let boot = answer[..first].strip_prefix(br#"{"boot":""#)?.strip_suffix(br#"","#)?;
        if seq == 0 || seq > last || last > SEQ_MAX {
            return None;
        }
        let boot = boot_of(std::str::from_utf8(boot).ok()?);
        let events = vec![row::unreadable(seq, Payload::NULL, row::everything())];
        Some(Self { events, last, boot, problems, delivery })
    }
}

fn boot_of(name: &str) -> u64 {
    digest([name.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::changes::Change;

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
        for bad in [r#"{"events":"private"}"#, r#"{"events":private}"#] {
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
        assert_eq!(notice(r#","access":[{"cause":"rules"}]"#).unwrap(), r#"{"access":[{"cause":"rules"}]}"#);
        assert_eq!(
            notice(r#","updates":{"channels":[],"users":[]}"#).unwrap(),
            r#"{"updates":{"channels":[],"users":[]},"data":{"n":1}}"#
        );
        let all = r#"{"access":[{"cause":"rules"}],"updates":{"channels":["x"],"users":[]},"data":{"n":1}}"#;
        let more = r#","updates":{"channels":["x"],"users":[]},"access":[{"cause":"rules"}]"#;
        assert_eq!(notice(more).unwrap(), all);
    }

    #[test]
    fn bodies_whose_numbers_cannot_be_made_out_are_refused() {
        let event = |seq: u64| format!(r#"{{"seq":{seq},"channels":["a"],"data":1}}"#);
        let body = |events: &[String]| format!(r#"{{"events":[{}]}}"#, events.join(","));
        for bad in [
            String::new(),
            "[]".into(),
            "{}".into(),
            body(&[event(0)]),
            body(&[event(2), event(2)]),
            body(&[event(2), event(1)]),
            body(&[event(i64::MAX as u64 + 1)]),
            body(&[event(1), "{}".into()]),
            body(&[event(1), "7".into()]),
            r#"{"events":[],"last":18446744073709551615}"#.into(),
            r#"{"events":[{"seq":-1,"channels":[],"data":1}]}"#.into(),
            r#"{"events":[{"seq":2,"channels":[],"data":1}],"last":1}"#.into(),
        ] {
            assert!(Events::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    /// Reads an unreadable row between two good rows. Returns the access changes of the resulting event.
    fn access_of(row: &str) -> Option<String> {
        let good = |seq| format!(r#"{{"seq":{seq},"channels":["a"],"data":1}}"#);
        let body = format!(r#"{{"events":[{},{{"seq":2,{row}}},{}]}}"#, good(1), good(3));
        let events = Events::parse(body.as_bytes()).unwrap_or_else(|error| panic!("{row}: {error}")).events;
        assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), [1, 2, 3], "{row}");
        assert_eq!([&events[0].channels, &events[2].channels], [&["a"], &["a"]]);
        assert_eq!(events[1].completeness, Completeness::Unreadable, "{row}");
        assert!(events[1].channels.is_empty() && events[1].updates.is_none(), "{row}");
        events[1].access.as_ref().map(|access| String::from_utf8(access.as_bytes().to_vec()).unwrap())
    }

    #[test]
    fn a_row_that_cannot_be_read_keeps_its_place() {
        let many = vec!["\"a\""; CHANNELS_MAX + 1].join(",");
        let long = "x".repeat(CHANNEL_NAME_MAX + 1);
        for row in [
            r#""channels":["a"]"#.to_owned(),
            r#""data":1"#.into(),
            r#""channels":"a","data":1"#.into(),
            r#""channels":[1],"data":1"#.into(),
            r#""channels":[""],"data":1"#.into(),
            r#""channels":["with space"],"data":1"#.into(),
            r#""channels":["no-break\u00a0space"],"data":1"#.into(),
            r#""channels":["control\u0085"],"data":1"#.into(),
            format!(r#""channels":["{ACCESS}"],"data":1"#),
            format!(r#""channels":["{long}"],"data":1"#),
            format!(r#""channels":[{many}],"data":1"#),
            r#""channels":["a"],"channels":["a"],"data":1"#.into(),
            r#""channels":["a"],"data":1,"updates":7"#.into(),
            r#""channels":["a"],"data":1,"dropped":-1"#.into(),
            r#""channels":["a"],"data":1,"seq":5"#.into(),
        ] {
            assert_eq!(access_of(&row), None, "{row}");
            let changes = r#"[{"cause":"user","user":"u"}]"#;
            assert_eq!(access_of(&format!(r#"{row},"access":{changes}"#)).as_deref(), Some(changes), "{row}");
            for broken in ["7", r#"[{"cause":7}]"#, r#"{"cause":"user"}"#, r#"[],"access":[]"#] {
                let all = access_of(&format!(r#"{row},"access":{broken}"#)).unwrap();
                assert_eq!(serde_json::from_str::<Vec<Change>>(&all).unwrap(), [Change::EVERYTHING], "{row} {broken}");
            }
        }
    }

    #[test]
    fn data_that_is_too_large_is_truncated_to_the_id() {
        let data = |content: &str| {
            format!(r#"{{"action":"create","collection":"c","record":{{"big":{content},"id":"a\"b"}}}}"#)
        };
        let read = |data: &str| {
            let body = format!(
                r#"{{"events":[{{"seq":1,"channels":["a"],"data":{data},"updates":{{"channels":[],"users":[]}}}}]}}"#
            );
            Events::parse(body.as_bytes()).unwrap().events.remove(0)
        };
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(read(&data(&deep)).completeness, Completeness::Whole);
        for large in
            [format!("\"{}\"", "x".repeat(DATA_MAX)), format!("{}{}", "[".repeat(DATA_MAX), "]".repeat(DATA_MAX))]
        {
            let event = read(&data(&large));
            assert_eq!(event.completeness, Completeness::Truncated);
            let short = r#"{"action":"create","collection":"c","record":{"id":"a\"b"},"truncated":true}"#;
            assert_eq!(event.data.as_bytes(), short.as_bytes());
            assert!(event.updates.is_some());
            assert_eq!(read(short).completeness, Completeness::Truncated);
        }
        let nothing_to_fetch = read(&format!("\"{}\"", "x".repeat(DATA_MAX)));
        assert_eq!(nothing_to_fetch.completeness, Completeness::Unreadable);
    }
}
