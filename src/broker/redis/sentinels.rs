//! Redis Sentinel: discovery of a service's master, from all configured sentinels.
//!
//! The answer with the highest configuration epoch (the latest failover) wins. The sentinel client of the `redis` crate
//! takes the first answer, possibly outdated after a network split, and does not report replicas, whose confirmation a
//! publication waits for.

use super::address::Endpoint;
use super::link::CommandLink;
use crate::broker::BrokerError;
use futures_util::future::join_all;
use redis::{Cmd, RedisConnectionInfo, Value};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Limit for one sentinel's answer.
const TIMEOUT: Duration = Duration::from_secs(1);

pub struct Sentinels {
    service: String,
    sentinels: Vec<(Endpoint, CommandLink)>,
    /// Login to the master.
    login: RedisConnectionInfo,
}

/// The master according to the sentinels.
pub struct Master {
    pub endpoint: Endpoint,
    /// True while at least one replica is up.
    pub has_replica: bool,
}

/// The answer of one sentinel.
#[derive(Debug, PartialEq)]
struct Report {
    epoch: u64,
    /// `host:port` of the master.
    master: String,
    has_replica: bool,
}

impl Sentinels {
    pub fn start(service: String, endpoints: Vec<Endpoint>, login: RedisConnectionInfo) -> Self {
        // A separate counter: a new connection to a sentinel says nothing about Redis's data.
        let counter = Arc::default();
        let start = |endpoint: Endpoint| {
            let link = CommandLink::start(endpoint.clone(), Arc::clone(&counter), "a Redis sentinel");
            (endpoint, link)
        };
        Self { service, sentinels: endpoints.into_iter().map(start).collect(), login }
    }

    /// Fails with the last sentinel's error when no sentinel knows the master.
    pub async fn master(&self) -> Result<Master, String> {
        let commands = ["MASTER", "REPLICAS"].map(|word| {
            let mut command = redis::cmd("SENTINEL");
            command.arg(word).arg(&self.service);
            command
        });
        let commands: Vec<&Cmd> = commands.iter().collect();
        let answers = self.sentinels.iter().map(async |(endpoint, link)| {
            let asked = timeout(TIMEOUT, link.attempt(None, &commands, false)).await;
            let answers = match asked {
                Ok(Ok(answers)) => Ok(answers),
                Ok(Err(BrokerError::Unavailable(why))) => Err(advised(why)),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("no answer in time".to_owned()),
            };
            let report = answers.and_then(|answers| self.report(&answers));
            report.map(|report| (report, endpoint)).map_err(|why| format!("sentinel {}: {why}", endpoint.name()))
        });
        let mut best: Option<(Report, &Endpoint)> = None;
        let mut trouble = "no sentinel was named".to_owned();
        for answer in join_all(answers).await {
            match answer {
                Ok(found) if best.as_ref().is_none_or(|(best, _)| found.0.epoch > best.epoch) => best = Some(found),
                Ok(_) => {}
                Err(why) => trouble = why,
            }
        }
        let (report, sentinel) = best.ok_or(trouble)?;
        let endpoint = sentinel.at(&report.master, &self.login).ok_or("a sentinel names a master without a port")?;
        Ok(Master { endpoint, has_replica: report.has_replica })
    }

    fn report(&self, answers: &[Value]) -> Result<Report, String> {
        let [master, replicas] = answers else { return Err("unexpected number of answers".into()) };
        if let Value::ServerError(error) = master {
            return Err(match error.code() {
                "NOAUTH" | "WRONGPASS" | "NOPERM" => advised(error.to_string()),
                _ if error.details().is_some_and(|text| text.contains("unknown command")) => {
                    "this is Redis itself and no sentinel; sentinels listen on port 26379 by default".into()
                }
                _ => format!("{error}; `redis_url` names the service {:?}", self.service),
            });
        }
        read(master, replicas).ok_or_else(|| "unreadable answer".to_owned())
    }
}

/// Adds advice to login errors.
fn advised(why: String) -> String {
    let is_about_login = ["NOAUTH", "WRONGPASS", "NOPERM", "uthentication"].iter().any(|word| why.contains(word));
    if is_about_login { format!("{why}; see sentinel_user and sentinel_pass in `redis_url`") } else { why }
}

/// Parses the answers of `SENTINEL MASTER` and `SENTINEL REPLICAS`.
fn read(master: &Value, replicas: &Value) -> Option<Report> {
    let fields = fields(master)?;
    let field = |name| fields.get(name).copied();
    let (host, port, epoch) = (field("ip")?, field("port")?, field("config-epoch")?);
    let is_up = |replica: &Value| {
        let flags = self::fields(replica).and_then(|fields| fields.get("flags").copied());
        flags.is_some_and(|flags| !flags.split(',').any(|flag| matches!(flag, "s_down" | "o_down")))
    };
    let has_replica = matches!(replicas, Value::Array(replicas) if replicas.iter().any(is_up));
    Some(Report { epoch: epoch.parse().ok()?, master: format!("{host}:{port}"), has_replica })
}

/// Parses a flat list of alternating names and values.
fn fields(value: &Value) -> Option<HashMap<&str, &str>> {
    let Value::Array(items) = value else { return None };
    items.chunks_exact(2).map(|pair| Some((text(&pair[0])?, text(&pair[1])?))).collect()
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(text) => std::str::from_utf8(text).ok(),
        _ => None,
    }
}

/// Number of replicas in sync with a master, from the answer of `ROLE`; `None` for a replica.
pub fn followers(role: &Value) -> Option<usize> {
    match role {
        Value::Array(parts) => match parts.as_slice() {
            [Value::BulkString(role), _, Value::Array(replicas), ..] if role == b"master" => Some(replicas.len()),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(words: &[&str]) -> Value {
        Value::Array(words.iter().map(|word| Value::BulkString(word.as_bytes().to_vec())).collect())
    }

    #[test]
    fn an_answer_is_read() {
        let master =
            list(&["name", "main", "ip", "::1", "port", "6379", "flags", "master,s_down", "config-epoch", "7"]);
        for (flags, has_replica) in [("slave", true), ("slave,disconnected", true), ("s_down,slave", false)] {
            let replicas = Value::Array(vec![list(&["flags", "slave,o_down"]), list(&["name", "x", "flags", flags])]);
            let report = Report { epoch: 7, master: "::1:6379".into(), has_replica };
            assert_eq!(read(&master, &replicas), Some(report), "{flags}");
        }
        assert!(!read(&master, &Value::Nil).unwrap().has_replica);
        for wrong in [Value::Nil, list(&["ip", "a", "port", "1"]), list(&["ip", "a", "port", "1", "config-epoch", "x"])]
        {
            assert_eq!(read(&wrong, &Value::Nil), None);
        }
    }

    #[test]
    fn a_role_is_read() {
        let role = |word: &str, replicas| {
            Value::Array(vec![Value::BulkString(word.into()), Value::Int(3), Value::Array(replicas)])
        };
        assert_eq!(followers(&role("master", vec![list(&["a", "1", "0"])])), Some(1));
        assert_eq!(followers(&role("master", vec![])), Some(0));
        assert_eq!(followers(&role("slave", vec![])), None);
        assert_eq!(followers(&Value::Nil), None);
    }
}
