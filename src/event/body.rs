//! A body of events: a post of the hooks, or an answer of the outbox route.
//!
//! A body is refused only if the rows' numbers are unreadable. A single unreadable row becomes an empty event, which
//! keeps the row's place in the order; see [`row`].

use super::{Event, digest, row};
use crate::protocol::{Payload, json};
use serde::Deserialize;
use serde_json::value::RawValue;

/// SQLite's largest integer. The outbox never assigns a larger number, and counting could not continue from one.
const SEQ_MAX: u64 = i64::MAX as u64;

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
    delivery: Option<HookReport>,
    /// Only in the route's answer.
    #[serde(default)]
    version: Option<Box<str>>,
}

/// The hooks' address of the gateway, and the result of the hooks' last request.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
pub struct HookReport {
    /// `GATEWAY_URL` in PocketBase's environment, without a password.
    pub url: String,
    /// Error of the last request; empty after a success.
    pub error: String,
}

impl HookReport {
    /// Describes the failure and the remedy. Valid only with an error.
    pub fn advice(&self) -> String {
        format!(
            "PocketBase's hooks do not reach the gateway at {} ({}), so changes arrive late: set GATEWAY_URL in PocketBase's \
             environment to the address at which it reaches the gateway's public listener, and restart PocketBase",
            self.url, self.error
        )
    }
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
    pub delivery: Option<HookReport>,
    /// Version of the hooks, in the route's answer; `None` from hooks older than this field.
    pub version: Option<Box<str>>,
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
            version: frame.version,
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
        let without_events = [br#"{"events":["#, &answer[end..]].concat();
        let EventsFrame { last, problems, delivery, version, .. } = serde_json::from_slice(&without_events).ok()?;
        let first = position(row::FIRST)?;
        let seq = row::number(&answer[first + row::FIRST.len()..])?;
        let boot = answer[..first].strip_prefix(br#"{"boot":""#)?.strip_suffix(br#"","#)?;
        if seq == 0 || seq > last || last > SEQ_MAX {
            return None;
        }
        let boot = boot_of(std::str::from_utf8(boot).ok()?);
        let events = vec![row::unreadable(seq, Payload::NULL, row::everything())];
        Some(Self { events, last, boot, problems, delivery, version })
    }
}

fn boot_of(name: &str) -> u64 {
    digest([name.as_bytes()])
}
