use super::*;
use crate::protocol::Payload;
use proptest::prelude::*;

fn publication(offset: u64) -> Publication {
    Publication { offset, at: 0, data: Payload::parse(&offset.to_string()).unwrap(), info: None }
}

fn position(epoch: &str, offset: u64) -> Position {
    Position { offset, epoch: epoch.into() }
}

/// The answer of a broker that keeps the last `kept` of `top` publications.
fn history(epoch: &str, top: u64, kept: u64, after: u64) -> History {
    let first = (top - kept.min(top) + 1).max(after + 1);
    History { publications: (first..=top).map(publication).collect(), position: position(epoch, top) }
}

fn live_at(epoch: &str, offset: u64) -> Feed {
    let mut feed = Feed::default();
    feed.begin_sync();
    assert_eq!(feed.finish_sync(history(epoch, offset, 0, 0)), Synced::Continues(vec![]));
    feed
}

fn offsets(publications: &[Publication]) -> Vec<u64> {
    publications.iter().map(|p| p.offset).collect()
}

fn joined(feed: &Feed, since: Option<Position>, history: Option<History>) -> (u64, Option<bool>, Vec<u64>) {
    match feed.join(since.as_ref(), history) {
        JoinOutcome::Ready(reply) => (reply.position.offset, reply.recovered, offsets(&reply.publications)),
        other => panic!("not ready: {other:?}"),
    }
}

#[test]
fn the_next_is_delivered_repeats_are_not_and_a_hole_is_a_gap() {
    let mut feed = live_at("e", 5);
    assert_eq!(feed.arrive("e", &publication(6)), Arrival::Deliver);
    assert_eq!(feed.arrive("e", &publication(6)), Arrival::Repeat);
    assert_eq!(feed.arrive("e", &publication(8)), Arrival::Gap);
    assert_eq!(feed.arrive("e", &publication(9)), Arrival::Held);
}

#[test]
fn a_gap_is_filled_from_history_and_goes_on_with_what_was_held() {
    let mut feed = live_at("e", 5);
    assert_eq!(feed.arrive("e", &publication(8)), Arrival::Gap);
    assert_eq!(feed.begin_sync(), Some(5));
    feed.arrive("e", &publication(8));
    feed.arrive("e", &publication(9));
    assert_eq!(feed.finish_sync(history("e", 8, 10, 5)), Synced::Continues((6..=9).map(publication).collect()));
    assert_eq!(feed.arrive("e", &publication(10)), Arrival::Deliver);
}

/// Brokers limit the bytes of a read.
#[test]
fn a_gap_is_filled_in_parts() {
    let mut feed = live_at("e", 5);
    feed.doubt();
    let part = |after: u64, top: u64| {
        let publications = (after + 1..=(after + 3).min(top)).map(publication).collect();
        History { publications, position: position("e", top) }
    };
    assert_eq!(feed.begin_sync(), Some(5));
    feed.arrive("e", &publication(11));
    assert_eq!(feed.finish_sync(part(5, 10)), Synced::Part((6..=8).map(publication).collect()));
    assert_eq!(feed.arrive("e", &publication(12)), Arrival::Held, "it is not level yet");
    assert_eq!(feed.begin_sync(), Some(8));
    feed.arrive("e", &publication(13));
    assert_eq!(feed.finish_sync(part(8, 12)), Synced::Part((9..=11).map(publication).collect()));
    assert_eq!(feed.begin_sync(), Some(11));
    assert_eq!(feed.finish_sync(part(11, 13)), Synced::Continues((12..=13).map(publication).collect()));
    assert_eq!(feed.arrive("e", &publication(14)), Arrival::Deliver);
    // Publications dropped from the history in the meantime are lost.
    feed.doubt();
    feed.begin_sync();
    assert_eq!(feed.finish_sync(part(14, 30)), Synced::Part((15..=17).map(publication).collect()));
    feed.begin_sync();
    assert_eq!(feed.finish_sync(part(20, 30)), Synced::Lost);
}

