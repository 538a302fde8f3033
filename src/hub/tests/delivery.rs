//! Subscribing, unsubscribing, and delivery in order.

use super::*;

#[tokio::test]
async fn the_reply_comes_first_and_everything_later_follows_in_order() {
    let node = Node::with_history(100).await;
    node.publish(3).await;
    let first = node.subscribe(1, None).await;
    assert_eq!(first.position().offset, 3);
    node.publish(3).await;
    let second = node.subscribe(2, None).await;
    assert_eq!(second.position().offset, 6);
    node.publish(2).await;
    assert_eq!(first.offsets(5).await, [4, 5, 6, 7, 8]);
    assert_eq!(second.offsets(2).await, [7, 8]);
    assert_eq!(node.metrics.deliveries.get(), 7);
}

/// Subscribers of one writer get a batch in one pass over them, each from the own position on.
#[tokio::test]
async fn a_batch_reaches_each_subscriber_from_the_own_position_on() {
    let node = Node::with_history(100).await;
    let first = node.subscribe(1, None).await;
    node.publish(2).await;
    let outbox = Outbox::beside(1 << 20, first.outbox.writer());
    let connection = Connection::new(2, "u", "c", &outbox, Account::blocking(&[]));
    assert!(node.hub.subscribe(CHANNEL, &connection, SubscribeOptions::default(), None, |_| true).await.unwrap());
    node.publish(2).await;
    let second = Subscribed { connection, outbox, reply: Value::Null };
    assert_eq!(first.offsets(4).await, [1, 2, 3, 4]);
    assert_eq!(second.offsets(2).await, [3, 4]);
    assert_eq!(node.metrics.deliveries.get(), 6);
}

/// The bytes of a batch count at once: subscribers who have much unread are ended when the shared budget is used up, not
/// a whole batch for each of them later.
#[tokio::test]
async fn a_batch_counts_in_the_shared_budget_while_it_is_pushed() {
    const CLIENTS: u64 = 40;
    let node = Node::with_history(100).await;
    let (held, unread) = (IntGauge::new("held", "for a test").unwrap(), SHARE + 1000);
    let limit = CLIENTS as usize * (unread + 1000);
    let writer = Writer::idle(Budget::new(limit, held.clone()));
    let mut connections = Vec::new();
    for id in 1..=CLIENTS {
        let outbox = Outbox::beside(1 << 20, &writer);
        let connection = Connection::new(id, "u", id.to_string(), &outbox, Account::blocking(&[]));
        assert!(node.hub.subscribe(CHANNEL, &connection, SubscribeOptions::default(), None, |_| true).await.unwrap());
        assert!(outbox.push(Frame::encoded(&vec![b'x'; unread])));
        connections.push(connection);
    }
    let data = Payload::parse(&format!("\"{}\"", "x".repeat(10_000))).unwrap();
    let entry = |seq| Entry { seq, at: 0, channel: CHANNEL.into(), data: data.clone(), barrier: false };
    node.broker.publish(&(1..=6).map(entry).collect::<Vec<_>>()).await.unwrap();
    writer.deliver();
    let ended = connections.iter().filter(|connection| connection.outbox.state() != OutboxState::Open).count();
    assert!(ended > 0, "the budget was used up");
    assert!(held.get() < (limit + 2 * SHARE) as i64, "{} bytes held of {limit}", held.get());
}

#[tokio::test]
async fn nobody_subscribes_twice_and_who_left_gets_nothing() {
    let node = Node::with_history(100).await;
    let subscribed = node.subscribe(1, None).await;
    let again = node.hub.subscribe(CHANNEL, &subscribed.connection, SubscribeOptions::default(), None, |_| true).await;
    assert!(matches!(again, Err(SubscribeError::AlreadySubscribed)));
    assert!(node.hub.unsubscribe(CHANNEL, &subscribed.connection));
    assert!(!node.hub.unsubscribe(CHANNEL, &subscribed.connection));
    node.publish(1).await;
    subscribed.outbox.close(codes::SHUTDOWN);
    assert_eq!(subscribed.outbox.take(&mut Vec::new()).await, Err(codes::SHUTDOWN));
    assert_eq!(node.metrics.subscriptions.get(), 0);
}

