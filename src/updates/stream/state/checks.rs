//! What a batch asks PocketBase: whole sets of visible records for new subscribers and changed accounts, and access
//! checks of single records.

use super::StreamState;
use crate::pocketbase::View;
use crate::updates::stream::inputs::RecordAction;
use crate::updates::stream::loads::{Load, LoadSubject};
use crate::updates::stream::log::{EntryKind, LogEntry};
use crate::updates::stream::open_checks::OpenChecks;
use std::collections::HashSet;
use std::sync::Arc;

/// The name of a class in PocketBase's routes.
pub(super) fn class_name(class: &str) -> Arc<str> {
    format!("~{class}").into()
}

impl StreamState {
    /// Starts loads for new subscribers, and for classes without a current set.
    pub(super) fn begin_loads(&mut self) {
        let users: Vec<Arc<str>> =
            self.waiting.keys().filter(|user| !self.subscribed.contains_key(*user)).cloned().collect();
        let users = users.into_iter().map(LoadSubject::User);
        let classes: HashSet<LoadSubject> =
            self.loads.iter().filter_map(|(_, load)| self.missing_class(load)).collect();
        for subject in users.chain(classes).collect::<Vec<_>>() {
            if self.loads.get(&subject).is_none() {
                self.loads.begin(subject, self.batch, false);
            }
        }
    }

    /// The class of a finished load, if the set of the class is unknown or too old for the load.
    fn missing_class(&self, load: &Load) -> Option<LoadSubject> {
        let class = load.result.as_ref()?.as_ref()?.class.as_ref()?;
        let known = self.classes.hold_before(class, load.end(self.batch));
        (!known).then(|| LoadSubject::Class(Arc::clone(class)))
    }

    /// The loads to apply in this batch.
    pub(super) fn ready(&self) -> Vec<LoadSubject> {
        let is_ready = |(subject, load): &(&LoadSubject, &Load)| {
            let Some(result) = &load.result else { return false };
            let (LoadSubject::User(_), Some(class)) =
                (subject, result.as_ref().and_then(|visible| visible.class.clone()))
            else {
                return true;
            };
            // A subscribe does not wait for the regular recheck of the user's class.
            let other = self.loads.get(&LoadSubject::Class(Arc::clone(&class)));
            match other.filter(|other| load.recheck || !other.recheck) {
                Some(other) => other.result.is_some() && load.end(self.batch) <= other.end(self.batch),
                None => self.classes.hold_before(&class, load.end(self.batch)),
            }
        };
        self.loads.iter().filter(is_ready).map(|(subject, _)| subject.clone()).collect()
    }

    /// Records with a possible change for this user or class since the start of the load.
    pub(super) fn dirty(&self, subject: &LoadSubject, load: &Load) -> HashSet<Arc<str>> {
        let concerns = |entry: &&LogEntry| match (&entry.kind, subject) {
            (EntryKind::Touched(Some(user)), LoadSubject::User(me)) => user == me,
            (EntryKind::Touched(Some(_)), LoadSubject::Class(_)) => false,
            (EntryKind::Event { action, .. }, _) => *action != RecordAction::Update,
            (EntryKind::Touched(None) | EntryKind::Deleted, _) => true,
        };
        let entries = self.log.of(load.since + 1..self.batch + 1).filter(concerns);
        entries.map(|entry| Arc::clone(&entry.record)).collect()
    }

    pub(super) fn views_to_ask(&self, checks: &OpenChecks, ready: &[LoadSubject]) -> Vec<View> {
        let view = |user: &Arc<str>, record: &Arc<str>| View { user: Arc::clone(user), record: Arc::clone(record) };
        let mut views = HashSet::new();
        for subject in ready {
            let Some(load) = self.loads.get(subject).filter(|load| matches!(load.result, Some(Some(_)))) else {
                continue;
            };
            let name = subject.name();
            let dirty = self.dirty(subject, load);
            views.extend(dirty.iter().filter(|it| !checks.gone.contains(*it)).map(|it| view(&name, it)));
        }
        let live = |user: &Arc<str>| self.subscribed.get(user).is_some_and(|subscriber| subscriber.suspended.is_none());
        let pairs = checks.open_pairs().filter(|(user, _)| live(user));
        views.extend(pairs.map(|(user, record)| view(user, record)));
        let open = checks.open();
        for (user, subscriber) in self.subscribed.iter().filter(|(_, subscriber)| subscriber.suspended.is_none()) {
            let is_alone = subscriber.viewer.class.is_none();
            let concerned = open.iter().filter(|record| {
                checks.records.contains(**record)
                    || is_alone
                    || checks.created.get(**record).is_some_and(|named| named.contains(user))
            });
            views.extend(concerned.map(|record| view(user, record)));
        }
        for class in self.classes.names() {
            let name = class_name(&class);
            views.extend(open.iter().map(|record| view(&name, record)));
        }
        views.into_iter().collect()
    }
}
