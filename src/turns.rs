//! Doing something for many clients again and again, evenly spread over time: whoever is behind it never has to take
//! all of them at once, and let others wait meanwhile.

use std::hash::BuildHasher;
use std::time::Duration;
use tokio::time::{Interval, interval};

/// Turns in a round.
const TURNS: u64 = 256;

/// Each client has its turn once in a round, always the same one.
pub struct Turns {
    // What came late is made up for at once, so that rounds take no longer.
    ticks: Interval,
    current: u64,
    hasher: foldhash::fast::RandomState,
}

impl Turns {
    /// `round`: how often each client has its turn.
    pub fn new(round: Duration) -> Self {
        let pause = (round / TURNS as u32).max(Duration::from_millis(1));
        Self { ticks: interval(pause), current: 0, hasher: foldhash::fast::RandomState::default() }
    }

    /// Waits for the next turn.
    pub async fn next(&mut self) {
        self.ticks.tick().await;
        self.current = (self.current + 1) % TURNS;
    }

    pub fn is_of(&self, client: &str) -> bool {
        self.hasher.hash_one(client) % TURNS == self.current
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn each_has_its_turn_once_in_a_round_and_none_is_crowded() {
        let clients: Vec<String> = (0..6400).map(|number| format!("client {number}")).collect();
        let (round, begin) = (Duration::from_secs(20), Instant::now());
        let mut turns = Turns::new(round);
        let mut had = vec![Vec::new(); clients.len()];
        for _ in 0..2 * TURNS {
            turns.next().await;
            let its: Vec<usize> = (0..clients.len()).filter(|&i| turns.is_of(&clients[i])).collect();
            assert!(its.len() < 100, "{} of 6400 at once", its.len());
            its.into_iter().for_each(|i| had[i].push(begin.elapsed()));
        }
        assert!(had.iter().all(|had| had.len() == 2 && had[1] - had[0] == round));
    }
}