/// A gateway never recovers more than the history's settings promise.
#[test]
fn no_more_is_kept_here_than_in_the_history() {
    let kept = |retention: &Retention| {
        let mut feed = Feed::new(RecentLimits::within(retention));
        feed.begin_sync();
        feed.finish_sync(history("e", 10, 0, 0));
        for offset in 11..=99 {
            assert_eq!(feed.arrive("e", &publication(offset)), Arrival::Deliver);
        }
        feed
    };
    let whole = Retention { size: 500, ttl: Duration::from_secs(60), ..Retention::default() };
    assert_eq!(kept(&whole).recent.len(), RECENT_MAX);
    assert_eq!(kept(&Retention { size: 3, ..whole.clone() }).recent.len(), 3);
    // Two bytes per publication.
    assert_eq!(kept(&Retention { bytes: 9, ..whole.clone() }).recent.len(), 4);

    let (mut feed, now) = (kept(&whole), Instant::now());
    feed.renew(now);
    feed.expire(now + whole.ttl);
    assert_eq!(joined(&feed, Some(position("e", 97)), None), (99, Some(true), vec![98, 99]));
    feed.expire(now + whole.ttl + Duration::from_millis(1));
    assert!(matches!(feed.join(Some(&position("e", 97)), None), JoinOutcome::ReadHistory(97)));
    assert_eq!(joined(&feed, Some(position("e", 99)), None), (99, Some(true), vec![]), "nothing was missed");
}

#[test]
fn a_gap_that_history_no_longer_covers_is_lost() {
    let mut feed = live_at("e", 5);
    feed.doubt();
    feed.begin_sync();
    assert_eq!(feed.finish_sync(history("e", 20, 10, 5)), Synced::Lost);
    assert_eq!(feed.arrive("e", &publication(21)), Arrival::Deliver);
}

#[test]
fn a_new_epoch_is_noticed_and_lost() {
    let mut feed = live_at("e", 5);
    assert_eq!(feed.arrive("f", &publication(6)), Arrival::Gap);
    feed.begin_sync();
    assert_eq!(feed.finish_sync(history("f", 6, 10, 5)), Synced::Lost);
    assert_eq!(feed.arrive("f", &publication(7)), Arrival::Deliver);
}

#[test]
fn a_doubt_during_a_sync_repeats_it() {
    let mut feed = live_at("e", 5);
    assert!(feed.doubt());
    feed.begin_sync();
    assert!(!feed.doubt());
    assert_eq!(feed.finish_sync(history("e", 6, 10, 5)), Synced::Again);
    assert_eq!(feed.begin_sync(), Some(5));
    assert_eq!(feed.finish_sync(history("e", 7, 10, 5)), Synced::Continues(vec![publication(6), publication(7)]));
}

#[test]
fn holding_back_is_bounded() {
    let mut feed = live_at("e", 0);
    feed.doubt();
    feed.begin_sync();
    for offset in 1..=HELD_MAX as u64 + 1 {
        assert_eq!(feed.arrive("e", &publication(offset)), Arrival::Held);
    }
    assert_eq!(feed.finish_sync(history("e", 0, 10, 0)), Synced::Again);
}

#[test]
fn holding_back_is_bounded_in_bytes_too() {
    let mut feed = live_at("e", 0);
    feed.doubt();
    feed.begin_sync();
    let large =
        |offset| Publication { data: Payload::trusted(vec![b'1'; HELD_BYTES / 2].into()), ..publication(offset) };
    for offset in 1..=3 {
        assert_eq!(feed.arrive("e", &large(offset)), Arrival::Held);
    }
    assert_eq!(feed.finish_sync(history("e", 0, 10, 0)), Synced::Again);
}

#[test]
fn a_first_subscribe_needs_no_history() {
    assert_eq!(joined(&live_at("e", 5), None, None), (5, None, vec![]));
}

#[test]
fn a_short_absence_is_served_from_the_last_publications() {
    let mut feed = live_at("e", 5);
    feed.arrive("e", &publication(6));
    feed.arrive("e", &publication(7));
    assert_eq!(joined(&feed, Some(position("e", 5)), None), (7, Some(true), vec![6, 7]));
    assert_eq!(joined(&feed, Some(position("e", 7)), None), (7, Some(true), vec![]));
    assert!(matches!(feed.join(Some(&position("e", 4)), None), JoinOutcome::ReadHistory(4)));
}

#[test]
fn an_empty_epoch_stands_for_any() {
    let mut feed = live_at("e", 5);
    feed.arrive("e", &publication(6));
    assert_eq!(joined(&feed, Some(position("", 5)), None), (6, Some(true), vec![6]));
    assert_eq!(joined(&feed, Some(position("", 3)), Some(history("e", 6, 6, 3))), (6, Some(true), vec![4, 5, 6]));
    assert_eq!(joined(&feed, Some(position("", 0)), Some(history("e", 6, 2, 0))), (6, Some(false), vec![]));
    assert_eq!(joined(&feed, Some(position("", 9)), Some(history("e", 6, 6, 9))), (6, Some(false), vec![]));
}

