//! Received messages of one run: a bitmap per connection, and one histogram of latencies.

use super::mark::{Mark, RUN_MASK};
use hdrhistogram::Histogram;

/// One run, known to publishers and clients alike. Message `n` goes to room `n % rooms`, from publisher `n %
/// publishers`.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub run: u32,
    pub rooms: u32,
    pub publishers: u32,
    /// Number of messages; valid message numbers are smaller.
    pub messages: u32,
}

/// For each message, whether the publish call succeeded.
pub type Sent = Vec<bool>;

/// Latencies in microseconds, up to one minute.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("bounds that make sense")
}

/// Tally for the connections of one thread.
pub struct Tally {
    plan: Plan,
    words: usize,
    /// Per connection, a bitmap of the room's received messages.
    bits: Vec<u64>,
    /// Per connection and publisher, the highest received number plus one.
    next: Vec<u32>,
    summary: Summary,
}

#[derive(Clone)]
pub struct Summary {
    pub latencies: Histogram<u64>,
    pub delivered: u64,
    pub lost: u64,
    pub doubled: u64,
    pub reordered: u64,
    /// Messages for another room, or never published.
    pub stray: u64,
}

impl Summary {
    pub fn new() -> Self {
        Self { latencies: histogram(), delivered: 0, lost: 0, doubled: 0, reordered: 0, stray: 0 }
    }

    pub fn add(&mut self, other: &Self) {
        self.latencies.add(&other.latencies).expect("the same bounds");
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.reordered += other.reordered;
        self.stray += other.stray;
    }

    pub fn is_clean(&self) -> bool {
        self.lost + self.doubled + self.reordered + self.stray == 0
    }
}

impl Tally {
    pub fn new(plan: Plan, connections: usize) -> Self {
        let words = plan.messages.div_ceil(plan.rooms).div_ceil(64) as usize;
        let bits = vec![0; words * connections];
        let next = vec![0; connections * plan.publishers as usize];
        Self { plan, words, bits, next, summary: Summary::new() }
    }

    /// Records `mark`, read at `now` by the client of `connection`, subscribed to `room`. Returns true if the message
    /// belongs to the run and arrived for the first time.
    pub fn take(&mut self, connection: usize, room: u32, mark: Mark, now: u64) -> bool {
        let Plan { run, rooms, publishers, messages } = self.plan;
        if mark.run != run & RUN_MASK {
            return false;
        }
        if mark.number >= messages
            || mark.number % rooms != room
            || u32::from(mark.publisher) != mark.number % publishers
        {
            self.summary.stray += 1;
            return false;
        }
        let index = (mark.number / rooms) as usize;
        let (word, bit) = (&mut self.bits[connection * self.words + index / 64], 1 << (index % 64));
        if *word & bit != 0 {
            self.summary.doubled += 1;
            return false;
        }
        *word |= bit;
        let next = &mut self.next[connection * publishers as usize + usize::from(mark.publisher)];
        if mark.number < *next {
            self.summary.reordered += 1;
        }
        *next = (mark.number + 1).max(*next);
        self.summary.delivered += 1;
        let micros = now.saturating_sub(mark.sent) / 1000;
        self.summary.latencies.saturating_record(micros.max(1));
        true
    }

    /// Compares the tally with the published messages. `rooms` holds the room of each connection, in order.
    pub fn finish(mut self, sent: &Sent, rooms: impl Iterator<Item = u32>) -> Summary {
        for (connection, room) in rooms.enumerate() {
            let numbers = (room..self.plan.messages).step_by(self.plan.rooms as usize);
            for (index, number) in numbers.enumerate() {
                let came = self.bits[connection * self.words + index / 64] >> (index % 64) & 1 == 1;
                match (sent.get(number as usize).copied().unwrap_or(false), came) {
                    (true, false) => self.summary.lost += 1,
                    (false, true) => self.summary.stray += 1,
                    _ => {}
                }
            }
        }
        self.summary
    }
}
