//! Applies PocketBase's answers to the sights of users and classes, and compares sights before and after.

use super::{Owed, Seat, Settled};
use crate::limits::lines::limited;
use crate::pocketbase::View;
use crate::updates::sight::{Ids, Viewer};
use crate::updates::stream::Action;
use crate::updates::stream::Inbox;
use crate::updates::stream::inquiry::{Answers, Whole};
use crate::updates::stream::loads::{Load, Who};
use crate::updates::stream::log::{Entry, Happened};
use crate::updates::stream::questions::Questions;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use tokio::time::Instant;

/// Limit of records that enter a user's sight at once. Past the limit, the user's clients reload.
const GAINS: usize = 2_000;
/// Limit of record ids kept for single users, for all users of a channel together; about 40 bytes per id. Past the
/// limit, new subscribes are refused.
const SIGHTS: usize = 20_000_000;

/// Record → users, with true where the record entered the user's sight and false where the record left.
pub(super) type Turns = HashMap<Arc<str>, HashMap<Arc<str>, bool>>;

/// Users with a whole sight settled in this batch → the batches to deliver now.
pub(super) type Told = HashMap<Arc<str>, Range<u64>>;

fn class_name(class: &str) -> Arc<str> {
    format!("~{class}").into()
}

impl Settled {
    /// Starts loads for new subscribers, and for classes without a current set.
    pub(super) fn begin_loads(&mut self) {
        let users: Vec<Arc<str>> =
            self.waiting.keys().filter(|user| !self.seats.contains_key(*user)).cloned().collect();
        let users = users.into_iter().map(Who::User);
        let classes: HashSet<Who> = self.loads.iter().filter_map(|(_, load)| self.missing_class(load)).collect();
        for who in users.chain(classes).collect::<Vec<_>>() {
            if self.loads.get(&who).is_none() {
                self.loads.begin(who, self.batch, false);
            }
        }
    }

    /// The class of a finished load, if the set of the class is unknown or too old for the load.
    fn missing_class(&self, load: &Load) -> Option<Who> {
        let class = load.result.as_ref()?.as_ref()?.class.as_ref()?;
        let known = self.classes.hold_before(class, load.end(self.batch));
        (!known).then(|| Who::Class(Arc::clone(class)))
    }

    /// The loads to settle in this batch.
    pub(super) fn ready(&self) -> Vec<Who> {
        let is_ready = |(who, load): &(&Who, &Load)| {
            let Some(result) = &load.result else { return false };
            let (Who::User(_), Some(class)) = (who, result.as_ref().and_then(|whole| whole.class.clone())) else {
                return true;
            };
            // A subscribe does not wait for the regular recheck of the user's class.
            let other = self.loads.get(&Who::Class(Arc::clone(&class)));
            match other.filter(|other| load.recheck || !other.recheck) {
                Some(other) => other.result.is_some() && load.end(self.batch) <= other.end(self.batch),
                None => self.classes.hold_before(&class, load.end(self.batch)),
            }
        };
        self.loads.iter().filter(is_ready).map(|(who, _)| who.clone()).collect()
    }

    /// Records with a possible change for this user or class since the start of the load.
    fn dirty(&self, who: &Who, load: &Load) -> HashSet<Arc<str>> {
        let concerns = |entry: &&Entry| match (&entry.happened, who) {
            (Happened::Touched(Some(user)), Who::User(me)) => user == me,
            (Happened::Touched(Some(_)), Who::Class(_)) => false,
            (Happened::Event { action, .. }, _) => *action != Action::Update,
            (Happened::Touched(None) | Happened::Deleted, _) => true,
        };
        let entries = self.log.of(load.since + 1..self.batch + 1).filter(concerns);
        entries.map(|entry| Arc::clone(&entry.record)).collect()
    }

    pub(super) fn views_to_ask(&self, questions: &Questions, ready: &[Who]) -> Vec<View> {
        let view = |user: &Arc<str>, record: &Arc<str>| View { user: Arc::clone(user), record: Arc::clone(record) };
        let mut views = HashSet::new();
        for who in ready {
            let Some(load) = self.loads.get(who).filter(|load| matches!(load.result, Some(Some(_)))) else { continue };
            let name = who.name();
            let dirty = self.dirty(who, load);
            views.extend(dirty.iter().filter(|it| !questions.gone.contains(*it)).map(|it| view(&name, it)));
        }
        let live = |user: &Arc<str>| self.seats.get(user).is_some_and(|seat| seat.owed.is_none());
        let pairs = questions.open_pairs().filter(|(user, _)| live(user));
        views.extend(pairs.map(|(user, record)| view(user, record)));
        let open = questions.open();
        for (user, seat) in self.seats.iter().filter(|(_, seat)| seat.owed.is_none()) {
            let is_alone = seat.viewer.class.is_none();
            let concerned = open.iter().filter(|record| {
                questions.records.contains(**record)
                    || is_alone
                    || questions.created.get(**record).is_some_and(|named| named.contains(user))
            });
            views.extend(concerned.map(|record| view(user, record)));
        }
        for class in self.classes.names() {
            let name = class_name(&class);
            views.extend(open.iter().map(|record| view(&name, record)));
        }
        views.into_iter().collect()
    }

