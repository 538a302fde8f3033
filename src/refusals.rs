//! The last refusals, for the admin page: refused commands, handshakes and requests, and access that ended.
//!
//! The list has at most [`ENTRIES`] entries. A repeated refusal is one entry with a count. A subject (a user, or a
//! network address for refusals without a user) has at most [`PER_SUBJECT`] entries, so that a client in a loop does
//! not push the refusals of all other users out of the list. No entry contains a token, a key or content.

use crate::limits::addresses::counted_as;
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

/// Maximum number of entries.
const ENTRIES: usize = 300;
/// Maximum number of entries of a subject.
const PER_SUBJECT: usize = 20;
/// Maximum length of a text of an entry, in characters; longer texts are cut off.
const TEXT_MAX: usize = 255;

/// The code of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Code {
    /// A code of the client protocol.
    Number(u16),
    /// The reason of an HTTP error, as in the metrics.
    Word(&'static str),
}

/// A refusal to be noted.
#[derive(Clone, Copy, Debug)]
pub struct Refusal<'a> {
    /// The refused command, or "socket", "handshake", "hooks", "api" or "admin"; for access that ended, "access".
    pub action: &'static str,
    pub channel: Option<&'a str>,
    /// The user's key; empty if unknown, and for guests.
    pub user: &'a str,
    /// Unknown for access that ended.
    pub address: Option<IpAddr>,
    pub code: Code,
    pub cause: &'a str,
}

/// A noted refusal, with its repeats.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    pub action: &'static str,
    pub channel: Option<String>,
    pub user: String,
    pub address: Option<IpAddr>,
    pub code: Code,
    pub cause: String,
    /// Times of the first and of the last repeat, in Unix milliseconds.
    pub first: u64,
    pub last: u64,
    pub count: u64,
}

impl Entry {
    fn new(refusal: &Refusal, now: u64) -> Self {
        let Refusal { action, channel, user, address, code, cause } = *refusal;
        let (channel, user, cause) = (channel.map(shortened), shortened(user), shortened(cause));
        Self { action, channel, user, address, code, cause, first: now, last: now, count: 1 }
    }

    fn repeats(&self, other: &Self) -> bool {
        self.code == other.code
            && self.action == other.action
            && self.has_subject_of(other)
            && self.channel == other.channel
            && self.cause == other.cause
    }

    fn has_subject_of(&self, other: &Self) -> bool {
        self.user == other.user && (!self.user.is_empty() || self.network() == other.network())
    }

    fn network(&self) -> Option<IpAddr> {
        self.address.map(counted_as)
    }
}

/// The list of the last refusals. The lock is held for a pass over the list.
#[derive(Default)]
pub struct Refusals {
    /// By the time of the last repeat, the newest at the end.
    entries: Mutex<VecDeque<Entry>>,
}

impl Refusals {
    pub fn note(&self, refusal: &Refusal) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        self.note_at(refusal, u64::try_from(now).unwrap_or(u64::MAX));
    }

    fn note_at(&self, refusal: &Refusal, now: u64) {
        let mut entry = Entry::new(refusal, now);
        let mut entries = self.entries.lock();
        let (mut oldest, mut of_subject) = (None, 0);
        for place in 0..entries.len() {
            if !entries[place].has_subject_of(&entry) {
                continue;
            }
            if entries[place].repeats(&entry) {
                if let Some(before) = entries.remove(place) {
                    (entry.first, entry.count) = (before.first, before.count + 1);
                }
                entries.push_back(entry);
                return;
            }
            oldest = oldest.or(Some(place));
            of_subject += 1;
        }
        match oldest {
            Some(place) if of_subject >= PER_SUBJECT => _ = entries.remove(place),
            _ if entries.len() >= ENTRIES => _ = entries.pop_front(),
            _ => {}
        }
        entries.push_back(entry);
    }

    /// The last `count` entries, the newest first.
    pub fn last(&self, count: usize) -> Vec<Entry> {
        self.entries.lock().iter().rev().take(count).cloned().collect()
    }

    /// The user's entries, the newest first.
    pub fn of(&self, user: &str) -> Vec<Entry> {
        let user = shortened(user);
        self.entries.lock().iter().rev().filter(|entry| entry.user == user).cloned().collect()
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal<'a>(user: &'a str, channel: &'a str, address: &str) -> Refusal<'a> {
        Refusal {
            action: "subscribe",
            channel: Some(channel),
            user,
            address: Some(address.parse().unwrap()),
            code: Code::Number(103),
            cause: "permission denied",
        }
    }

    #[test]
    fn a_repeat_is_counted_and_moves_to_the_front() {
        let refusals = Refusals::default();
        for (now, user) in [(1, "ann"), (2, "bob"), (3, "ann")] {
            refusals.note_at(&refusal(user, "room:a", "192.0.2.1"), now);
        }
        let found: Vec<_> = refusals.last(9).into_iter().map(|it| (it.user, it.first, it.last, it.count)).collect();
        assert_eq!(found, [("ann".into(), 1, 3, 2), ("bob".into(), 2, 2, 1)]);
        assert_eq!(refusals.of("bob").len(), 1);
        assert_eq!(refusals.last(1).len(), 1);
    }

    #[test]
    fn a_client_in_a_loop_does_not_displace_other_users() {
        let refusals = Refusals::default();
        refusals.note(&refusal("ann", "room:a", "192.0.2.1"));
        refusals.note(&refusal("", "room:a", "2001:db8::1"));
        let channels: Vec<String> = (0..2 * ENTRIES).map(|i| format!("room:{i}")).collect();
        for channel in &channels {
            refusals.note(&refusal("eve", channel, "192.0.2.2"));
            // Another address of the same /64 network is the same subject.
            refusals.note(&refusal("", channel, "2001:db8::2"));
        }
        assert_eq!(refusals.of("ann").len(), 1);
        assert_eq!((refusals.of("eve").len(), refusals.of("").len()), (PER_SUBJECT, PER_SUBJECT));
        assert_eq!(refusals.of("eve")[0].channel.as_deref(), channels.last().map(String::as_str));
    }

    #[test]
    fn the_list_is_bounded_and_texts_are_cut_off() {
        let refusals = Refusals::default();
        let users: Vec<String> = (0..2 * ENTRIES).map(|i| format!("u{i}")).collect();
        for user in &users {
            refusals.note(&refusal(user, &"x".repeat(10_000), "192.0.2.1"));
        }
        let entries = refusals.last(usize::MAX);
        assert_eq!(entries.len(), ENTRIES);
        assert_eq!(entries[0].user, users[users.len() - 1]);
        assert_eq!(entries[0].channel.as_ref().map(String::len), Some(TEXT_MAX));
    }
}
