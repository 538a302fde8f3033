//! What every broker promises.

use crate::{Factory, Recorder, brief, client, entries, entry, generous, numbered, payload, until};
use konvert_gateway::broker::{Broker, Entry, HistoryQuery, Retention, Sink};
use konvert_gateway::protocol::{ClientInfo, Publication};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

pub async fn offsets_are_contiguous_and_in_order(factory: &impl Factory) {
    let broker = factory.broker(generous()).await;
    let recorder = Recorder::listen(&*broker).await;
    broker.subscribe("room:1").await.unwrap();
    // More than one pipeline's worth; sequence numbers have gaps, offsets have none.
    let seqs: Vec<u64> = (1..=1200).map(|n| 3 * n).collect();
    assert_eq!(broker.publish(&entries("room:1", seqs.clone())).await.unwrap(), 1200);
    assert_eq!(broker.publish(&[entry("room:1", 9999)]).await.unwrap(), 1);

    let seen = recorder.wait("room:1", 1201).await;
    assert_eq!(brief(&seen), numbered(seqs.into_iter().chain([9999])));
    let position = broker.history("room:1", HistoryQuery::POSITION).await.unwrap().position;
    assert_eq!((position.offset, vec![position.epoch]), (1201, recorder.epochs("room:1")));
    assert!(seen.iter().all(|publication| publication.info.is_none()));
}

pub async fn history_comes_before_delivery(factory: &impl Factory) {
    /// Asks for the history as soon as something is delivered.
    struct Asks(tokio::sync::mpsc::UnboundedSender<u64>);
    impl Sink for Asks {
        fn publication(&self, _: &str, _: &str, publication: Publication) {
            self.0.send(publication.offset).unwrap();
        }
        fn signal(&self, _: &str, _: Publication) {}
        fn gap(&self) {}
    }

    let broker = factory.broker(generous()).await;
    let (sender, mut delivered) = tokio::sync::mpsc::unbounded_channel();
    let sink: Arc<dyn Sink> = Arc::new(Asks(sender));
    broker.start(Arc::downgrade(&sink)).await.unwrap();
    broker.subscribe("c").await.unwrap();
    for seq in 1..=50 {
        broker.publish(&[entry("c", seq)]).await.unwrap();
        let offset = delivered.recv().await.unwrap();
        assert_eq!(offset, seq);
        let history = broker.history("c", HistoryQuery::after(offset - 1)).await.unwrap();
        assert_eq!(history.publications[0].offset, offset);
    }
}

pub async fn repeats_are_dropped(factory: &impl Factory) {
    let broker = factory.broker(generous()).await;
    let recorder = Recorder::listen(&*broker).await;
    broker.subscribe("c").await.unwrap();
    let batch: Vec<Entry> = (1..=20).map(|seq| entry(["c", "d"][seq as usize % 2], seq)).collect();
    assert_eq!(broker.publish(&batch).await.unwrap(), 20);
    assert_eq!(broker.publish(&batch).await.unwrap(), 0);
    assert_eq!(broker.publish(&batch[..7]).await.unwrap(), 0);
    let longer: Vec<Entry> = batch[10..].iter().cloned().chain([entry("c", 21), entry("d", 22)]).collect();
    assert_eq!(broker.publish(&longer).await.unwrap(), 2);
    assert_eq!(broker.publish(&[]).await.unwrap(), 0);

    let even = || numbered((2..=20).step_by(2).chain([21]));
    assert_eq!(brief(&recorder.wait("c", 11).await), even());
    assert_eq!(brief(&broker.history("c", HistoryQuery::default()).await.unwrap().publications), even());
}