#[test]
fn another_epoch_or_a_position_from_the_future_is_not_recovered() {
    let feed = live_at("e", 5);
    let read = || Some(history("e", 5, 5, 0));
    assert_eq!(joined(&feed, Some(position("old", 3)), read()), (5, Some(false), vec![]));
    assert_eq!(joined(&feed, Some(position("e", 9)), Some(history("e", 5, 5, 9))), (5, Some(false), vec![]));
}

#[test]
fn a_feed_that_missed_a_new_epoch_is_behind() {
    let feed = live_at("e", 5);
    assert!(matches!(feed.join(Some(&position("f", 1)), Some(history("f", 1, 1, 1))), JoinOutcome::Behind));
}

#[test]
fn the_last_publications_are_bounded_in_number_and_bytes() {
    let mut feed = live_at("e", 0);
    let big = Payload::parse(&format!("\"{}\"", "x".repeat(RECENT_BYTES / 2))).unwrap();
    for offset in 1..=5 {
        feed.arrive("e", &Publication { offset, at: 0, data: big.clone(), info: None });
    }
    assert_eq!(feed.recent.len(), 1);
    for offset in 6..=500 {
        feed.arrive("e", &publication(offset));
    }
    assert!(feed.recent.len() <= RECENT_MAX);
}

proptest! {
    /// With random losses, repeats and delays on the way, subscribers get publications without a hole or a repeat, and
    /// a final sync delivers the rest.
    #[test]
    fn nothing_is_lost_doubled_or_reordered(
        top in 1u64..60,
        arrivals in prop::collection::vec((0u64..60, prop::bool::weighted(0.1)), 0..200),
    ) {
        let mut feed = live_at("e", 0);
        let mut delivered: Vec<u64> = Vec::new();
        let mut published = 0;
        let sync = |feed: &mut Feed, published: u64, delivered: &mut Vec<u64>| loop {
            let after = feed.begin_sync().unwrap();
            match feed.finish_sync(history("e", published, 1000, after)) {
                Synced::Continues(publications) => break delivered.extend(offsets(&publications)),
                Synced::Again => {}
                Synced::Part(_) => panic!("it was read whole"),
                Synced::Lost => panic!("history covers everything"),
            }
        };
        for (offset, doubt) in arrivals {
            let offset = offset.clamp(1, top);
            published = published.max(offset);
            match feed.arrive("e", &publication(offset)) {
                Arrival::Deliver => delivered.push(offset),
                Arrival::Gap => sync(&mut feed, published, &mut delivered),
                Arrival::Held | Arrival::Repeat => {}
            }
            if doubt && feed.doubt() {
                sync(&mut feed, published, &mut delivered);
            }
        }
        feed.doubt();
        sync(&mut feed, published, &mut delivered);
        prop_assert_eq!(delivered, (1..=published).collect::<Vec<_>>());
    }

    /// A recovering subscriber gets exactly the missed publications, or `recovered: false`.
    #[test]
    fn a_return_is_exact_or_told(top in 0u64..100, extra in 0u64..60, kept in 0u64..100, since in 0u64..120) {
        // History is read with `top` as the newest offset; at the join, the feed is ahead by `extra`.
        let mut feed = live_at("e", top);
        for offset in top + 1..=top + extra {
            feed.arrive("e", &publication(offset));
        }
        let since = position("e", since);
        let mut join = feed.join(Some(&since), None);
        if let JoinOutcome::ReadHistory(after) = join {
            join = feed.join(Some(&since), Some(history("e", top, kept, after)));
        }
        if let JoinOutcome::ReadHistory(after) = join {
            join = feed.join(Some(&since), Some(history("e", top + extra, kept, after)));
        }
        let JoinOutcome::Ready(reply) = join else { panic!("{join:?}") };
        if reply.recovered == Some(true) {
            prop_assert_eq!(offsets(&reply.publications), (since.offset + 1..=reply.position.offset).collect::<Vec<_>>());
            prop_assert!(reply.position.offset >= top + extra);
            prop_assert_eq!(reply.offset(), since.offset, "the publications advance the client from where it was");
        } else {
            prop_assert_eq!(reply.offset(), reply.position.offset);
            prop_assert!(since.offset > top || since.offset + kept < top + extra);
            prop_assert!(reply.publications.is_empty());
        }
    }
}
