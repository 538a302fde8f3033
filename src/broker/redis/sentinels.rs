//! Redis Sentinel: discovery of a service's master, from all configured sentinels.
//!
//! The answer with the highest configuration epoch (the latest failover) wins. The sentinel client of the `redis` crate
//! takes the first answer, possibly outdated after a network split, and does not report replicas, whose confirmation a
//! publication waits for.

use super::address::Endpoint;
use super::error::{LinkError, SentinelError, SentinelFailure};
use super::link::CommandLink;
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
struct MasterReport {
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
    pub async fn master(&self) -> Result<Master, SentinelError> {
        let commands = ["MASTER", "REPLICAS"].map(|word| {
            let mut command = redis::cmd("SENTINEL");
            command.arg(word).arg(&self.service);
            command
        });
        let commands: Vec<&Cmd> = commands.iter().collect();
        let answers = self.sentinels.iter().map(async |(endpoint, link)| {
            let asked = timeout(TIMEOUT, link.attempt(None, &commands, false)).await;
            let answers = asked.map_err(|_| SentinelFailure::Silent).and_then(|answered| Ok(answered?));
            let report = answers.and_then(|answers| self.report(&answers));
            let failed = |cause| SentinelError::Failed { name: endpoint.name(), cause };
            report.map(|report| (report, endpoint)).map_err(failed)
        });
        let mut best: Option<(MasterReport, &Endpoint)> = None;
        let mut trouble = SentinelError::NoSentinels;
        for answer in join_all(answers).await {
            match answer {
                Ok(found) if best.as_ref().is_none_or(|(best, _)| found.0.epoch > best.epoch) => best = Some(found),
                Ok(_) => {}
                Err(why) => trouble = why,
            }
        }
        let (report, sentinel) = best.ok_or(trouble)?;
        let endpoint = sentinel.at(&report.master, &self.login).ok_or(SentinelError::NoPort)?;
        Ok(Master { endpoint, has_replica: report.has_replica })
    }

    fn report(&self, answers: &[Value]) -> Result<MasterReport, SentinelFailure> {
        let [master, replicas] = answers else { return Err(SentinelFailure::Unreadable) };
        if let Value::ServerError(error) = master {
            let is_unknown = error.details().is_some_and(|text| text.contains("unknown command"));
            return Err(match LinkError::of_reply(error) {
                LinkError::Login(why) => SentinelFailure::Login(why),
                _ if is_unknown => SentinelFailure::NotASentinel,
                refused => SentinelFailure::Refused { reply: refused.to_string(), service: self.service.clone() },
            });
        }
        read(master, replicas).ok_or(SentinelFailure::Unreadable)
    }
}

/// Parses the answers of `SENTINEL MASTER` and `SENTINEL REPLICAS`.
fn read(master: &Value, replicas: &Value) -> Option<MasterReport> {
    let fields = fields(master)?;
    let field = |name| fields.get(name).copied();
    let (host, port, epoch) = (field("ip")?, field("port")?, field("config-epoch")?);
    let is_up = |replica: &Value| {
        let flags = self::fields(replica).and_then(|fields| fields.get("flags").copied());
        flags.is_some_and(|flags| !flags.split(',').any(|flag| matches!(flag, "s_down" | "o_down")))
    };
    let has_replica = matches!(replicas, Value::Array(replicas) if replicas.iter().any(is_up));
    Some(MasterReport { epoch: epoch.parse().ok()?, master: format!("{host}:{port}"), has_replica })
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
            let report = MasterReport { epoch: 7, master: "::1:6379".into(), has_replica };
            assert_eq!(read(&master, &replicas), Some(report), "{flags}");
        }
        assert!(!read(&master, &Value::Nil).unwrap().has_replica);
        for wrong in [Value::Nil, list(&["ip", "a", "port", "1"]), list(&["ip", "a", "port", "1", "config-epoch", "x"])]
        {
            assert_eq!(read(&wrong, &Value::Nil), None);
        }
    }

    #[test]
    fn a_refusal_names_the_remedy() {
        let sentinels = Sentinels { service: "main".into(), sentinels: vec![], login: RedisConnectionInfo::default() };
        let refused = |reply: &str| {
            let reply = redis::parse_redis_value(format!("-{reply}\r\n").as_bytes()).unwrap();
            sentinels.report(&[reply, Value::Nil]).unwrap_err().to_string()
        };
        for (reply, remedy) in [
            ("NOAUTH Authentication required.", "see sentinel_user and sentinel_pass"),
            ("WRONGPASS invalid username-password pair", "see sentinel_user and sentinel_pass"),
            ("NOPERM this user has no permissions", "see sentinel_user and sentinel_pass"),
            ("ERR unknown command 'SENTINEL'", "sentinels listen on port 26379"),
            ("ERR No such master with that name", "names the service \"main\""),
        ] {
            let told = refused(reply);
            assert!(told.contains(remedy), "{reply}: {told}");
        }
        assert_eq!(sentinels.report(&[]), Err(SentinelFailure::Unreadable));
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
