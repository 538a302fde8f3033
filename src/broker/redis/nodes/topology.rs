//! Discovery of the slots' owners, every second and at once after a failure: from all nodes of a cluster, or from the
//! sentinels and the master named by them.

use super::super::error::{LinkError, MasterError, TopologyError};
use super::super::sentinels::{self, Master, Sentinels};
use super::super::slots::SlotMap;
use super::links::{Links, Node};
use super::{LOOK_INTERVAL, LOOK_PAUSE};
use futures_util::future::join_all;
use redis::{Cmd, Value};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::time::{Duration, Instant, sleep, timeout};

/// Time in which the replicas of a new master begin to follow the master. Meanwhile publications wait for a replica
/// that is up: another failover would lose unconfirmed publications. Past this time, a replica that cannot follow the
/// master holds up no publication.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(10);

impl Links {
    /// Asks all known nodes for the owners of the slots. The answer with the latest election wins.
    async fn look(&self) {
        let nodes: Vec<(String, Arc<Node>)> =
            self.table().iter().map(|(name, node)| (name.clone(), Arc::clone(node))).collect();
        let commands = ["INFO", "SLOTS"].map(|word| {
            let mut command = redis::cmd("CLUSTER");
            command.arg(word);
            command
        });
        let commands: Vec<&Cmd> = commands.iter().collect();
        let answers = join_all(nodes.iter().map(async |(name, node)| {
            let asked = timeout(LOOK_INTERVAL, node.link.attempt(None, &commands, false)).await;
            let answers = asked.ok()?.map_err(|error| self.set_trouble(error.into())).ok()?;
            let [info, slots] = answers.as_slice() else { return None };
            match info {
                Value::ServerError(error) if error.details().is_some_and(|text| text.contains("support disabled")) => {
                    self.set_trouble(TopologyError::NotACluster);
                }
                Value::ServerError(error) => self.set_trouble(LinkError::of_reply(error).into()),
                _ => self.set_trouble(TopologyError::Incomplete),
            }
            let host = name.rsplit_once(':').map_or(name.as_str(), |(host, _)| host);
            Some((latest_epoch(info)?, SlotMap::read(slots, host)?))
        }));
        // On equal epochs, the map with more replicas is newer: nodes learn of replicas after elections.
        let best = answers.await.into_iter().flatten().max_by_key(|(epoch, map)| (*epoch, map.replicas()));
        match best {
            Some((_, map)) => self.adopt(map),
            // All known nodes may be gone.
            None => self.add_seeds(),
        }
    }

    /// Asks the sentinels for the master, and the named node for its role. `followed`: the last answering master, and
    /// the time of its first answer.
    async fn look_for_master(&self, sentinels: &Sentinels, followed: &mut Option<(String, Instant)>) {
        let Master { endpoint, has_replica } = match sentinels.master().await {
            Ok(master) => master,
            Err(error) => return self.set_trouble(error.into()),
        };
        let (name, node) = (endpoint.name(), self.add(&endpoint));
        let owner = self.slots.borrow().addresses().first().cloned();
        // Drop earlier candidates that turned out not to be masters.
        self.table().retain(|known, _| *known == name || Some(known) == owner.as_ref());
        let role = redis::cmd("ROLE");
        let asked = timeout(LOOK_INTERVAL, node.link.attempt(None, &[&role], false)).await;
        let followers = match asked.as_ref().map(|answers| answers.as_deref()) {
            Ok(Ok([Value::ServerError(error)])) => Err(LinkError::of_reply(error).into()),
            Ok(Ok([role])) => sentinels::followers(role).ok_or(MasterError::NotAMaster),
            Ok(Ok(_)) => Err(MasterError::Unexpected),
            Ok(Err(error)) => Err(error.clone().into()),
            Err(_) => Err(MasterError::Silent),
        };
        match followers {
            Ok(followers) => {
                let same = followed.take().filter(|(known, _)| *known == name);
                let (_, since) = followed.insert(same.unwrap_or_else(|| (name.clone(), Instant::now())));
                // ROLE lists a silent replica for another minute; the sentinels notice the silence earlier.
                let is_replicated = has_replica && (followers > 0 || since.elapsed() < ATTACH_TIMEOUT);
                self.adopt(SlotMap::all_of_master(name, is_replicated));
            }
            Err(cause) => {
                // A master that restarts has to be followed anew.
                *followed = None;
                self.set_trouble(TopologyError::Master { name, cause });
            }
        }
    }

    fn adopt(&self, map: SlotMap) {
        let current = self.slots.borrow().clone();
        if *current == map {
            return;
        }
        if current.same_owners(&map) {
            // Only the replicas have changed.
            self.slots.send_replace(Arc::new(map));
            return;
        }
        for name in map.addresses() {
            if let Some(endpoint) = self.seeds.first().and_then(|seed| seed.at(name, &self.login)) {
                self.add(&endpoint);
            }
        }
        if self.sentinels.is_some() {
            tracing::info!(address = map.addresses().first(), "Redis has a new master");
        } else {
            tracing::info!(
                nodes = map.addresses().len(),
                complete = map.is_complete(),
                "slots of the Redis cluster have new owners"
            );
        }
        // Before any command goes to the new owners.
        self.since.store(self.counter.fetch_add(1, Ordering::AcqRel) + 1, Ordering::Release);
        let owners: HashSet<String> = map.addresses().iter().cloned().collect();
        self.slots.send_replace(Arc::new(map));
        self.table().retain(|name, _| owners.contains(name));
    }
}

/// Keeps the owners of the slots up to date, for as long as the broker lives.
pub async fn look_out(links: Arc<Links>) {
    let mut followed = None;
    loop {
        match &links.sentinels {
            Some(sentinels) => links.look_for_master(sentinels, &mut followed).await,
            None => links.look().await,
        }
        sleep(LOOK_PAUSE).await;
        let _ = timeout(LOOK_INTERVAL, links.common.outdated.notified()).await;
    }
}

/// The cluster's epoch as a node knows it. `None` for a node that is cut off from the cluster, whose view may be
/// outdated.
fn latest_epoch(info: &Value) -> Option<u64> {
    let Value::BulkString(info) = info else { return None };
    let info = std::str::from_utf8(info).ok()?;
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    field("cluster_state").filter(|state| *state == "ok")?;
    field("cluster_current_epoch")?.parse().ok()
}
