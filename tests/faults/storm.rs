//! Rounds of faults with calm in between. From time to time, the clients have to catch up in a calm.

use super::fault::{Fault, kinds};
use super::level;
use super::report::Injected;
use super::subscription::Shared;
use super::topology::Topology;
use super::truth::Truths;
use crate::harness::rng::Rng;
use std::time::Duration;
use tokio::sync::RwLock;
use tokio::time::{Instant, sleep};

pub struct Storm<'a> {
    topology: &'a Topology,
    clients: &'a [Shared],
    /// Held by tasks that need a pause of the writes.
    gate: &'a RwLock<()>,
    rng: Rng,
    pub injected: Injected,
    pub truths: Truths,
}

impl<'a> Storm<'a> {
    pub fn new(topology: &'a Topology, clients: &'a [Shared], gate: &'a RwLock<()>, rng: Rng) -> Self {
        Self { topology, clients, gate, rng, injected: Injected::default(), truths: Truths::default() }
    }

    /// Injects rounds of one to four simultaneous faults until the time is over. Every kind comes up before any kind
    /// comes up again; faults of processes come up more often than faults of links.
    pub async fn rage(&mut self, lasts: Duration) {
        let end = Instant::now() + lasts;
        let mut deck = Vec::new();
        sleep(Duration::from_secs(1)).await;
        while Instant::now() < end {
            let size = [1, 2, 2, 3, 4][self.rng.below(5)];
            let mut round = Vec::new();
            for place in 0..size {
                if deck.is_empty() {
                    deck = kinds(self.topology.clustered);
                    self.rng.shuffle(&mut deck);
                }
                let fault = Fault::draw(deck.pop().expect("it was filled"), &mut self.rng);
                let begins = if place == 0 { Duration::ZERO } else { self.rng.millis(0..1_500) };
                *self.injected.faults.entry(fault.kind).or_default() += 1;
                let topology = self.topology;
                round.push(async move {
                    sleep(begins).await;
                    tell(&fault);
                    fault.inject(topology).await;
                });
            }
            self.injected.together += u64::from(size > 1);
            // Drawn before the faults, since the duration of a fault must not affect the decision.
            let [calm, level] = [self.rng.chance(30), self.rng.chance(25)];
            let calm = if calm { self.rng.millis(200..3_000) } else { Duration::ZERO };
            let quiet_after = self.rng.millis(0..1_500);
            let faults = futures_util::future::join_all(round);
            if level {
                // The writers stop during the round, so that no message after the faults can repair their effects.
                let quiet = async {
                    sleep(quiet_after).await;
                    self.gate.write().await
                };
                let (_, _quiet) = tokio::join!(faults, quiet);
                level::in_between(self.topology, self.clients, &mut self.truths).await;
                self.injected.levels += 1;
            } else {
                faults.await;
            }
            sleep(calm).await;
        }
    }
}

fn tell(fault: &Fault) {
    if std::env::var_os("FAULTS_VERBOSE").is_some() {
        println!("  {fault}");
    }
}
