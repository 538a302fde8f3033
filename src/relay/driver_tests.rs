//! Tests of the driver on the memory broker. PocketBase is out of reach: the driver gets the events of posts, and pages
//! that a test passes to the machine.

use super::*;
use crate::broker::memory::MemoryBroker;
use crate::broker::redis::RedisBroker;
use crate::broker::{HistoryQuery, Mark, Retention};
use crate::event::{Events, HookReport};
use crate::outbox::Budget;
use crate::outbox::writer::{Delivery, Recipients, WriteTarget, Writer};
use crate::protocol::frame::Frame;
use crate::relay::intake::{self, Intake};
use crate::stage::config;
use tokio_util::task::AbortOnDropHandle;

const ROOM: &str = "room:a";

struct Relaying {
    driver: Driver,
    broker: Arc<dyn Broker>,
    /// The only writer, without a task.
    writer: Arc<Writer>,
    started: watch::Receiver<bool>,
    processed: watch::Receiver<u64>,
}

fn retention() -> Retention {
    let day = Duration::from_secs(86_400);
    Retention { size: 100, ttl: day, position_ttl: day, ..Retention::default() }
}

impl Relaying {
    fn on(broker: Arc<dyn Broker>) -> Self {
        let metrics = Metrics::new().unwrap();
        let writer = Writer::idle(Budget::unlimited());
        let pocketbase = PocketBase::new(&config(), metrics.clone()).unwrap();
        let ((start, started), (done, processed)) = (watch::channel(false), watch::channel(0));
        let driver = Driver {
            machine: Machine::default(),
            hook_monitor: HookMonitor::new(pocketbase.clone(), metrics.clone()),
            pocketbase,
            broker: Arc::clone(&broker),
            writers: Some(Arc::new(Writers::idle(&writer))),
            urgency: Arc::default(),
            incomplete: IncompleteEvents::new(metrics.clone()),
            metrics,
            failure: Arc::default(),
            warnings: Arc::default(),
            start,
            processed: done,
            has_published: false,
            advanced: None,
            mismatch: None,
            seen: 0,
            confirm_pause: Duration::from_secs(1),
        };
        Self { driver, broker, writer, started, processed }
    }

    /// Follows an empty outbox.
    async fn following() -> Self {
        let mut me = Self::on(MemoryBroker::new(retention()));
        assert_eq!(me.driver.machine.step(Input::Tick), Some(Action::Read { after: 0, limit: 1 }));
        let begin = me.driver.machine.step(Input::Page(page("")));
        let read = me.driver.execute_action(begin.unwrap()).await.unwrap();
        let Some(Action::Read { .. }) = me.driver.machine.step(read) else { panic!("the outbox is compared first") };
        assert_eq!(me.driver.machine.step(Input::Page(page(""))), None);
        me
    }

    async fn post(&mut self, rows: &str) -> Result<(), RelayError> {
        self.driver.has_published = false;
        self.driver.execute(Input::Posted(page(rows))).await
    }

    /// The published data, and the epoch.
    async fn history(&self) -> (Vec<String>, String) {
        let history = self.broker.history(ROOM, HistoryQuery::after(0)).await.unwrap();
        let text = |data: &[u8]| String::from_utf8(data.to_vec()).unwrap();
        let published = history.publications.iter().map(|publication| text(publication.data.as_bytes()));
        (published.collect(), history.position.epoch)
    }

    fn counted(&self, kind: &str) -> u64 {
        self.driver.metrics.relay_events.with_label_values(&[kind]).get()
    }

    /// Runs the driver as the relay does.
    fn run(self) -> (Intake, AbortOnDropHandle<()>) {
        let (intake, posted) = intake::queue();
        (intake, AbortOnDropHandle::new(tokio::spawn(self.driver.run(posted, Duration::from_secs(2)))))
    }
}

