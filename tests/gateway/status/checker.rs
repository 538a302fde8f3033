//! Compares the observers' logs with each other and with the truth.

use super::device::{How, Life};
use super::observer::Chain;
use super::stage::{GRACE, LEASE, PING, PONG};
use konvert_gateway::broker::status_store::{Status, UserStatus};
use std::collections::BTreeMap;

/// Tolerance in milliseconds for delays on a busy machine.
const SLACK: u64 = 1500;
/// Longest time until a gateway has stored a change, in milliseconds.
const UNWRITTEN: u64 = 500;

/// A user's changes in order of version, combined from the observers.
pub type Log = BTreeMap<u64, UserStatus>;

fn at(version: u64) -> u64 {
    version / 1000
}

/// The log of one user. Asserts that observers agree, and that a status never follows itself.
pub fn log_of(chains: &[&Chain]) -> Log {
    let mut log = Log::new();
    for chain in chains {
        for pair in chain.states.windows(2) {
            let [(before, _), (after, _)] = pair else { unreachable!() };
            assert!(before.version < after.version, "an older state after a newer one: {chain:?}");
            assert_ne!(before.status, after.status, "no change: {chain:?}");
        }
        // The state in a reply is an earlier change.
        for (state, _) in chain.states.iter().filter(|(state, _)| state.last_seen.is_some()) {
            let known = log.insert(state.version, *state);
            assert!(known.is_none_or(|known| known == *state), "two states of one version: {known:?}, {state:?}");
        }
    }
    let states: Vec<&UserStatus> = log.values().collect();
    for pair in states.windows(2) {
        assert_ne!(pair[0].status, pair[1].status, "two events for one change: {pair:?}");
    }
    log
}

/// Asserts that the chain is a part of the log without a gap.
pub fn is_whole(chain: &Chain, log: &Log) {
    let (first, _) = chain.states[0];
    let before = log.range(..=first.version).next_back();
    if let Some((_, state)) = before {
        assert_eq!(state.status, first.status, "the reply does not say what was: {chain:?}\n{log:?}");
    }
    let mut expected = log.range(first.version + 1..);
    for (state, _) in &chain.states[1..] {
        assert_eq!(expected.next().map(|(_, state)| state), Some(state), "a hole: {chain:?}\n{log:?}");
    }
    if let Some((version, missed)) = expected.next() {
        let excused = chain.cut.is_some_and(|cut| at(*version) + SLACK > cut);
        assert!(excused, "{missed:?} was missed: {chain:?}");
    }
}

/// Whether the gateway may have been killed before storing the end.
fn is_unwritten(end: u64, killed: u64) -> bool {
    killed.checked_sub(end).is_some_and(|left| left < UNWRITTEN)
}

/// End of the time in which a life counts for certain, and of the time in which it may count.
fn ends(life: &Life, kills: &[u64]) -> Option<(u64, u64)> {
    let (how, end) = life.end?;
    Some(match how {
        How::Closed => {
            let unwritten = is_unwritten(end, kills[life.gateway]);
            (end + GRACE, end + GRACE.max(if unwritten { LEASE } else { 0 }) + SLACK)
        }
        // A lease is renewed three times within its length.
        How::Killed => (end + LEASE - LEASE / 3 - SLACK, end + LEASE + SLACK),
        How::Dark => (end + PONG / 2, end + PING + PONG + SLACK),
    })
}

