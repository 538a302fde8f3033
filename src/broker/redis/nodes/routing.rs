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

/// How long a replica may take to confirm what was published.
const REPLICA_TIMEOUT: Duration = Duration::from_millis(500);
/// Rounds in which every call failed with NOSCRIPT before giving up. Two would do, were nobody flushing the scripts at the
/// same time.
const ATTEMPTS: usize = 4;

/// Commands for one node, by their numbers.
struct Group {
    node: Arc<Node>,
    asking: bool,
    replicated: bool,
    commands: Vec<usize>,
}

/// What to do about an answer that is none.
enum Detour {
    LoadScript,
    Moved,
    Ask(String),
    Wait,
}

impl Links {
    /// Sends commands, grouped by node, until each has its answer. `fence`: fails unless all connections were made by the
    /// time of this number. `replicated`: also waits for one replica of each node that has any.
    pub async fn carry_out(
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
        // Where to ask for what is on its way to another node.
        let mut elsewhere: HashMap<usize, String> = HashMap::new();
        let deadline = Instant::now() + REDIRECT_TIMEOUT;
        let mut in_vain = 0;
        let mut wait = redis::cmd("WAIT");
        wait.arg(1).arg(REPLICA_TIMEOUT.as_millis() as u64);
        while !left.is_empty() {
            let mut changes = self.slots.subscribe();
            let groups = self.group(&left, &slots, &mut elsewhere)?;
            if fence.is_some_and(|fence| self.since.load(Ordering::Acquire) > fence) {
                return Err(unavailable("slots have moved"));
            }
            let results = join_all(groups.iter().map(async |group| {
                let mut commands: Vec<&Cmd> = group.commands.iter().map(|&i| &commands[i]).collect();
                let wait = (replicated && group.replicated).then_some(&wait);
                commands.extend(wait);
                let mut answers = group.node.attempt(lane, fence, &commands, group.asking).await?;
                if wait.is_some() && !matches!(answers.pop(), Some(Value::Int(1..))) {
                    return Err(unavailable("no replica has confirmed it"));
                }
                Ok(answers)
            }));
            let results = results.await;
            let before = left.len();
            left.clear();
            let (mut unloaded, mut moved) = (Vec::new(), false);
            for (group, result) in groups.iter().zip(results) {
                let result = result.inspect_err(|_| self.common.outdated.notify_one())?;
                // What follows one that was not carried out must not overtake it.
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
                    return Err(unavailable("Redis keeps losing its scripts"));
                };
                node.link.load(script).await?;
            }
            if moved {
                if Instant::now() > deadline {
                    return Err(unavailable("the cluster is changing"));
                }
                self.common.outdated.notify_one();
                let _ = timeout(LOOK_PAUSE, changes.changed()).await;
            }
        }
        checked(answers.into_iter().flatten().collect())
    }

    /// By node, each group in the order of the commands.
    fn group(
        &self,
        commands: &[usize],
        slots: &[u16],
        elsewhere: &mut HashMap<usize, String>,
    ) -> Result<Vec<Group>, BrokerError> {
        let map = self.slots.borrow().clone();
        let mut groups: BTreeMap<(String, bool), Vec<usize>> = BTreeMap::new();
        for &i in commands {
            // To be asked there once: the next answer may be another.
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
        groups.ok_or_else(|| unavailable("a node of the cluster has just gone"))
    }

    fn detour(&self, answer: &Value) -> Option<Detour> {
        let Value::ServerError(error) = answer else { return None };
        match error.code() {
            "NOSCRIPT" => Some(Detour::LoadScript),
            "MOVED" if self.clustered => Some(Detour::Moved),
            "TRYAGAIN" | "CLUSTERDOWN" if self.clustered => Some(Detour::Wait),
            // A former master, or one that has just lost its connection to the new one.
            "READONLY" | "MASTERDOWN" if self.sentinels.is_some() => Some(Detour::Wait),
            "ASK" if self.clustered => {
                let address = error.details()?.rsplit(' ').next()?;
                // One that owns no slot yet is not known here: soon it will.
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
                "WRONGTYPE" => BrokerError::Corrupt("a key of another type".into()),
                "MOVED" => unavailable("it belongs to a cluster: its URL has to begin with redis-cluster://"),
                _ => BrokerError::Unavailable(error.to_string()),
            });
        }
    }
    Ok(answers)
}
