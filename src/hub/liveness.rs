//! Sync state of a channel: arrivals are either delivered, or held back during a read from the broker.

/// *Live*: arrivals continue the known state. *Syncing*: the broker is being read, and arrivals are held back.
#[derive(Debug)]
pub(super) enum Liveness<Held> {
    Live,
    Syncing {
        /// Arrivals since the start of the read.
        held: Held,
        /// True after another gap during the read: the read has to be repeated.
        stale: bool,
    },
}

impl<Held: Default> Default for Liveness<Held> {
    fn default() -> Self {
        Liveness::Syncing { held: Held::default(), stale: false }
    }
}

impl<Held: Default> Liveness<Held> {
    pub fn is_live(&self) -> bool {
        matches!(self, Liveness::Live)
    }

    /// Notes a possible gap. Returns true if the caller has to start a read, false during a read.
    pub fn doubt(&mut self) -> bool {
        match self {
            Liveness::Live => {
                self.begin();
                true
            }
            Liveness::Syncing { stale, .. } => {
                *stale = true;
                false
            }
        }
    }

    /// Begins a read. Drops the held arrivals: the broker stored them before delivery, so the read returns them.
    pub fn begin(&mut self) {
        *self = Self::default();
    }

    /// Ends a read and returns the held arrivals. `None`: another gap occurred, and the channel is not live yet.
    pub fn finish(&mut self) -> Option<Held> {
        match std::mem::replace(self, Liveness::Live) {
            Liveness::Live => Some(Held::default()),
            Liveness::Syncing { held, stale: false } => Some(held),
            Liveness::Syncing { stale: true, .. } => {
                self.begin();
                None
            }
        }
    }
}