#[tokio::test]
async fn a_declined_subscribe_leaves_nothing_behind() {
    let node = Node::with_history(100).await;
    assert!(
        !node.hub.subscribe(CHANNEL, &connection(1, 1000), SubscribeOptions::default(), None, |_| false).await.unwrap()
    );
    assert_eq!(node.hub.subscription_state(CHANNEL, 1), SubscriptionState::NotSubscribed);
}

#[tokio::test]
async fn signals_reach_everybody_without_an_offset_but_those_who_block_their_sender() {
    let node = Node::with_history(5).await;
    let subscriber = node.subscribe(1, None).await;
    for user in ["a pest", "u"] {
        let info = ClientInfo { user: user.into(), client: "c".into() };
        node.broker.signal(CHANNEL, Payload::parse(r#"{"type":"typing"}"#).unwrap(), info).await.unwrap();
    }
    let frame = subscriber.frames(1).await.remove(0);
    assert_eq!(
        frame["push"]["pub"],
        serde_json::json!({"data": {"type": "typing"}, "info": {"user": "u", "client": "c"}})
    );
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_channel_is_unlinked_after_a_while_and_can_be_used_again() {
    let node = Node::with_history(5).await;
    node.subscribe(1, None).await;
    node.hub.unsubscribe(CHANNEL, &connection(1, 0));
    assert_eq!(node.metrics.channels.get(), 1);
    tokio::time::sleep(LINGER * 2).await;
    assert_eq!(node.metrics.channels.get(), 0);
    node.publish(1).await;
    let back = node.subscribe(1, None).await;
    assert_eq!(back.position().offset, 1);
    node.publish(1).await;
    assert_eq!(back.offsets(1).await, [2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn joining_leaving_and_publishing_at_once_loses_nothing() {
    let node = Node::with_history(10_000).await;
    let (hub, broker) = (Arc::clone(&node.hub), Arc::clone(&node.broker));
    let publishing = tokio::spawn(async move {
        for seq in 1..=3000 {
            let data = Payload::parse(&seq.to_string()).unwrap();
            broker.publish(&[Entry { seq, at: 0, channel: CHANNEL.into(), data, barrier: false }]).await.unwrap();
            if seq % 50 == 0 {
                tokio::task::yield_now().await;
            }
        }
    });
    let coming_and_going = (0..8).map(|id| {
        let hub = Arc::clone(&hub);
        tokio::spawn(async move {
            let mut since: Option<Position> = None;
            let mut got = 0;
            while got < 3000 {
                let connection = connection(id, 1 << 26);
                let outbox = &connection.outbox;
                let accept = |reply| outbox.reply(1, &Reply::Subscribe(reply));
                let recover = since.clone().unwrap_or(Position { offset: 0, epoch: hub_epoch(&hub).await });
                let options = SubscribeOptions { recover: Some(&recover), ..SubscribeOptions::default() };
                hub.subscribe(CHANNEL, &connection, options, None, accept).await.unwrap();
                tokio::task::yield_now().await;
                hub.unsubscribe(CHANNEL, &connection);
                outbox.close(codes::SHUTDOWN);
                let mut batch = Vec::new();
                while outbox.take(&mut batch).await.is_ok() {}
                for frame in batch {
                    let frame: Value = serde_json::from_slice(&frame).unwrap();
                    let publications = match &frame["subscribe"]["publications"] {
                        Value::Array(recovered) => recovered.clone(),
                        _ if frame["push"].is_object() => vec![frame["push"]["pub"].clone()],
                        _ => Vec::new(),
                    };
                    for publication in publications {
                        got += 1;
                        assert_eq!(publication["offset"], got, "the next offset");
                    }
                }
                since = Some(Position { offset: got, ..recover });
            }
        })
    });
    for task in coming_and_going.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    publishing.await.unwrap();
}

async fn hub_epoch(hub: &Hub) -> String {
    hub.broker.history(CHANNEL, HistoryQuery::POSITION).await.unwrap().position.epoch
}
