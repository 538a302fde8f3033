//! Suspension of subscriptions, and the end of a subscription for every cause.

use super::*;
use crate::hub::subscriber::HELD_MAX;

#[tokio::test]
async fn a_suspension_holds_back_and_ends_in_delivery_or_in_nothing() {
    // With and without publications still queued at the writers.
    for behind in [[false, false], [false, true], [true, false], [true, true]] {
        suspend_and_end(behind).await;
    }
}

async fn suspend_and_end(behind: [bool; 2]) {
    let node = Node::with_history(100).await;
    let (stays, goes) = (node.subscribe(1, None).await, node.subscribe(2, None).await);
    let write = |behind: bool| [&stays, &goes].into_iter().filter(|_| !behind).for_each(Subscribed::write);
    node.publish(1).await;
    write(behind[0]);
    let suspended = node.hub.suspend(&node.hub.channel_names(), Cause::Deleted, |_, _| true);
    assert_eq!(suspended.len(), 2);
    assert_eq!(node.hub.subscription_state(CHANNEL, 1), SubscriptionState::Suspended);
    node.publish(2).await;
    write(behind[1]);
    assert!(!node.hub.resume(CHANNEL, &stays.connection, || false), "`still` is false");
    assert_eq!(node.hub.subscription_state(CHANNEL, 1), SubscriptionState::Suspended);
    assert!(node.hub.resume(CHANNEL, &stays.connection, || true));
    assert_eq!(node.hub.revoke(CHANNEL, &goes.connection, Cause::Member, || false), Revoked::Overtaken);
    let outcome = node.hub.revoke(CHANNEL, &goes.connection, Cause::Member, || true);
    assert_eq!(outcome, Revoked::Ended(Cause::Deleted), "the stronger cause");
    assert_eq!(node.hub.revoke(CHANNEL, &goes.connection, Cause::Member, || true), Revoked::Absent);
    node.publish(1).await;
    assert_eq!(stays.offsets(4).await, [1, 2, 3, 4]);
    // The frame queued before the suspension was withdrawn.
    let told = goes.frames(1).await.remove(0);
    assert_eq!(told["push"]["unsubscribe"]["code"], 2102);
    goes.outbox.close(codes::SHUTDOWN);
    assert_eq!(goes.outbox.take(&mut Vec::new()).await, Err(codes::SHUTDOWN));
    assert!(goes.connection.channels().is_empty());
    assert_eq!(node.metrics.subscriptions.get(), 1);
}

#[tokio::test]
async fn joins_and_leaves_during_a_suspension_are_held_back() {
    let node = Node::with_history(100).await;
    let options = || SubscribeOptions { join_leave: true, ..SubscribeOptions::default() };
    let stays = node.subscribe_as(connection(1, 1 << 20), options()).await;
    let goes = node.subscribe_as(connection(2, 1 << 20), options()).await;
    node.hub.suspend(&node.hub.channel_names(), Cause::Member, |_, _| true);
    for (movement, client) in [(Movement::Join, "x"), (Movement::Leave, "y")] {
        node.hub.movement(CHANNEL, movement, ClientInfo { user: "v".into(), client: client.into() });
    }
    assert!(node.hub.resume(CHANNEL, &stays.connection, || true));
    node.hub.revoke(CHANNEL, &goes.connection, Cause::Member, || true);
    let pushes: Vec<Value> = stays.frames(2).await.iter().map(|frame| frame["push"].clone()).collect();
    assert_eq!(
        (&pushes[0]["join"]["info"]["client"], &pushes[1]["leave"]["info"]["client"]),
        (&"x".into(), &"y".into())
    );
    assert!(goes.frames(1).await.remove(0)["push"]["unsubscribe"].is_object(), "the held frames are dropped");
}

