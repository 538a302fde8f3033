//! Recent events and access changes, batch by batch: for records that changed during a load, and for delivery after a
//! suspension.

use super::inputs::RecordAction;
use super::shared_publication::SharedPublication;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// Limits of entries and of payload bytes. Users with a suspension older than the log are told to reload.
const ENTRIES: usize = 20_000;
const BYTES: usize = 32 * 1024 * 1024;

pub(super) struct LogEntry {
    pub batch: u64,
    pub record: Arc<str>,
    pub kind: EntryKind,
}

pub(super) enum EntryKind {
    Event {
        action: RecordAction,
        publication: SharedPublication,
    },
    /// A change of access to the record, for one user or for all (`None`).
    Touched(Option<Arc<str>>),
    /// The record was deleted.
    Deleted,
}

#[derive(Default)]
pub(super) struct RecordLog {
    entries: VecDeque<LogEntry>,
    bytes: usize,
    /// The oldest batch without dropped entries.
    whole_from: u64,
}

impl RecordLog {
    pub fn push(&mut self, batch: u64, record: &Arc<str>, kind: EntryKind) {
        if let EntryKind::Event { publication, .. } = &kind {
            self.bytes += publication.data.len();
        }
        self.entries.push_back(LogEntry { batch, record: Arc::clone(record), kind });
    }

    /// The entries of these batches.
    pub fn of(&self, batches: Range<u64>) -> impl Iterator<Item = &LogEntry> {
        let begin = self.entries.partition_point(|entry| entry.batch < batches.start);
        let end = self.entries.partition_point(|entry| entry.batch < batches.end);
        self.entries.range(begin..end.max(begin))
    }

    /// False where entries of this batch or a later batch were dropped.
    pub fn reaches(&self, batch: u64) -> bool {
        batch >= self.whole_from
    }

    /// Drops entries before this batch, and the oldest entries past the limits.
    pub fn trim(&mut self, before: u64) {
        while let Some(oldest) = self.entries.front() {
            let too_many = self.entries.len() > ENTRIES || self.bytes > BYTES;
            if oldest.batch >= before && !too_many {
                break;
            }
            self.whole_from = self.whole_from.max(oldest.batch + 1);
            if let EntryKind::Event { publication, .. } = &oldest.kind {
                self.bytes -= publication.data.len();
            }
            self.entries.pop_front();
        }
    }
}
