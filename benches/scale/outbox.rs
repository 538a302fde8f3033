//! The single outbox of PocketBase, read by every gateway: messages are created through PocketBase's REST API, whose
//! hooks post to the first gateway. The other gateways find the rows in the outbox now and then.

use crate::Options;
use crate::cpu;
use crate::simulated_redis::Command;
use crate::stage::{Site, Stage};
use std::time::{Duration, Instant};
use tokio::time::interval;

/// Creates per second, as a share of the usual rate of events.
const SHARE: f64 = 0.25;
/// Duration of the creates: more than four intervals of reads.
const SECONDS: f64 = 15.0;
/// Calls of PocketBase by all gateways, and events by the way they came.
const METRICS: [(&str, &str); 4] = [
    ("gateway_pocketbase_seconds_count", "{route=\"events\""),
    ("gateway_pocketbase_seconds_count", "{route=\"confirm\""),
    ("gateway_relay_events_total", "{outcome=\"pull\""),
    ("gateway_relay_events_total", "{outcome=\"repeat\""),
];

pub async fn run(site: &Site, options: &Options) {
    println!("\n### The single outbox\n");
    println!(
        "| gateways | creates/s | reads of the outbox/s | confirmations/s | published by a read | repeats | publish commands each | PocketBase µs each |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|");
    for &count in &options.nodes {
        measure(site, options, count).await;
    }
}

async fn measure(site: &Site, options: &Options, count: usize) {
    let stage = Stage::start(site, options, count, &[]).await;
    let pid = site.pocketbase.process.pid();
    let before = (metrics(&stage).await, stage.redis.traffic(), cpu::of_process(pid), Instant::now());
    let mut pace = interval(Duration::from_secs_f64(1.0 / (options.rate * SHARE)));
    let mut creates = 0.0;
    while before.3.elapsed().as_secs_f64() < SECONDS {
        pace.tick().await;
        site.pocketbase.write(&site.hot, &site.author, "a message").await;
        creates += 1.0;
    }
    let (seconds, cpu) = (before.3.elapsed().as_secs_f64(), cpu::of_process(pid).saturating_sub(before.2));
    let publishes = (stage.redis.traffic() - before.1).of(Command::Publish);
    let now = metrics(&stage).await;
    let [events, confirms, pulled, repeats] = std::array::from_fn(|metric| now[metric] - before.0[metric]);
    println!(
        "| {count} | {:.0} | {:.1} | {:.1} | {:.1} % | {:.1} % | {:.2} | {:.0} |",
        creates / seconds,
        events / seconds,
        confirms / seconds,
        pulled / creates * 100.0,
        repeats / creates * 100.0,
        publishes / creates,
        cpu.as_secs_f64() * 1e6 / creates,
    );
}

async fn metrics(stage: &Stage<'_>) -> [f64; METRICS.len()] {
    let mut values = [0.0; METRICS.len()];
    for (value, (name, labels)) in values.iter_mut().zip(METRICS) {
        *value = stage.metric(name, labels).await;
    }
    values
}
