//! Nothing lost, nothing twice, in order: a real topology under load while processes are killed and stopped and
//! networks cut, and a checker that compares what clients saw with PocketBase's tables. `tests/README.md` says how
//! it works and how to replay a seed.
//!
//! `FAULTS_MINUTES=30 FAULTS_SEED=n cargo test --release --test faults -- --nocapture soak` runs for longer.

// In tests it is what it should be, and clippy's own exception knows #[test] alone, not what such a test calls.
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
    pub mod storm;
    pub mod subscription;
    pub mod topology;
    pub mod truth;
    pub mod visits;
    pub mod writers;
}

use std::time::Duration;

/// Of the short run, each for [`SHORT`]: chosen since between them they catch most of the broken gateways that
/// `tests/README.md` lists.
const SEEDS: [u64; 2] = [2, 4];
const SHORT: Duration = Duration::from_secs(48);

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn soak() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<f64>().expect("a number"));
    let seed = number("FAULTS_SEED").map(|seed| seed as u64);
    let runs = match number("FAULTS_MINUTES") {
        Some(minutes) => vec![(seed.unwrap_or_else(fresh_seed), Duration::from_secs_f64(minutes * 60.0))],
        None => seed.map_or(SEEDS.to_vec(), |seed| vec![seed]).into_iter().map(|seed| (seed, SHORT)).collect(),
    };
    for (seed, lasts) in runs {
        let report = faults::run::run(seed, lasts).await;
        assert!(report.passed(), "seed {seed}: see the findings above");
    }
}

fn fresh_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time after 1970");
    now.as_millis() as u64 % 1_000_000
}
