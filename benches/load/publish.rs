//! Publishers in an open loop: message `n` is due at `n / rate`, whether or not the server keeps up.

use crate::mark::{Mark, RUN_MASK, now};
use crate::tally::{Plan, Sent, histogram};
use hdrhistogram::Histogram;
use std::io::{Error, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Bytes of a message's JSON.
pub const MESSAGE: usize = 256;
const ANSWERING: Duration = Duration::from_secs(10);
/// Servers close connections idle for longer.
const IDLE: Duration = Duration::from_secs(3);

/// A message to publish now.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    pub room: u32,
    pub mark: Mark,
    /// Bytes of the message's JSON.
    pub size: usize,
}

impl Message {
    /// A record change in the form of PocketBase's hooks, of exactly `size` bytes. The mark comes early, so that a
    /// long message sent in pieces carries the mark in the first piece.
    pub fn json(&self, out: &mut Vec<u8>) {
        const BEFORE: &[u8] =
            br#"{"action":"create","collection":"messages","record":{"id":"benchmark000000","content":""#;
        const AFTER: &[u8] = br#""}}"#;
        let begin = out.len();
        out.extend_from_slice(BEFORE);
        self.mark.write(out);
        out.resize(begin + self.size - AFTER.len(), b'x');
        out.extend_from_slice(AFTER);
    }
}

/// One publishing connection, which waits for the answer to each call.
pub trait Lane: Send {
    /// Largest number of messages in one call.
    fn batch(&self) -> usize {
        1
    }

    fn publish(&mut self, messages: &[Message]) -> std::io::Result<()>;
}

/// Result of publishing a run's messages.
pub struct Published {
    pub sent: Sent,
    pub count: usize,
    pub failed: usize,
    pub failure: Option<String>,
    /// Duration of the publish calls, in microseconds.
    pub calls: Histogram<u64>,
}

/// Publishes the plan's messages at `rate`. Lane `l` publishes the messages `l`, `l + lanes` and so on. A late lane
/// continues until the plan's time is over; the rest stays unpublished.
pub fn publish(plan: Plan, rate: f64, size: usize, lanes: &mut [Box<dyn Lane>]) -> Published {
    let mut all =
        Published { sent: vec![false; plan.messages as usize], count: 0, failed: 0, failure: None, calls: histogram() };
    let (start, count) = (Instant::now() + Duration::from_millis(20), lanes.len());
    let end = start + Duration::from_secs_f64(f64::from(plan.messages) / rate);
    std::thread::scope(|scope| {
        let running: Vec<_> = lanes
            .iter_mut()
            .enumerate()
            .map(|(first, lane)| {
                let numbers = (first as u32..plan.messages).step_by(count);
                scope.spawn(move || run(plan, rate, size, (start, end), numbers, &mut **lane))
            })
            .collect();
        for lane in running {
            let one = lane.join().expect("a lane ends");
            for number in one.sent {
                all.sent[number as usize] = true;
                all.count += 1;
            }
            all.failed += one.failed;
            all.failure = all.failure.take().or(one.failure);
            all.calls.add(one.calls).expect("the same bounds");
        }
    });
    all
}

struct LaneRun {
    sent: Vec<u32>,
    failed: usize,
    failure: Option<String>,
    calls: Histogram<u64>,
}

fn run(
    plan: Plan,
    rate: f64,
    size: usize,
    (start, end): (Instant, Instant),
    numbers: impl Iterator<Item = u32>,
    lane: &mut dyn Lane,
) -> LaneRun {
    let mut done = LaneRun { sent: Vec::new(), failed: 0, failure: None, calls: histogram() };
    let mut numbers = numbers.peekable();
    let due = |number: u32| start + Duration::from_secs_f64(f64::from(number) / rate);
    let mut batch = Vec::new();
    while let Some(&first) = numbers.peek() {
        std::thread::sleep(due(first).saturating_duration_since(Instant::now()));
        let begun = Instant::now();
        if begun >= end {
            break;
        }
        batch.clear();
        let sent = now();
        while let Some(number) = numbers.next_if(|&number| batch.len() < lane.batch() && due(number) <= begun) {
            let publisher = (number % plan.publishers) as u8;
            let mark = Mark { run: plan.run & RUN_MASK, publisher, number, sent };
            batch.push(Message { room: number % plan.rooms, mark, size });
        }
        match lane.publish(&batch) {
            Ok(()) => done.sent.extend(batch.iter().map(|message| message.mark.number)),
            Err(error) => {
                done.failed += batch.len();
                done.failure.get_or_insert_with(|| error.to_string());
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        done.calls.saturating_record(begun.elapsed().as_micros() as u64);
    }
    done
}

/// An HTTP/1.1 client on one kept-open connection. Requests are written by hand, since the client must be cheap.
pub struct Http {
    address: SocketAddr,
    stream: Option<TcpStream>,
    used: Instant,
    answer: Vec<u8>,
}

impl Http {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, stream: None, used: Instant::now(), answer: vec![0; 64 * 1024] }
    }

    /// Sends a POST and returns the status. The lines of `headers` have their line endings.
    pub fn post(&mut self, target: &str, headers: &str, body: &[u8]) -> std::io::Result<u16> {
        let length = body.len();
        let mut request = format!(
            "POST {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n{headers}\r\n"
        )
        .into_bytes();
        request.extend_from_slice(body);
        if self.used.elapsed() > IDLE {
            self.stream = None;
        }
        let result = self.exchange(&request);
        self.used = Instant::now();
        if result.is_err() {
            self.stream = None;
        }
        result
    }

    fn exchange(&mut self, request: &[u8]) -> std::io::Result<u16> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let stream = TcpStream::connect(self.address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(ANSWERING))?;
                none.insert(stream)
            }
        };
        stream.write_all(request)?;
        let mut read = 0;
        loop {
            let room = self.answer.get_mut(read..).filter(|room| !room.is_empty());
            let count = stream.read(room.ok_or_else(|| Error::from(ErrorKind::FileTooLarge))?)?;
            if count == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            read += count;
            if let Some((status, goes_on)) = whole_answer(&self.answer[..read])? {
                if !goes_on {
                    self.stream = None;
                }
                return Ok(status);
            }
        }
    }
}

/// The status of a complete answer, and whether the connection stays open; `None` while the answer is incomplete.
fn whole_answer(answer: &[u8]) -> std::io::Result<Option<(u16, bool)>> {
    let Some(end) = memchr::memmem::find(answer, b"\r\n\r\n") else { return Ok(None) };
    let head = String::from_utf8_lossy(&answer[..end]);
    let header = |name: &str| {
        head.lines().skip(1).find_map(|line| {
            let (this, value) = line.split_once(':')?;
            this.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(ErrorKind::InvalidData)?;
    let whole = match header("content-length").map(|length| length.parse::<usize>()) {
        Some(Ok(length)) => answer.len() >= end + 4 + length,
        Some(Err(_)) => return Err(ErrorKind::InvalidData.into()),
        None if header("transfer-encoding").is_some() => answer.ends_with(b"0\r\n\r\n"),
        None => true,
    };
    let goes_on = !header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    Ok(whole.then_some((status, goes_on)))
}
