//! Applies PocketBase's answers to the visible records of users and classes, and compares before and after.

use super::StreamState;
use super::checks::class_name;
use super::subscribers::{SubscribedUser, Suspended};
use crate::log_lines::limited;
use crate::pocketbase::View;
use crate::updates::stream::inputs::InputQueue;
use crate::updates::stream::loads::{Load, LoadSubject};
use crate::updates::stream::open_checks::OpenChecks;
use crate::updates::stream::queries::{Answers, VisibleRecords};
use crate::updates::visibility::{Ids, Viewer};
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use tokio::time::Instant;

/// Limit of records that become visible to a user at once. Past the limit, the user's clients reload.
const GAINS: usize = 2_000;
/// Limit of record ids kept for single users, for all users of a channel together; about 40 bytes per id. Past the
/// limit, new subscribes are refused.
const OWN_IDS: usize = 20_000_000;

/// Record → users, with true where the record became visible to the user and false where the record became hidden.
pub(super) type VisibilityChanges = HashMap<Arc<str>, HashMap<Arc<str>, bool>>;

/// Users with a load applied in this batch → the batches to deliver now.
pub(super) type Backlogs = HashMap<Arc<str>, Range<u64>>;

impl StreamState {
    /// Applies all answers. Returns the records that became visible or hidden to each user, and the batches to
    /// deliver.
    pub(super) fn apply_answers(
        &mut self,
        checks: &OpenChecks,
        ready: Vec<LoadSubject>,
        answers: &mut Answers,
        queue: &InputQueue,
    ) -> (VisibilityChanges, Backlogs) {
        let (mut changes, mut backlogs) = (VisibilityChanges::new(), Backlogs::new());
        let (mut users, mut classes) = (Vec::new(), Vec::new());
        for subject in ready {
            let dirty = self.loads.get(&subject).map(|load| self.dirty(&subject, load)).unwrap_or_default();
            let Some(load) = self.loads.remove(&subject) else { continue };
            match subject {
                LoadSubject::User(user) => users.push((user, load, dirty)),
                LoadSubject::Class(class) => classes.push((class, load, dirty)),
            }
        }
        let (mut unreadable, mut unknown) = (HashSet::new(), HashSet::new());
        for (class, mut load, dirty) in classes {
            match load.result.take().flatten() {
                None => drop(unreadable.insert(class)),
                Some(visible) if visible.class.as_ref() != Some(&class) => drop(unknown.insert(class)),
                Some(visible) => self.apply_class_load(&class, &load, visible, &dirty, answers),
            }
        }
        let loaded: HashSet<Arc<str>> = users.iter().map(|(user, ..)| Arc::clone(user)).collect();
        self.apply_verdicts(checks, &loaded, answers, &mut changes);
        for (user, mut load, dirty) in users {
            let is_of = |classes: &HashSet<Arc<str>>, visible: &VisibleRecords| {
                visible.class.as_ref().is_some_and(|class| classes.contains(class))
            };
            match load.result.take().flatten() {
                // The rule has changed: the user is of another class now.
                Some(visible) if is_of(&unknown, &visible) => {
                    self.loads.begin(LoadSubject::User(user), self.batch, load.recheck)
                }
                None => self.give_up(&user, queue),
                Some(visible) if is_of(&unreadable, &visible) => self.give_up(&user, queue),
                Some(visible) => {
                    self.apply_user_load(&user, &load, visible, &dirty, answers, &mut changes, &mut backlogs);
                    self.bound_gains(&user, &mut changes, queue);
                }
            }
        }
        (changes, backlogs)
    }

    fn apply_class_load(
        &mut self,
        class: &Arc<str>,
        load: &Load,
        visible: VisibleRecords,
        dirty: &HashSet<Arc<str>>,
        answers: &Answers,
    ) {
        self.guarded = Some(visible.guarded);
        let mut ids = self.interned(visible.yes);
        let name = class_name(class);
        for record in dirty {
            let view = View { user: Arc::clone(&name), record: Arc::clone(record) };
            if answers.sees(&view) == Some(true) {
                ids.insert(Arc::clone(record));
            } else {
                ids.remove(record);
            }
        }
        let changed = self.classes.replace(class, ids, load.again);
        let subscribed =
            self.subscribed.values_mut().filter(|subscriber| subscriber.viewer.class.as_ref() == Some(class));
        subscribed.for_each(|subscriber| subscriber.viewer.rebase(&changed, &self.classes));
    }

