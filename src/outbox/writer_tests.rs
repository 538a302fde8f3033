//! Tests of the writers: joining, portions, lag.

use super::*;
use crate::metrics::Metrics;
use crate::outbox::tests::{Paper, text};
use crate::outbox::{Outbox, OutboxState, Wire};
use crate::protocol::format::Format;
use prometheus::IntGauge;

#[tokio::test(start_paused = true)]
async fn the_writer_writes_each_once_and_holds_back_what_follows_at_once() {
    let papers: Vec<Arc<Paper>> = (0..100).map(|_| Arc::default()).collect();
    let writers =
        Writers::start(Duration::from_millis(2), &Budget::unlimited(), &Metrics::new().unwrap().outbox_seconds);
    let writer = writers.next();
    let outbox = |paper: &Arc<Paper>| {
        Outbox::new(1 << 20, Format::WebSocketJson, Arc::clone(paper) as Arc<dyn Wire>, writer.clone())
    };
    let outboxes: Vec<_> = papers.iter().map(outbox).collect();
    let push = |what: &str| outboxes.iter().for_each(|outbox| assert!(outbox.push(text(what))));
    push("a");
    push("b");
    tokio::time::sleep(Duration::from_micros(100)).await;
    push("c");
    push("d");
    tokio::time::sleep(Duration::from_micros(100)).await;
    let calls = |paper: &Arc<Paper>| *paper.calls.lock();
    assert!(papers.iter().all(|paper| calls(paper) == 1 && paper.texts().0 == ["a", "b"]));
    tokio::time::sleep(Duration::from_millis(4)).await;
    assert!(papers.iter().all(|paper| calls(paper) == 2 && paper.texts().0 == ["a", "b", "c", "d"]));
}

/// Subscribers without a hub.
struct All(Vec<Arc<Outbox>>);

impl Recipients for All {
    fn queue(&self, deliveries: &[Delivery], due: &mut Vec<Arc<dyn WriteTarget>>) {
        for outbox in &self.0 {
            let (bytes, becomes_due) = outbox.push_here(deliveries.iter().map(|delivery| &delivery.frame));
            outbox.budget().add(bytes);
            due.extend(becomes_due.then(|| Arc::clone(outbox) as Arc<dyn WriteTarget>));
        }
    }
}

/// Subscribers that note the size of each batch.
struct Noting(All, Arc<Mutex<Vec<usize>>>);

impl Recipients for Noting {
    fn queue(&self, deliveries: &[Delivery], due: &mut Vec<Arc<dyn WriteTarget>>) {
        self.1.lock().push(deliveries.len());
        self.0.queue(deliveries, due);
    }
}