    /// Applies all answers. Returns the records that entered or left each user's sight, and the batches to deliver.
    pub(super) fn take_in(
        &mut self,
        questions: &Questions,
        ready: Vec<Who>,
        answers: &mut Answers,
        inbox: &Inbox,
    ) -> (Turns, Told) {
        let (mut turns, mut told) = (Turns::new(), Told::new());
        let (mut users, mut classes) = (Vec::new(), Vec::new());
        for who in ready {
            let dirty = self.loads.get(&who).map(|load| self.dirty(&who, load)).unwrap_or_default();
            let Some(load) = self.loads.remove(&who) else { continue };
            match who {
                Who::User(user) => users.push((user, load, dirty)),
                Who::Class(class) => classes.push((class, load, dirty)),
            }
        }
        let (mut unreadable, mut unknown) = (HashSet::new(), HashSet::new());
        for (class, mut load, dirty) in classes {
            match load.result.take().flatten() {
                None => drop(unreadable.insert(class)),
                Some(whole) if whole.class.as_ref() != Some(&class) => drop(unknown.insert(class)),
                Some(whole) => self.take_class(&class, &load, whole, &dirty, answers),
            }
        }
        let loaded: HashSet<Arc<str>> = users.iter().map(|(user, ..)| Arc::clone(user)).collect();
        self.take_verdicts(questions, &loaded, answers, &mut turns);
        for (user, mut load, dirty) in users {
            let is_of = |classes: &HashSet<Arc<str>>, whole: &Whole| {
                whole.class.as_ref().is_some_and(|class| classes.contains(class))
            };
            match load.result.take().flatten() {
                // The rule has changed: the user is of another class now.
                Some(whole) if is_of(&unknown, &whole) => self.loads.begin(Who::User(user), self.batch, load.recheck),
                None => self.give_up(&user, inbox),
                Some(whole) if is_of(&unreadable, &whole) => self.give_up(&user, inbox),
                Some(whole) => {
                    self.take_user(&user, &load, whole, &dirty, answers, &mut turns, &mut told);
                    self.bound_gains(&user, &mut turns, inbox);
                }
            }
        }
        (turns, told)
    }

    fn take_class(
        &mut self,
        class: &Arc<str>,
        load: &Load,
        whole: Whole,
        dirty: &HashSet<Arc<str>>,
        answers: &Answers,
    ) {
        self.place = Some(whole.place);
        let mut ids = self.interned(whole.yes);
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
        let seats = self.seats.values_mut().filter(|seat| seat.viewer.class.as_ref() == Some(class));
        seats.for_each(|seat| seat.viewer.rebase(&changed, &self.classes));
    }

