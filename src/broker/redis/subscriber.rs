//! The gateway as a subscriber of Redis: wanted channels, key names, and the sink. Shared by the links to all nodes.

use super::keys::Keys;
use super::slots;
use crate::broker::{BrokerError, Sink};
use parking_lot::{Mutex, MutexGuard};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock, Weak};

pub struct RedisSubscriber {
    pub keys: Keys,
    sink: OnceLock<Weak<dyn Sink>>,
    /// Never held across an await.
    wanted: Mutex<BySlot>,
}

/// Channels, or names in Redis, by slot. Finds the names of a node without hashing all names.
#[derive(Default)]
pub struct BySlot(HashMap<u16, HashSet<String>, foldhash::fast::RandomState>);

impl BySlot {
    /// Returns whether the name is new.
    pub fn insert(&mut self, slot: u16, name: &str) -> bool {
        self.0.entry(slot).or_default().insert(name.to_owned())
    }

    /// Returns whether the name was present.
    pub fn remove(&mut self, slot: u16, name: &str) -> bool {
        let Some(names) = self.0.get_mut(&slot) else { return false };
        let removed = names.remove(name);
        if names.is_empty() {
            self.0.remove(&slot);
        }
        removed
    }

    pub fn contains(&self, slot: u16, name: &str) -> bool {
        self.0.get(&slot).is_some_and(|names| names.contains(name))
    }

    pub fn of(&self, slot: u16) -> impl Iterator<Item = &String> {
        self.0.get(&slot).into_iter().flatten()
    }

    pub fn all(&self) -> impl Iterator<Item = &String> {
        self.0.values().flatten()
    }

    /// Slots that are not empty, with the number of names.
    pub fn counts(&self) -> impl Iterator<Item = (u16, usize)> {
        self.0.iter().map(|(slot, names)| (*slot, names.len()))
    }

    /// Whether the slots hold at least these numbers of names.
    pub fn has_at_least(&self, counts: impl IntoIterator<Item = (u16, usize)>) -> bool {
        counts.into_iter().all(|(slot, count)| self.0.get(&slot).map_or(0, HashSet::len) >= count)
    }
}

impl RedisSubscriber {
    pub fn new(keys: Keys) -> Self {
        Self { keys, sink: OnceLock::new(), wanted: Mutex::default() }
    }

    pub fn set_sink(&self, sink: Weak<dyn Sink>) -> Result<(), BrokerError> {
        self.sink.set(sink).map_err(|_| BrokerError::Unavailable("the broker was already started".into()))
    }

    pub fn sink(&self) -> Option<Arc<dyn Sink>> {
        self.sink.get().and_then(Weak::upgrade)
    }

    /// The wanted channels, by the slots of the names in Redis.
    pub fn wanted(&self) -> MutexGuard<'_, BySlot> {
        self.wanted.lock()
    }

    /// A channel's name in Redis and its slot.
    pub fn live(&self, channel: &str) -> (String, u16) {
        let name = self.keys.live(channel);
        let slot = slots::of_key(name.as_bytes());
        (name, slot)
    }

    /// Reports a gap to the sink.
    pub fn gap(&self) {
        if let Some(sink) = self.sink() {
            sink.gap();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    /// The comparison runs every second on each link, without an await. Hashing 100,000 names took 58 ms.
    #[test]
    fn a_missing_subscription_is_found_without_hashing_all_names() {
        let state = RedisSubscriber::new(Keys::clustered("p"));
        let mut on = BySlot::default();
        for n in 0..100_000 {
            let channel = format!("room:{n:015}");
            let (name, slot) = state.live(&channel);
            assert!(state.wanted().insert(slot, &channel) && on.insert(slot, &name));
        }
        let complete = |on: &BySlot| {
            let wanted: Vec<(u16, usize)> = state.wanted().counts().collect();
            on.has_at_least(wanted)
        };
        // The fastest of many runs, since the machine may be busy.
        let look = |_| {
            let began = Instant::now();
            assert!(complete(&on));
            began.elapsed()
        };
        let took = (0..50).map(look).min().unwrap();
        println!("100,000 channels compared in {took:?}");
        assert!(took < Duration::from_millis(20), "{took:?}");

        let (name, slot) = state.live("room:000000000000007");
        assert!(on.contains(slot, &name) && on.remove(slot, &name) && !on.remove(slot, &name));
        assert!(!complete(&on));
        assert!(state.wanted().remove(slot, "room:000000000000007") && complete(&on));
        assert_eq!(state.wanted().all().count(), 99_999);
    }
}
