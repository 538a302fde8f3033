//! Ledger of history sizes in Redis: limits the total of the histories of a deployment.
//!
//! A publish call returns the new size of the channel's history. The publishing gateway collects the sizes for a
//! second, writes them into the ledger, and reads the total. Above the limit, the largest histories lose the oldest
//! publications, down to three quarters of the limit. The overshoot is about a second of publications at most. The
//! gateways' own channels are not counted.
//!
//! A cluster's scripts are confined to a slot; hence buckets of channels, with a slot per bucket. After a loss of the
//! ledger, later publications rebuild it.

use super::keys::Keys;
use super::nodes::Nodes;
use super::scripts::{Scripts, call};
use super::{millis, slots, wire};
use crate::broker::{BrokerError, Retention, level};
use crate::channel::INTERNAL;
use parking_lot::{Mutex, MutexGuard};
use redis::{Cmd, Value};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// Time between two updates of the ledger.
const INTERVAL: Duration = Duration::from_secs(1);
const BUCKETS: u16 = 16;
/// Sizes per call of the script.
const CHUNK: usize = 500;
/// Largest histories considered per bucket and round.
const LARGEST: usize = 32;

/// Changed histories since the last update: channel and bytes.
#[derive(Default)]
pub struct Ledger {
    // Held for a few inserts, never across an await.
    changed: Mutex<HashMap<String, u64>>,
}

impl Ledger {
    pub fn note(&self, channel: &str, bytes: u64) {
        if !channel.starts_with(INTERNAL) {
            self.changed().insert(channel.to_owned(), bytes);
        }
    }

    fn changed(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.changed.lock()
    }
}

/// Writes to and reads from the ledger in Redis.
pub struct Accounts {
    pub ledger: Arc<Ledger>,
    pub nodes: Arc<Nodes>,
    pub scripts: Arc<Scripts>,
    pub retention: Retention,
}

impl Accounts {
    /// Enforces the total limit, for as long as the broker lives.
    pub async fn keep(self) {
        loop {
            sleep(INTERVAL).await;
            let changed = std::mem::take(&mut *self.ledger.changed());
            if changed.is_empty() {
                continue;
            }
            // After an error, the next publications bring the sizes again.
            if let Err(error) = self.update(changed.into_iter().collect()).await {
                tracing::debug!(%error, "could not record history sizes in Redis; later publications bring them again");
            }
        }
    }

    async fn update(&self, changed: Vec<(String, u64)>) -> Result<(), BrokerError> {
        let sum = self.write(&changed, true).await?;
        let bound = self.retention.total_bytes as u64;
        if sum <= bound {
            return Ok(());
        }
        let largest = shrunk(self.largest().await?, sum - bound / 4 * 3);
        tracing::warn!(
            bytes = sum,
            channels = largest.len(),
            "all histories together exceed history_total_bytes; the largest lose their oldest publications"
        );
        let trimmed = self.trim(&largest).await?;
        self.write(&trimmed, false).await.map(drop)
    }

    /// Writes sizes; returns the total.
    async fn write(&self, sizes: &[(String, u64)], published: bool) -> Result<u64, BrokerError> {
        let mut buckets: Vec<Vec<&(String, u64)>> = vec![Vec::new(); usize::from(BUCKETS)];
        for size in sizes {
            buckets[usize::from(bucket(&size.0))].push(size);
        }
        // A call per bucket, also without sizes: the answer is the bucket's sum.
        let (mut of, mut calls) = (Vec::new(), Vec::new());
        for (bucket, sizes) in (0..).zip(buckets) {
            let (first, more) = sizes.split_at(sizes.len().min(CHUNK));
            for sizes in std::iter::once(first).chain(more.chunks(CHUNK)) {
                of.push(bucket);
                calls.push(self.entries(bucket, sizes, published));
            }
        }
        let answers = self.nodes.call(&self.scripts.ledger, &calls).await?;
        let sums: HashMap<u16, u64> = of.into_iter().zip(answers.iter().filter_map(wire::read_number)).collect();
        Ok(sums.values().sum())
    }

    fn entries(&self, bucket: u16, sizes: &[&(String, u64)], published: bool) -> Cmd {
        let mut command = call(&self.scripts.ledger, &self.keys().ledger(bucket));
        command.arg(millis(self.retention.ttl).max(1)).arg(i32::from(published));
        for (channel, bytes) in sizes {
            command.arg(channel).arg(bytes);
        }
        command
    }

    /// The largest histories per bucket.
    async fn largest(&self) -> Result<Vec<(String, u64)>, BrokerError> {
        let command = |bucket| {
            let [sizes, ..] = self.keys().ledger(bucket);
            let mut command = redis::cmd("ZREVRANGE");
            command.arg(sizes).arg(0).arg(LARGEST - 1).arg("WITHSCORES");
            command
        };
        let commands: Vec<Cmd> = (0..BUCKETS).map(command).collect();
        let answers = self.nodes.run(&commands).await?;
        Ok(answers.iter().flat_map(read_sizes).collect())
    }

    /// Trims histories to the given bytes; returns the remaining bytes.
    async fn trim(&self, targets: &[(String, u64)]) -> Result<Vec<(String, u64)>, BrokerError> {
        let command = |(channel, bytes): &(String, u64)| {
            let mut command = call(&self.scripts.trim, &[self.keys().position(channel), self.keys().stream(channel)]);
            command.arg(bytes);
            command
        };
        let commands: Vec<Cmd> = targets.iter().map(command).collect();
        let answers = self.nodes.call(&self.scripts.trim, &commands).await?;
        let left = |((channel, _), answer): (&(String, u64), Value)| {
            (channel.clone(), wire::read_number(&answer).unwrap_or(0))
        };
        Ok(targets.iter().zip(answers).map(left).collect())
    }

    fn keys(&self) -> &Keys {
        &self.nodes.state().keys
    }
}

fn bucket(channel: &str) -> u16 {
    slots::of_key(channel.as_bytes()) % BUCKETS
}

/// Target sizes for histories to save `excess` bytes. Histories below the water level are left out.
fn shrunk(mut sizes: Vec<(String, u64)>, excess: u64) -> Vec<(String, u64)> {
    let bytes: Vec<usize> = sizes.iter().map(|(_, bytes)| *bytes as usize).collect();
    let target = bytes.iter().sum::<usize>().saturating_sub(excess as usize);
    let level = level(bytes, target) as u64;
    sizes.retain_mut(|(_, bytes)| std::mem::replace(bytes, level) > level);
    sizes
}

/// The answer of ZREVRANGE with scores, in RESP2 or RESP3.
fn read_sizes(answer: &Value) -> Vec<(String, u64)> {
    let Value::Array(items) = answer else { return Vec::new() };
    let pairs: Vec<(&Value, &Value)> = match items.first() {
        Some(Value::Array(_)) => items.iter().filter_map(pair).collect(),
        _ => items.chunks_exact(2).map(|pair| (&pair[0], &pair[1])).collect(),
    };
    let read = |(channel, bytes): (&Value, &Value)| {
        let Value::BulkString(channel) = channel else { return None };
        let bytes = match bytes {
            Value::Double(bytes) => *bytes as u64,
            other => wire::read_number(other)?,
        };
        Some((String::from_utf8(channel.clone()).ok()?, bytes))
    };
    pairs.into_iter().filter_map(read).collect()
}

fn pair(value: &Value) -> Option<(&Value, &Value)> {
    match value {
        Value::Array(pair) if pair.len() == 2 => Some((&pair[0], &pair[1])),
        _ => None,
    }
}
