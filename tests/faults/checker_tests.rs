//! Handmade logs, most with a single fault, some without a fault.

use super::super::record::{Before, Epochs, Log, Position, Reload, Seen, Start, Truth, key};
use super::{Checker, Findings};
use std::sync::Arc;

const CHANNEL: &str = "room:a";
const HISTORY: u64 = 10;

fn at(epoch: &str, offset: u64) -> Position {
    Position { epoch: epoch.into(), offset }
}

fn start(position: Position, reload: u64, instead_of: Option<Before>) -> Seen {
    let known = Reload::default();
    known.done(reload);
    Seen::Start(Box::new(Start { position, instead_of, reload: known }))
}

/// An event with its number as data.
fn event(seq: u64, offset: u64) -> Seen {
    Seen::Publication { key: key(&seq.to_le_bytes()), offset }
}

fn recovered(since: Position, now: Position) -> Seen {
    Seen::Recovered { since: Box::new(since), now: Box::new(now) }
}

/// A channel with the even numbers up to `last`.
fn truth(last: u64) -> Truth {
    let mut truth = Truth::default();
    for seq in (2..=last).step_by(2) {
        assert!(truth.push(seq, key(&seq.to_le_bytes())));
    }
    truth
}

fn check(last: u64, seen: Vec<Seen>) -> Findings {
    let channel: Arc<str> = CHANNEL.into();
    let mut epochs = Epochs::default();
    epochs.seen(&channel, &"one".into(), 0);
    epochs.seen(&channel, &"two".into(), 1);
    let log = Log { client: 7, channel, seen };
    let mut findings = Findings::default();
    Checker { history_size: HISTORY, epochs: &epochs }.check(&log, &truth(last), &mut findings);
    findings
}

fn counts(found: &Findings) -> [u64; 6] {
    [found.lost, found.doubled, found.reordered, found.invented, found.numbering, found.unexplained]
}

#[test]
fn a_complete_log_has_no_findings() {
    let seen = vec![
        start(at("one", 4), 8, None),
        event(10, 5),
        event(12, 6),
        recovered(at("one", 6), at("one", 6)),
        event(14, 7),
        event(16, 8),
    ];
    assert_eq!(counts(&check(16, seen)), [0; 6]);
}

#[test]
fn loaded_events_may_be_delivered_as_well() {
    let seen = vec![start(at("one", 1), 8, None), event(4, 2), event(6, 3), event(8, 4), event(10, 5)];
    assert_eq!(counts(&check(10, seen)), [0; 6]);
    assert_eq!(counts(&check(8, vec![start(at("one", 4), 8, None)])), [0; 6], "nothing after the reload");
}

#[test]
fn an_event_lost_in_the_middle() {
    let seen = vec![start(at("one", 0), 0, None), event(2, 1), event(6, 2)];
    assert_eq!(counts(&check(6, seen)), [1, 0, 0, 0, 0, 0]);
}

#[test]
fn an_event_lost_after_the_reload() {
    let seen = vec![start(at("one", 0), 2, None), event(6, 1)];
    assert_eq!(counts(&check(6, seen)), [1, 0, 0, 0, 0, 0]);
}

#[test]
fn an_event_lost_at_the_end() {
    let seen = vec![start(at("one", 0), 0, None), event(2, 1), event(4, 2)];
    assert_eq!(counts(&check(6, seen)), [1, 0, 0, 0, 0, 0]);
    assert_eq!(check(6, vec![start(at("one", 0), 2, None)]).lost, 2);
    assert_eq!(check(6, vec![]).lost, 3, "never subscribed");
}

#[test]
fn an_event_lost_in_a_recovery_that_reports_success() {
    let seen = vec![
        start(at("one", 0), 0, None),
        event(2, 1),
        recovered(at("one", 1), at("one", 1)),
        event(6, 3), // neither the recovery nor the live publications had offset 2
    ];
    assert_eq!(counts(&check(6, seen)), [1, 0, 0, 0, 1, 0]);
}

#[test]
fn an_event_lost_in_an_earlier_chain() {
    let before = Before { since: at("one", 2), losses: 1 };
    let seen = vec![
        start(at("one", 0), 0, None),
        event(2, 1),
        event(6, 2),
        start(at("two", 0), 8, Some(before)),
        event(10, 1),
    ];
    assert_eq!(counts(&check(10, seen)), [1, 0, 0, 0, 0, 0]);
}

#[test]
fn an_old_event_after_a_reload_must_have_its_successors() {
    // A gateway woke up with an event from before Redis lost its data, and published the event into the new history.
    let seen = vec![start(at("two", 0), 8, None), event(2, 1), event(10, 2)];
    assert_eq!(counts(&check(10, seen)), [3, 0, 0, 0, 0, 0]);
}

#[test]
fn a_doubled_event() {
    let seen = vec![start(at("one", 0), 0, None), event(2, 1), event(4, 2), event(4, 3)];
    assert_eq!(counts(&check(4, seen)), [0, 1, 0, 0, 0, 0]);
    let seen = vec![start(at("one", 0), 0, None), event(2, 1), event(2, 1), event(4, 2)];
    assert_eq!(counts(&check(4, seen)), [0, 1, 0, 0, 1, 0], "under its old number");
}

#[test]
fn a_swapped_event() {
    let seen = vec![start(at("one", 0), 0, None), event(2, 1), event(6, 2), event(4, 3), event(8, 4)];
    assert_eq!(counts(&check(8, seen)), [0, 0, 1, 0, 0, 0]);
    let seen = vec![start(at("one", 0), 2, None), event(6, 1), event(4, 2)];
    assert_eq!(counts(&check(6, seen)), [0, 0, 1, 0, 0, 0], "right at the beginning");
}

