//! The Redis of a run: a single server, or a cluster of three masters with one replica per master. Data survives a kill.

use super::topology::World;
use crate::harness::cluster::Cluster;
use crate::harness::process::free_port;
use crate::harness::redis::Redis;
use crate::harness::rng::Rng;
use std::time::Duration;
use tokio::task::{block_in_place, spawn_blocking};
use tokio::time::sleep;

/// Milliseconds of silence after which a replica takes over; about half of the faults last longer.
const NODE_TIMEOUT: u32 = 2_000;
const REPLICAS: usize = 1;
/// Prefix of the gateways' keys. With this prefix, a cluster has the relays' mark and the access changes on different
/// masters.
pub const PREFIX: &str = "chat";

pub enum Store {
    Single(Redis),
    Cluster(Cluster),
}

impl Store {
    pub async fn start(clustered: bool) -> Self {
        let start = move || {
            let kept = ["--save", "", "--appendonly", "yes", "--appendfsync", "always"];
            if clustered {
                Self::Cluster(Cluster::start_kept(3, REPLICAS, NODE_TIMEOUT, &kept))
            } else {
                Self::Single(Redis::start_on(free_port, &kept))
            }
        };
        spawn_blocking(start).await.expect("Redis")
    }

    /// # Panics
    /// With a cluster.
    pub fn single(&mut self) -> &mut Redis {
        match self {
            Self::Single(redis) => redis,
            Self::Cluster(_) => panic!("a fault of a single Redis"),
        }
    }

    fn cluster(&mut self) -> &mut Cluster {
        match self {
            Self::Single(_) => panic!("a fault of a cluster"),
            Self::Cluster(cluster) => cluster,
        }
    }

    pub fn has_ended(&mut self) -> bool {
        match self {
            Self::Single(redis) => redis.has_ended(),
            Self::Cluster(cluster) => cluster.nodes.iter_mut().any(Redis::has_ended),
        }
    }

    /// A master stands still. Past [`NODE_TIMEOUT`] the replica takes over.
    pub async fn stop_master(&mut self, world: &World, lasts: Duration, rng: &mut Rng) {
        let cluster = self.cluster();
        let master = block_in_place(|| cluster.owner(&key(world, rng)));
        cluster.nodes[master].pause();
        sleep(lasts).await;
        cluster.nodes[master].resume();
        block_in_place(|| cluster.wait_until_whole(REPLICAS));
    }

    /// A master is killed and starts again, as a master or, after a failover, as a replica.
    pub async fn kill_master(&mut self, world: &World, lasts: Duration, rng: &mut Rng) {
        let cluster = self.cluster();
        let master = block_in_place(|| cluster.owner(&key(world, rng)));
        cluster.nodes[master].kill();
        sleep(lasts).await;
        block_in_place(|| {
            cluster.nodes[master].restart();
            cluster.wait_until_whole(REPLICAS);
        });
    }

    /// A master hands the slots over to the replica, without loss.
    pub async fn fail_over(&mut self, world: &World, rng: &mut Rng) {
        let cluster = self.cluster();
        block_in_place(|| {
            let master = cluster.owner(&key(world, rng));
            cluster.fail_over(master);
            cluster.wait_until_whole(REPLICAS);
        });
    }
}

/// A key on the master that the fault is meant for: half the time the master of the access changes.
fn key(world: &World, rng: &mut Rng) -> String {
    match rng.below(6) {
        0..3 => format!("{PREFIX}:live:{{$access}}"),
        3 => format!("{PREFIX}:mark"),
        _ => format!("{PREFIX}:live:{{{}}}", world.rooms[rng.below(world.rooms.len())].channel),
    }
}