/// A change of the account reads the connection's channels, and then locks each channel: a channel whose subscribe uses
/// the access from before the change must be in the list.
#[tokio::test]
async fn a_subscribe_under_way_is_among_the_channels_of_its_connection() {
    let node = Node::with_history(100).await;
    let connection = connection(1, 1 << 20);
    let seen = |accepted: bool| {
        let connection = &connection;
        move |_| {
            assert!(connection.channels().contains(CHANNEL), "listed during `accept`");
            accepted
        }
    };
    assert!(!node.hub.subscribe(CHANNEL, &connection, SubscribeOptions::default(), None, seen(false)).await.unwrap());
    assert!(connection.channels().is_empty(), "a refused channel is not listed");
    assert!(node.hub.subscribe(CHANNEL, &connection, SubscribeOptions::default(), None, seen(true)).await.unwrap());
    assert_eq!(node.hub.suspend_all_of(std::slice::from_ref(&connection), Cause::User).len(), 1);
    assert_eq!(node.hub.subscription_state(CHANNEL, 1), SubscriptionState::Suspended);
}

/// After every kind of end of a subscription, the client leaves presence, and an empty channel is detached from the
/// broker.
#[tokio::test(start_paused = true)]
async fn each_end_of_a_subscription_leaves_the_presence_and_the_channel() {
    for end in ["unsubscribed", "revoked", "suspended for too long", "history lost"] {
        let node = Node::with_history(2).await;
        let it = node.subscribe(1, None).await;
        let connections = std::slice::from_ref(&it.connection);
        node.hub.presence.enter(&CHANNEL.into(), &it.connection.info()).await.unwrap();
        match end {
            "unsubscribed" => assert!(node.hub.unsubscribe(CHANNEL, &it.connection)),
            "revoked" => {
                let outcome = node.hub.revoke(CHANNEL, &it.connection, Cause::User, || true);
                assert_eq!(outcome, Revoked::Ended(Cause::User));
            }
            "suspended for too long" => {
                assert_eq!(node.hub.suspend_all_of(connections, Cause::User).len(), 1);
                node.publish(HELD_MAX as u64 + 5).await;
                it.write();
                assert!(node.hub.resume(CHANNEL, &it.connection, || true));
            }
            _ => {
                node.publish_unheard(10).await;
                node.hub.gap();
            }
        }
        let left = async || {
            while !node.broker.presence(CHANNEL).await.unwrap().is_empty() || node.metrics.channels.get() > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(3 * LINGER, left()).await.unwrap_or_else(|_| panic!("{end}: still in presence"));
        assert_eq!((node.metrics.subscriptions.get(), it.connection.channels().len()), (0, 0), "{end}");
    }
}

/// A new rule suspends all subscriptions: the cost grows linearly with the number of subscriptions.
#[tokio::test]
async fn all_subscriptions_of_many_users_are_suspended_at_once() {
    const COUNT: u64 = 20_000;
    let node = Node::with_history(100).await;
    let (writer, mut connections) = (Writer::idle(Budget::unlimited()), Vec::new());
    for id in 0..COUNT {
        let outbox = Outbox::beside(1000, &writer);
        let connection = Connection::new(id, format!("u{id}"), "c", &outbox, Account::blocking(&[]));
        assert!(node.hub.subscribe(CHANNEL, &connection, SubscribeOptions::default(), None, |_| true).await.unwrap());
        connections.push(connection);
    }
    let start = std::time::Instant::now();
    assert_eq!(node.hub.suspend_all_of(&connections, Cause::Rules).len() as u64, COUNT);
    let by_connection = start.elapsed();
    assert_eq!(node.hub.suspend(&node.hub.channel_names(), Cause::Rules, |_, _| true).len() as u64, COUNT);
    println!(
        "{COUNT} suspended by connection in {by_connection:?}, by channel in {:?}",
        start.elapsed() - by_connection
    );
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test]
async fn who_was_suspended_for_too_long_recovers() {
    let node = Node::with_history(1000).await;
    let subscriber = node.subscribe(1, None).await;
    node.hub.suspend(&[CHANNEL.into()], Cause::Related, |_, _| true);
    node.publish(HELD_MAX as u64 + 5).await;
    subscriber.write();
    assert!(node.hub.resume(CHANNEL, &subscriber.connection, || true));
    assert_eq!(subscriber.frames(1).await[0]["push"]["unsubscribe"]["code"], 2500);
    let back = node.subscribe(1, Some(&subscriber.position())).await;
    assert_eq!(back.reply["publications"].as_array().unwrap().len(), HELD_MAX + 5);
}