fn row(seq: u64, data: &str) -> String {
    format!(r#"{{"seq":{seq},"channels":["{ROOM}"],"data":{data}}}"#)
}

fn page(rows: &str) -> Events {
    Events::parse(format!(r#"{{"boot":"b","events":[{rows}]}}"#).as_bytes()).unwrap()
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    crate::stage::within(Duration::from_secs(60), what, async || condition()).await;
}

#[tokio::test]
async fn another_gateway_is_noticed_by_each_move_of_the_mark() {
    let mut relaying = Relaying::following().await;
    assert!(!relaying.driver.is_relayed_elsewhere().await);
    relaying.post(&row(1, "1")).await.unwrap();
    assert!(!relaying.driver.is_relayed_elsewhere().await, "published here");
    let own = relaying.driver.machine.mark().unwrap();
    for seq in 2..4 {
        relaying.broker.advance(Mark { seq, ..own }).await.unwrap();
        assert!(relaying.driver.is_relayed_elsewhere().await, "published elsewhere");
        assert!(!relaying.driver.is_relayed_elsewhere().await, "nothing since");
    }
    relaying.broker.advance(Mark { seq: 4, ..own }).await.unwrap();
    relaying.driver.urgency.dropped();
    assert!(!relaying.driver.is_relayed_elsewhere().await, "an access change is in the outbox alone");
}

#[tokio::test]
async fn one_gateway_confirms_for_all_in_an_interval() {
    let mut relaying = Relaying::following().await;
    assert!(relaying.driver.execute_action(Action::Confirm(1)).await.is_err(), "PocketBase, out of reach, is asked");
    let again = relaying.driver.execute_action(Action::Confirm(1)).await;
    assert!(matches!(again, Ok(Input::Confirmed { more: true })), "left to a later read");
}

/// Writing is the slowest step of a gateway at its limit: publishing pauses, and the events are published later.
#[tokio::test(start_paused = true)]
async fn publishing_pauses_while_the_writers_are_late() {
    let mut relaying = Relaying::following().await;
    let nobody: Arc<dyn Recipients> = Arc::new(Nobody);
    let hand = || Delivery { to: Arc::clone(&nobody), frame: Frame::encoded(b"{}"), offset: 1, at: 0 };
    relaying.writer.hand(hand());
    tokio::time::sleep(LATE - Duration::from_millis(1)).await;
    relaying.post(&row(1, "1")).await.unwrap();
    assert_eq!(relaying.driver.metrics.relay_paused_seconds.get(), 0.0, "not late");

    let (writer, broker) = (Arc::clone(&relaying.writer), Arc::clone(&relaying.broker));
    let served = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(800)).await;
        let published = broker.history(ROOM, HistoryQuery::after(0)).await.unwrap().publications.len();
        writer.deliver();
        published
    });
    tokio::time::sleep(Duration::from_millis(1)).await;
    relaying.post(&row(2, "2")).await.unwrap();
    assert_eq!(served.await.unwrap(), 1, "nothing was published while the writers were late");
    assert_eq!(relaying.history().await.0, ["1", "2"]);
    let paused = relaying.driver.metrics.relay_paused_seconds.get();
    assert!((0.7..0.9).contains(&paused), "{paused}");

    relaying.writer.hand(hand());
    tokio::time::sleep(LATE).await;
    let began = Instant::now();
    relaying.post(&row(3, "3")).await.unwrap();
    assert!((LAG_WAIT..LAG_WAIT + LATE).contains(&began.elapsed()), "no longer, though the writer is stuck");
}

/// A revocation takes effect within a second, however late the writers are.
#[tokio::test(start_paused = true)]
async fn access_changes_and_the_events_before_them_wait_for_no_writer() {
    let mut relaying = Relaying::following().await;
    let delivery = Delivery { to: Arc::new(Nobody), frame: Frame::encoded(b"{}"), offset: 1, at: 0 };
    relaying.writer.hand(delivery);
    tokio::time::sleep(LATE).await;
    let access = r#"{"n":1},"access":[{"cause":"rules"}]"#;
    relaying.post(&row(1, access)).await.unwrap();
    assert_eq!(relaying.history().await.0.len(), 1);

    let (broker, processed) = (Arc::clone(&relaying.broker), relaying.processed.clone());
    let (intake, posted) = intake::queue();
    relaying.driver.urgency = posted.urgency();
    let _driver = AbortOnDropHandle::new(tokio::spawn(relaying.driver.run(posted, Duration::from_secs(3600))));
    assert!(intake.offer(page(&row(2, "2")), 1));
    tokio::time::sleep(LAG_WAIT / 2).await;
    assert_eq!(*processed.borrow(), 0, "waits for the writer");
    assert!(intake.offer(page(&row(3, access)), 1));
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(*processed.borrow(), 2);
    assert_eq!(broker.history(ROOM, HistoryQuery::after(0)).await.unwrap().publications.len(), 3);
}

