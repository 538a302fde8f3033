//! Sets of visible records: users of a class share one set, and each user has only the differences from the set.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

pub type Ids = HashSet<Arc<str>, foldhash::fast::RandomState>;

/// The records visible to one user.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Viewer {
    /// The class with the shared set; `None`: nothing is shared.
    pub class: Option<Arc<str>>,
    /// Records visible to the user and not to the class.
    plus: Ids,
    /// Records visible to the class and not to the user.
    minus: Ids,
}

/// The records visible to each class, for the classes of this node's subscribers.
#[derive(Clone, Debug, Default)]
pub struct Classes {
    of: HashMap<Arc<str>, Class, foldhash::fast::RandomState>,
}

#[derive(Clone, Debug)]
struct Class {
    ids: Ids,
    /// First batch for which the set is in doubt; `None`: the set is up to date.
    doubtful_from: Option<u64>,
}

impl Classes {
    pub fn names(&self) -> Vec<Arc<str>> {
        self.of.keys().cloned().collect()
    }

    /// Whether the set of this class is valid for all batches before `end`.
    pub fn hold_before(&self, class: &str, end: u64) -> bool {
        self.of.get(class).is_some_and(|class| class.doubtful_from.is_none_or(|from| end <= from))
    }

    /// Marks all sets as doubtful from this batch on.
    pub fn doubt(&mut self, batch: u64) {
        self.of.values_mut().for_each(|class| {
            class.doubtful_from.get_or_insert(batch);
        });
    }

    /// Replaces the set of a class. Returns the differences of the two sets, for [`Viewer::rebase`].
    pub fn replace(&mut self, class: &Arc<str>, ids: Ids, doubtful_from: Option<u64>) -> Vec<Arc<str>> {
        let old = self.of.remove(class).map(|class| class.ids).unwrap_or_default();
        let changed = ids.symmetric_difference(&old).cloned().collect();
        self.of.insert(Arc::clone(class), Class { ids, doubtful_from });
        changed
    }

    /// Keeps the classes in `wanted`.
    pub fn retain(&mut self, wanted: &HashSet<Arc<str>>) {
        self.of.retain(|class, _| wanted.contains(class));
    }

    /// Adds a record to the set of a class, or removes the record.
    pub fn set(&mut self, class: &str, record: &Arc<str>, sees: bool) {
        let Some(Class { ids, .. }) = self.of.get_mut(class) else { return };
        if sees {
            ids.insert(Arc::clone(record));
        } else {
            ids.remove(record);
        }
    }

    fn ids(&self, class: Option<&Arc<str>>) -> Option<&Ids> {
        self.of.get(class?).map(|class| &class.ids)
    }

    fn share(&self, class: Option<&Arc<str>>, record: &str) -> bool {
        self.ids(class).is_some_and(|ids| ids.contains(record))
    }
}

impl Viewer {
    /// A user of this class who may view `yes` in addition to the records of the class, and may not view `no`.
    pub fn new(class: Option<Arc<str>>, yes: &Ids, no: &Ids, classes: &Classes) -> Self {
        let mut viewer = Self { class, ..Self::default() };
        yes.iter().for_each(|id| viewer.set(id, true, classes));
        no.iter().for_each(|id| viewer.set(id, false, classes));
        viewer
    }

    /// The number of records kept for this user alone.
    pub fn own(&self) -> usize {
        self.plus.len() + self.minus.len()
    }

    pub fn sees(&self, record: &str, classes: &Classes) -> bool {
        self.plus.contains(record) || (classes.share(self.class.as_ref(), record) && !self.minus.contains(record))
    }

    /// Notes whether the user may view the record. Requires the new set of the class.
    pub fn set(&mut self, record: &Arc<str>, sees: bool, classes: &Classes) {
        let shared = classes.share(self.class.as_ref(), record);
        if sees && !shared {
            self.plus.insert(Arc::clone(record));
        } else {
            self.plus.remove(record);
        }
        if shared && !sees {
            self.minus.insert(Arc::clone(record));
        } else {
            self.minus.remove(record);
        }
    }

    /// Keeps the user's visible records the same after the set of the class was replaced. `changed`: the result of
    /// [`Classes::replace`].
    pub fn rebase(&mut self, changed: &[Arc<str>], classes: &Classes) {
        for record in changed {
            let shared_before = !classes.share(self.class.as_ref(), record);
            let saw = self.plus.contains(record) || (shared_before && !self.minus.contains(record));
            self.set(record, saw, classes);
        }
    }

