//! What has happened to records lately, batch by batch: for users whose access is being read, and who are told of it
//! afterwards.

use super::Action;
use crate::protocol::Payload;
use crate::protocol::frame::Frame;
use std::cell::OnceCell;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// Entries that are kept, and bytes of their payloads. Who would need older ones is told to reload.
const ENTRIES: usize = 20_000;
const BYTES: usize = 32 * 1024 * 1024;

pub(super) struct Entry {
    pub batch: u64,
    pub record: Arc<str>,
    pub happened: Happened,
}

pub(super) enum Happened {
    Event {
        action: Action,
        data: Payload,
        /// The publication, encoded for the first subscriber who gets it.
        frame: OnceCell<Frame>,
    },
    /// Access to the record may have changed, for this user or for everybody.
    Touched(Option<Arc<str>>),
    /// The record is gone.
    Deleted,
}

#[derive(Default)]
pub(super) struct Log {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// The first batch whose entries are all here.
    whole_from: u64,
}

impl Log {
    pub fn push(&mut self, batch: u64, record: &Arc<str>, happened: Happened) {
        if let Happened::Event { data, .. } = &happened {
            self.bytes += data.len();
        }
        self.entries.push_back(Entry { batch, record: Arc::clone(record), happened });
    }

    /// The entries of these batches.
    pub fn of(&self, batches: Range<u64>) -> impl Iterator<Item = &Entry> {
        let begin = self.entries.partition_point(|entry| entry.batch < batches.start);
        let end = self.entries.partition_point(|entry| entry.batch < batches.end);
        self.entries.range(begin..end.max(begin))
    }

    /// Whether no entry of this batch or a later one has been dropped.
    pub fn reaches(&self, batch: u64) -> bool {
        batch >= self.whole_from
    }

    /// Drops the entries before this batch, and more where there are too many.
    pub fn trim(&mut self, before: u64) {
        while let Some(oldest) = self.entries.front() {
            let too_many = self.entries.len() > ENTRIES || self.bytes > BYTES;
            if oldest.batch >= before && !too_many {
                break;
            }
            self.whole_from = self.whole_from.max(oldest.batch + 1);
            if let Happened::Event { data, .. } = &oldest.happened {
                self.bytes -= data.len();
            }
            self.entries.pop_front();
        }
    }
}
