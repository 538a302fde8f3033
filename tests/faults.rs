//! Fault injection: a real topology under load, in which processes are killed and paused and networks are cut. A
//! checker compares the clients' logs with PocketBase's tables: nothing lost, nothing twice, in order.
//! `tests/README.md` describes the method and how to replay a seed.
//!
//! `FAULTS_MINUTES=30 FAULTS_SEED=n cargo test --release --test faults -- --nocapture soak` runs for longer, and with
//! `FAULTS_CLUSTER=1` on a Redis Cluster.

// Tests may unwrap. Clippy's own exception covers only #[test] functions, not the functions they call.
#![allow(clippy::unwrap_used)]

mod harness;

mod faults {
    pub mod checker;
    pub mod clients;
    pub mod clock;
    pub mod fault;
    pub mod frames;
    pub mod level;
    pub mod record;
    pub mod report;
    pub mod run;
    #[cfg(test)]
    mod scenarios;
    pub mod store;
    pub mod storm;
    pub mod subscription;
    pub mod topology;
    pub mod truth;
    pub mod visits;
    pub mod writers;
}

use futures_util::future::join_all;
use std::time::Duration;

/// Seeds of the short run, each for [`SHORT`], with or without a cluster. Together these seeds detect most of the
/// broken gateways in the list of `tests/README.md`.
const SEEDS: [(u64, bool); 3] = [(2, false), (4, false), (3, true)];
const SHORT: Duration = Duration::from_secs(48);

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn soak() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<f64>().expect("a number"));
    let seed = number("FAULTS_SEED").map(|seed| seed as u64);
    let clustered = number("FAULTS_CLUSTER").is_some_and(|chosen| chosen != 0.0);
    let runs = match number("FAULTS_MINUTES") {
        Some(minutes) => vec![(seed.unwrap_or_else(fresh_seed), clustered, Duration::from_secs_f64(minutes * 60.0))],
        None => {
            let seeds = seed.map_or(SEEDS.to_vec(), |seed| vec![(seed, clustered)]);
            seeds.into_iter().map(|(seed, clustered)| (seed, clustered, SHORT)).collect()
        }
    };
    // At once: the runs share no server, and most of their time is waiting.
    let runs = runs.into_iter().map(|(seed, clustered, lasts)| async move {
        (seed, faults::run::run(seed, clustered, lasts).await.passed())
    });
    for (seed, passed) in join_all(runs).await {
        assert!(passed, "seed {seed}: see the findings above");
    }
}

fn fresh_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time after 1970");
    now.as_millis() as u64 % 1_000_000
}
