//! The watched channel: access changes take effect before later publications of other channels.

use super::*;

/// A watcher that suspends all subscriptions at each publication, as a revocation does.
struct Strict(Weak<Hub>, Mutex<Vec<String>>);

impl Watcher for Strict {
    fn publication(&self, data: &Payload) {
        let hub = self.0.upgrade().unwrap();
        hub.suspend(&hub.channel_names(), Cause::Related, |_, _| true);
        self.1.lock().push(String::from_utf8(data.as_bytes().to_vec()).unwrap());
    }

    fn lost(&self) {
        self.1.lock().push("lost".into());
    }
}

#[tokio::test]
async fn what_is_watched_takes_effect_before_anything_later_of_other_channels() {
    let node = Node::with_history(5).await;
    let strict = Arc::new(Strict(Arc::downgrade(&node.hub), Mutex::default()));
    let watcher: Weak<Strict> = Arc::downgrade(&strict);
    node.hub.watch("$watched", watcher);
    let subscriber = node.subscribe(1, None).await;
    let publish = async |seq: u64, channel: &str| {
        let data = Payload::parse(&seq.to_string()).unwrap();
        let entry = Entry { seq, at: 0, channel: channel.into(), data, barrier: false };
        node.broker.publish(&[entry]).await.unwrap();
    };
    // Both publications are missed, and the room's gap is found first.
    for channel in ["$watched", CHANNEL] {
        node.broker.unsubscribe(channel).await.unwrap();
    }
    publish(1, CHANNEL).await;
    publish(2, "$watched").await;
    publish(3, CHANNEL).await;
    for channel in ["$watched", CHANNEL] {
        node.broker.subscribe(channel).await.unwrap();
    }
    node.hub.gap();
    publish(4, CHANNEL).await;
    while node.hub.subscription_state(CHANNEL, 1) != SubscriptionState::Suspended {
        tokio::task::yield_now().await;
    }
    assert_eq!(*strict.1.lock(), ["2"]);
    subscriber.outbox.close(codes::SHUTDOWN);
    assert_eq!(subscriber.outbox.take(&mut Vec::new()).await, Err(codes::SHUTDOWN));
    // A read of history, too, waits for the undelivered access change before it.
    node.hub.resume(CHANNEL, &subscriber.connection, || true);
    node.broker.unsubscribe("$watched").await.unwrap();
    publish(5, "$watched").await;
    publish(6, CHANNEL).await;
    node.hub.history(CHANNEL, HistoryQuery::after(0)).await.unwrap();
    assert_eq!(strict.1.lock().last().unwrap(), "5");
    // An unrecoverable loss is reported to the watcher.
    node.broker.unsubscribe("$watched").await.unwrap();
    for seq in 7..20 {
        publish(seq, "$watched").await;
    }
    node.broker.subscribe("$watched").await.unwrap();
    publish(20, "$watched").await;
    while strict.1.lock().last().is_none_or(|last| last != "lost") {
        tokio::task::yield_now().await;
    }
}

/// A late notice makes the gateway read the watched channel alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_notice_is_read_without_reading_all_channels() {
    const CHANNELS: u64 = 1000;
    let node = Node::with_history(100).await;
    let strict = Arc::new(Strict(Arc::downgrade(&node.hub), Mutex::default()));
    let watcher: Weak<Strict> = Arc::downgrade(&strict);
    node.hub.watch("$watched", watcher);
    let mut kept = Vec::new();
    for id in 0..CHANNELS {
        let connection = connection(id, 1 << 20);
        assert!(
            node.hub
                .subscribe(&format!("room:{id}"), &connection, SubscribeOptions::default(), None, |_| true)
                .await
                .unwrap()
        );
        kept.push(connection);
    }
    let filled = || node.metrics.gaps.with_label_values(&["filled"]).get();
    let before = filled();
    // The notice is in the history, and is never delivered.
    node.broker.unsubscribe("$watched").await.unwrap();
    let data = Payload::parse("1").unwrap();
    let notice = Entry { seq: 1, at: 0, channel: "$watched".into(), data, barrier: false };
    node.broker.publish(&[notice]).await.unwrap();
    node.broker.subscribe("$watched").await.unwrap();
    assert!(
        node.hub
            .subscribe("room:new", &connection(CHANNELS, 1 << 20), SubscribeOptions::default(), None, |_| true)
            .await
            .unwrap()
    );
    assert_eq!(*strict.1.lock(), ["1"], "the notice has taken effect before the subscribe");
    let channels = node.hub.all_channels();
    for channel in channels {
        node.hub.make_live(&channel).await.unwrap();
    }
    println!("{} of {} channels were read again", filled() - before, CHANNELS + 2);
    assert_eq!(filled() - before, 1, "the watched channel alone");
}

