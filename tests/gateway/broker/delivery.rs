//! The contract of every broker: delivery.

use crate::broker::{Factory, Recorder, brief, client, entries, entry, generous, mark, numbered, payload, until};
use konvert_gateway::broker::status_store::UserStatus;
use konvert_gateway::broker::{Entry, HistoryQuery, Sink};
use konvert_gateway::protocol::{ClientInfo, Movement, Position, Publication};
use std::sync::Arc;

pub async fn offsets_are_contiguous_and_in_order(factory: &impl Factory) {
    let broker = factory.broker(generous()).await;
    let recorder = Recorder::listen(&*broker).await;
    broker.subscribe("room:1").await.unwrap();
    // More entries than one pipeline holds. Sequence numbers have gaps, offsets have none.
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
    /// A sink that asks for the history on every delivery.
    struct Asks(tokio::sync::mpsc::UnboundedSender<u64>);
    impl Sink for Asks {
        fn publication(&self, _: &str, _: &str, publication: Publication, _: Option<&Position>) {
            self.0.send(publication.offset).unwrap();
        }
        fn signal(&self, _: &str, _: Publication) {}
        fn movement(&self, _: &str, _: Movement, _: ClientInfo) {}
        fn status(&self, _: &str, _: UserStatus) {}
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
    // After the unsubscribe, a delivery may be late once, but not repeatedly.
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
    let expected = Publication { offset: 0, at: 0, data: payload("{\"typing\":true}"), info: Some(info) };
    assert_eq!(*recorder.signals.lock().unwrap(), [("c".to_owned(), expected)]);
    let history = broker.history("c", HistoryQuery::default()).await.unwrap();
    assert_eq!((history.position.offset, brief(&history.publications)), (1, numbered([1])));
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
        "mark",
        &long,
    ];
    let broker = factory.broker(generous()).await;
    let recorder = Recorder::listen(&*broker).await;
    for name in names {
        broker.subscribe(name).await.unwrap();
    }
    broker.begin(mark(77)).await.unwrap();
    // The channels get different numbers of publications, so that a mix-up would show.
    let mut seq = 0;
    for (count, name) in names.iter().enumerate() {
        for _ in 0..=count {
            seq += 1;
            broker.publish(&[Entry { data: payload(format!("{name:?}")), ..entry(name, seq) }]).await.unwrap();
        }
        broker.add_presence(&[((*name).into(), client(name, name))]).await.unwrap();
    }
    for (count, name) in names.iter().enumerate() {
        let history = broker.history(name, HistoryQuery::default()).await.unwrap();
        let expected: Vec<_> = (1..=count as u64 + 1).map(|offset| (offset, format!("{name:?}"))).collect();
        assert_eq!(brief(&history.publications), expected);
        assert_eq!(brief(&recorder.wait(name, count + 1).await), expected);
        assert_eq!(broker.presence(name).await.unwrap(), [client(name, name)]);
    }
    assert_eq!(broker.begin(mark(1)).await.unwrap().seq, 77);
}

pub async fn payloads_pass_byte_for_byte(factory: &impl Factory) {
    let payloads = [
        "\"\u{2028}\u{2029}\u{7f}\"".to_owned(),
        "{\"emoji\":\"👩‍👩‍👧‍👦\",\"escaped\":\"\\n\\u0000\\ud83d\"}".to_owned(),
        "0".to_owned(),
        " { \"spaces\" : 1 } ".to_owned(),
        "\"p1:abc:0:s2:{}\"".to_owned(),
        format!("\"{}\"", "ж".repeat(32 * 1024)),
        format!("\"{}\"", "x".repeat(1 << 20)),
    ];
    let broker = factory.broker(generous()).await;
    let recorder = Recorder::listen(&*broker).await;
    broker.subscribe("c").await.unwrap();
    let entry = |(seq, text): (u64, &String)| Entry { data: payload(text.clone()), ..entry("c", seq) };
    let batch: Vec<Entry> = (1..).zip(&payloads).map(entry).collect();
    broker.publish(&batch).await.unwrap();
    for text in &payloads {
        broker.signal("c", payload(text.clone()), client("u", "c")).await.unwrap();
    }

    let expected: Vec<_> = (1..).zip(payloads.clone()).collect();
    // Not assert_eq, since a failure would print a megabyte.
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
    // Sequential in this task, in competition with the other tasks.
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
