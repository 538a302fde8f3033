//! One row of the outbox, read as an [`Event`].
//!
//! An unreadable row must not block later rows. The row's event has no channels, and keeps the row's access changes if
//! readable; otherwise all access is checked again.

use super::{CHANNELS_MAX, Completeness, DATA_MAX, Event, UpdatesRoute};
use crate::channel::is_well_formed;
use crate::event::Change;
use crate::protocol::Payload;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// Text before the number of a body's first row, in posts of the hooks and answers of the outbox route.
pub(super) const FIRST: &[u8] = br#""events":[{"seq":"#;
/// Text between the rows of the outbox route's answer and the highest number.
pub(super) const LAST: &[u8] = br#"],"last":"#;
/// End of the data of a record that was too large, as the hooks write the data.
const TRUNCATED: &[u8] = br#"},"truncated":true}"#;

#[derive(Deserialize)]
struct Row<'a> {
    seq: u64,
    #[serde(default)]
    at: u64,
    channels: Vec<String>,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(borrow, default)]
    access: Option<&'a RawValue>,
    #[serde(borrow, default)]
    updates: Option<&'a RawValue>,
    #[serde(default)]
    dropped: u64,
}

/// Reads a row. `None`: the row has no number.
pub(super) fn read(row: &RawValue) -> Option<Event> {
    let seq = seq(row)?;
    let event = serde_json::from_str::<Row>(row.get()).ok().and_then(Row::event).filter(|event| event.seq == seq);
    Some(event.unwrap_or_else(|| unreadable(seq, Payload::from_raw(row), access(row))))
}

/// The number of a row. The outbox route writes the number first, so that the rest of the row may be unreadable.
fn seq(row: &RawValue) -> Option<u64> {
    #[derive(Deserialize)]
    struct Numbered {
        seq: u64,
    }
    let first = row.get().strip_prefix(r#"{"seq":"#).and_then(|rest| number(rest.as_bytes()));
    first.or_else(|| Some(serde_json::from_str::<Numbered>(row.get()).ok()?.seq))
}

/// The integer at the start of the text, up to a comma or a closing brace.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    let end = text.iter().position(|byte| !byte.is_ascii_digit())?;
    matches!(text[end], b',' | b'}').then(|| std::str::from_utf8(&text[..end]).ok()?.parse().ok()).flatten()
}

impl Row<'_> {
    /// `None`: a part of the row is invalid.
    fn event(self) -> Option<Event> {
        let Self { seq, at, channels, data, access, updates, dropped } = self;
        let possible = channels.len() <= CHANNELS_MAX && channels.iter().all(|name| is_well_formed(name));
        let readable = possible
            && access.is_none_or(|access| serde_json::from_str::<Vec<Change>>(access.get()).is_ok())
            && updates.is_none_or(|updates| serde_json::from_str::<UpdatesRoute>(updates.get()).is_ok());
        if !readable {
            return None;
        }
        let (data, completeness) = if data.get().len() > DATA_MAX {
            (truncated(data)?, Completeness::Truncated)
        } else if data.get().as_bytes().ends_with(TRUNCATED) {
            (Payload::from_raw(data), Completeness::Truncated)
        } else {
            (Payload::from_raw(data), Completeness::Whole)
        };
        let (access, updates) = (access.map(Payload::from_raw), updates.map(Payload::from_raw));
        Some(Event { seq, at, channels, data, access, updates, completeness, dropped })
    }
}

/// The same data with the record's id alone.
fn truncated(data: &RawValue) -> Option<Payload> {
    #[derive(Deserialize)]
    struct Record<'a> {
        #[serde(borrow)]
        id: Cow<'a, str>,
    }
    #[derive(Deserialize)]
    struct Data<'a> {
        #[serde(borrow)]
        action: Cow<'a, str>,
        #[serde(borrow)]
        collection: Cow<'a, str>,
        #[serde(borrow)]
        record: Record<'a>,
    }
    let Data { action, collection, record } = serde_json::from_str(data.get()).ok()?;
    Some(truncated_data(&action, &collection, &record.id))
}

/// The data of an event with a record that is too large: the client fetches the record by this id.
pub fn truncated_data(action: &str, collection: &str, id: &str) -> Payload {
    let [action, collection, id] = [action, collection, id].map(|text| serde_json::Value::from(text).to_string());
    let mut data = format!(r#"{{"action":{action},"collection":{collection},"record":{{"id":{id}"#).into_bytes();
    data.extend_from_slice(TRUNCATED);
    Payload::trusted(data.into())
}

/// An event in place of an unreadable row.
pub(super) fn unreadable(seq: u64, row: Payload, access: Option<Payload>) -> Event {
    let completeness = Completeness::Unreadable;
    Event { seq, at: 0, channels: Vec::new(), data: row, access, updates: None, completeness, dropped: 0 }
}

/// The access changes of an otherwise unreadable row.
fn access(row: &RawValue) -> Option<Payload> {
    #[derive(Deserialize)]
    struct Part<'a> {
        #[serde(borrow, default)]
        access: Option<&'a RawValue>,
    }
    match serde_json::from_str::<Part>(row.get()) {
        Ok(Part { access: None }) => None,
        Ok(Part { access: Some(access) }) if serde_json::from_str::<Vec<Change>>(access.get()).is_ok() => {
            Some(Payload::from_raw(access))
        }
        _ => everything(),
    }
}

/// The access changes for a row with unreadable access changes: all access is checked again.
pub(super) fn everything() -> Option<Payload> {
    Some(Payload::trusted(Bytes::from_static(br#"[{"cause":"rules"}]"#)))
}
