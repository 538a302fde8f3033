//! Records and users with open access checks in one batch.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

#[derive(Default)]
pub(super) struct OpenChecks {
    /// Records with a change of access for every user.
    pub records: HashSet<Arc<str>>,
    /// New records with the users named in the record: open for the named users, every class, and every user
    /// without a class.
    pub created: HashMap<Arc<str>, HashSet<Arc<str>>>,
    /// Users and records, with a change of access for the user alone.
    pub pairs: HashSet<(Arc<str>, Arc<str>)>,
    /// Deleted records.
    pub gone: HashSet<Arc<str>>,
}

impl OpenChecks {
    pub fn create(&mut self, record: &Arc<str>, users: impl Iterator<Item = Arc<str>>) {
        self.gone.remove(record);
        self.created.entry(Arc::clone(record)).or_default().extend(users);
    }

    pub fn delete(&mut self, record: &Arc<str>) {
        self.created.remove(record);
        self.gone.insert(Arc::clone(record));
    }

    /// Records with a check for every user.
    pub fn open(&self) -> HashSet<&Arc<str>> {
        self.records.iter().chain(self.created.keys()).filter(|record| !self.gone.contains(*record)).collect()
    }

    /// Pairs of user and record with a check for the user alone.
    pub fn open_pairs(&self) -> impl Iterator<Item = &(Arc<str>, Arc<str>)> {
        self.pairs.iter().filter(|(_, record)| !self.gone.contains(record))
    }
}
