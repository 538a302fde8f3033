//! The mark in every message: its run, publisher, number and send time. The mark has a fixed width and is found by a
//! search for its first bytes, so that a client parses nothing.

use memchr::memmem::Finder;
use std::io::Write;
use std::sync::OnceLock;
use std::time::Instant;

const BEGIN: &[u8] = b"@#>";
/// Hexadecimal digits of run, publisher, number and nanoseconds.
const WIDTHS: [usize; 4] = [3, 2, 8, 16];
/// Bytes of a whole mark.
pub const LENGTH: usize = BEGIN.len() + 3 + 2 + 8 + 16;

/// Bits of the run number in a mark. Late messages of an earlier run differ in these bits.
pub const RUN_MASK: u32 = 0xfff;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mark {
    pub run: u32,
    pub publisher: u8,
    /// Number of the message, counted over every publisher.
    pub number: u32,
    /// Time just before the publish call; see [`now`].
    pub sent: u64,
}

/// Nanoseconds on the monotonic clock since the first call.
pub fn now() -> u64 {
    static BASE: OnceLock<Instant> = OnceLock::new();
    u64::try_from(BASE.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}

impl Mark {
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(BEGIN);
        let Mark { run, publisher, number, sent } = self;
        write!(out, "{run:03x}{publisher:02x}{number:08x}{sent:016x}").expect("a Vec takes everything");
    }

    /// Reads a mark from exactly [`LENGTH`] bytes.
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut rest = &bytes[BEGIN.len()..];
        let [run, publisher, number, sent] = WIDTHS.map(|width| {
            let (digits, after) = rest.split_at(width);
            rest = after;
            digits.iter().try_fold(0u64, |value, &digit| Some(value << 4 | u64::from((digit as char).to_digit(16)?)))
        });
        Some(Self { run: run? as u32, publisher: publisher? as u8, number: number? as u32, sent: sent? })
    }
}

/// Finds marks in received bytes.
pub struct Search(Finder<'static>);

impl Search {
    pub fn new() -> Self {
        Self(Finder::new(BEGIN))
    }

    /// Hands each whole mark to `found`. Returns the position of the first byte that may belong to a later mark.
    pub fn each(&self, bytes: &[u8], mut found: impl FnMut(Mark)) -> usize {
        let mut at = 0;
        while let Some(next) = self.0.find(&bytes[at..]) {
            let begin = at + next;
            let Some(mark) = bytes.get(begin..begin + LENGTH) else { return begin };
            if let Some(mark) = Mark::read(mark) {
                found(mark);
            }
            at = begin + LENGTH;
        }
        // The rest holds no whole beginning of a mark, but perhaps its first bytes.
        at.max(bytes.len().saturating_sub(BEGIN.len() - 1))
    }
}
