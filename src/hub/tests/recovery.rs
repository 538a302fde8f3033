//! Recovery of a returning client, and gaps: filled from the history, or reported as lost.

use super::*;

#[tokio::test]
async fn who_comes_back_gets_what_was_missed_from_here_or_from_history() {
    let node = Node::with_history(1000).await;
    let first = node.subscribe(1, None).await;
    let since = first.position();
    for missed in [5, 200] {
        node.hub.unsubscribe(CHANNEL, &connection(1, 0));
        node.publish(missed).await;
        let back = node.subscribe(1, Some(&since)).await;
        assert_eq!(back.reply["recovered"], true);
        let offsets: Vec<u64> =
            back.reply["publications"].as_array().unwrap().iter().map(|p| p["offset"].as_u64().unwrap()).collect();
        assert_eq!(offsets, (1..=node.seq.get()).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn what_the_link_lost_is_filled_for_all_at_once() {
    let node = Node::with_history(100).await;
    let (first, second) = (node.subscribe(1, None).await, node.subscribe(2, None).await);
    node.publish_unheard(3).await;
    // The next publication reveals the gap.
    node.publish(1).await;
    for subscriber in [&first, &second] {
        assert_eq!(subscriber.offsets(4).await, [1, 2, 3, 4]);
    }
    // The broker announces the gap, without another publication.
    node.publish_unheard(2).await;
    node.hub.gap();
    assert_eq!(first.offsets(2).await, [5, 6]);
    assert_eq!(node.metrics.gaps.with_label_values(&["filled"]).get(), 2);
}

#[tokio::test]
async fn a_gap_of_more_than_is_read_at_once_is_filled_in_parts() {
    let day = Duration::from_secs(86_400);
    // Five publications of one digit, or three of two.
    let read_bytes = 6;
    let node =
        Node::with(Retention { size: 100, ttl: day, position_ttl: day, read_bytes, ..Retention::default() }).await;
    let subscriber = node.subscribe(1, None).await;
    node.publish_unheard(40).await;
    node.publish(1).await;
    assert_eq!(subscriber.offsets(41).await, (1..=41).collect::<Vec<_>>());
    // A recovery has the same limit.
    node.hub.forget(CHANNEL);
    let back = node.subscribe(2, Some(&subscriber.position())).await;
    assert_eq!(back.reply["recovered"], false);
    let since = Position { offset: 38, ..subscriber.position() };
    let back = node.subscribe(3, Some(&since)).await;
    assert_eq!((&back.reply["recovered"], back.reply["publications"].as_array().unwrap().len()), (&true.into(), 3));
}

/// The gateway's recent publications expire with the history.
#[tokio::test(start_paused = true)]
async fn nothing_is_recovered_once_the_history_has_ended() {
    let (ttl, day) = (Duration::from_secs(60), Duration::from_secs(86_400));
    for (wait, recovered) in [(ttl, true), (ttl + Duration::from_secs(1), false)] {
        let node = Node::with(Retention { size: 100, ttl, position_ttl: day, ..Retention::default() }).await;
        let subscriber = node.subscribe(1, None).await;
        node.publish(3).await;
        tokio::time::advance(wait).await;
        let back = node.subscribe(2, Some(&subscriber.position())).await;
        assert_eq!(back.reply["recovered"], recovered, "after {wait:?}");
        let position = Position { offset: 3, ..subscriber.position() };
        assert_eq!(node.subscribe(3, Some(&position)).await.reply["recovered"], true, "nothing was missed");
    }
}

#[tokio::test]
async fn what_cannot_be_filled_is_told_and_a_new_subscribe_goes_on() {
    let node = Node::with_history(5).await;
    let lost = node.subscribe(1, None).await;
    node.publish_unheard(20).await;
    node.hub.gap();
    let told = lost.frames(1).await.remove(0);
    assert_eq!(
        told,
        serde_json::json!({"push": {"channel": CHANNEL, "unsubscribe": {"code": 2500, "reason": "insufficient state"}}})
    );
    assert_eq!(node.hub.subscription_state(CHANNEL, 1), SubscriptionState::NotSubscribed);
    let back = node.subscribe(1, Some(&lost.position())).await;
    assert_eq!((&back.reply["recovered"], back.position().offset), (&serde_json::json!(false), 20));
    node.publish(1).await;
    assert_eq!(back.offsets(1).await, [21]);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_noticed_is_found_by_comparing_positions() {
    let node = Node::with_history(100).await;
    let _checks = node.hub.start_position_checks();
    let subscriber = node.subscribe(1, None).await;
    node.publish_unheard(2).await;
    assert_eq!(subscriber.offsets(2).await, [1, 2]);
}
