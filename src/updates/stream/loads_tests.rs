//! Tests of loads of visible records: fair between users, limited in time, and continued after failures and timeouts.

use super::inputs::{RecordAction, RecordEvent};
use super::{CallLimits, Stream, StreamInput, SubscribeRequest};
use crate::auth::Account;
use crate::connection::Connection;
use crate::event::Change;
use crate::metrics::Metrics;
use crate::outbox::Outbox;
use crate::pocketbase::{Page, PocketBaseError, View, Views, Visible};
use crate::protocol::Payload;
use crate::protocol::frame::Frame;
use crate::updates::source::Source;
use async_trait::async_trait;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

const CHANNEL: &str = "note-updates";
/// PocketBase's time for one page.
const PAGE: Duration = Duration::from_millis(50);
/// Time-out of a subscribe: longer than one page, shorter than many pages.
const PATIENCE: Duration = Duration::from_secs(3);

/// A source that lists N records for users called "many N", and one record for other users. All checks of single
/// records succeed.
#[derive(Default)]
struct Pages {
    /// Maximum rows per page; larger pages time out.
    rows: Mutex<Option<usize>>,
    /// True if all calls fail.
    is_away: AtomicBool,
    /// Number of records visible to the class of all users. With a class, users see no further records.
    class: Mutex<Option<usize>>,
    /// Rows of the last answered page.
    answered: AtomicUsize,
    calls: AtomicUsize,
}

#[async_trait]
impl Source for Pages {
    async fn visible(&self, _: &str, who: &str, after: &str, rows: usize) -> Result<Visible, PocketBaseError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(PAGE).await;
        if self.rows.lock().is_some_and(|most| rows > most) {
            return Err(PocketBaseError::Timeout);
        }
        if self.is_away.load(Ordering::Relaxed) {
            return Err(PocketBaseError::Unreachable("connection refused".to_owned()));
        }
        self.answered.store(rows, Ordering::Relaxed);
        let class = *self.class.lock();
        let of_class = class.map(|count| if who.starts_with('~') { count } else { 0 });
        let count: usize = who.strip_prefix("many ").map_or(of_class.unwrap_or(1), |count| count.parse().unwrap());
        let first: usize = if after.is_empty() { 0 } else { after.parse::<usize>().unwrap() + 1 };
        let id = |number: usize| Arc::<str>::from(format!("{number:08}"));
        let last = (first + rows).min(count);
        let next = (last < count).then(|| id(last - 1));
        let page =
            Page { class: class.map(|_| "class".into()), yes: (first..last).map(id).collect(), no: vec![], next };
        Ok(Visible { namespace: "note".to_owned(), collection: "notes".to_owned(), page: Some(page) })
    }

    async fn view(&self, _: &str, checks: &[View]) -> Result<Views, PocketBaseError> {
        let results = vec![Some(true); checks.len()];
        let (records, own) = (Default::default(), Default::default());
        Ok(Views { results, records, own, per_reader: false, truncated: vec![] })
    }
}

struct Stage {
    source: Arc<Pages>,
    stream: Stream,
    connections: u64,
}

impl Stage {
    fn new() -> Self {
        let source = Arc::<Pages>::default();
        let asked = Arc::clone(&source) as Arc<dyn Source>;
        let stream = Stream::start(&CHANNEL.into(), asked, CallLimits::default(), Metrics::new().unwrap());
        Self { source, stream, connections: 0 }
    }

    /// Subscribes. The receiver is answered, or closed after the load is given up.
    fn subscribe(&mut self, user: &str) -> (Arc<Connection>, oneshot::Receiver<()>) {
        self.connections += 1;
        let outbox = Outbox::alone(1 << 20);
        let connection = Connection::new(self.connections, user, "client", &outbox, Account::blocking(&[]));
        connection.channels().insert(CHANNEL.into());
        let (accepted, answer) = oneshot::channel();
        let reply = Frame::from_static(b"\x81\x02{}");
        self.stream.subscribe(SubscribeRequest {
            connection: Arc::clone(&connection),
            reply,
            accepted,
            at: Instant::now(),
        });
        (connection, answer)
    }

    /// Subscribes like a session with the time-out [`PATIENCE`].
    async fn try_to_subscribe(&mut self, user: &str) -> bool {
        let (connection, answer) = self.subscribe(user);
        let joined = tokio::time::timeout(PATIENCE, answer).await.is_ok();
        if !joined {
            self.stream.unsubscribe(&connection, None);
        }
        joined
    }
}

#[tokio::test(start_paused = true)]
async fn a_user_with_many_records_does_not_hold_up_the_others() {
    let mut stage = Stage::new();
    let large: Vec<_> = (0..20).map(|n| stage.subscribe(&format!("many {}", 1_000_000 + n))).collect();
    tokio::time::sleep(PATIENCE).await;
    let begun = Instant::now();
    let (_connection, answer) = stage.subscribe("few");
    answer.await.unwrap();
    // Each other user has one page in the queue.
    assert!(begun.elapsed() <= PAGE * 12, "{:?}", begun.elapsed());
    drop(large);
}