/// Asserts that the status is right at every time, apart from times of uncertainty.
pub fn is_true(lives: &[Life], log: &Log, kills: &[u64], over: u64) {
    let mut spans: Vec<(u64, u64, bool)> = Vec::new();
    let mut begun = 0;
    let mut online = false;
    for (version, state) in log {
        spans.push((begun, at(*version), online));
        (begun, online) = (at(*version), state.status == Status::Online);
    }
    spans.push((begun, over, online));

    for life in lives {
        let (certain, _) = ends(life, kills).unwrap_or((over, over));
        // A life that ends before being stored leaves no trace.
        let brief = |opened: u64| life.end.is_some_and(|(_, end)| end < opened + UNWRITTEN);
        let Some(opened) = life.opened.filter(|&opened| !brief(opened)) else { continue };
        for (from, till, online) in &spans {
            let wrong = !online && *from.max(&(opened + SLACK)) < *till.min(&certain);
            assert!(!wrong, "offline from {from} to {till}, but for this: {life:?}\n{lives:?}\n{log:?}");
        }
    }
    let mut possible: Vec<(u64, u64)> =
        lives.iter().map(|life| (life.asked, ends(life, kills).map_or(over, |(_, may)| may))).collect();
    possible.sort_unstable();
    for (from, till, _) in spans.iter().filter(|(.., online)| *online) {
        let mut covered = *from;
        for (begin, end) in &possible {
            if *begin <= covered {
                covered = covered.max(*end);
            }
        }
        assert!(covered >= *till, "online from {from} to {till}, but for this: {lives:?}\n{log:?}");
    }
    // The user does not come online more often than connections were opened.
    let comings = log.values().filter(|state| state.status == Status::Online).count();
    assert!(comings <= lives.len(), "{comings} times online by {} connections", lives.len());
}

/// Asserts that each `last_seen` is within the bounds of the preceding life.
pub fn last_seen_is_right(lives: &[Life], log: &Log, kills: &[u64]) {
    for (version, state) in log.iter().filter(|(_, state)| state.status == Status::Offline) {
        let seen = state.last_seen.expect("who has been online was seen");
        let ended = lives.iter().filter_map(|life| Some((life.gateway, life.opened.and(life.end)?)));
        let bounds = ended.filter(|(_, (_, end))| *end < at(*version)).map(|(gateway, (how, end))| match how {
            How::Closed if !is_unwritten(end, kills[gateway]) => (end - 100, end + SLACK),
            How::Closed | How::Killed => (end - PING - LEASE / 3 - SLACK, end + 100),
            How::Dark => (end - PING - SLACK, end + 100),
        });
        let (low, high) = bounds.reduce(|a, b| (a.0.max(b.0), a.1.max(b.1))).unwrap_or((0, u64::MAX));
        // The gateway may have seen a connection that ended before its reply arrived.
        let unanswered = lives.iter().filter(|life| life.opened.is_none());
        let was_unanswered = unanswered
            .filter_map(|life| Some(life.asked..=life.end?.1 + SLACK))
            .any(|connecting| connecting.contains(&seen));
        let is_right = (low..=high).contains(&seen) || was_unanswered;
        assert!(is_right, "seen at {seen}, not within {low} to {high}: {lives:?}");
    }
}

/// Milliseconds from a connect that brought a user online until the observers saw the change.
pub fn times_to_online(lives: &[Life], chains: &[&Chain]) -> Vec<u64> {
    let mut times = Vec::new();
    for (state, seen) in chains.iter().flat_map(|chain| &chain.states[1..]) {
        if state.status == Status::Online {
            let before = |life: &&Life| life.asked <= at(state.version) + 1;
            let cause = lives.iter().filter(before).map(|life| life.asked).max();
            times.extend(cause.map(|asked| seen - asked));
        }
    }
    times
}

/// Milliseconds from a user's last end of a kind until the observers saw the user offline.
pub fn times_to_offline(kind: How, lives: &[Life], chains: &[&Chain]) -> Vec<u64> {
    let mut times = Vec::new();
    for (state, seen) in chains.iter().flat_map(|chain| &chain.states[1..]) {
        if state.status == Status::Offline {
            let ended = lives.iter().filter_map(|life| life.end).filter(|(_, end)| *end < at(state.version));
            if let Some((how, end)) = ended.max_by_key(|(_, end)| *end)
                && how == kind
            {
                times.push(seen - end);
            }
        }
    }
    times
}