/// Queued publications in a row for the same subscribers are pushed in one pass, up to a portion, and nothing overtakes.
#[tokio::test(start_paused = true)]
async fn publications_in_a_row_are_pushed_together_and_stay_in_order() {
    let metrics = Metrics::new().unwrap();
    let writers = Writers::start(Duration::from_millis(2), &Budget::unlimited(), &metrics.outbox_seconds);
    let (writer, paper) = (writers.next(), Arc::<Paper>::default());
    let outbox = Outbox::new(1 << 20, Format::WebSocketJson, Arc::clone(&paper) as Arc<dyn Wire>, writer.clone());
    let batches: Arc<Mutex<Vec<usize>>> = Arc::default();
    let room = || Arc::new(Noting(All(vec![Arc::clone(&outbox)]), Arc::clone(&batches))) as Arc<dyn Recipients>;
    let (one, other) = (room(), room());
    let hand = |to: &Arc<dyn Recipients>, what: &str| {
        writer.hand(Delivery { to: Arc::clone(to), frame: text(what), offset: 1, at: 0 });
    };
    for (to, what) in [(&one, "a"), (&one, "b"), (&other, "c"), (&one, "d"), (&one, "e"), (&one, "f")] {
        hand(to, what);
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(paper.texts().0, ["a", "b", "c", "d", "e", "f"]);
    assert_eq!(std::mem::take(&mut *batches.lock()), [2, 1, 3]);

    tokio::time::sleep(Duration::from_millis(10)).await;
    (0..10).for_each(|_| hand(&one, &"x".repeat(20_000)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(std::mem::take(&mut *batches.lock()), [3, 3, 3, 1], "as many as fit into a portion");

    (0..40).for_each(|_| hand(&one, "x"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(*batches.lock(), [16, 16, 8], "no more than a batch");
}

/// A writer that is far behind pushes in portions: neither the shared budget nor the queue of a client that reads
/// without delay runs full.
#[tokio::test(start_paused = true)]
async fn readers_without_delay_stay_connected_while_the_writer_is_behind() {
    let papers: Vec<Arc<Paper>> = (0..20).map(|_| Arc::default()).collect();
    let budget = Budget::new(20 * SHARE, IntGauge::new("held", "for a test").unwrap());
    let writers = Writers::start(Duration::from_millis(2), &budget, &Metrics::new().unwrap().outbox_seconds);
    let writer = writers.next();
    let outbox = |paper: &Arc<Paper>| {
        Outbox::new(1 << 20, Format::WebSocketJson, Arc::clone(paper) as Arc<dyn Wire>, writer.clone())
    };
    let outboxes: Vec<_> = papers.iter().map(outbox).collect();
    let all: Arc<dyn Recipients> = Arc::new(All(outboxes.clone()));
    for burst in 0..3 {
        for message in 0..200 {
            let frame = text(&format!("{burst}.{message}.{}", "x".repeat(20_000)));
            writer.hand(Delivery { to: Arc::clone(&all), frame, offset: 1, at: 0 });
        }
        tokio::time::sleep(Duration::from_micros(100)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(outboxes.iter().all(|outbox| outbox.state() == OutboxState::Open));
    let order: Vec<String> = (0..3).flat_map(|burst| (0..200).map(move |i| format!("{burst}.{i}"))).collect();
    for paper in &papers {
        let texts = paper.texts().0;
        let got: Vec<String> = texts.iter().map(|text| text.rsplit_once('.').unwrap().0.to_owned()).collect();
        assert_eq!(got, order);
    }
    assert_eq!(budget.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_lag_counts_frames_that_no_socket_was_offered() {
    let writer = Writer::idle(Budget::unlimited());
    let writers = Writers::idle(&writer);
    let lag = || writers.lag(Instant::now());
    let to: Arc<dyn Recipients> = Arc::new(All(vec![]));
    assert_eq!(lag(), Duration::ZERO);
    writer.hand(Delivery { to: Arc::clone(&to), frame: text("a"), offset: 1, at: 0 });
    tokio::time::sleep(Duration::from_millis(30)).await;
    writer.hand(Delivery { to, frame: text("b"), offset: 2, at: 0 });
    assert_eq!(lag(), Duration::from_millis(30));
    writer.deliver();
    assert_eq!(lag(), Duration::ZERO);
}

/// A socket with 64 KiB of room, filled again every millisecond by the connection's task: a client that reads without
/// delay. However much arrives at once, the client stays connected, also if the writer has a single client.
#[tokio::test(start_paused = true)]
async fn full_sockets_of_readers_without_delay_are_refilled_between_portions() {
    for clients in [1, 5, 40] {
        let writers =
            Writers::start(Duration::from_millis(2), &Budget::unlimited(), &Metrics::new().unwrap().outbox_seconds);
        let writer = writers.next();
        let papers: Vec<Arc<Paper>> = (0..clients).map(|_| Paper::full()).collect();
        let outbox = |paper: &Arc<Paper>| {
            Outbox::new(1 << 20, Format::WebSocketJson, Arc::clone(paper) as Arc<dyn Wire>, writer.clone())
        };
        let outboxes: Vec<_> = papers.iter().map(outbox).collect();
        for (paper, outbox) in papers.iter().cloned().zip(outboxes.clone()) {
            tokio::spawn(async move {
                loop {
                    paper.make_room(64 * 1024);
                    outbox.flush();
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            });
        }
        let all: Arc<dyn Recipients> = Arc::new(All(outboxes.clone()));
        let frame = text(&"x".repeat(20_000));
        for _ in 0..500 {
            writer.hand(Delivery { to: Arc::clone(&all), frame: frame.clone(), offset: 1, at: 0 });
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(outboxes.iter().all(|outbox| outbox.state() == OutboxState::Open), "{clients} clients");
        assert!(papers.iter().all(|paper| paper.texts().0.len() == 500));
    }
}

/// A ping or a reply leaves before the later portions of a large batch.
#[tokio::test(start_paused = true)]
async fn a_frame_for_one_client_waits_for_a_portion_at_most() {
    let writers =
        Writers::start(Duration::from_millis(2), &Budget::unlimited(), &Metrics::new().unwrap().outbox_seconds);
    let writer = writers.next();
    let new = |paper: &Arc<Paper>| {
        Outbox::new(1 << 20, Format::WebSocketJson, Arc::clone(paper) as Arc<dyn Wire>, writer.clone())
    };
    let (member_paper, other_paper) = (Arc::<Paper>::default(), Arc::<Paper>::default());
    let (member, other) = (new(&member_paper), new(&other_paper));
    let all: Arc<dyn Recipients> = Arc::new(All(vec![member]));
    for _ in 0..500 {
        writer.hand(Delivery { to: Arc::clone(&all), frame: text(&"x".repeat(20_000)), offset: 1, at: 0 });
    }
    tokio::time::sleep(PORTION_PAUSE * 5).await;
    assert!(member_paper.texts().0.len() < 100, "the batch is under way");
    assert!(other.push(text("pong")));
    tokio::time::sleep(PORTION_PAUSE * 3).await;
    assert_eq!(other_paper.texts().0, ["pong"]);
    assert!(member_paper.texts().0.len() < 500);
}
