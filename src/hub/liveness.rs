//! Whether what arrives for a channel continues what is known here, or waits until that has been read.

/// *Live*: it continues. *Syncing*: the broker is being read; what arrives meanwhile is held back.
#[derive(Debug)]
pub(super) enum Liveness<Held> {
    Live,
    Syncing {
        /// What has arrived since the read began.
        held: Held,
        /// Something was missed since then, so that the read has to be repeated.
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

    /// Something may have been missed. Returns whether a read has to be started for it (none is under way).
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

    /// Begins a read. What was held so far can be dropped: the broker had it before anyone saw it.
    pub fn begin(&mut self) {
        *self = Self::default();
    }

    /// Ends a read; returns what was held meanwhile. `None`: something was missed, and it is not live yet.
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
