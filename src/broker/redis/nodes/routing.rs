//! Routing of commands to the owners of their slots, with retries after a lost script and after a redirection.

use super::super::slots;
use super::links::{Lane, Links, Node, unavailable};
use super::{LOOK_PAUSE, REDIRECT_TIMEOUT};
use crate::broker::BrokerError;
use futures_util::future::join_all;
use redis::{Cmd, Script, Value};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How long a replica may take to confirm publications.
const REPLICA_TIMEOUT: Duration = Duration::from_millis(500);
/// Maximum rounds in which every call fails with NOSCRIPT. Two would be enough if no client flushed the scripts at the
/// same time.
const ATTEMPTS: usize = 4;

/// Commands for one node, as indices.
struct Group {
    node: Arc<Node>,
    asking: bool,
    replicated: bool,
    commands: Vec<usize>,
}

/// Next step after an answer that is not final.
enum Detour {
    LoadScript,
    Moved,
    Ask(String),
    Wait,
}

impl Links {
    /// Sends commands, grouped by node, until each has an answer. `fence`: fails if a connection, or the last change of
    /// owners, is newer than the number. `replicated`: also waits for one replica, on nodes with replicas.
    pub async fn route(
        &self,
        fence: Option<u64>,
        script: Option<&Script>,
        commands: &[Cmd],
        lane: Lane,
        replicated: bool,
    ) -> Result<Vec<Value>, BrokerError> {
        let slots: Vec<u16> = commands.iter().map(slots::of_command).collect();
        let mut answers: Vec<Option<Value>> = vec![None; commands.len()];
        let mut left: Vec<usize> = (0..commands.len()).collect();
        // Target nodes after ASK redirections, by command.
        let mut elsewhere: HashMap<usize, String> = HashMap::new();
        let deadline = Instant::now() + REDIRECT_TIMEOUT;
        let mut in_vain = 0;
        let mut wait = redis::cmd("WAIT");
        wait.arg(1).arg(REPLICA_TIMEOUT.as_millis() as u64);
        while !left.is_empty() {
            let mut changes = self.slots.subscribe();
            let groups = self.group(&left, &slots, &mut elsewhere)?;
            if fence.is_some_and(|fence| self.since.load(Ordering::Acquire) > fence) {
                return Err(unavailable("slots have moved to another node"));
            }
            let results = join_all(groups.iter().map(async |group| {
                let mut commands: Vec<&Cmd> = group.commands.iter().map(|&i| &commands[i]).collect();
                let wait = (replicated && group.replicated).then_some(&wait);
                commands.extend(wait);
                let mut answers = group.node.attempt(lane, fence, &commands, group.asking).await?;
                if wait.is_some() && !matches!(answers.pop(), Some(Value::Int(1..))) {
                    return Err(unavailable("no replica confirmed the write in time"));
                }
                Ok(answers)
            }));
            let results = results.await;
            let before = left.len();
            left.clear();
            let (mut unloaded, mut moved) = (Vec::new(), false);
            for (group, result) in groups.iter().zip(results) {
                let result = result.inspect_err(|_| self.common.outdated.notify_one())?;
                // After a command that was not carried out, later commands of the same slot are sent again, to keep the
                // order.
                let mut held_back = HashSet::new();
                for (&i, answer) in group.commands.iter().zip(result) {
                    match self.detour(&answer) {
                        None if !held_back.contains(&slots[i]) => {
                            answers[i] = Some(answer);
                            continue;
                        }
                        None => {}
                        Some(Detour::LoadScript) => unloaded.push(Arc::clone(&group.node)),
                        Some(Detour::Ask(address)) => drop(elsewhere.insert(i, address)),
                        Some(Detour::Moved | Detour::Wait) => moved = true,
                    }
                    held_back.insert(slots[i]);
                    left.push(i);
                }
            }
            left.sort_unstable();
            unloaded.dedup_by(|a, b| Arc::ptr_eq(a, b));
            in_vain = if left.len() == before { in_vain + usize::from(!unloaded.is_empty()) } else { 0 };
            for node in unloaded {
                let Some(script) = script.filter(|_| in_vain < ATTEMPTS) else {
                    return Err(unavailable("Redis repeatedly lost the gateway's scripts; does a client flush them?"));
                };
                node.link.load(script).await?;
            }
            if moved {
                if Instant::now() > deadline {
                    return Err(unavailable("the nodes of Redis are still changing roles or slots"));
                }
                self.common.outdated.notify_one();
                let _ = timeout(LOOK_PAUSE, changes.changed()).await;
            }
        }
        checked(answers.into_iter().flatten().collect())
    }

    /// Groups commands by node; every group keeps the commands' order.
    fn group(
        &self,
        commands: &[usize],
        slots: &[u16],
        elsewhere: &mut HashMap<usize, String>,
    ) -> Result<Vec<Group>, BrokerError> {
        let map = self.slots.borrow().clone();
        let mut groups: BTreeMap<(String, bool), Vec<usize>> = BTreeMap::new();
        for &i in commands {
            // An ASK redirection holds for a single attempt.
            let key = match elsewhere.remove(&i) {
                Some(address) => (address, true),
                None => {
                    let owner = map.owner(slots[i]);
                    (owner.ok_or_else(|| self.unknown())?.to_owned(), false)
                }
            };
            groups.entry(key).or_default().push(i);
        }
        let group = |((name, asking), commands): ((String, bool), _)| {
            Some(Group { node: self.node(&name)?, asking, replicated: map.is_replicated(&name), commands })
        };
        let groups: Option<Vec<Group>> = groups.into_iter().map(group).collect();
        groups.ok_or_else(|| unavailable("a node has just left the cluster"))
    }

    fn detour(&self, answer: &Value) -> Option<Detour> {
        let Value::ServerError(error) = answer else { return None };
        match error.code() {
            "NOSCRIPT" => Some(Detour::LoadScript),
            "MOVED" if self.clustered => Some(Detour::Moved),
            "TRYAGAIN" | "CLUSTERDOWN" if self.clustered => Some(Detour::Wait),
            // A former master, or a replica that has just lost its connection to the new master.
            "READONLY" | "MASTERDOWN" if self.sentinels.is_some() => Some(Detour::Wait),
            "ASK" if self.clustered => {
                let address = error.details()?.rsplit(' ').next()?;
                // A node without slots is unknown here, but the topology will soon list the node.
                Some(if self.node(address).is_some() { Detour::Ask(address.to_owned()) } else { Detour::Wait })
            }
            _ => None,
        }
    }
}

pub fn checked(answers: Vec<Value>) -> Result<Vec<Value>, BrokerError> {
    for answer in &answers {
        if let Value::ServerError(error) = answer {
            return Err(match error.code() {
                "CONFLICT" => BrokerError::Conflict,
                "WRONGTYPE" => BrokerError::Corrupt("a key has an unexpected type".into()),
                "ERR" => BrokerError::Corrupt(error.to_string()),
                "MOVED" => unavailable("this Redis belongs to a cluster: `redis_url` must begin with redis-cluster://"),
                _ => BrokerError::Unavailable(error.to_string()),
            });
        }
    }
    Ok(answers)
}
