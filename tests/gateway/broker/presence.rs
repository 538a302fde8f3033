//! The contract of every broker: presence, and the relays' shared mark.

use crate::broker::{Factory, Recorder, client, entries, entry, generous, mark, payload, until};
use futures_util::future::join_all;
use konvert_gateway::broker::{Broker, BrokerError, Entry, HistoryQuery, Mark, PresenceStats, Retention};
use konvert_gateway::protocol::ClientInfo;
use std::sync::Arc;
use std::time::Duration;

async fn present(broker: &dyn Broker, channel: &str) -> Vec<ClientInfo> {
    let mut present = broker.presence(channel).await.unwrap();
    present.sort_by(|a, b| a.client.cmp(&b.client));
    present
}

pub async fn clients_are_added_renewed_and_removed(factory: &impl Factory) {
    let broker = factory.broker(generous()).await;
    assert!(present(&*broker, "c").await.is_empty());
    let [one, two] = [client("u", "1"), client("u", "2")];
    let both = [
        (Arc::<str>::from("c"), one.clone()),
        (Arc::<str>::from("c"), two.clone()),
        (Arc::<str>::from("d"), one.clone()),
    ];
    broker.add_presence(&both).await.unwrap();
    broker.add_presence(&both[..1]).await.unwrap();
    broker.add_presence(&[]).await.unwrap();
    assert_eq!(present(&*broker, "c").await, [one.clone(), two.clone()]);

    broker.remove_presence(&[("c".into(), "1".into())]).await.unwrap();
    broker.remove_presence(&[("c".into(), "nobody".into())]).await.unwrap();
    assert_eq!(present(&*broker, "c").await, std::slice::from_ref(&two));
    assert_eq!(present(&*broker, "d").await, [one]);

    let crowd: Vec<_> = (0..1500).map(|n| (Arc::<str>::from("crowd"), client("u", &n.to_string()))).collect();
    broker.add_presence(&crowd).await.unwrap();
    assert_eq!(present(&*broker, "crowd").await.len(), 1500);
}

pub async fn clients_expire(factory: &impl Factory) {
    let broker = factory.broker(Retention { presence_ttl: Duration::from_millis(600), ..generous() }).await;
    let clients = ["stays", "goes"].map(|id| (Arc::<str>::from("c"), client("u", id)));
    broker.add_presence(&clients).await.unwrap();
    assert_eq!(broker.presence("c").await.unwrap().len(), 2);
    until("the end of the one that is not renewed", async || {
        broker.add_presence(&clients[..1]).await.unwrap();
        (present(&*broker, "c").await == [client("u", "stays")]).then_some(())
    })
    .await;
    until("the end of the other", async || broker.presence("c").await.unwrap().is_empty().then_some(())).await;
}

pub async fn clients_and_users_are_counted(factory: &impl Factory) {
    let broker = factory.broker(Retention { presence_ttl: Duration::from_secs(3), ..generous() }).await;
    let stats = async |channel: &str| {
        let PresenceStats { clients, users } = broker.presence_stats(channel).await.unwrap();
        (clients, users)
    };
    assert_eq!(stats("c").await, (0, 0));
    // Small and large channels; users with one client, users with two clients, and guests.
    for size in [4, 40] {
        let channel: Arc<str> = format!("of {size}").into();
        let user = |n: usize| if n.is_multiple_of(4) { String::new() } else { format!("u\"{}", n - n % 4 + n % 4 / 2) };
        let crowd: Vec<_> = (0..size).map(|n| (Arc::clone(&channel), client(&user(n), &n.to_string()))).collect();
        for _ in 0..2 {
            broker.add_presence(&crowd).await.unwrap();
            assert_eq!(stats(&channel).await, (size, size / 2), "added, or renewed");
        }
        let leave =
            async |n: usize| broker.remove_presence(&[(Arc::clone(&channel), n.to_string().into())]).await.unwrap();
        for (n, clients, users) in [(0, 1, 0), (2, 2, 0), (2, 2, 0), (3, 3, 1), (1, 4, 2)] {
            leave(n).await;
            assert_eq!(stats(&channel).await, (size - clients, size / 2 - users), "{n} has left");
        }
        until("the end of all", async || (stats(&channel).await == (0, 0)).then_some(())).await;
        broker.add_presence(&crowd[1..3]).await.unwrap();
        assert_eq!(stats(&channel).await, (2, 2));
    }
}

