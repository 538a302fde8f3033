//! The contract of every broker: history.

use crate::broker::{Factory, brief, entries, entry, generous, payload, until};
use konvert_gateway::broker::{Broker, Entry, HistoryQuery, Retention};
use std::collections::HashSet;
use std::time::Duration;

pub async fn reads_return_the_requested_range(factory: &impl Factory) {
    let broker = factory.broker(generous()).await;
    broker.publish(&entries("c", 1..=10)).await.unwrap();
    let read = async |since, limit, reverse| {
        let history = broker.history("c", HistoryQuery { since, limit, reverse }).await.unwrap();
        assert_eq!(history.position.offset, 10);
        history.publications.iter().map(|p| p.offset).collect::<Vec<_>>()
    };
    assert_eq!(read(None, None, false).await, (1..=10).collect::<Vec<_>>());
    assert_eq!(read(None, None, true).await, (1..=10).rev().collect::<Vec<_>>());
    assert_eq!(read(Some(7), None, false).await, [8, 9, 10]);
    assert_eq!(read(Some(7), Some(2), false).await, [8, 9]);
    assert_eq!(read(Some(4), None, true).await, [3, 2, 1]);
    assert_eq!(read(Some(4), Some(1), true).await, [3]);
    assert_eq!(read(None, Some(3), true).await, [10, 9, 8]);
    assert_eq!(read(None, Some(3), false).await, [1, 2, 3]);
    for reverse in [false, true] {
        assert!(read(None, Some(0), reverse).await.is_empty());
        assert_eq!(read(None, Some(usize::MAX), reverse).await.len(), 10);
    }
    assert!(read(Some(10), None, false).await.is_empty());
    assert!(read(Some(u64::MAX), None, false).await.is_empty());
    assert_eq!(read(Some(0), None, false).await.len(), 10);
    assert_eq!(read(Some(u64::MAX), None, true).await.len(), 10);
    assert!(read(Some(0), None, true).await.is_empty());
    assert!(read(Some(1), None, true).await.is_empty());
}

pub async fn size_is_bounded(factory: &impl Factory) {
    let broker = factory.broker(Retention { size: 5, ..generous() }).await;
    broker.publish(&entries("c", 1..=12)).await.unwrap();
    let history = broker.history("c", HistoryQuery::default()).await.unwrap();
    assert_eq!(brief(&history.publications), (8..=12).map(|n| (n, n.to_string())).collect::<Vec<_>>());
    assert_eq!(history.position.offset, 12);

    let none = factory.broker(Retention { size: 0, ..generous() }).await;
    none.publish(&entries("d", 1..=3)).await.unwrap();
    let history = none.history("d", HistoryQuery::default()).await.unwrap();
    assert_eq!((history.publications.len(), history.position.offset), (0, 3));
}

/// An entry with a payload of the given size.
fn sized(channel: &str, seq: u64, bytes: usize) -> Entry {
    Entry { data: payload(format!("\"{}\"", "x".repeat(bytes - 2))), ..entry(channel, seq) }
}

async fn offsets(broker: &dyn Broker, channel: &str) -> Vec<u64> {
    let history = broker.history(channel, HistoryQuery::default()).await.unwrap();
    history.publications.iter().map(|publication| publication.offset).collect()
}

pub async fn bytes_are_bounded(factory: &impl Factory) {
    let broker = factory.broker(Retention { size: 5, bytes: 1000, ..generous() }).await;
    for (seq, bytes, kept) in [
        (1, 400, vec![1]),
        (2, 400, vec![1, 2]),
        (3, 200, vec![1, 2, 3]),
        (4, 10, vec![2, 3, 4]),
        (5, 990, vec![4, 5]),
        (6, 10, vec![5, 6]),
        (7, 1001, vec![]),
        (8, 10, vec![8]),
        (9, 10, vec![8, 9]),
        (10, 10, vec![8, 9, 10]),
        (11, 10, vec![8, 9, 10, 11]),
        (12, 10, vec![8, 9, 10, 11, 12]),
        (13, 950, vec![9, 10, 11, 12, 13]),
        (14, 21, vec![11, 12, 13, 14]),
    ] {
        broker.publish(&[sized("c", seq, bytes)]).await.unwrap();
        assert_eq!(offsets(&*broker, "c").await, kept, "after {seq} of {bytes} bytes");
    }
    // Forgotten bytes do not count.
    broker.forget("c", 14).await.unwrap();
    broker.publish(&[sized("c", 15, 990), sized("c", 16, 10)]).await.unwrap();
    assert_eq!(offsets(&*broker, "c").await, [1, 2]);
}

pub async fn a_read_is_bounded_in_bytes(factory: &impl Factory) {
    let broker = factory.broker(Retention { read_bytes: 1000, ..generous() }).await;
    let small: Vec<Entry> = (1..=100).map(|seq| sized("small", seq, 25)).collect();
    broker.publish(&small).await.unwrap();
    broker.publish(&[sized("large", 101, 3000), sized("large", 102, 3000), sized("large", 103, 1000)]).await.unwrap();
    let read = async |channel: &str, since, limit, reverse| {
        let history = broker.history(channel, HistoryQuery { since, limit, reverse }).await.unwrap();
        history.publications.iter().map(|publication| publication.offset).collect::<Vec<_>>()
    };
    assert_eq!(read("small", None, None, false).await, (1..=40).collect::<Vec<_>>());
    assert_eq!(read("small", Some(40), None, false).await, (41..=80).collect::<Vec<_>>());
    assert_eq!(read("small", Some(80), None, false).await, (81..=100).collect::<Vec<_>>());
    assert_eq!(read("small", None, None, true).await, (61..=100).rev().collect::<Vec<_>>());
    assert_eq!(read("small", Some(5), Some(39), false).await, (6..=44).collect::<Vec<_>>());
    // At least one publication per read, so that paging always makes progress.
    assert_eq!(read("large", None, None, false).await, [1]);
    assert_eq!(read("large", Some(1), None, false).await, [2]);
    assert_eq!(read("large", None, None, true).await, [3]);
    assert_eq!(read("large", Some(3), None, true).await, [2]);
}