#[tokio::test(start_paused = true)]
async fn a_subscribe_that_took_too_long_goes_on_from_what_is_there() {
    let mut stage = Stage::new();
    let pages = 2 * (PATIENCE.as_millis() / PAGE.as_millis()) as usize;
    let user = format!("many {}", pages * 4_000);
    let mut attempts = 1;
    while !stage.try_to_subscribe(&user).await {
        attempts += 1;
        assert!(attempts < 10, "each attempt starts from the first page");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(attempts > 1, "the load was too fast for this test");
    assert!(stage.source.calls.load(Ordering::Relaxed) <= pages + 1);
    assert_eq!(stage.stream.behind(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_subscribe_that_was_given_up() {
    let mut stage = Stage::new();
    let (connection, answer) = stage.subscribe("many 100000000");
    tokio::time::sleep(PATIENCE).await;
    assert!(stage.stream.behind() >= PATIENCE);
    drop(answer);
    stage.stream.unsubscribe(&connection, None);
    tokio::time::sleep(PAGE).await;
    assert_eq!(stage.stream.behind(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn pages_that_time_out_become_smaller() {
    let mut stage = Stage::new();
    *stage.source.rows.lock() = Some(700);
    let (_connection, answer) = stage.subscribe("many 5000");
    answer.await.unwrap();
    assert!(stage.source.answered.load(Ordering::Relaxed) <= 700);
}

#[tokio::test(start_paused = true)]
async fn a_page_that_never_comes_in_time_is_given_up() {
    let mut stage = Stage::new();
    *stage.source.rows.lock() = Some(0);
    let (_connection, answer) = stage.subscribe("many 5000");
    assert!(answer.await.is_err(), "the subscribe was answered");
    let calls = stage.source.calls.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(stage.source.calls.load(Ordering::Relaxed), calls, "calls go on after the load was given up");
    assert_eq!(stage.stream.behind(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_one_user_costs_that_user_s_pages() {
    let mut stage = Stage::new();
    for user in ["ann", "bob", "cat"] {
        let (_connection, answer) = stage.subscribe(user);
        answer.await.unwrap();
    }
    let before = stage.source.calls.load(Ordering::Relaxed);
    let change = serde_json::from_str::<Change>(r#"{"cause":"user","user":"bob"}"#).unwrap();
    stage.stream.push(|| StreamInput::Change(change));
    tokio::time::sleep(PAGE * 10).await;
    assert_eq!(stage.source.calls.load(Ordering::Relaxed), before + 1);
    assert_eq!(stage.stream.behind(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn newcomers_of_a_known_class_cost_a_page_each_and_hold_up_nobody() {
    const RECORDS: usize = 200_000;
    let mut stage = Stage::new();
    *stage.source.class.lock() = Some(RECORDS);
    let (old_hand, answer) = stage.subscribe("old hand");
    answer.await.unwrap();
    let before = stage.source.calls.load(Ordering::Relaxed);
    assert!(before >= RECORDS / 4_000, "the set of the class was loaded");
    let newcomers: Vec<_> = (0..128).map(|number| stage.subscribe(&format!("newcomer {number}"))).collect();
    let event = RecordEvent {
        action: RecordAction::Update,
        record: "00000007".into(),
        data: Payload::parse(r#"{"action":"update","record":{"id":"00000007"}}"#).unwrap(),
        users: vec![],
    };
    let mut got = Vec::new();
    old_hand.outbox.take(&mut got).await.unwrap();
    stage.stream.push(|| StreamInput::Event(event));
    let begun = Instant::now();
    old_hand.outbox.take(&mut got).await.unwrap();
    assert!(begun.elapsed() <= PAGE, "the event reached the old hand after {:?}", begun.elapsed());
    for (_connection, answer) in newcomers {
        answer.await.unwrap();
    }
    assert_eq!(stage.source.calls.load(Ordering::Relaxed), before + 128);
}

#[tokio::test(start_paused = true)]
async fn calls_for_those_who_have_given_up_end() {
    let mut stage = Stage::new();
    stage.source.is_away.store(true, Ordering::Relaxed);
    for user in ["ann", "bob", "cat"] {
        assert!(!stage.try_to_subscribe(user).await);
    }
    let (_connection, answer) = stage.subscribe("dan");
    tokio::time::sleep(Duration::from_secs(60)).await;
    let before = stage.source.calls.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let calls = stage.source.calls.load(Ordering::Relaxed) - before;
    // A pause of two seconds, shortened by up to a quarter.
    assert!((25..=41).contains(&calls), "{calls} calls in a minute, for one waiting user");
    drop(answer);
}