pub async fn a_large_presence_is_counted_and_not_listed(factory: &impl Factory) {
    let broker = factory.broker(Retention { presence_max: 20, ..generous() }).await;
    let crowd: Vec<_> = (0..21).map(|n| (Arc::<str>::from("c"), client("u", &n.to_string()))).collect();
    broker.add_presence(&crowd[..20]).await.unwrap();
    assert_eq!(present(&*broker, "c").await.len(), 20);
    broker.add_presence(&crowd).await.unwrap();
    assert!(matches!(broker.presence("c").await, Err(BrokerError::Crowded)));
    assert_eq!(broker.presence_stats("c").await.unwrap(), PresenceStats { clients: 21, users: 1 });
    broker.remove_presence(&[("c".into(), "3".into())]).await.unwrap();
    assert_eq!(present(&*broker, "c").await.len(), 20);
}

/// The channel's movements so far: a signal arrives after every earlier movement.
async fn heard(broker: &dyn Broker, recorder: &Recorder, channel: &str) -> Vec<String> {
    let before = recorder.signals.lock().unwrap().len();
    broker.signal(channel, payload("{}"), client("u", "marker")).await.unwrap();
    until("the marker", async || (recorder.signals.lock().unwrap().len() > before).then_some(())).await;
    recorder.movements(channel)
}

pub async fn joins_and_leaves_are_announced_once(factory: &impl Factory) {
    let broker = factory.broker(Retention { presence_ttl: Duration::from_millis(600), ..generous() }).await;
    let recorder = Recorder::listen(&*broker).await;
    broker.subscribe("c").await.unwrap();
    let [stays, goes, lost] = ["stays", "goes", "lost"].map(|id| (Arc::<str>::from("c"), client("u", id)));
    broker.add_presence(std::slice::from_ref(&stays)).await.unwrap();
    let first = heard(&*broker, &recorder, "c").await.len();
    for client in [&goes, &lost, &goes] {
        broker.add_presence(std::slice::from_ref(client)).await.unwrap();
    }
    broker.remove_presence(&[("c".into(), "goes".into())]).await.unwrap();
    broker.remove_presence(&[("c".into(), "goes".into())]).await.unwrap();
    until("the end of the one that is not renewed", async || {
        broker.add_presence(std::slice::from_ref(&stays)).await.unwrap();
        (broker.presence("c").await.unwrap().len() == 1).then_some(())
    })
    .await;
    assert_eq!(heard(&*broker, &recorder, "c").await[first..], ["+goes", "+lost", "-goes", "-lost"]);
}

pub async fn joins_and_leaves_in_a_large_channel_are_not_announced(factory: &impl Factory) {
    let broker = factory.broker(Retention { join_leave_max: 2, ..generous() }).await;
    let recorder = Recorder::listen(&*broker).await;
    broker.subscribe("c").await.unwrap();
    for id in ["1", "2", "3"] {
        broker.add_presence(&[("c".into(), client("u", id))]).await.unwrap();
    }
    for id in ["3", "2"] {
        broker.remove_presence(&[("c".into(), id.into())]).await.unwrap();
    }
    let heard = heard(&*broker, &recorder, "c").await;
    // Whether the first join is announced is left open, since no subscriber could hear it.
    assert_eq!(heard.iter().filter(|it| *it != "+1").collect::<Vec<_>>(), ["+2", "-2"]);
}

/// Whether the first join is announced is left open, since no other client is in the channel.
pub async fn clients_who_come_at_the_same_time_are_announced(factory: &impl Factory) {
    let broker = factory.broker(generous()).await;
    let recorder = Recorder::listen(&*broker).await;
    broker.subscribe("c").await.unwrap();
    let crowd: Vec<_> = (0..9).map(|id| [("c".into(), client("u", &id.to_string()))]).collect();
    for added in join_all(crowd.iter().map(|client| broker.add_presence(client))).await {
        added.unwrap();
    }
    let heard = heard(&*broker, &recorder, "c").await.len();
    assert!((8..=9).contains(&heard), "{heard} joins of 9");
}

pub async fn the_mark_only_moves_forward(factory: &impl Factory) {
    let broker = factory.broker(generous()).await;
    assert_eq!(broker.begin(mark(9)).await.unwrap().seq, 9);
    assert_eq!(broker.begin(mark(3)).await.unwrap().seq, 9);
    assert_eq!(broker.begin(mark(30)).await.unwrap().seq, 9);
    assert_eq!(broker.advance(mark(10)).await.unwrap().seq, 10);
    assert_eq!(broker.advance(mark(9)).await.unwrap().seq, 10);
    assert_eq!(broker.advance(mark(10)).await.unwrap().seq, 10);
    // Larger than a script's floating-point numbers can distinguish.
    let large = (1 << 60) + 1;
    assert_eq!(broker.advance(mark(large)).await.unwrap().seq, large);
    assert_eq!(broker.advance(mark(large - 1)).await.unwrap().seq, large);
    assert_eq!(broker.begin(mark(0)).await.unwrap().seq, large);
}

