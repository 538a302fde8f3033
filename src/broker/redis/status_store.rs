//! Users' statuses in Redis. Users are spread over buckets, with a script call per bucket.
//!
//! The keys of a bucket share a hash tag, so that a script may access them in a cluster too.

use super::link::MAX_COMMANDS;
use super::scripts::call;
use super::{RedisBroker, millis, wire};
use crate::broker::status_store::{BUCKETS, Choice, End, Lease, Mode, StatusStore, UserStatus, bucket};
use crate::broker::{Broker, BrokerError, Retention};
use async_trait::async_trait;
use redis::{Cmd, Script, Value};
use std::time::Duration;

/// Users per script call, so that no call blocks Redis for long.
const CHUNK: usize = 50;
/// Name that is reserved by a sweep.
const SWEEP: &str = "status sweep";

/// A lease, and the maximum number of the user's other connections.
pub(super) type Limited = (Lease, Option<usize>);

impl RedisBroker {
    fn status_call(&self, script: &Script, bucket: usize) -> Cmd {
        let retention = &self.retention;
        let mut command = call(script, &[self.keys().status_deadlines(bucket)]);
        command.arg(self.keys().status_live(bucket)).arg(millis(retention.presence_ttl).max(1));
        command.arg(millis(retention.status_grace)).arg(millis(retention.last_seen_ttl));
        command
    }

    /// Takes or renews leases, each with the limit of the user's other connections.
    pub(super) async fn take_leases(&self, leases: &[Limited]) -> Result<Vec<Option<Choice>>, BrokerError> {
        let script = &self.scripts.status_lease;
        let write = |command: &mut Cmd, (lease, limit): &Limited| {
            command.arg(self.keys().escaped(&lease.user).as_ref()).arg(&*lease.client).arg(u8::from(lease.idle));
            command.arg(age(lease.age)).arg(name(lease.choice.mode)).arg(lease.choice.at);
            command.arg(limit.map_or(-1, |limit| i64::try_from(limit).unwrap_or(i64::MAX)));
        };
        let call = |bucket| self.status_call(script, bucket);
        self.by_bucket(script, leases, |(lease, _)| &lease.user, (call, write), wire::read_leased).await
    }

    /// Calls the script once per bucket and chunk: `call` makes the call for a bucket, and `write` turns the bucket's
    /// items into arguments, in order. Returns the answers in the order of `items`.
    async fn by_bucket<T, A>(
        &self,
        script: &Script,
        items: &[T],
        user: impl Fn(&T) -> &str,
        (call, write): (impl Fn(usize) -> Cmd, impl Fn(&mut Cmd, &T)),
        read: impl Fn(&Value, usize) -> Option<Vec<A>>,
    ) -> Result<Vec<A>, BrokerError> {
        let mut buckets: Vec<Vec<usize>> = vec![Vec::new(); BUCKETS];
        for (i, item) in items.iter().enumerate() {
            buckets[bucket(user(item))].push(i);
        }
        let calls: Vec<(usize, &[usize])> = buckets
            .iter()
            .enumerate()
            .flat_map(|(bucket, items)| items.chunks(CHUNK).map(move |chunk| (bucket, chunk)))
            .collect();
        let mut answers: Vec<Option<A>> = items.iter().map(|_| None).collect();
        for calls in calls.chunks(MAX_COMMANDS) {
            let commands: Vec<Cmd> = calls
                .iter()
                .map(|(bucket, chunk)| {
                    let mut command = call(*bucket);
                    chunk.iter().for_each(|&i| write(&mut command, &items[i]));
                    command
                })
                .collect();
            for (value, (_, chunk)) in self.nodes.call(script, &commands).await?.iter().zip(calls) {
                for (answer, &i) in read(value, chunk.len()).ok_or_else(unreadable)?.into_iter().zip(*chunk) {
                    answers[i] = Some(answer);
                }
            }
        }
        answers.into_iter().collect::<Option<_>>().ok_or_else(unreadable)
    }
}

fn unreadable() -> BrokerError {
    BrokerError::Corrupt("a user's status".into())
}

/// Shortest time between two sweeps. A gateway calls after a thirtieth of a lease, or a second: alone, it sweeps every
/// time.
fn sweep_pause(retention: &Retention) -> Duration {
    (retention.presence_ttl / 40).min(Duration::from_millis(750))
}

fn age(age: Duration) -> u64 {
    millis(age)
}

fn name<T: serde::Serialize>(value: T) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

#[async_trait]
impl StatusStore for RedisBroker {
    async fn enter(&self, lease: &Lease, limit: Option<usize>) -> Result<Option<Choice>, BrokerError> {
        let lease = (lease.clone(), limit);
        if !self.clustered {
            return self.entering.call(lease).await;
        }
        // A failed master fails the requests of the master's own users only.
        self.take_leases(&[lease]).await?.pop().ok_or_else(unreadable)
    }

    async fn connections(&self, user: &str) -> Result<usize, BrokerError> {
        let script = &self.scripts.status_connections;
        let mut command = self.status_call(script, bucket(user));
        command.arg(self.keys().escaped(user).as_ref());
        wire::read_count(&self.call_one(script, command).await?).ok_or_else(unreadable)
    }

    async fn lease(&self, leases: &[Lease]) -> Result<Vec<Choice>, BrokerError> {
        let leases: Vec<Limited> = leases.iter().map(|lease| (lease.clone(), None)).collect();
        self.take_leases(&leases).await?.into_iter().collect::<Option<_>>().ok_or_else(unreadable)
    }

    async fn end(&self, ends: &[End]) -> Result<(), BrokerError> {
        let write = |command: &mut Cmd, end: &End| {
            command.arg(self.keys().escaped(&end.user).as_ref()).arg(&*end.client);
            command.arg(age(end.age)).arg(u8::from(end.closed));
        };
        let done = |_: &Value, count| Some(vec![(); count]);
        let script = &self.scripts.status_end;
        let call = |bucket| self.status_call(script, bucket);
        self.by_bucket(script, ends, |end| &end.user, (call, write), done).await.map(drop)
    }

    async fn choose(&self, user: &str, mode: Option<Mode>) -> Result<(Choice, UserStatus), BrokerError> {
        let script = &self.scripts.status_choose;
        let mut command = self.status_call(script, bucket(user));
        command.arg(self.keys().escaped(user).as_ref()).arg(mode.map(name).unwrap_or_default());
        wire::read_chosen(&self.call_one(script, command).await?).ok_or_else(unreadable)
    }

    async fn statuses(&self, users: &[String]) -> Result<Vec<Option<UserStatus>>, BrokerError> {
        let write = |command: &mut Cmd, user: &String| {
            command.arg(self.keys().escaped(user).as_ref());
        };
        let script = &self.scripts.status_get;
        let call = |bucket| self.status_call(script, bucket);
        self.by_bucket(script, users, |user| user, (call, write), wire::read_states).await
    }

    /// Does nothing soon after another gateway's sweep. In a cluster every gateway sweeps, and so notices the failure of
    /// any master.
    async fn sweep(&self) -> Result<(), BrokerError> {
        if !self.clustered && !self.claim(SWEEP, sweep_pause(&self.retention)).await? {
            return Ok(());
        }
        let script = &self.scripts.status_sweep;
        let commands: Vec<Cmd> = (0..BUCKETS).map(|bucket| self.status_call(script, bucket)).collect();
        self.nodes.call(script, &commands).await.map(drop)
    }
}
