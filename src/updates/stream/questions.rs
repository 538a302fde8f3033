//! What one batch of inputs leaves open.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

#[derive(Default)]
pub(super) struct Questions {
    /// Records whose access is in doubt for everybody.
    pub records: HashSet<Arc<str>>,
    /// New records with the users whom they name: in doubt for these users, for each class, and for all without a class.
    pub created: HashMap<Arc<str>, HashSet<Arc<str>>>,
    /// Users and records whose access is in doubt for that user.
    pub pairs: HashSet<(Arc<str>, Arc<str>)>,
    /// Records that are gone.
    pub gone: HashSet<Arc<str>>,
}

impl Questions {
    pub fn create(&mut self, record: &Arc<str>, users: impl Iterator<Item = Arc<str>>) {
        self.gone.remove(record);
        self.created.entry(Arc::clone(record)).or_default().extend(users);
    }

    pub fn delete(&mut self, record: &Arc<str>) {
        self.created.remove(record);
        self.gone.insert(Arc::clone(record));
    }

    /// Records that concern everybody.
    pub fn open(&self) -> HashSet<&Arc<str>> {
        self.records.iter().chain(self.created.keys()).filter(|record| !self.gone.contains(*record)).collect()
    }

    /// Users and records whose access is in doubt for that user alone.
    pub fn open_pairs(&self) -> impl Iterator<Item = &(Arc<str>, Arc<str>)> {
        self.pairs.iter().filter(|(_, record)| !self.gone.contains(record))
    }
}