pub async fn history_is_read_in_stretches(factory: &impl Factory) {
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

pub async fn history_is_bounded_in_size(factory: &impl Factory) {
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

pub async fn history_expires_and_the_position_stays(factory: &impl Factory) {
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

pub async fn an_untouched_channel_has_a_position(factory: &impl Factory) {
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

pub async fn channels_have_epochs_of_their_own(factory: &impl Factory) {
    let broker = factory.broker(generous()).await;
    let mut epochs = HashSet::new();
    for channel in ["a", "b", "c"] {
        broker.publish(&[entry(channel, 1)]).await.unwrap();
        epochs.insert(broker.history(channel, HistoryQuery::POSITION).await.unwrap().position.epoch);
    }
    assert_eq!(epochs.len(), 3);
}

pub async fn only_subscribed_channels_are_delivered(factory: &impl Factory) {
    let broker = factory.broker(generous()).await;
    let recorder = Recorder::listen(&*broker).await;
    broker.subscribe("a").await.unwrap();
    broker.subscribe("a").await.unwrap();
    broker.publish(&[entry("b", 1), entry("a", 2)]).await.unwrap();
    recorder.wait("a", 1).await;
    assert!(recorder.of("b").is_empty());

    broker.unsubscribe("a").await.unwrap();
    broker.unsubscribe("never").await.unwrap();
    broker.subscribe("b").await.unwrap();
    // What is late is late for once, not for ever.
    let mut seq = 2;
    until("a's silence", async || {
        seq += 2;
        let (a, b) = (recorder.of("a").len(), recorder.of("b").len());
        broker.publish(&[entry("a", seq), entry("b", seq + 1)]).await.unwrap();
        recorder.wait("b", b + 1).await;
        (recorder.of("a").len() == a).then_some(())
    })
    .await;

    broker.subscribe("a").await.unwrap();
    let count = recorder.of("a").len();
    broker.publish(&[entry("a", 1000)]).await.unwrap();
    let seen = recorder.wait("a", count + 1).await;
    assert_eq!(seen.last().unwrap().data, payload("1000"));
}

pub async fn signals_are_delivered_and_not_kept(factory: &impl Factory) {
    let broker = factory.broker(generous()).await;
    let recorder = Recorder::listen(&*broker).await;
    broker.subscribe("c").await.unwrap();
    let info = client("ü\"ser:1", "client\u{2028}");
    broker.signal("c", payload("{\"typing\":true}"), info.clone()).await.unwrap();
    broker.publish(&[entry("c", 1)]).await.unwrap();
    recorder.wait("c", 1).await;

    until("the signal", async || (!recorder.signals.lock().unwrap().is_empty()).then_some(())).await;
    let expected = Publication { offset: 0, data: payload("{\"typing\":true}"), info: Some(info) };
    assert_eq!(*recorder.signals.lock().unwrap(), [("c".to_owned(), expected)]);
    let history = broker.history("c", HistoryQuery::default()).await.unwrap();
    assert_eq!((history.position.offset, brief(&history.publications)), (1, numbered([1])));
}

async fn present(broker: &dyn Broker, channel: &str) -> Vec<ClientInfo> {
    let mut present = broker.presence(channel).await.unwrap();
    present.sort_by(|a, b| a.client.cmp(&b.client));
    present
}

pub async fn presence_is_added_renewed_and_removed(factory: &impl Factory) {
    let broker = factory.broker(generous()).await;
    assert!(present(&*broker, "c").await.is_empty());
    let [one, two] = [client("u", "1"), client("u", "2")];
    let both = [("c".to_owned(), one.clone()), ("c".to_owned(), two.clone()), ("d".to_owned(), one.clone())];
    broker.add_presence(&both).await.unwrap();
    broker.add_presence(&both[..1]).await.unwrap();
    broker.add_presence(&[]).await.unwrap();
    assert_eq!(present(&*broker, "c").await, [one.clone(), two.clone()]);

    broker.remove_presence("c", "1").await.unwrap();
    broker.remove_presence("c", "nobody").await.unwrap();
    assert_eq!(present(&*broker, "c").await, [two]);
    assert_eq!(present(&*broker, "d").await, [one]);

    let crowd: Vec<_> = (0..1500).map(|n| ("crowd".to_owned(), client("u", &n.to_string()))).collect();
    broker.add_presence(&crowd).await.unwrap();
    assert_eq!(present(&*broker, "crowd").await.len(), 1500);
}

pub async fn presence_expires(factory: &impl Factory) {
    let broker = factory.broker(Retention { presence_ttl: Duration::from_millis(600), ..generous() }).await;
    let clients = ["stays", "goes"].map(|id| ("c".to_owned(), client("u", id)));
    broker.add_presence(&clients).await.unwrap();
    assert_eq!(broker.presence("c").await.unwrap().len(), 2);
    until("the end of the one that is not renewed", async || {
        broker.add_presence(&clients[..1]).await.unwrap();
        (present(&*broker, "c").await == [client("u", "stays")]).then_some(())
    })
    .await;
    until("the end of the other", async || broker.presence("c").await.unwrap().is_empty().then_some(())).await;
}

pub async fn the_cursor_only_moves_forward(factory: &impl Factory) {
    let broker = factory.broker(generous()).await;
    assert_eq!(broker.begin(9).await.unwrap(), 9);
    assert_eq!(broker.begin(3).await.unwrap(), 9);
    assert_eq!(broker.begin(30).await.unwrap(), 9);
    assert_eq!(broker.advance(10).await.unwrap(), 10);
    assert_eq!(broker.advance(9).await.unwrap(), 10);
    assert_eq!(broker.advance(10).await.unwrap(), 10);
    // Beyond what a script's floating-point numbers tell apart.
    let large = (1 << 60) + 1;
    assert_eq!(broker.advance(large).await.unwrap(), large);
    assert_eq!(broker.advance(large - 1).await.unwrap(), large);
    assert_eq!(broker.begin(0).await.unwrap(), large);
}

pub async fn strange_names_do_not_collide(factory: &impl Factory) {
    let long = "ä".repeat(200);
    let names = [
        "",
        "{}",
        "{a}",
        "{a}b",
        "a}",
        "}",
        "}a",
        "a",
        "{",
        "%",
        "%7D",
        "%25",
        "a:b",
        "a:",
        ":a",
        "a::b",
        "{a",
        "a{b}c",
        "комната",
        "💬",
        " ",
        "\u{2028}",
        "a\n",
        "a\r\nb",
        "a\0b",
        "*",
        "a*",
        "[a]",
        "?",
        "a}:live:{b",
        "cursor",
        &long,
    ];
    let broker = factory.broker(generous()).await;
    let recorder = Recorder::listen(&*broker).await;
    for name in names {
        broker.subscribe(name).await.unwrap();
    }
    broker.begin(77).await.unwrap();
    // Each its own number of publications, so that a channel that got another's would show.
    let mut seq = 0;
    for (count, name) in names.iter().enumerate() {
        for _ in 0..=count {
            seq += 1;
            broker
                .publish(&[Entry { seq, channel: (*name).into(), data: payload(format!("{name:?}")) }])
                .await
                .unwrap();
        }
        broker.add_presence(&[((*name).to_owned(), client(name, name))]).await.unwrap();
    }
    for (count, name) in names.iter().enumerate() {
        let history = broker.history(name, HistoryQuery::default()).await.unwrap();
        let expected: Vec<_> = (1..=count as u64 + 1).map(|offset| (offset, format!("{name:?}"))).collect();
        assert_eq!(brief(&history.publications), expected);
        assert_eq!(brief(&recorder.wait(name, count + 1).await), expected);
        assert_eq!(broker.presence(name).await.unwrap(), [client(name, name)]);
    }
    assert_eq!(broker.begin(1).await.unwrap(), 77);
}

pub async fn payloads_pass_byte_for_byte(factory: &impl Factory) {
    let payloads = [
        "\"\u{2028}\u{2029}\u{7f}\"".to_owned(),
        "{\"emoji\":\"👩‍👩‍👧‍👦\",\"escaped\":\"\\n\\u0000\\ud83d\"}".to_owned(),
        "0".to_owned(),
        " { \"spaces\" : 1 } ".to_owned(),
        "\"p1:abc:s2:{}\"".to_owned(),
        format!("\"{}\"", "ж".repeat(32 * 1024)),
        format!("\"{}\"", "x".repeat(1 << 20)),
    ];
    let broker = factory.broker(generous()).await;
    let recorder = Recorder::listen(&*broker).await;
    broker.subscribe("c").await.unwrap();
    let entry = |(seq, text): (u64, &String)| Entry { seq, channel: "c".into(), data: payload(text.clone()) };
    let batch: Vec<Entry> = (1..).zip(&payloads).map(entry).collect();
    broker.publish(&batch).await.unwrap();
    for text in &payloads {
        broker.signal("c", payload(text.clone()), client("u", "c")).await.unwrap();
    }

    let expected: Vec<_> = (1..).zip(payloads.clone()).collect();
    // Not assert_eq: a failure would print a megabyte.
    assert!(brief(&recorder.wait("c", payloads.len()).await) == expected);
    assert!(brief(&broker.history("c", HistoryQuery::default()).await.unwrap().publications) == expected);
    let all = async || (recorder.signals.lock().unwrap().len() == payloads.len()).then_some(());
    until("the signals", all).await;
    let signals = recorder.signals.lock().unwrap();
    assert!(signals.iter().zip(&payloads).all(|((_, signal), text)| signal.data == payload(text.clone())));
}

pub async fn concurrent_publishers_leave_no_gaps(factory: &impl Factory) {
    let broker = factory.broker(generous()).await;
    let recorder = Recorder::listen(&*broker).await;
    let mut tasks = Vec::new();
    for n in 0..4 {
        broker.subscribe(&format!("own{n}")).await.unwrap();
        let broker = Arc::clone(&broker);
        tasks.push(tokio::spawn(async move {
            let channel = format!("own{n}");
            let batches: Vec<Vec<Entry>> = entries(&channel, 1..=500).chunks(17).map(<[_]>::to_vec).collect();
            for batch in batches {
                broker.publish(&batch).await.unwrap();
            }
        }));
    }
    broker.subscribe("shared").await.unwrap();
    // One after another here, whoever's turn it is elsewhere.
    for seq in 1..=100 {
        broker.publish(&[entry("shared", seq)]).await.unwrap();
    }
    for task in tasks {
        task.await.unwrap();
    }
    for n in 0..4 {
        assert_eq!(brief(&recorder.wait(&format!("own{n}"), 500).await), numbered(1..=500));
    }
    assert_eq!(brief(&recorder.wait("shared", 100).await), numbered(1..=100));
    assert_eq!(recorder.gaps(), 0);
}