pub async fn total_bytes_of_all_histories_are_bounded(factory: &impl Factory) {
    let broker = factory.broker(Retention { total_bytes: 100_000, ..generous() }).await;
    broker
        .publish(&[sized("small", 1, 1000), sized("$gateways", 2, 20_000), sized("$gateways", 3, 1000)])
        .await
        .unwrap();
    let mut seq = 3;
    for channel in ["one", "two", "three"] {
        for _ in 0..30 {
            seq += 1;
            broker.publish(&[sized(channel, seq, 2000)]).await.unwrap();
        }
    }
    let left = until("the histories to shrink", async || {
        let mut left = 0;
        for channel in ["one", "two", "three"] {
            let kept = offsets(&*broker, channel).await;
            // The oldest publications are removed.
            assert_eq!(kept, (31 - kept.len() as u64..=30).collect::<Vec<_>>());
            left += 2000 * kept.len();
        }
        (left <= 100_000).then_some(left)
    })
    .await;
    assert!(left >= 20_000, "no more goes than has to: {left}");
    assert_eq!(offsets(&*broker, "small").await, [1], "smaller ones are left alone");
    assert_eq!(offsets(&*broker, "$gateways").await, [1, 2], "so are the gateways' own");
    // Publishing goes on.
    broker.publish(&[sized("one", seq + 1, 2000)]).await.unwrap();
    assert_eq!(offsets(&*broker, "one").await.last(), Some(&31));
}

pub async fn publications_expire_and_the_position_stays(factory: &impl Factory) {
    let broker = factory.broker(Retention { ttl: Duration::from_millis(300), ..generous() }).await;
    broker.publish(&entries("c", 1..=3)).await.unwrap();
    let before = broker.history("c", HistoryQuery::default()).await.unwrap();
    assert_eq!(before.publications.len(), 3);

    let after = until("the history's end", async || {
        let history = broker.history("c", HistoryQuery::default()).await.unwrap();
        history.publications.is_empty().then_some(history)
    });
    assert_eq!(after.await.position, before.position);
    assert_eq!(broker.publish(&entries("c", 2..=4)).await.unwrap(), 1);
    let again = broker.history("c", HistoryQuery::default()).await.unwrap();
    assert_eq!(brief(&again.publications), [(4, "4".into())]);
    assert_eq!(again.position.epoch, before.position.epoch);
}

pub async fn an_unused_channel_has_a_position(factory: &impl Factory) {
    let broker = factory.broker(generous()).await;
    let first = broker.history("c", HistoryQuery::default()).await.unwrap();
    assert!(first.publications.is_empty());
    assert_eq!(first.position.offset, 0);
    assert!(!first.position.epoch.is_empty());
    assert_eq!(broker.history("c", HistoryQuery::POSITION).await.unwrap(), first);

    broker.publish(&[entry("c", 1)]).await.unwrap();
    let then = broker.history("c", HistoryQuery::default()).await.unwrap();
    assert_eq!((then.position.offset, then.position.epoch), (1, first.position.epoch));
}

pub async fn each_channel_has_a_separate_epoch(factory: &impl Factory) {
    let broker = factory.broker(generous()).await;
    let mut epochs = HashSet::new();
    for channel in ["a", "b", "c"] {
        broker.publish(&[entry(channel, 1)]).await.unwrap();
        epochs.insert(broker.history(channel, HistoryQuery::POSITION).await.unwrap().position.epoch);
    }
    assert_eq!(epochs.len(), 3);
}

/// The record is deleted, and a new record may have the same name.
pub async fn a_forgotten_history_does_not_come_back(factory: &impl Factory) {
    let broker = factory.broker(generous()).await;
    broker.publish(&entries("c", 1..=3)).await.unwrap();
    let before = broker.history("c", HistoryQuery::default()).await.unwrap();
    broker.forget("c", 2).await.unwrap();
    assert_eq!(broker.history("c", HistoryQuery::default()).await.unwrap(), before, "something later is there");

    broker.forget("c", 3).await.unwrap();
    let after = broker.history("c", HistoryQuery::default()).await.unwrap();
    assert_eq!((after.publications.len(), after.position.offset), (0, 0));
    assert_ne!(after.position.epoch, before.position.epoch);
    // A gateway that died in between starts again before the deletion.
    assert_eq!(broker.publish(&entries("c", 1..=3)).await.unwrap(), 0);
    broker.forget("c", 3).await.unwrap();
    assert_eq!(broker.publish(&entries("c", 4..=5)).await.unwrap(), 2);
    broker.forget("c", 3).await.unwrap();
    let new = broker.history("c", HistoryQuery::default()).await.unwrap();
    assert_eq!(brief(&new.publications), [(1, "4".to_owned()), (2, "5".to_owned())]);

    broker.forget("never used", 9).await.unwrap();
    assert_eq!(broker.history("never used", HistoryQuery::default()).await.unwrap().position.offset, 0);
}