/// Publications during the read of a missed notice are delivered after the notice has taken effect. Channels without
/// publications are not read.
#[tokio::test]
async fn what_arrives_behind_a_missed_notice_waits_for_it() {
    let node = Node::with_history(100).await;
    let strict = Arc::new(Strict(Arc::downgrade(&node.hub), Mutex::default()));
    let watcher: Weak<Strict> = Arc::downgrade(&strict);
    node.hub.watch("$watched", watcher);
    let subscriber = node.subscribe(1, None).await;
    assert!(
        node.hub
            .subscribe("room:quiet", &connection(2, 1 << 20), SubscribeOptions::default(), None, |_| true)
            .await
            .unwrap()
    );
    let publish = async |seq: u64, channel: &str| {
        let data = Payload::parse(&seq.to_string()).unwrap();
        let entry = Entry { seq, at: 0, channel: channel.into(), data, barrier: false };
        node.broker.publish(&[entry]).await.unwrap();
    };
    let watched = &node.hub.watched.get().unwrap().channel;
    let reading = watched.attachment.lock().await;
    node.broker.unsubscribe("$watched").await.unwrap();
    publish(1, "$watched").await;
    node.broker.subscribe("$watched").await.unwrap();
    publish(2, "$watched").await;
    publish(3, CHANNEL).await;
    subscriber.write();
    assert_eq!(node.metrics.deliveries.get(), 0, "the publication waits");
    assert!(node.hub.find("room:quiet").unwrap().state().content.is_live());
    assert!(strict.1.lock().is_empty());

    drop(reading);
    while node.hub.subscription_state(CHANNEL, 1) != SubscriptionState::Suspended {
        tokio::task::yield_now().await;
    }
    node.hub.make_live(&node.hub.find(CHANNEL).unwrap()).await.unwrap();
    assert_eq!(*strict.1.lock(), ["1", "2"]);
    assert!(watched.state().content.is_live());
    subscriber.write();
    assert_eq!(node.metrics.deliveries.get(), 0, "the notice came first");
    assert!(node.hub.resume(CHANNEL, &subscriber.connection, || true));
    assert_eq!(subscriber.offsets(1).await, [1]);
}

/// A node with one subscriber, and a watched channel whose publications suspend all subscribers.
struct Guarded {
    node: Node,
    strict: Arc<Strict>,
    subscriber: Subscribed,
}

impl Guarded {
    async fn start() -> Self {
        let node = Node::with_history(5).await;
        let strict = Arc::new(Strict(Arc::downgrade(&node.hub), Mutex::default()));
        let watcher: Weak<Strict> = Arc::downgrade(&strict);
        node.hub.watch("$watched", watcher);
        let subscriber = node.subscribe(1, None).await;
        Self { node, strict, subscriber }
    }

    /// Appends a publication to a channel's history without delivery. Returns the publication and the channel's epoch.
    async fn publish_unheard(&self, channel: &str) -> (Publication, String) {
        let broker = &self.node.broker;
        broker.unsubscribe(channel).await.unwrap();
        self.node.seq.set(self.node.seq.get() + 1);
        let data = Payload::parse(&self.node.seq.get().to_string()).unwrap();
        let entry = Entry { seq: self.node.seq.get(), at: 0, channel: channel.into(), data, barrier: false };
        broker.publish(&[entry]).await.unwrap();
        broker.subscribe(channel).await.unwrap();
        let history = broker.history(channel, HistoryQuery { limit: None, ..HistoryQuery::default() }).await.unwrap();
        (history.publications.last().unwrap().clone(), history.position.epoch)
    }

    fn arrives(&self, channel: &str, (publication, epoch): &(Publication, String), after: Option<&Position>) {
        self.node.hub.publication(channel, epoch, publication.clone(), after);
    }

    fn heard(&self) -> Vec<String> {
        self.strict.1.lock().clone()
    }

    fn subscription_state(&self) -> SubscriptionState {
        self.node.hub.subscription_state(CHANNEL, 1)
    }

    /// Closes the outbox. Returns true if the outbox was empty.
    async fn was_sent_nothing(self) -> bool {
        self.subscriber.outbox.close(codes::SHUTDOWN);
        self.subscriber.outbox.take(&mut Vec::new()).await == Err(codes::SHUTDOWN)
    }
}

/// Waits for a condition, at most one minute of the paused clock.
async fn eventually(condition: impl Fn() -> bool) {
    for _ in 0..60_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("the condition did not become true within a minute");
}

fn at((publication, epoch): &(Publication, String)) -> Position {
    Position { offset: publication.offset, epoch: epoch.clone() }
}