/// Whether a broker moves the mark with the entries or leaves the mark to `advance`, the mark never passes an entry that was
/// not published.
pub async fn the_mark_moves_with_a_whole_batch_only(factory: &impl Factory) {
    let broker = factory.broker(generous()).await;
    broker.begin(mark(0)).await.unwrap();
    let (new, moved) = broker.publish_and_advance(&entries("c", 1..=3), mark(3)).await.unwrap();
    assert_eq!(new, 3);
    let at = if moved.is_some() { 3 } else { 0 };
    assert_eq!(broker.begin(mark(0)).await.unwrap().seq, at);
    // A repeat of the batch, and a mark that is behind.
    let (new, moved) = broker.publish_and_advance(&entries("c", 1..=3), mark(2)).await.unwrap();
    assert_eq!((new, moved.map_or(at, |mark| mark.seq)), (0, at));

    let other = Entry { data: payload("other"), ..entry("c", 3) };
    let batch = [entry("a", 4), other, entry("b", 5)];
    assert!(matches!(broker.publish_and_advance(&batch, mark(5)).await, Err(BrokerError::Conflict)));
    assert_eq!(broker.begin(mark(0)).await.unwrap().seq, at);
    // More than fits into one request.
    let (new, moved) = broker.publish_and_advance(&entries("d", 6..=2000), mark(2000)).await.unwrap();
    assert_eq!((new, moved.is_some()), (1995, at == 3));
    assert_eq!(broker.history("d", HistoryQuery::POSITION).await.unwrap().position.offset, 1995);
}

pub async fn a_new_generation_resets_every_channel(factory: &impl Factory) {
    let broker = factory.broker(generous()).await;
    let recorder = Recorder::listen(&*broker).await;
    broker.subscribe("c").await.unwrap();
    broker.begin(mark(0)).await.unwrap();
    broker.publish(&entries("c", 1..=9)).await.unwrap();
    broker.advance(mark(9)).await.unwrap();
    broker.add_presence(&[("c".into(), client("u", "stays"))]).await.unwrap();
    let before = broker.history("c", HistoryQuery::default()).await.unwrap();
    let gaps = recorder.gaps();

    let next = Mark { generation: 1, seq: 4, fingerprint: 7, boot: 5 };
    assert_eq!(broker.restart(next).await.unwrap(), next);
    assert_eq!(recorder.gaps(), gaps + 1);
    // A second restart, or a mark of the previous generation, changes nothing.
    assert_eq!(broker.restart(Mark { seq: 6, ..next }).await.unwrap(), next);
    assert_eq!(broker.advance(mark(10)).await.unwrap(), next);
    assert_eq!(broker.begin(mark(10)).await.unwrap(), next);
    assert_eq!(recorder.gaps(), gaps + 1);

    let empty = broker.history("c", HistoryQuery::default()).await.unwrap();
    assert_eq!((empty.position.offset, empty.publications.len()), (0, 0));
    assert_ne!(empty.position.epoch, before.position.epoch);
    assert_eq!(broker.presence("c").await.unwrap().len(), 1);
    // Sequence numbers of the previous generation are new again.
    assert_eq!(broker.publish(&entries("c", 5..=6)).await.unwrap(), 2);
    let after = broker.history("c", HistoryQuery::default()).await.unwrap();
    assert_eq!((after.position.offset, after.position.epoch), (2, empty.position.epoch));
    // The same number with another payload conflicts.
    let other = Entry { data: payload("other"), ..entry("c", 6) };
    assert!(matches!(broker.publish(&[other]).await, Err(BrokerError::Conflict)));
    assert_eq!(broker.publish(&entries("c", 5..=6)).await.unwrap(), 0);
    // The same in a channel that was not read since.
    broker.publish(&entries("unseen", [7])).await.unwrap();
    assert_eq!(broker.restart(Mark { generation: 2, ..next }).await.unwrap().generation, 2);
    assert_eq!(broker.publish(&entries("unseen", [5])).await.unwrap(), 1);
    assert_eq!(broker.history("unseen", HistoryQuery::POSITION).await.unwrap().position.offset, 1);
}

pub async fn a_name_has_one_claim_at_a_time(factory: &impl Factory) {
    let broker = factory.broker(generous()).await;
    let long = Duration::from_secs(600);
    assert!(broker.claim("a", Duration::from_millis(200)).await.unwrap());
    assert!(broker.claim("b", long).await.unwrap());
    assert!(!broker.claim("b", long).await.unwrap());
    let free = async || broker.claim("a", long).await.unwrap().then_some(());
    until("the name to be free again", free).await;
    assert!(!broker.claim("a", long).await.unwrap());
}
