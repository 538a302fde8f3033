use super::queue::FRAME_OVERHEAD;
use super::*;
use crate::protocol::frame::Composer;
use bytes::Bytes;
use prometheus::IntGauge;
use proptest::prelude::*;
use std::io::{self, ErrorKind, IoSlice};
use std::time::Duration;

impl Outbox {
    /// An outbox with an unlimited budget, and a client that reads on [`Outbox::take`] only.
    pub fn alone(limit: usize) -> Arc<Self> {
        Self::beside(limit, &Writer::idle(Budget::unlimited()))
    }

    /// As [`Outbox::alone`], with a shared writer.
    pub fn beside(limit: usize, writer: &Arc<Writer>) -> Arc<Self> {
        Self::new(limit, Format::WebSocketJson, Arc::new(Paper::default()), Arc::clone(writer))
    }

    /// Appends the texts of the queued frames to `batch`, and waits for the first frame. Returns the reason of a closed
    /// and empty outbox as the error.
    pub async fn take(&self, batch: &mut Vec<Bytes>) -> Result<(), Disconnect> {
        loop {
            self.writer.deliver();
            let before = batch.len();
            let texts: Vec<Bytes> =
                self.lock().unsent.frames().map(|frame| Bytes::copy_from_slice(frame.text())).collect();
            self.flush();
            batch.extend(texts);
            match self.state() {
                _ if batch.len() > before => return Ok(()),
                OutboxState::Over(reason) => return Err(reason.unwrap()),
                _ => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    }
}

/// A wire that records the written bytes, with limited or unlimited room.
#[derive(Default)]
pub struct Paper {
    written: Mutex<Vec<u8>>,
    pub(super) calls: Mutex<usize>,
    room: Mutex<Option<usize>>,
}

impl Wire for Paper {
    fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        *self.calls.lock() += 1;
        let all: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let mut room = self.room.lock();
        let taken = room.map_or(all.len(), |room| room.min(all.len()));
        if taken == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        *room = room.map(|room| room - taken);
        self.written.lock().extend(&all[..taken]);
        Ok(taken)
    }
}

impl Paper {
    pub(super) fn full() -> Arc<Self> {
        Arc::new(Self { room: Mutex::new(Some(0)), ..Self::default() })
    }

    pub(super) fn make_room(&self, bytes: usize) {
        *self.room.lock() = Some(bytes);
    }