    /// Applies the answers about single records to all users without a finished load.
    fn apply_verdicts(
        &mut self,
        checks: &OpenChecks,
        loaded: &HashSet<Arc<str>>,
        answers: &Answers,
        changes: &mut VisibilityChanges,
    ) {
        let mut named: HashMap<&Arc<str>, Vec<&Arc<str>>> = HashMap::new();
        for (user, record) in checks.open_pairs() {
            named.entry(record).or_default().push(user);
        }
        let everybody: HashSet<&Arc<str>> = checks.open().into_iter().chain(&checks.gone).collect();
        let Self { classes, subscribed, .. } = self;
        let names: Vec<(Arc<str>, Arc<str>)> = classes.names().into_iter().map(|it| (class_name(&it), it)).collect();
        let verdict = |user: &Arc<str>, record: &Arc<str>| {
            let view = View { user: Arc::clone(user), record: Arc::clone(record) };
            answers.sees(&view)
        };
        let mut decide = |record: &Arc<str>, concerned: Vec<(&Arc<str>, &mut SubscribedUser)>, is_open: bool| {
            let gone = checks.gone.contains(record);
            let of_classes: HashMap<&Arc<str>, bool> = if is_open {
                names.iter().filter_map(|(name, it)| Some((it, !gone && (verdict(name, record)?)))).collect()
            } else {
                HashMap::new()
            };
            let decided = concerned.into_iter().map(|(user, subscriber)| {
                let before = subscriber.viewer.sees(record, classes);
                let is_held = subscriber.suspended.is_some() || loaded.contains(user);
                let shared = || of_classes.get(subscriber.viewer.class.as_ref()?).copied();
                let now = verdict(user, record).or_else(shared).unwrap_or(before) && !gone;
                let now = if is_held { before } else { now };
                (user, subscriber, before, now)
            });
            let decided: Vec<_> = decided.collect();
            for (_, class) in &names {
                if let Some(sees) = of_classes.get(class).copied().or(gone.then_some(false)) {
                    classes.set(class, record, sees);
                }
            }
            for (user, subscriber, before, now) in decided {
                subscriber.viewer.set(record, now, classes);
                if now != before {
                    changes.entry(Arc::clone(record)).or_default().insert(Arc::clone(user), now);
                }
            }
        };
        for record in &everybody {
            decide(record, subscribed.iter_mut().collect(), true);
        }
        for (record, users) in named.into_iter().filter(|(record, _)| !everybody.contains(record)) {
            let users: HashSet<&Arc<str>> = users.into_iter().collect();
            decide(record, subscribed.iter_mut().filter(|(user, _)| users.contains(user)).collect(), false);
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn apply_user_load(
        &mut self,
        user: &Arc<str>,
        load: &Load,
        visible: VisibleRecords,
        dirty: &HashSet<Arc<str>>,
        answers: &Answers,
        changes: &mut VisibilityChanges,
        backlogs: &mut Backlogs,
    ) {
        self.guarded = Some(visible.guarded);
        let (yes, no) = (self.interned(visible.yes), self.interned(visible.no));
        let mut viewer = Viewer::new(visible.class, &yes, &no, &self.classes);
        for record in dirty {
            let view = View { user: Arc::clone(user), record: Arc::clone(record) };
            viewer.set(record, answers.sees(&view) == Some(true), &self.classes);
        }
        let suspended = load.again.map(|from| Suspended { from, since: Instant::now() });
        let Some(subscriber) = self.subscribed.get_mut(user) else {
            if viewer.own() + self.subscribed.values().map(|subscriber| subscriber.viewer.own()).sum::<usize>()
                > OWN_IDS
            {
                limited!(
                    error,
                    "subscribes refused for too many visible records",
                    user = &**user,
                    channel = &*self.channel,
                    "an updates channel keeps too many visible records for single users; the subscribe of another user \
                     is refused"
                );
                self.waiting.remove(user);
                return;
            }
            let subscriber =
                SubscribedUser { viewer, connections: Vec::new(), suspended, empty_since: Some(Instant::now()) };
            self.subscribed.insert(Arc::clone(user), subscriber);
            return;
        };
        let then = std::mem::replace(&mut subscriber.viewer, viewer);
        for (record, sees) in subscriber.viewer.difference(&then, &self.classes) {
            changes.entry(record).or_default().insert(Arc::clone(user), sees);
        }
        let from =
            std::mem::replace(&mut subscriber.suspended, suspended).map_or(self.batch, |suspended| suspended.from);
        backlogs.insert(Arc::clone(user), from..load.end(self.batch));
    }

    fn bound_gains(&mut self, user: &Arc<str>, changes: &mut VisibilityChanges, queue: &InputQueue) {
        if changes.values().filter(|users| users.get(user) == Some(&true)).count() > GAINS {
            limited!(
                info,
                "users with many newly visible records",
                user = &**user,
                channel = &*self.channel,
                "too many records became visible to a user at once; the user's clients get code 2500 and reload"
            );
            changes.values_mut().for_each(|users| _ = users.remove(user));
            self.end(user, queue);
        }
    }

    /// Ends the subscriptions of a user after too many timeouts of PocketBase.
    fn give_up(&mut self, user: &Arc<str>, queue: &InputQueue) {
        self.metrics.updates_lost.inc();
        self.waiting.remove(user);
        self.end(user, queue);
    }

    fn interned(&mut self, ids: Ids) -> Ids {
        let one = |id: Arc<str>| match self.names.get(&id) {
            Some(known) => Arc::clone(known),
            None => {
                self.names.insert(Arc::clone(&id));
                id
            }
        };
        ids.into_iter().map(one).collect()
    }
}