#[test]
fn an_invented_event() {
    let seen = vec![start(at("one", 0), 0, None), event(3, 1), event(2, 2)];
    assert_eq!(counts(&check(2, seen)), [0, 0, 0, 1, 0, 0]);
}

#[test]
fn an_unexplained_failure_to_recover() {
    let before = |since, losses| Some(Before { since, losses });
    let chains = |position, reload, before| {
        let mut seen = vec![start(at("one", 0), 0, None), event(2, 1), start(position, reload, before)];
        seen.extend((reload / 2 + 1..=20).map(|place| event(2 * place, place)));
        if let Some(Seen::Start(start)) = seen.get_mut(2) {
            start.position.offset = reload / 2;
        }
        check(40, seen)
    };
    let found = chains(at("one", 0), 8, before(at("one", 1), 1));
    assert_eq!(counts(&found), [0, 0, 0, 0, 0, 1], "history still had it");
    let found = chains(at("two", 0), 8, before(at("one", 1), 0));
    assert_eq!(counts(&found), [0, 0, 0, 0, 0, 1], "a new epoch while Redis kept its data");
    let found = chains(at("three", 0), 8, before(at("two", 1), 1));
    assert_eq!(counts(&found), [0, 0, 0, 0, 0, 1], "one loss explains one new epoch only");

    let found = chains(at("one", 0), 24, before(at("one", 1), 0));
    assert_eq!((counts(&found), found.exceeded), ([0; 6], 1), "eleven missed, ten are kept");
    let found = chains(at("two", 0), 8, before(at("one", 1), 1));
    assert_eq!((counts(&found), found.redis_lost), ([0; 6], 1));
}

#[test]
fn a_reply_with_the_newest_offset_and_an_interrupted_recovery() {
    let to_the_top = || vec![start(at("one", 0), 0, None), event(2, 1), recovered(at("one", 1), at("one", 3))];
    let mut handed_out = to_the_top();
    handed_out.extend([event(4, 2), event(6, 3)]);
    assert_eq!(counts(&check(6, handed_out)), [0, 0, 0, 0, 1, 0], "nothing is lost yet");
    let mut interrupted = to_the_top();
    interrupted.extend([recovered(at("one", 3), at("one", 3)), event(8, 4)]);
    assert_eq!(counts(&check(8, interrupted)), [2, 0, 0, 0, 3, 0]);
    let right = vec![
        start(at("one", 0), 0, None),
        event(2, 1),
        recovered(at("one", 1), at("one", 1)),
        event(4, 2), // interrupted afterwards
        recovered(at("one", 2), at("one", 2)),
        event(6, 3),
        event(8, 4),
    ];
    assert_eq!(counts(&check(8, right)), [0; 6]);
}

#[test]
fn a_recovery_into_another_epoch() {
    let seen = vec![start(at("one", 0), 0, None), event(2, 1), recovered(at("one", 1), at("two", 1)), event(4, 2)];
    assert_eq!(counts(&check(4, seen)), [0, 0, 0, 0, 1, 0]);
}

fn check_visitor(last: u64, visits: &[(usize, Option<u64>)], seen: Vec<Seen>) -> Findings {
    let log = Log { client: 7, channel: CHANNEL.into(), seen };
    let mut findings = Findings::default();
    let checker = Checker { history_size: HISTORY, epochs: &Epochs::default() };
    checker.check_visitor(&log, &truth(last), visits, &mut findings);
    findings
}

#[test]
fn a_visitor_gets_events_before_the_removal_and_recovers_on_return() {
    let first = || vec![start(at("one", 0), 0, None), event(2, 1), event(4, 2)];
    assert_eq!(check_visitor(20, &[(0, Some(5))], first()).bad(), 0);
    assert_eq!(check_visitor(20, &[(0, Some(9))], first()).bad(), 0, "where the end is cut off matters to nobody");
    assert_eq!(check_visitor(20, &[], vec![]).bad(), 0, "never let in");
    let mut seen = first();
    seen.extend([recovered(at("one", 2), at("one", 2)), event(6, 3), event(8, 4)]);
    assert_eq!(check_visitor(20, &[(0, Some(5)), (3, Some(9))], seen).bad(), 0, "recovered in the next visit");
    let mut seen = first();
    seen.extend([start(at("one", 5), 10, None), event(12, 6)]);
    assert_eq!(check_visitor(20, &[(0, Some(5)), (3, None)], seen).bad(), 0, "a visit that goes on");
}

#[test]
fn an_event_delivered_after_a_removal() {
    let seen = || vec![start(at("one", 0), 0, None), event(2, 1), event(4, 2)];
    let found = |visits: &[(usize, Option<u64>)], seen| {
        let found = check_visitor(20, visits, seen);
        (found.after_revocation, found.bad())
    };
    assert_eq!(found(&[(0, Some(3))], seen()), (1, 1));
    assert_eq!(found(&[], seen()), (2, 2), "never let in");
    assert_eq!(found(&[(0, Some(1)), (2, Some(9))], seen()), (1, 1), "the next visit excuses nothing of the last one");
    let mut holed = seen();
    holed.extend([event(8, 3)]);
    let holed = check_visitor(20, &[(0, Some(9))], holed);
    assert_eq!(counts(&holed), [1, 0, 0, 0, 0, 0], "a hole within a visit");
}
