//! Events of PocketBase's outbox: one change per event, with a number and the event's channels.
//!
//! Events come in a [`body`], one [`row`] of the outbox each.

mod body;
mod cause;
mod change;
mod row;

pub use body::{Events, EventsError, HookReport};
pub use cause::Cause;
pub use change::Change;
pub use row::truncated_data;

use crate::protocol::Payload;
use serde::Deserialize;

/// Maximum number of channels per event.
const CHANNELS_MAX: usize = 1000;
/// Maximum bytes of an event's `data`. Larger data is truncated to the record's id, since a client's queue
/// (`max_queue_size`, 1 MiB by default) needs room for other frames too. The limit is the same on every gateway: two
/// gateways with different content under the same number would look like two outboxes. PocketBase's hooks truncate
/// earlier (`outbox.maxEventBytes`), so this limit concerns rows of older hooks only.
pub const DATA_MAX: usize = 512 * 1024;

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
    /// Access changes: a list of [`Change`]s.
    pub access: Option<Payload>,
    /// The part for updates channels, if any: an [`UpdatesRoute`].
    pub updates: Option<Payload>,
    pub completeness: Completeness,
    /// Number of channels dropped by the hooks for invalid names.
    pub dropped: u64,
}

impl Event {
    /// Whether the event may have changed who may view a record.
    pub fn changes_access(&self) -> bool {
        self.access.is_some()
    }

    /// Hash that distinguishes events with the same number, as after a restore from a backup; never 0.
    pub fn fingerprint(&self) -> u64 {
        let parts = [Some(&self.data), self.access.as_ref(), self.updates.as_ref()];
        digest(parts.into_iter().flatten().map(Payload::as_bytes))
    }
}

/// Receivers of an event about a guarded record, in the updates channels.
#[derive(Deserialize)]
pub struct UpdatesRoute {
    /// Updates channels that carry the event.
    pub channels: Vec<String>,
    /// Users named in the record, before or after the change.
    pub users: Vec<String>,
}

/// 64-bit hash of the concatenated parts; never 0.
fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for part in parts {
        context.update(part);
    }
    u64::from_le_bytes(context.finish().as_ref().first_chunk().copied().unwrap_or_default()).max(1)
}

#[cfg(test)]
mod event_tests;
