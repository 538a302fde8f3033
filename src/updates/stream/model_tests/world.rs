//! The model of PocketBase: notes, links, groups and users, and a [`Source`] with delays, partial answers and failures.

use super::{RECORDS, USERS};
use crate::pocketbase::{Page, PocketBaseError, View, Views, Visible};
use crate::updates::source::Source;
use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Pseudorandom small numbers from a seed.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }

    pub(super) fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len())].clone()
    }
}

#[derive(Clone, PartialEq)]
pub(super) struct NoteRecord {
    pub(super) owner: &'static str,
    pub(super) group: usize,
    pub(super) open: bool,
    /// Time of the last write.
    pub(super) at: u64,
}

/// PocketBase's data. A note is visible to the owner and to linked users. Unless the rule is strict, an open note is
/// visible to all users and, without shared classes, every note to the members of the group. Suspended users see
/// nothing.
pub(super) struct World {
    pub(super) shares: bool,
    pub(super) per_reader: bool,
    pub(super) now: u64,
    pub(super) notes: BTreeMap<String, NoteRecord>,
    pub(super) links: BTreeSet<(&'static str, String)>,
    pub(super) members: BTreeSet<(&'static str, usize)>,
    pub(super) suspended: BTreeSet<&'static str>,
    pub(super) strict: bool,
    /// Last time at which a note was visible to a user.
    pub(super) seen: BTreeMap<(&'static str, String), u64>,
    /// Visibility of a note to a user, and the time of the last change.
    pub(super) turned: BTreeMap<(&'static str, String), (bool, u64)>,
    /// Last time at which a note was visible to all users with a class. PocketBase's answer for a class may be newer
    /// than the stream's knowledge of a user who has just left the class.
    pub(super) opened: BTreeMap<String, u64>,
    /// Existing notes that were hidden from a user at some time since the last rest.
    pub(super) interrupted: BTreeSet<(&'static str, String)>,
    pub(super) dice: Dice,
}

impl World {
    fn may_view(&self, user: &str, id: &str) -> bool {
        let Some(note) = self.notes.get(id) else { return false };
        let is_member = !self.shares && self.members.iter().any(|(it, group)| *it == user && *group == note.group);
        let is_linked = self.links.iter().any(|(it, record)| *it == user && record == id);
        !self.suspended.contains(user)
            && (note.owner == user || is_linked || (!self.strict && (note.open || is_member)))
    }

    fn class_may_view(&self, is_suspended: bool, id: &str) -> bool {
        !is_suspended && !self.strict && self.notes.get(id).is_some_and(|note| note.open)
    }

    fn class_of(&self, user: &str) -> Option<Arc<str>> {
        self.shares.then(|| format!("{} {}", self.strict, self.suspended.contains(user)).into())
    }

    /// True for the class of the suspended users; `None`: the class no longer exists.
    fn class(&self, name: &str) -> Option<bool> {
        let is_suspended = name.ends_with("true");
        (format!("{} {is_suspended}", self.strict) == name).then_some(is_suspended)
    }

    fn names(&self, user: &str, id: &str) -> bool {
        self.notes.get(id).is_some_and(|note| note.owner == user)
            || self.links.iter().any(|(it, record)| *it == user && record == id)
    }

    fn body(&self, id: &str, reader: &str) -> Value {
        let mut body = json!({"id": id, "at": self.notes[id].at});
        if self.per_reader {
            body["reader"] = reader.into();
        }
        body
    }

    pub(super) fn list(&self, user: &str) -> BTreeMap<String, u64> {
        let seen = self.notes.iter().filter(|(id, _)| self.may_view(user, id));
        seen.map(|(id, note)| (id.clone(), note.at)).collect()
    }

    /// Records the current visibility of all notes to all users.
    pub(super) fn observe(&mut self) {
        if self.shares && !self.strict {
            let open = self.notes.iter().filter(|(_, note)| note.open);
            self.opened.extend(open.map(|(id, _)| (id.clone(), self.now)));
        }
        for user in USERS {
            for id in (0..RECORDS).map(note_id) {
                let sees = self.may_view(user, &id);
                let turned = self.turned.entry((user, id.clone())).or_default();
                if turned.0 != sees {
                    *turned = (sees, self.now);
                }
                if sees {
                    self.seen.insert((user, id), self.now);
                } else if self.notes.contains_key(&id) {
                    self.interrupted.insert((user, id));
                }
            }
        }
    }

    fn visible(&self, who: &str, after: &str, rows: usize) -> Visible {
        let later: Vec<&String> = self.notes.keys().filter(|id| id.as_str() > after).collect();
        let next = later.get(rows).map(|_| later[rows - 1].as_str().into());
        let ids = later.iter().take(rows);
        let some =
            |sees: &dyn Fn(&str) -> bool| ids.clone().filter(|id| sees(id)).map(|id| id.as_str().into()).collect();
        let page = match who.strip_prefix('~') {
            Some(class) => self.class(class).map(|is_suspended| Page {
                class: Some(class.into()),
                yes: some(&|id| self.class_may_view(is_suspended, id)),
                no: Vec::new(),
                next,
            }),
            None if self.shares => Some(Page {
                class: self.class_of(who),
                yes: some(&|id| self.names(who, id) && self.may_view(who, id)),
                no: some(&|id| self.names(who, id) && !self.may_view(who, id)),
                next,
            }),
            None => Some(Page { class: None, yes: some(&|id| self.may_view(who, id)), no: Vec::new(), next }),
        };
        Visible { namespace: "note".to_owned(), collection: "notes".to_owned(), page }
    }

    fn view(&self, checks: &[View]) -> Views {
        let mut views = Views {
            results: vec![],
            records: Default::default(),
            own: Default::default(),
            per_reader: self.per_reader,
            truncated: vec![],
        };
        for (i, View { user, record }) in checks.iter().enumerate() {
            let exists = self.notes.contains_key(&**record);
            let sees = match user.strip_prefix('~') {
                Some(class) => self.class(class).is_some_and(|is_suspended| self.class_may_view(is_suspended, record)),
                None => self.may_view(user, record),
            };
            views.results.push(exists.then_some(sees));
            if sees {
                let body = serde_json::value::to_raw_value(&self.body(record, user)).unwrap();
                if self.per_reader {
                    views.own.insert(i, body);
                } else {
                    views.records.insert(Arc::clone(record), body);
                }
            }
        }
        views
    }
}

pub(super) fn note_id(number: usize) -> String {
    format!("note{number}")
}

/// A source with random delays, partial answers and failures.
pub(super) struct Slow(pub(super) Arc<Mutex<World>>);

impl Slow {
    async fn answer<T>(&self, answer: impl FnOnce(&mut World) -> T) -> Result<T, PocketBaseError> {
        let roll = |sides| self.0.lock().dice.roll(sides);
        tokio::time::sleep(Duration::from_millis(roll(20) as u64)).await;
        let answer = match roll(40) {
            0 => return Err(PocketBaseError::Timeout),
            1 => return Err(PocketBaseError::Unreachable("for a test".to_owned())),
            _ => answer(&mut self.0.lock()),
        };
        tokio::time::sleep(Duration::from_millis(roll(20) as u64)).await;
        Ok(answer)
    }
}

#[async_trait]
impl Source for Slow {
    async fn visible(&self, _: &str, who: &str, after: &str, _: usize) -> Result<Visible, PocketBaseError> {
        self.answer(|world| {
            let rows = 1 + world.dice.roll(RECORDS);
            world.visible(who, after, rows)
        })
        .await
    }

    async fn view(&self, _: &str, checks: &[View]) -> Result<Views, PocketBaseError> {
        self.answer(|world| {
            let answered = 1 + world.dice.roll(checks.len());
            world.view(&checks[..answered])
        })
        .await
    }
}