struct Nobody;

impl Recipients for Nobody {
    fn queue(&self, _: &[Delivery], _: &mut Vec<Arc<dyn WriteTarget>>) {}
}

#[tokio::test]
async fn a_post_is_published_and_moves_the_mark() {
    let mut relaying = Relaying::following().await;
    relaying.post(&[row(1, "1"), row(2, "2")].join(",")).await.unwrap();
    assert_eq!(relaying.history().await.0, ["1", "2"]);
    let mark = relaying.broker.begin(Mark::default()).await.unwrap();
    assert_eq!((mark.seq, mark.generation), (2, 0));
    assert!(*relaying.started.borrow() && relaying.driver.has_published);
    relaying.post(&row(2, "2")).await.unwrap();
    assert!(!relaying.driver.has_published, "a repeat");
    relaying.post(&row(3, "3")).await.unwrap();
    assert_eq!((relaying.counted("hook"), relaying.counted("repeat")), (3, 1));
    assert_eq!(relaying.driver.metrics.relay_cursor.get(), 3);
}

/// Rows that arrive by reads alone hasten the next read, but not rows that another gateway has published already.
#[tokio::test]
async fn an_event_that_another_gateway_has_published_is_not_news() {
    let mut relaying = Relaying::following().await;
    relaying.broker.publish(&entries(page(&row(1, "1")).events)).await.unwrap();
    relaying.post(&row(1, "1")).await.unwrap();
    assert!(!relaying.driver.has_published);
    assert_eq!(relaying.history().await.0, ["1"]);
    assert_eq!(relaying.driver.metrics.relay_cursor.get(), 1, "the mark moves all the same");
}