    /// Applies the answers about single records to all users without a finished load.
    fn take_verdicts(
        &mut self,
        questions: &Questions,
        loaded: &HashSet<Arc<str>>,
        answers: &Answers,
        turns: &mut Turns,
    ) {
        let mut named: HashMap<&Arc<str>, Vec<&Arc<str>>> = HashMap::new();
        for (user, record) in questions.open_pairs() {
            named.entry(record).or_default().push(user);
        }
        let everybody: HashSet<&Arc<str>> = questions.open().into_iter().chain(&questions.gone).collect();
        let Self { classes, seats, .. } = self;
        let names: Vec<(Arc<str>, Arc<str>)> = classes.names().into_iter().map(|it| (class_name(&it), it)).collect();
        let verdict = |user: &Arc<str>, record: &Arc<str>| {
            let view = View { user: Arc::clone(user), record: Arc::clone(record) };
            answers.sees(&view)
        };
        let mut decide = |record: &Arc<str>, concerned: Vec<(&Arc<str>, &mut Seat)>, is_open: bool| {
            let gone = questions.gone.contains(record);
            let of_classes: HashMap<&Arc<str>, bool> = if is_open {
                names.iter().filter_map(|(name, it)| Some((it, !gone && (verdict(name, record)?)))).collect()
            } else {
                HashMap::new()
            };
            let decided = concerned.into_iter().map(|(user, seat)| {
                let before = seat.viewer.sees(record, classes);
                let is_held = seat.owed.is_some() || loaded.contains(user);
                let shared = || of_classes.get(seat.viewer.class.as_ref()?).copied();
                let now = verdict(user, record).or_else(shared).unwrap_or(before) && !gone;
                let now = if is_held { before } else { now };
                (user, seat, before, now)
            });
            let decided: Vec<_> = decided.collect();
            for (_, class) in &names {
                if let Some(sees) = of_classes.get(class).copied().or(gone.then_some(false)) {
                    classes.set(class, record, sees);
                }
            }
            for (user, seat, before, now) in decided {
                seat.viewer.set(record, now, classes);
                if now != before {
                    turns.entry(Arc::clone(record)).or_default().insert(Arc::clone(user), now);
                }
            }
        };
        for record in &everybody {
            decide(record, seats.iter_mut().collect(), true);
        }
        for (record, users) in named.into_iter().filter(|(record, _)| !everybody.contains(record)) {
            let users: HashSet<&Arc<str>> = users.into_iter().collect();
            decide(record, seats.iter_mut().filter(|(user, _)| users.contains(user)).collect(), false);
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn take_user(
        &mut self,
        user: &Arc<str>,
        load: &Load,
        whole: Whole,
        dirty: &HashSet<Arc<str>>,
        answers: &Answers,
        turns: &mut Turns,
        told: &mut Told,
    ) {
        self.place = Some(whole.place);
        let (yes, no) = (self.interned(whole.yes), self.interned(whole.no));
        let mut viewer = Viewer::new(whole.class, &yes, &no, &self.classes);
        for record in dirty {
            let view = View { user: Arc::clone(user), record: Arc::clone(record) };
            viewer.set(record, answers.sees(&view) == Some(true), &self.classes);
        }
        let owed = load.again.map(|from| Owed { from, since: Instant::now() });
        let Some(seat) = self.seats.get_mut(user) else {
            if viewer.own() + self.seats.values().map(|seat| seat.viewer.own()).sum::<usize>() > SIGHTS {
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
            let seat = Seat { viewer, connections: Vec::new(), owed, empty_since: Some(Instant::now()) };
            self.seats.insert(Arc::clone(user), seat);
            return;
        };
        let then = std::mem::replace(&mut seat.viewer, viewer);
        for (record, sees) in seat.viewer.difference(&then, &self.classes) {
            turns.entry(record).or_default().insert(Arc::clone(user), sees);
        }
        let from = std::mem::replace(&mut seat.owed, owed).map_or(self.batch, |owed| owed.from);
        told.insert(Arc::clone(user), from..load.end(self.batch));
    }

    fn bound_gains(&mut self, user: &Arc<str>, turns: &mut Turns, inbox: &Inbox) {
        if turns.values().filter(|users| users.get(user) == Some(&true)).count() > GAINS {
            limited!(
                info,
                "users with many newly visible records",
                user = &**user,
                channel = &*self.channel,
                "too many records became visible to a user at once; the user's clients get code 2500 and reload"
            );
            turns.values_mut().for_each(|users| _ = users.remove(user));
            self.end(user, inbox);
        }
    }

    /// Ends the subscriptions of a user after too many timeouts of PocketBase.
    fn give_up(&mut self, user: &Arc<str>, inbox: &Inbox) {
        self.metrics.updates_lost.inc();
        self.waiting.remove(user);
        self.end(user, inbox);
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

    /// Fetches the bodies of records that entered a sight, and checks the existence of records that left a sight. A
    /// newer refusal cancels the delivery.
    pub(super) async fn complete(
        &mut self,
        questions: &Questions,
        told: &Told,
        turns: &mut Turns,
        answers: &mut Answers,
    ) {
        let mut asked = HashSet::new();
        loop {
            let views = self.missing(turns, questions, told, answers, &asked);
            if views.is_empty() {
                return;
            }
            asked.extend(views.iter().cloned());
            let more = self.inquiry.views(views).await;
            for (View { user, record }, sees) in more.sees_all() {
                let Some(users) = turns.get_mut(record) else { continue };
                let sees = sees == Some(true);
                if users.get(user).is_some_and(|turned| *turned != sees) {
                    users.remove(user);
                    if let Some(seat) = self.seats.get_mut(user) {
                        seat.viewer.set(record, sees, &self.classes);
                    }
                }
            }
            answers.extend(more);
        }
    }

    /// The questions still open before delivery: bodies, and the existence of records that left a sight.
    fn missing(
        &self,
        turns: &Turns,
        questions: &Questions,
        told: &Told,
        answers: &Answers,
        asked: &HashSet<View>,
    ) -> Vec<View> {
        let mut views = Vec::new();
        let exists: HashSet<&Arc<str>> = answers.sees_all().map(|(view, _)| &view.record).collect();
        for (record, users) in turns {
            let of = |sees: bool| {
                let users = users.iter().filter(move |(_, turned)| **turned == sees);
                users.map(|(user, _)| View { user: Arc::clone(user), record: Arc::clone(record) })
            };
            let is_open = |view: &View| {
                // The pages of a whole sight and the set of the class are from different times: each record is asked
                // about.
                let class = self.class_view(view).filter(|_| !told.contains_key(&view.user));
                !asked.contains(view) && answers.body(view, class.as_ref()).is_none()
            };
            views.extend(of(true).filter(is_open));
            if !questions.gone.contains(record) && !exists.contains(record) {
                views.extend(of(false).take(1));
            }
        }
        views
    }

    /// The same question for the user's class.
    pub(super) fn class_view(&self, View { user, record }: &View) -> Option<View> {
        let class = self.seats.get(user)?.viewer.class.as_ref()?;
        Some(View { user: class_name(class), record: Arc::clone(record) })
    }
}
