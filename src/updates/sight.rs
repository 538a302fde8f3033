//! Who sees which records, kept small: users of one class share a set, and each has only what differs from it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

pub type Ids = HashSet<Arc<str>, foldhash::fast::RandomState>;

/// What one user sees.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Viewer {
    /// What is shared; `None`: nothing is.
    pub class: Option<Arc<str>>,
    /// Beyond the class.
    plus: Ids,
    /// Of the class, but not for this user.
    minus: Ids,
}

/// What the classes see whose users are here.
#[derive(Clone, Debug, Default)]
pub struct Classes {
    of: HashMap<Arc<str>, Ids, foldhash::fast::RandomState>,
}

impl Classes {
    pub fn knows(&self, class: &str) -> bool {
        self.of.contains_key(class)
    }

    pub fn names(&self) -> Vec<Arc<str>> {
        self.of.keys().cloned().collect()
    }

    pub fn insert(&mut self, class: Arc<str>, ids: Ids) {
        self.of.insert(class, ids);
    }

    /// Keeps those that `wanted` names.
    pub fn retain(&mut self, wanted: &HashSet<Arc<str>>) {
        self.of.retain(|class, _| wanted.contains(class));
    }

    /// Notes that a class sees this record from now on, or no longer.
    pub fn set(&mut self, class: &str, record: &Arc<str>, sees: bool) {
        let Some(ids) = self.of.get_mut(class) else { return };
        if sees {
            ids.insert(Arc::clone(record));
        } else {
            ids.remove(record);
        }
    }

    fn ids(&self, class: Option<&Arc<str>>) -> Option<&Ids> {
        self.of.get(class?)
    }
}

impl Viewer {
    /// One of this class who, of the records that name him, sees `yes` and does not see `no`.
    pub fn new(class: Option<Arc<str>>, yes: Vec<Arc<str>>, no: Vec<Arc<str>>, classes: &Classes) -> Self {
        let mut viewer = Self { class, ..Self::default() };
        for id in &yes {
            viewer.set(id, true, classes);
        }
        for id in &no {
            viewer.set(id, false, classes);
        }
        viewer
    }

    pub fn sees(&self, record: &str, classes: &Classes) -> bool {
        self.plus.contains(record)
            || (classes.ids(self.class.as_ref()).is_some_and(|ids| ids.contains(record))
                && !self.minus.contains(record))
    }

    /// Notes whether this user sees the record; the class is right already.
    pub fn set(&mut self, record: &Arc<str>, sees: bool, classes: &Classes) {
        let shared = classes.ids(self.class.as_ref()).is_some_and(|ids| ids.contains(record));
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

    /// What has come into the user's sight (true) or gone out of it since `then`, when the classes were `before`.
    pub fn difference(&self, classes: &Classes, then: &Self, before: &Classes) -> Vec<(Arc<str>, bool)> {
        if self == then && classes.ids(self.class.as_ref()) == before.ids(then.class.as_ref()) {
            return Vec::new();
        }
        let (now, then) = (self.all(classes), then.all(before));
        let come = now.difference(&then).map(|id| (Arc::clone(id), true));
        come.chain(then.difference(&now).map(|id| (Arc::clone(id), false))).collect()
    }

    /// Everything that the user sees.
    fn all(&self, classes: &Classes) -> Ids {
        let shared = classes.ids(self.class.as_ref()).into_iter().flatten();
        shared.filter(|id| !self.minus.contains(*id)).chain(&self.plus).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(number: u8) -> Arc<str> {
        format!("record{number}").into()
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// A record, and what the class and each of two users of it now see.
        Everybody(u8, bool, [bool; 2]),
        One(u8, usize, bool),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..4u8, any::<bool>(), any::<[bool; 2]>())
                .prop_map(|(id, class, users)| Step::Everybody(id, class, users)),
            (0..4u8, 0..2usize, any::<bool>()).prop_map(|(id, user, sees)| Step::One(id, user, sees)),
        ]
    }

    proptest! {
        /// However they come about, a user's exceptions add up to what he was said to see.
        #[test]
        fn a_user_sees_what_was_said_last(steps in prop::collection::vec(step(), 0..40)) {
            let class: Arc<str> = "class".into();
            let mut classes = Classes::default();
            classes.insert(Arc::clone(&class), Ids::default());
            let mut viewers = [0, 1].map(|_| Viewer::new(Some(Arc::clone(&class)), vec![], vec![], &classes));
            let mut truth = [Ids::default(), Ids::default()];
            for step in steps {
                let (record, said) = match step {
                    Step::Everybody(record, sees, users) => {
                        classes.set(&class, &id(record), sees);
                        (id(record), vec![(0, users[0]), (1, users[1])])
                    }
                    Step::One(record, user, sees) => (id(record), vec![(user, sees)]),
                };
                for (user, sees) in said {
                    viewers[user].set(&record, sees, &classes);
                    if sees { truth[user].insert(Arc::clone(&record)); } else { truth[user].remove(&record); }
                }
                for (viewer, truth) in viewers.iter().zip(&truth) {
                    prop_assert_eq!(&viewer.all(&classes), truth);
                    for record in (0..4).map(id) {
                        prop_assert_eq!(viewer.sees(&record, &classes), truth.contains(&record));
                    }
                    prop_assert!(viewer.plus.is_disjoint(&viewer.minus));
                }
            }
        }
    }

    #[test]
    fn what_a_class_shares_is_kept_once() {
        let class: Arc<str> = "class".into();
        let mut classes = Classes::default();
        classes.insert(Arc::clone(&class), (0..100).map(id).collect());
        let viewer = Viewer::new(Some(class), (90..110).map(id).collect(), (0..10).map(id).collect(), &classes);
        assert_eq!((viewer.plus.len(), viewer.minus.len()), (10, 10));
        assert_eq!(viewer.all(&classes), (10..110).map(id).collect());
    }

    #[test]
    fn a_difference_holds_what_came_and_what_went() {
        let class = |ids: std::ops::Range<u8>| {
            let mut classes = Classes::default();
            classes.insert("class".into(), ids.map(id).collect());
            classes
        };
        let (before, after) = (class(0..3), class(1..4));
        let viewer = |yes: &[u8], classes: &Classes| {
            Viewer::new(Some("class".into()), yes.iter().copied().map(id).collect(), vec![], classes)
        };
        let (then, now) = (viewer(&[7, 8], &before), viewer(&[0, 8], &after));
        let mut difference = now.difference(&after, &then, &before);
        difference.sort();
        assert_eq!(difference, [(id(3), true), (id(7), false)]);
        assert_eq!(now.difference(&after, &now, &after), []);
    }
}
