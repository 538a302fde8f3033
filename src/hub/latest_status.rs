//! The newest state of a channel without a history, as a pure state machine: decides which arriving states are
//! delivered, and which state is valid after a gap.

use super::liveness::Liveness;
use crate::broker::status_store::UserStatus;

#[derive(Debug, Default)]
pub struct LatestStatus {
    known: Option<UserStatus>,
    /// Holds the newest arrival during a read.
    liveness: Liveness<Option<UserStatus>>,
}

/// Outcome of a read.
#[derive(Debug, PartialEq)]
pub enum ReadOutcome {
    /// A new state to deliver.
    News(UserStatus),
    Nothing,
    /// Another gap occurred during the read: read again.
    Again,
}

impl LatestStatus {
    pub fn is_live(&self) -> bool {
        self.liveness.is_live()
    }

    /// Takes a state from the broker. Returns true if the state has to be delivered to subscribers.
    pub fn arrive(&mut self, state: UserStatus) -> bool {
        match &mut self.liveness {
            Liveness::Syncing { held, .. } => {
                if held.is_none_or(|held| held.version < state.version) {
                    *held = Some(state);
                }
                false
            }
            Liveness::Live => self.learn(state),
        }
    }

    fn learn(&mut self, state: UserStatus) -> bool {
        let known = self.known.unwrap_or_default();
        if state.version <= known.version {
            return false;
        }
        self.known = Some(state);
        state.is_news_after(&known)
    }

    /// Notes a possible gap. Returns true if the caller has to start a read, false during a read.
    pub fn doubt(&mut self) -> bool {
        self.liveness.doubt()
    }

    pub fn begin_read(&mut self) {
        self.liveness.begin();
    }

    /// Takes the result of the read since [`LatestStatus::begin_read`]; `None`: the broker does not know the state yet.
    ///
    /// The result replaces all states from before the read, even with a lower version: then another Redis has taken
    /// over.
    pub fn finish_read(&mut self, read: Option<UserStatus>) -> ReadOutcome {
        let Some(held) = self.liveness.finish() else { return ReadOutcome::Again };
        let before = self.known.unwrap_or_default();
        // A user who is still offline keeps the known time of `last_seen` where the broker has forgotten it.
        let read = read.filter(|read| read.last_seen.is_some() || read.is_news_after(&before));
        self.known = Some(read.unwrap_or(before));
        if let Some(held) = held {
            self.learn(held);
        }
        match self.known {
            Some(now) if now.is_news_after(&before) => ReadOutcome::News(now),
            _ => ReadOutcome::Nothing,
        }
    }

    /// The state for a new subscriber. Requires a live channel.
    pub fn state(&self) -> UserStatus {
        self.known.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::status_store::Status;

    fn state(status: Status, version: u64) -> UserStatus {
        UserStatus { status, last_seen: Some(version), version }
    }

    fn live(known: UserStatus) -> LatestStatus {
        let mut latest = LatestStatus::default();
        latest.begin_read();
        latest.finish_read(Some(known));
        latest
    }

    #[test]
    fn an_older_state_never_replaces_a_newer_one() {
        let mut latest = live(state(Status::Offline, 5));
        assert!(latest.arrive(state(Status::Online, 7)));
        for old in [state(Status::Away, 6), state(Status::Online, 7), state(Status::Offline, 5)] {
            assert!(!latest.arrive(old));
        }
        assert_eq!(latest.state(), state(Status::Online, 7));
    }

    #[test]
    fn what_arrives_during_a_read_waits_for_it_and_the_newest_wins() {
        let mut latest = live(state(Status::Offline, 1));
        assert!(latest.doubt() && !latest.is_live());
        latest.begin_read();
        assert!(!latest.arrive(state(Status::Online, 4)));
        assert!(!latest.arrive(state(Status::Away, 3)));
        assert_eq!(latest.finish_read(Some(state(Status::Dnd, 2))), ReadOutcome::News(state(Status::Online, 4)));
        assert!(latest.is_live());
        // The result of the read is newer than the arrival.
        assert!(latest.doubt());
        latest.begin_read();
        assert!(!latest.arrive(state(Status::Away, 5)));
        assert_eq!(latest.finish_read(Some(state(Status::Dnd, 6))), ReadOutcome::News(state(Status::Dnd, 6)));
    }

    #[test]
    fn nothing_new_is_not_told_again() {
        let mut latest = live(state(Status::Online, 3));
        latest.doubt();
        latest.begin_read();
        assert_eq!(latest.finish_read(Some(state(Status::Online, 3))), ReadOutcome::Nothing);
        // A store that was emptied does not know the state yet: the known state stays.
        latest.doubt();
        latest.begin_read();
        assert_eq!(latest.finish_read(None), ReadOutcome::Nothing);
        assert_eq!(latest.state(), state(Status::Online, 3));
    }

    #[test]
    fn what_the_broker_has_forgotten_stays_known() {
        let mut latest = live(state(Status::Offline, 3));
        latest.doubt();
        latest.begin_read();
        let forgotten = UserStatus { version: 9, ..UserStatus::default() };
        assert_eq!(latest.finish_read(Some(forgotten)), ReadOutcome::Nothing);
        assert_eq!(latest.state(), state(Status::Offline, 3));
        // A user who returns with the same status is no news either.
        let mut latest = live(state(Status::Dnd, 3));
        assert!(!latest.arrive(state(Status::Dnd, 9)));
        assert!(latest.arrive(state(Status::Offline, 10)));
    }

    #[test]
    fn another_redis_may_have_lower_versions() {
        let mut latest = live(state(Status::Online, 30));
        latest.doubt();
        latest.begin_read();
        assert_eq!(latest.finish_read(Some(state(Status::Offline, 3))), ReadOutcome::News(state(Status::Offline, 3)));
    }

    #[test]
    fn what_is_missed_during_a_read_calls_for_another() {
        let mut latest = live(state(Status::Online, 1));
        assert!(latest.doubt());
        latest.begin_read();
        assert!(!latest.doubt());
        assert_eq!(latest.finish_read(Some(state(Status::Away, 2))), ReadOutcome::Again);
        assert!(!latest.is_live());
        latest.begin_read();
        assert_eq!(latest.finish_read(Some(state(Status::Away, 2))), ReadOutcome::News(state(Status::Away, 2)));
    }
}
