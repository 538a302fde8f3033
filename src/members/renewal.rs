//! Schedule of periodic renewals for many clients, spread evenly over time: without bursts that delay other calls to
//! the broker.

use crate::broker::status_store::{BUCKETS, bucket};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Turns per round. Each round covers all clients once. As many as the broker's buckets of users: the renewals of a turn,
/// which go to one bucket, then take few calls.
const TURNS: u32 = BUCKETS as u32;
/// Maximum number of parts per turn: limits the sequential calls per round, for any number of clients.
const PARTS: usize = 16;
/// A turn with at most this many clients is not divided.
const FEW: usize = 64;

type Clients<T> = HashMap<Arc<str>, T, foldhash::fast::RandomState>;

/// Clients by name, divided among the turns of a round by a key: the client itself, or the client's user. Each key has the
/// same turn in every round. A walk over the clients of one turn does not touch the clients of other turns.
pub struct ByTurn<T> {
    turns: Box<[Clients<T>]>,
}

impl<T> Default for ByTurn<T> {
    fn default() -> Self {
        Self { turns: (0..TURNS).map(|_| Clients::default()).collect() }
    }
}

impl<T> ByTurn<T> {
    /// All clients with the same turn as `key`.
    pub fn around(&self, key: &str) -> &Clients<T> {
        &self.turns[bucket(key)]
    }

    /// As [`ByTurn::around`], to insert or remove a client.
    pub fn around_mut(&mut self, key: &str) -> &mut Clients<T> {
        &mut self.turns[bucket(key)]
    }

    pub fn of(&self, turn: usize) -> &Clients<T> {
        &self.turns[turn]
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &T)> {
        self.turns.iter().flatten()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&Arc<str>, &mut T)> {
        self.turns.iter_mut().flatten()
    }
}

/// The times of a round's turns.
pub struct RenewalSchedule {
    length: Duration,
    /// Time of the next turn. Late turns are made up for at once, so rounds do not get longer.
    due: Instant,
    begun: Instant,
    current: usize,
}

impl RenewalSchedule {
    /// `round`: time between two turns of a client.
    pub fn new(round: Duration) -> Self {
        let length = (round / TURNS).max(Duration::from_millis(1));
        let now = Instant::now();
        Self { length, due: now, begun: now, current: 0 }
    }

    /// Waits for the next turn, and returns the number of the turn. After a standstill (a suspended machine, a stopped
    /// process), each client gets a single turn at once, however many rounds were missed.
    pub async fn next(&mut self) -> usize {
        let missed = self.length * (TURNS - 1);
        if let Some(earliest) = Instant::now().checked_sub(missed) {
            self.due = self.due.max(earliest);
        }
        sleep_until(self.due).await;
        self.begun = self.due;
        self.due += self.length;
        self.current = (self.current + 1) % TURNS as usize;
        self.current
    }

    /// Divides the clients due in this turn into parts, with a start time per part.
    pub fn parts<'a, T>(&self, due: &'a [T]) -> impl Iterator<Item = (Instant, &'a [T])> + use<'a, T> {
        let parts = due.len().div_ceil(FEW).clamp(1, PARTS);
        let (begun, pause) = (self.begun, self.length / parts as u32);
        let part = move |(number, part)| (begun + pause * number, part);
        (0..).zip(due.chunks(due.len().div_ceil(parts).max(1))).map(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(count: usize) -> ByTurn<usize> {
        let mut clients = ByTurn::default();
        for number in 0..count {
            let client = format!("client {number}");
            clients.around_mut(&client).insert(client.as_str().into(), number);
        }
        assert_eq!(clients.iter().count(), count);
        clients
    }

    #[tokio::test(start_paused = true)]
    async fn each_has_its_turn_once_in_a_round_and_none_is_crowded() {
        let clients = numbered(6400);
        let round = Duration::from_secs(20);
        let mut schedule = RenewalSchedule::new(round);
        let mut had = vec![Vec::new(); 6400];
        let mut last = Instant::now();
        for _ in 0..2 * TURNS {
            let its: Vec<usize> = clients.of(schedule.next().await).values().copied().collect();
            assert!(its.len() < 200, "{} of 6400 at once", its.len());
            for (at, part) in schedule.parts(&its) {
                assert!(part.len() <= FEW && at >= last && at < schedule.begun + schedule.length);
                last = at;
                part.iter().for_each(|&i| had[i].push(schedule.begun));
            }
        }
        assert!(had.iter().all(|had| had.len() == 2 && had[1] - had[0] == round));
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_standstill_each_has_its_turn_once() {
        let clients = numbered(640);
        let mut schedule = RenewalSchedule::new(Duration::from_secs(10));
        schedule.next().await;
        tokio::time::advance(Duration::from_secs(60)).await;
        let start = Instant::now();
        let mut had = vec![0; 640];
        for _ in 0..TURNS {
            clients.of(schedule.next().await).values().for_each(|number: &usize| had[*number] += 1);
        }
        assert!(had.iter().all(|had| *had == 1) && Instant::now() == start, "a single turn each, without a wait");
        schedule.next().await;
        assert_eq!(schedule.begun - start, schedule.length, "then at the usual pace");
    }

    #[tokio::test]
    async fn a_crowd_is_cut_into_so_many_parts_and_no_more() {
        let schedule = RenewalSchedule::new(Duration::from_secs(20));
        for (due, parts) in [(0, 0), (1, 1), (FEW, 1), (FEW + 1, 2), (PARTS * FEW, PARTS), (100_000, PARTS)] {
            let due: Vec<usize> = (0..due).collect();
            assert_eq!(schedule.parts(&due).count(), parts, "of {}", due.len());
            assert_eq!(schedule.parts(&due).flat_map(|(_, part)| part).count(), due.len());
        }
    }
}