    /// Records visible now and not visible `then` (true), and the reverse (false). Both viewers refer to the same
    /// `classes`.
    pub fn difference(&self, then: &Self, classes: &Classes) -> Vec<(Arc<str>, bool)> {
        let mut candidates = Ids::default();
        for viewer in [self, then] {
            candidates.extend(viewer.plus.iter().chain(&viewer.minus).cloned());
            if self.class != then.class {
                candidates.extend(classes.ids(viewer.class.as_ref()).into_iter().flatten().cloned());
            }
        }
        let is_changed = |id: Arc<str>| {
            let now = self.sees(&id, classes);
            (now != then.sees(&id, classes)).then_some((id, now))
        };
        candidates.into_iter().filter_map(is_changed).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(number: u8) -> Arc<str> {
        format!("record{number}").into()
    }

    fn ids(numbers: impl IntoIterator<Item = u8>) -> Ids {
        numbers.into_iter().map(id).collect()
    }

    fn classes(class: &str, numbers: impl IntoIterator<Item = u8>) -> Classes {
        let mut classes = Classes::default();
        classes.replace(&class.into(), ids(numbers), None);
        classes
    }

    /// All records visible to the user.
    fn all(viewer: &Viewer, classes: &Classes) -> Ids {
        (0..255).map(id).filter(|id| viewer.sees(id, classes)).collect()
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// A record; whether the class, and each of two users of the class, may view the record now.
        Everybody(u8, bool, [bool; 2]),
        One(u8, usize, bool),
        /// The set of the class is read again.
        Replace(Vec<u8>),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..4u8, any::<bool>(), any::<[bool; 2]>())
                .prop_map(|(id, class, users)| Step::Everybody(id, class, users)),
            (0..4u8, 0..2usize, any::<bool>()).prop_map(|(id, user, sees)| Step::One(id, user, sees)),
            prop::collection::vec(0..4u8, 0..4).prop_map(Step::Replace),
        ]
    }

    proptest! {
        /// After any sequence of changes, the set and the differences give the last verdict on each record.
        #[test]
        fn a_user_sees_what_was_said_last(steps in prop::collection::vec(step(), 0..40)) {
            let class: Arc<str> = "class".into();
            let mut classes = classes("class", []);
            let nothing = Ids::default();
            let mut viewers = [0, 1].map(|_| Viewer::new(Some(Arc::clone(&class)), &nothing, &nothing, &classes));
            let mut truth = [Ids::default(), Ids::default()];
            for step in steps {
                let (record, said) = match step {
                    Step::Everybody(record, sees, users) => {
                        classes.set(&class, &id(record), sees);
                        (id(record), vec![(0, users[0]), (1, users[1])])
                    }
                    Step::One(record, user, sees) => (id(record), vec![(user, sees)]),
                    Step::Replace(numbers) => {
                        let changed = classes.replace(&class, ids(numbers), None);
                        viewers.iter_mut().for_each(|viewer| viewer.rebase(&changed, &classes));
                        (id(0), vec![])
                    }
                };
                for (user, sees) in said {
                    viewers[user].set(&record, sees, &classes);
                    if sees { truth[user].insert(Arc::clone(&record)); } else { truth[user].remove(&record); }
                }
                for (viewer, truth) in viewers.iter().zip(&truth) {
                    prop_assert_eq!(&all(viewer, &classes), truth);
                    prop_assert!(viewer.plus.is_disjoint(&viewer.minus));
                }
            }
        }
    }

    #[test]
    fn a_set_that_a_class_shares_is_kept_once() {
        let classes = classes("class", 0..100);
        let viewer = Viewer::new(Some("class".into()), &ids(90..110), &ids(0..10), &classes);
        assert_eq!((viewer.plus.len(), viewer.minus.len(), viewer.own()), (10, 10, 20));
        assert_eq!(all(&viewer, &classes), ids(10..110));
    }

    #[test]
    fn a_difference_holds_what_came_and_what_went() {
        let mut classes = classes("class", 0..4);
        classes.replace(&"other".into(), ids(1..5), None);
        let viewer = |class: &str, yes: &[u8], no: &[u8]| {
            Viewer::new(Some(class.into()), &ids(yes.iter().copied()), &ids(no.iter().copied()), &classes)
        };
        let difference = |now: &Viewer, then: &Viewer| {
            let mut difference = now.difference(then, &classes);
            difference.sort();
            difference
        };
        let (then, now) = (viewer("class", &[7, 8], &[1]), viewer("class", &[8, 9], &[0]));
        assert_eq!(difference(&now, &then), [(id(0), false), (id(1), true), (id(7), false), (id(9), true)]);
        let other = viewer("other", &[7, 8], &[]);
        assert_eq!(difference(&other, &then), [(id(0), false), (id(1), true), (id(4), true)]);
        assert_eq!(difference(&now, &now), []);
    }

    #[test]
    fn a_doubtful_set_holds_for_what_was_before_the_doubt() {
        let mut classes = classes("class", 0..4);
        assert!(classes.hold_before("class", 9) && !classes.hold_before("unknown", 9));
        classes.doubt(7);
        classes.doubt(8);
        assert!(classes.hold_before("class", 7) && !classes.hold_before("class", 8));
        classes.replace(&"class".into(), ids(0..4), Some(8));
        assert!(classes.hold_before("class", 8) && !classes.hold_before("class", 9));
    }
}
