//! What this gateway is subscribed to, on all nodes together, and whom it tells.

use super::keys::Keys;
use super::slots;
use crate::broker::{BrokerError, Sink};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

pub struct State {
    pub keys: Keys,
    sink: OnceLock<Weak<dyn Sink>>,
    /// A std Mutex is enough: never held across an await.
    wanted: Mutex<BySlot>,
}

/// Channels or names in Redis by slot, so that a node's part of them is found without hashing all.
#[derive(Default)]
pub struct BySlot(HashMap<u16, HashSet<String>>);

impl BySlot {
    /// Returns whether it was new.
    pub fn insert(&mut self, slot: u16, name: &str) -> bool {
        self.0.entry(slot).or_default().insert(name.to_owned())
    }

    /// Returns whether it was there.
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

    /// Slots that hold something, with the number of names in each.
    pub fn counts(&self) -> impl Iterator<Item = (u16, usize)> {
        self.0.iter().map(|(slot, names)| (*slot, names.len()))
    }

    pub fn count(&self, slot: u16) -> usize {
        self.0.get(&slot).map_or(0, HashSet::len)
    }
}

impl State {
    pub fn new(keys: Keys) -> Self {
        Self { keys, sink: OnceLock::new(), wanted: Mutex::default() }
    }

    pub fn set_sink(&self, sink: Weak<dyn Sink>) -> Result<(), BrokerError> {
        self.sink.set(sink).map_err(|_| BrokerError::Unavailable("it was started twice".into()))
    }

    pub fn sink(&self) -> Option<Arc<dyn Sink>> {
        self.sink.get().and_then(Weak::upgrade)
    }

    /// The channels, by the slots of their names in Redis.
    pub fn wanted(&self) -> MutexGuard<'_, BySlot> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A channel's name in Redis and its slot.
    pub fn live(&self, channel: &str) -> (String, u16) {
        let name = self.keys.live(channel);
        let slot = slots::of_key(name.as_bytes());
        (name, slot)
    }

    /// Tells the sink that it may have missed something.
    pub fn gap(&self) {
        if let Some(sink) = self.sink() {
            sink.gap();
        }
    }
}