    /// The texts of all complete messages, and true if a partial message follows.
    pub(super) fn texts(&self) -> (Vec<String>, bool) {
        let (written, mut texts) = (self.written.lock(), Vec::new());
        let mut rest = &written[..];
        while rest.len() >= 2 {
            let (header, length) = match rest[1] {
                126 => (4, usize::from(u16::from_be_bytes([rest[2], rest[3]]))),
                short => (2, usize::from(short)),
            };
            if rest.len() < header + length {
                break;
            }
            texts.push(String::from_utf8(rest[header..header + length].to_vec()).unwrap());
            rest = &rest[header + length..];
        }
        (texts, !rest.is_empty())
    }
}

pub(super) fn text(text: &str) -> Frame {
    let mut composing = Composer::new(Format::WebSocketJson, text.len());
    composing.out().extend_from_slice(text.as_bytes());
    composing.finish()
}

/// The text of a push of the channel `name`, which is as good as the first letter of `content`.
fn of_channel(content: &str) -> String {
    format!(r#"{{"push":{{"channel":"{}","pub":"{content}"}}}}"#, &content[..1])
}

/// A frame with a cost of `size` bytes in the queue.
fn frame(size: usize) -> Frame {
    Frame::encoded(&vec![b'x'; size - FRAME_OVERHEAD])
}

async fn take(outbox: &Outbox) -> Result<Vec<Bytes>, Disconnect> {
    let mut batch = Vec::new();
    outbox.take(&mut batch).await.map(|()| batch)
}

fn onto(paper: &Arc<Paper>) -> Arc<Outbox> {
    Outbox::new(1 << 20, Format::WebSocketJson, Arc::clone(paper) as Arc<dyn Wire>, Writer::idle(Budget::unlimited()))
}

/// Two connections that may hold a mebibyte each and 300 KiB together.
fn pair() -> (Arc<Outbox>, Arc<Outbox>, IntGauge) {
    let held = IntGauge::new("held", "for a test").unwrap();
    let budget = Budget::new(300 * 1024, held.clone());
    let outbox = || Outbox::new(1 << 20, Format::WebSocketJson, Arc::<Paper>::default(), Writer::idle(budget.clone()));
    (outbox(), outbox(), held)
}

#[test]
fn what_is_queued_leaves_in_order_and_in_one_go() {
    let paper = Arc::<Paper>::default();
    let outbox = onto(&paper);
    outbox.cork();
    for one in ["a", "b", "c"] {
        assert!(outbox.push(text(one)));
    }
    assert_eq!(paper.texts(), (vec![], false));
    outbox.uncork();
    assert_eq!(paper.texts(), (vec!["a".into(), "b".into(), "c".into()], false));
    assert_eq!(*paper.calls.lock(), 1);
}

#[tokio::test]
async fn what_was_queued_before_a_close_is_still_written() {
    let outbox = Outbox::alone(1000);
    outbox.push(text("last words"));
    outbox.close(codes::SHUTDOWN);
    assert!(!outbox.push(text("too late")));
    assert_eq!(outbox.state(), OutboxState::Open);
    assert_eq!(take(&outbox).await.unwrap(), ["last words"]);
    assert_eq!(outbox.state(), OutboxState::Over(Some(codes::SHUTDOWN)));
    outbox.push_last(text("goodbye"));
    assert_eq!(take(&outbox).await.unwrap(), ["goodbye"]);
}

#[tokio::test]
async fn a_full_queue_closes_as_slow_and_frees_its_memory() {
    let (outbox, _, held) = pair();
    assert!(outbox.push(frame(1 << 18)));
    assert!(!outbox.push(frame(1 << 20)));
    assert_eq!(held.get(), 0);
    assert_eq!(outbox.state(), OutboxState::Over(Some(codes::SLOW)));
    outbox.changed().await;
}

#[tokio::test]
async fn what_gives_way_takes_half_of_the_room_and_closes_nothing() {
    let (outbox, other, held) = pair();
    assert!(outbox.push(frame(1 << 18)));
    assert!(outbox.push_if_roomy(frame(1 << 10)));
    assert!(!outbox.push_if_roomy(frame(1 << 18)), "more than half of the mebibyte");
    assert!(other.push(frame(SHARE - 1000)));
    assert!(!other.push_if_roomy(frame(2000)), "the budget of both is used up");
    assert!(other.push_if_roomy(frame(500)));
    assert_eq!(held.get(), (1 << 18) + (1 << 10) + SHARE as i64 - 500);
}

#[test]
fn what_is_withdrawn_is_not_written_unless_it_has_begun() {
    for begun in [false, true] {
        let paper = Paper::full();
        let outbox = onto(&paper);
        for one in ["a1", "b1", "a2"] {
            assert!(outbox.push(text(&of_channel(one))));
        }
        paper.make_room(usize::from(begun));
        outbox.flush();
        outbox.withdraw("a");
        assert!(outbox.push(text(&of_channel("a, after it came back"))));
        paper.make_room(1000);
        outbox.flush();
        let expected = ["a1", "b1", "a, after it came back"].map(of_channel);
        assert_eq!(paper.texts(), (expected[usize::from(!begun)..].to_vec(), false));
        assert_eq!(outbox.budget().held(), 0);
    }
}

#[test]
fn a_reply_that_is_withdrawn_ends_the_connection_while_it_waits() {
    let channel: Arc<str> = "a".into();
    for begun in [false, true] {
        let paper = Paper::full();
        let outbox = onto(&paper);
        assert!(outbox.push_reply_of(&channel, text("reply")));
        paper.make_room(usize::from(begun));
        outbox.flush();
        outbox.withdraw("b");
        assert!(outbox.push(text("c")));
        outbox.withdraw("a");
        assert_eq!(outbox.state(), OutboxState::Over(Some(codes::ACCESS_CHANGED)));
        outbox.push_last(text("goodbye"));
        paper.make_room(1000);
        outbox.flush();
        // A begun frame is completed, so that the client can read the last frame.
        assert_eq!(paper.texts().0, ["reply", "goodbye"][usize::from(!begun)..]);
    }
    let outbox = Outbox::alone(1000);
    assert!(outbox.push_reply_of(&channel, text("reply")));
    outbox.flush();
    outbox.withdraw("a");
    assert!(outbox.push(text("the reply was written, and nothing ends")));
}

#[tokio::test(start_paused = true)]
async fn a_full_socket_is_waited_for_and_each_stride_counts() {
    let paper = Paper::full();
    let outbox = onto(&paper);
    for _ in 0..8 {
        assert!(outbox.push(frame(STRIDE)));
    }
    let start = Instant::now();
    outbox.flush();
    assert_eq!(outbox.state(), OutboxState::Full(start));
    outbox.changed().await;
    tokio::time::advance(Duration::from_secs(1)).await;
    paper.make_room(STRIDE / 2);
    outbox.flush();
    assert_eq!(outbox.state(), OutboxState::Full(start), "progress below the stride does not count");
    paper.make_room(STRIDE / 2);
    outbox.flush();
    assert_eq!(outbox.state(), OutboxState::Full(Instant::now()));
    paper.make_room(8 * STRIDE);
    outbox.flush();
    assert_eq!(outbox.state(), OutboxState::Open);
    assert_eq!(paper.written.lock().len(), 8 * (STRIDE - FRAME_OVERHEAD));
}

#[test]
fn who_is_gone_is_given_nothing_and_holds_nothing() {
    struct Broken;
    impl Wire for Broken {
        fn write(&self, _: &[IoSlice<'_>]) -> io::Result<usize> {
            Err(ErrorKind::ConnectionReset.into())
        }
    }
    let outbox = Outbox::new(1 << 20, Format::WebSocketJson, Arc::new(Broken), Writer::idle(Budget::unlimited()));
    assert!(outbox.push(text("a")));
    outbox.flush();
    assert_eq!(outbox.state(), OutboxState::Over(None));
    assert!(outbox.is_empty());
    assert_eq!(outbox.budget().held(), 0);
}

#[test]
fn a_budget_that_is_used_up_ends_who_holds_much_and_nobody_else() {
    let (hoarder, reader, held) = pair();
    for _ in 0..3 {
        assert!(hoarder.push(frame(100 * 1024)));
    }
    assert_eq!(held.get(), 300 * 1024);
    assert!(reader.push(frame(SHARE)), "a single message always has room");
    assert!(!hoarder.push(frame(100)));
    assert_eq!(held.get(), SHARE as i64);
    reader.flush();
    assert!(reader.push(frame(SHARE)), "with the hoarder gone there is room again");
    reader.hang_up();
    assert_eq!(held.get(), 0);
}

/// A recovery in several frames counts as a single push: frame by frame, the first frames could use the budget up, and
/// the next would end the connection of a client that reads.
#[test]
fn a_reply_and_its_pushes_are_queued_together_or_not_at_all() {
    let (hoarder, reader, held) = pair();
    assert!(hoarder.push(frame(100 * 1024)));
    let pushes = || vec![frame(100 * 1024), frame(100 * 1024)];
    assert!(reader.push_reply_with(None, frame(150 * 1024), pushes()));
    assert_eq!(held.get(), 450 * 1024);
    assert!(!reader.push_reply_with(None, frame(100), pushes()), "the budget is used up");
    assert_eq!(held.get(), 100 * 1024);
}

#[derive(Clone, Debug)]
enum Step {
    Push(usize),
    /// Makes room for this many bytes, and writes.
    Write(usize),
    Withdraw,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..300usize).prop_map(Step::Push),
        3 => (0..500usize).prop_map(Step::Write),
        1 => Just(Step::Withdraw),
    ]
}

proptest! {
    /// After any sequence of pushes, writes and withdrawals, the client reads complete messages in order.
    #[test]
    fn messages_stay_whole_and_in_order(steps in prop::collection::vec(step(), 0..200)) {
        let paper = Paper::full();
        let outbox = onto(&paper);
        let mut pushed = 0;
        for step in steps {
            match step {
                Step::Push(size) => {
                    pushed += 1;
                    let of = if pushed % 3 == 0 { "odd" } else { "plain" };
                    let message = of_channel(&format!("{of} {pushed:06} {}", "x".repeat(size)));
                    prop_assert!(outbox.push(text(&message)));
                }
                Step::Write(room) => {
                    paper.make_room(room);
                    outbox.flush();
                }
                Step::Withdraw => outbox.withdraw("o"),
            }
        }
        paper.make_room(usize::MAX);
        outbox.flush();
        let (texts, rest) = paper.texts();
        prop_assert!(!rest && outbox.is_empty());
        prop_assert_eq!(outbox.budget().held(), 0);
        let number = |text: &String| text.split(' ').nth(1).unwrap().parse::<usize>().unwrap();
        let numbers: Vec<usize> = texts.iter().map(number).collect();
        prop_assert!(numbers.is_sorted_by(|a, b| a < b), "{:?}", numbers);
        let plain = numbers.iter().filter(|number| *number % 3 != 0).count();
        prop_assert_eq!(plain, pushed - pushed / 3);
    }
}
