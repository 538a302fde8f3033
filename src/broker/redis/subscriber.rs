//! What this gateway is subscribed to, on all nodes together, and whom it tells.

use super::keys::Keys;
use crate::broker::{BrokerError, Sink};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

pub struct State {
    pub keys: Keys,
    sink: OnceLock<Weak<dyn Sink>>,
    /// A std Mutex is enough: never held across an await.
    wanted: Mutex<HashSet<String>>,
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

    /// The channels.
    pub fn wanted(&self) -> MutexGuard<'_, HashSet<String>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the sink that it may have missed something.
    pub fn gap(&self) {
        if let Some(sink) = self.sink() {
            sink.gap();
        }
    }
}