#[tokio::test(start_paused = true)]
async fn a_publication_waits_for_the_barrier_that_comes_late() {
    let it = Guarded::start().await;
    let change = it.publish_unheard("$watched").await;
    let message = it.publish_unheard(CHANNEL).await;
    let began = tokio::time::Instant::now();
    it.arrives(CHANNEL, &message, Some(&at(&change)));
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(it.subscription_state(), SubscriptionState::Subscribed);
    }
    it.arrives("$watched", &change, None);
    assert_eq!((it.subscription_state(), it.heard()), (SubscriptionState::Suspended, vec!["1".to_owned()]));
    eventually(|| it.node.metrics.gaps.with_label_values(&["filled"]).get() > 0).await;
    // Without reading the watched channel again.
    assert!(began.elapsed() < Duration::from_millis(100));
    assert!(it.was_sent_nothing().await);
}

#[tokio::test(start_paused = true)]
async fn a_barrier_that_never_comes_is_read_from_history() {
    let it = Guarded::start().await;
    let change = it.publish_unheard("$watched").await;
    let message = it.publish_unheard(CHANNEL).await;
    it.arrives(CHANNEL, &message, Some(&at(&change)));
    eventually(|| !it.heard().is_empty() || it.subscription_state() == SubscriptionState::Suspended).await;
    assert_eq!((it.subscription_state(), it.heard()), (SubscriptionState::Suspended, vec!["1".to_owned()]));
    // Delivery goes on, also for later publications with the same barrier.
    it.node.hub.resume(CHANNEL, &it.subscriber.connection, || true);
    assert_eq!(it.subscriber.offsets(1).await, [1]);
    let next = it.publish_unheard(CHANNEL).await;
    it.arrives(CHANNEL, &next, Some(&at(&change)));
    assert_eq!(it.subscriber.offsets(1).await, [2]);
    assert_eq!(it.node.metrics.publications_early.get(), 1);
}

/// The epoch ended when Redis lost its data. One read of the position shows that nothing is missing.
#[tokio::test(start_paused = true)]
async fn a_barrier_of_another_epoch_is_cleared_once() {
    let it = Guarded::start().await;
    let barrier = Position { offset: 40, epoch: "before".into() };
    for offset in 1..=3 {
        let message = it.publish_unheard(CHANNEL).await;
        it.arrives(CHANNEL, &message, Some(&barrier));
        assert_eq!(it.subscriber.offsets(1).await, [offset]);
    }
    assert_eq!(it.node.metrics.publications_early.get(), 1);
    assert!(it.heard().is_empty());
}

/// The access change was confirmed and then lost with the master: all access is checked before publications go on.
#[tokio::test(start_paused = true)]
async fn a_barrier_that_is_lost_ends_in_a_check_of_everything() {
    let it = Guarded::start().await;
    let change = it.publish_unheard("$watched").await;
    it.arrives("$watched", &change, None);
    it.node.hub.resume(CHANNEL, &it.subscriber.connection, || true);
    let lost = Position { offset: 3, ..at(&change) };
    let began = tokio::time::Instant::now();
    for offset in 1..=2 {
        let message = it.publish_unheard(CHANNEL).await;
        it.arrives(CHANNEL, &message, Some(&lost));
        assert_eq!(it.subscriber.offsets(1).await, [offset]);
        assert_eq!(it.heard(), ["1", "lost"]);
        assert!(began.elapsed() > Duration::from_secs(5));
    }
    assert!(began.elapsed() < Duration::from_secs(6));
    // No later read waits for the lost barrier. A lower offset may be assigned again, and is a new barrier.
    let began = tokio::time::Instant::now();
    it.node.hub.level().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(1));
    let anew = Position { offset: 2, ..at(&change) };
    let channel = it.node.hub.find(CHANNEL).unwrap();
    assert!(it.node.hub.is_early(&channel, Some(&anew)) && !it.node.hub.is_early(&channel, Some(&lost)));
}

/// A single Redis names no barriers.
#[tokio::test(start_paused = true)]
async fn nothing_goes_on_while_the_watched_channel_is_read() {
    let it = Guarded::start().await;
    it.publish_unheard("$watched").await;
    let seen = it.publish_unheard("$watched").await;
    let message = it.publish_unheard(CHANNEL).await;
    it.arrives("$watched", &seen, None);
    it.arrives(CHANNEL, &message, None);
    assert!(it.heard().is_empty());
    eventually(|| it.heard().len() == 2).await;
    assert_eq!(
        (it.subscription_state(), it.heard()),
        (SubscriptionState::Suspended, vec!["1".to_owned(), "2".to_owned()])
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(it.was_sent_nothing().await);
}
