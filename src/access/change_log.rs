//! Log of recent access changes: tells whether a cached answer of PocketBase is still valid.
//!
//! PocketBase's hooks write a [`Change`] into the outbox beside every write that may grant or end access. A change
//! invalidates the answers within its scope that were asked for before the change arrived.

use crate::event::Change;
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;

/// Maximum number of separate changes kept. Past the limit, they are dropped, and everything counts as changed.
const REMEMBERED: usize = 10_000;

/// Position in the log of changes. Later moments are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

#[derive(Default)]
pub struct Changes {
    // Held for a few lookups: a blocking mutex is enough.
    state: Mutex<ChangeLog>,
}

#[derive(Default)]
struct ChangeLog {
    now: u64,
    /// Time of the last change whose scope was everything.
    everything: u64,
    last: HashMap<(Option<String>, Option<String>), u64, foldhash::fast::RandomState>,
}

impl Changes {
    pub fn now(&self) -> Moment {
        Moment(self.lock().now)
    }

    pub fn note(&self, change: &Change) {
        let mut state = self.lock();
        state.now += 1;
        let now = state.now;
        // Changes of a namespace are rare and count as changes of everything.
        let narrow = change.namespace.is_none() && (change.user.is_some() || change.channel.is_some());
        if !narrow || state.last.len() >= REMEMBERED {
            state.everything = now;
            state.last.clear();
        } else {
            state.last.insert((change.user.clone(), change.channel.clone()), now);
        }
    }

    /// Whether no change since `then` may concern the user in the channel; without a channel, whether none concerns
    /// the user everywhere.
    pub fn none_since(&self, Moment(then): Moment, user: &str, channel: Option<&str>) -> bool {
        let state = self.lock();
        if state.now == then {
            return true;
        }
        let (user, channel) = (Some(user.to_owned()), channel.map(str::to_owned));
        let last = |key: &(Option<String>, Option<String>)| state.last.get(key).copied().unwrap_or_default();
        let mut newest = state.everything.max(last(&(user.clone(), None)));
        if channel.is_some() {
            newest = newest.max(last(&(user, channel.clone()))).max(last(&(None, channel)));
        }
        newest <= then
    }

    fn lock(&self) -> MutexGuard<'_, ChangeLog> {
        self.state.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Cause;

    fn change(json: &str) -> Change {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_change_concerns_whom_it_names() {
        let member = change(r#"{"cause":"member","channel":"room:a","user":"u"}"#);
        let record = change(r#"{"cause":"record","channel":"room:a"}"#);
        let user = change(r#"{"cause":"user","user":"u"}"#);
        let namespace = change(r#"{"cause":"related","namespace":"room"}"#);
        let rules = change(r#"{"cause":"rules"}"#);
        let unknown = change(r#"{"cause":"of a later version"}"#);
        assert_eq!(unknown, Change::EVERYTHING);
        for (change, concerned) in [
            (&member, [true, false, false, false]),
            (&record, [true, true, false, false]),
            (&user, [true, false, true, true]),
            (&namespace, [true, true, true, false]),
            (&rules, [true, true, true, true]),
        ] {
            let changes = Changes::default();
            let before = changes.now();
            changes.note(change);
            for ((user, channel), concerned) in
                [("u", "room:a"), ("v", "room:a"), ("u", "room:b"), ("u", "rooms:a")].into_iter().zip(concerned)
            {
                assert_eq!(change.concerns(user, channel), concerned, "{change:?} {user} {channel}");
                let holds = changes.none_since(before, user, Some(channel));
                // A namespace counts as everything: more answers than necessary may become invalid.
                assert!(holds != concerned || (!holds && change.namespace.is_some()), "{change:?} {user} {channel}");
                assert!(changes.none_since(changes.now(), user, Some(channel)));
            }
        }
    }

    #[test]
    fn what_is_forgotten_counts_as_changed() {
        let changes = Changes::default();
        let before = changes.now();
        for i in 0..=REMEMBERED {
            let channel = Some(format!("room:{i}"));
            changes.note(&Change { cause: Cause::Record, user: None, channel, namespace: None });
        }
        assert!(!changes.none_since(before, "u", Some("room:0")));
        assert!(changes.none_since(changes.now(), "u", Some("room:0")));
    }
}