/// A client chooses the ids of new records: a record with the id of a deleted record must not inherit its history.
#[tokio::test]
async fn the_history_of_a_deleted_record_is_forgotten() {
    let mut relaying = Relaying::following().await;
    relaying.post(&row(1, "1")).await.unwrap();
    let (_, epoch) = relaying.history().await;
    let deleted =
        format!(r#"{{"seq":2,"channels":["{ROOM}"],"data":2,"access":[{{"cause":"deleted","channel":"{ROOM}"}}]}}"#);
    relaying.post(&deleted).await.unwrap();
    let (published, new_epoch) = relaying.history().await;
    assert!(published.is_empty() && new_epoch != epoch, "{published:?} {epoch} {new_epoch}");
}

#[tokio::test]
async fn access_changes_are_published_as_barriers_before_the_event() {
    let run = page(&row(1, r#"{"n":1},"access":[{"cause":"rules"}]"#)).events;
    let published: Vec<(String, bool)> = entries(run).into_iter().map(|entry| (entry.channel, entry.barrier)).collect();
    assert_eq!(published, [(CONTROL.to_owned(), true), (ROOM.to_owned(), false)]);
}

/// Another content under a published number: two outboxes. The relay compares with PocketBase, and publishes nothing
/// until PocketBase answers.
#[tokio::test]
async fn a_conflict_is_no_failure_of_the_broker_and_restarts_from_the_outbox() {
    let mut relaying = Relaying::following().await;
    let other =
        Entry { seq: 1, at: 0, channel: ROOM.into(), data: page(&row(1, "9")).events[0].data.clone(), barrier: false };
    relaying.broker.publish(&[other]).await.unwrap();
    let failed = relaying.post(&row(1, "1")).await.unwrap_err();
    assert!(matches!(failed, RelayError::PocketBase(_)), "{failed}");
    assert_eq!(relaying.driver.metrics.relay_restarts.get(), 1);
    assert_eq!(relaying.history().await.0, ["9"]);
}

#[tokio::test]
async fn a_failure_is_reported_until_a_success() {
    let relaying = Relaying::following().await;
    let driver = &relaying.driver;
    driver.metrics.pocketbase_up.set(1);
    driver.fail(&RelayError::PocketBase(PocketBaseError::Timeout));
    assert_eq!(driver.failure.lock().as_deref(), Some("PocketBase did not answer in time"));
    assert_eq!(driver.metrics.pocketbase_up.get(), 0);
    driver.metrics.pocketbase_up.set(1);
    driver.fail(&RelayError::Broker(BrokerError::Conflict));
    assert_eq!(driver.metrics.broker_errors.with_label_values(&["relay"]).get(), 1);
    assert_eq!(driver.metrics.pocketbase_up.get(), 1, "PocketBase is not to blame");
    driver.succeed();
    assert_eq!(*driver.failure.lock(), None);
}

#[tokio::test]
async fn warnings_about_the_config_are_the_ones_of_the_last_page() {
    let relaying = Relaying::following().await;
    for warnings in [vec!["one".to_owned(), "two".to_owned()], vec!["two".to_owned()], vec![]] {
        relaying.driver.note_warnings(warnings.clone());
        assert_eq!(*relaying.driver.warnings.lock(), warnings);
        assert_eq!(relaying.driver.metrics.config_problems.get(), warnings.len() as i64);
    }
}

#[tokio::test]
async fn without_pocketbase_the_relay_reports_it_and_reads_again_and_again() {
    let relaying = Relaying::on(MemoryBroker::new(retention()));
    let (failure, metrics) = (Arc::clone(&relaying.driver.failure), relaying.driver.metrics.clone());
    let (started, processed) = (relaying.started.clone(), relaying.processed.clone());
    let (intake, _task) = relaying.run();
    until("three reads", || metrics.relay_pulls.with_label_values(&["timer"]).get() >= 3).await;
    let told = failure.lock().clone().unwrap();
    assert!(told.starts_with("PocketBase is unreachable: "), "{told}");
    assert!(intake.offer(page(&row(1, "1")), 100));
    until("the post is taken", || *processed.borrow() == 1).await;
    assert!(!*started.borrow(), "the first event to publish is not known");
    assert_eq!(metrics.relay_events.with_label_values(&["hook"]).get(), 0);
}

/// While the broker is unreachable, posts do not wait: they are dropped, counted, and later read from the outbox.
#[tokio::test]
async fn posts_are_dropped_while_the_broker_is_unreachable() {
    let broker = RedisBroker::connect("redis://127.0.0.1:1", "p", retention()).await.unwrap();
    let mut relaying = Relaying::on(broker);
    relaying.driver.machine = Relaying::following().await.driver.machine;
    let (metrics, processed) = (relaying.driver.metrics.clone(), relaying.processed.clone());
    let (intake, _task) = relaying.run();
    until("a failed call", || metrics.broker_errors.with_label_values(&["relay"]).get() > 0).await;
    assert!(intake.offer(page(&row(1, "1")), 100));
    until("the post is taken", || *processed.borrow() == 1).await;
    assert_eq!(metrics.relay_events.with_label_values(&["dropped"]).get(), 1);
}

/// The first report may be about a time before this gateway's start; only the report after a test request counts.
#[tokio::test]
async fn the_hooks_count_as_failing_after_a_failed_test_request() {
    let relaying = Relaying::following().await;
    let (monitor, metrics) = (&relaying.driver.hook_monitor, &relaying.driver.metrics);
    let failed = || HookReport { url: "http://gateway:1".into(), error: "refused".into() };
    let is_failing = || (monitor.is_failing(), monitor.warning().is_some(), metrics.hooks_failing.get());
    monitor.reported(failed(), Instant::now());
    assert_eq!(is_failing(), (false, false, 0), "from before the start");
    until("the end of the test request", || {
        monitor.reported(failed(), Instant::now());
        monitor.is_failing()
    })
    .await;
    assert_eq!(is_failing(), (true, true, 1));
    monitor.reported(HookReport::default(), Instant::now());
    assert_eq!(is_failing(), (false, false, 0));
    monitor.mute();
    monitor.reported(failed(), Instant::now());
    assert_eq!(is_failing(), (false, false, 0), "a stopping gateway refuses the hooks' requests");
}
