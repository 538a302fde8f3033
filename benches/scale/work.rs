//! Kinds of work, and the cost for every gateway, the simulated Redis and PocketBase.

use crate::Options;
use crate::cpu;
use crate::harness::client::Client;
use crate::simulated_redis::{Command, Traffic};
use crate::stage::{Stage, UPDATES};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::time::{MissedTickBehavior, interval, sleep};

/// Time between two looks at the CPU of PocketBase, while waiting for the end of the work.
const LOOK: Duration = Duration::from_millis(200);
/// CPU time of PocketBase in a look, up to which PocketBase counts as idle.
const CALM: Duration = Duration::from_millis(8);
/// Limit of the wait for the end of the work.
const SETTLING: Duration = Duration::from_secs(15);

/// Counters of CPU time and traffic at a moment.
struct Snapshot {
    at: Instant,
    gateways: Vec<Duration>,
    pocketbase: Duration,
    traffic: Traffic,
}

impl Snapshot {
    fn of(stage: &Stage) -> Self {
        Self {
            at: Instant::now(),
            gateways: stage.gateways.iter().map(|gateway| gateway.cpu()).collect(),
            pocketbase: cpu::of_process(stage.site.pocketbase.process.pid()),
            traffic: stage.redis.traffic(),
        }
    }

    fn until_now(&self, stage: &Stage) -> Usage {
        let now = Self::of(stage);
        let micros = |now: Duration, before: Duration| (now.saturating_sub(before)).as_secs_f64() * 1e6;
        let all: Vec<f64> =
            now.gateways.iter().zip(&self.gateways).map(|(now, before)| micros(*now, *before)).collect();
        let others = &all[(stage.concerned() + 1)..];
        Usage {
            seconds: (now.at - self.at).as_secs_f64(),
            relay: all[0],
            concerned: all[stage.concerned()],
            other: others.iter().sum::<f64>() / others.len().max(1) as f64,
            pocketbase: micros(now.pocketbase, self.pocketbase),
            calls: 0.0,
            traffic: now.traffic - self.traffic,
        }
    }
}

/// Usage of a time, or of an event. CPU in microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub seconds: f64,
    /// The gateway with the hooks' posts.
    pub relay: f64,
    /// The gateway with the concerned user or room.
    pub concerned: f64,
    /// The mean of the other gateways.
    pub other: f64,
    pub pocketbase: f64,
    /// Calls of PocketBase by all gateways.
    pub calls: f64,
    pub traffic: Traffic,
}

impl Usage {
    /// The part of an event, without the work of an idle installation in the same time.
    fn each(self, events: usize, idle: &Self) -> Self {
        let part = |all: f64, idle_each_second: f64| (all - idle_each_second * self.seconds).max(0.0) / events as f64;
        let traffic = |field: fn(&Traffic) -> f64| part(field(&self.traffic), field(&idle.traffic));
        let mut commands = self.traffic.commands;
        for (kind, count) in commands.iter_mut().enumerate() {
            *count = part(*count, idle.traffic.commands[kind]);
        }
        Self {
            seconds: self.seconds / events as f64,
            relay: part(self.relay, idle.relay),
            concerned: part(self.concerned, idle.concerned),
            other: part(self.other, idle.other),
            pocketbase: part(self.pocketbase, idle.pocketbase),
            calls: part(self.calls, idle.calls),
            traffic: Traffic { commands, messages: traffic(|it| it.messages), bytes: traffic(|it| it.bytes) },
        }
    }

    fn per_second(self) -> Self {
        self.each_of(self.seconds)
    }

    fn each_of(self, parts: f64) -> Self {
        let Self { seconds, relay, concerned, other, pocketbase, calls, traffic } = self;
        let commands = traffic.commands.map(|count| count / parts);
        let traffic = Traffic { commands, messages: traffic.messages / parts, bytes: traffic.bytes / parts };
        Self {
            seconds: seconds / parts,
            relay: relay / parts,
            concerned: concerned / parts,
            other: other / parts,
            pocketbase: pocketbase / parts,
            calls: calls / parts,
            traffic,
        }
    }
}

/// A kind of work that begins with an event of PocketBase.
pub struct Work {
    pub name: &'static str,
    /// Share of the usual rate, for work that keeps PocketBase busy.
    share: f64,
    /// The event with this number, without `seq`.
    event: fn(&Stage, usize) -> Value,
}

/// Without subscribers of updates channels.
pub const WORK: &[Work] = &[
    Work {
        name: "access change of a user",
        share: 1.0,
        event: |stage, number| access(&[("user", user(stage, number))], "user"),
    },
    Work { name: "access change of a user in a room", share: 1.0, event: membership },
    Work {
        name: "access change of a room",
        share: 1.0,
        event: |stage, _| access(&[("channel", room(stage))], "record"),
    },
    Work { name: "changed rule", share: 0.01, event: |_, _| access(&[("namespace", "room".to_owned())], "related") },
    Work { name: "publication into a room of one gateway", share: 1.0, event: |stage, _| publication(room(stage)) },
    Work { name: "publication into the hot room", share: 0.25, event: |stage, _| publication(stage.hot()) },
];

/// With one subscriber of the updates channel on each gateway.
pub const WORK_WITH_UPDATES: &[Work] = &[
    Work { name: "updates channel: access change of a user in a room", share: 1.0, event: membership },
    Work {
        name: "updates channel: record with another title",
        share: 0.25,
        event: |stage, _| record(stage, "update", json!([])),
    },
    Work { name: "updates channel: new record", share: 0.025, event: |stage, _| record(stage, "create", json!([])) },
    Work {
        name: "updates channel: record with an access change",
        share: 0.025,
        event: |stage, _| record(stage, "update", json!([{"cause": "record", "channel": room(stage)}])),
    },
];

fn user(stage: &Stage, number: usize) -> String {
    stage.user(stage.concerned(), number).id.clone()
}

fn room(stage: &Stage) -> String {
    stage.room(stage.concerned())
}

fn access(scope: &[(&str, String)], cause: &str) -> Value {
    let mut change = json!({"cause": cause});
    for (name, value) in scope {
        change[*name] = value.as_str().into();
    }
    json!({"channels": [], "data": null, "access": [change]})
}

fn membership(stage: &Stage, number: usize) -> Value {
    access(&[("user", user(stage, number)), ("channel", room(stage))], "member")
}

/// A message of 256 bytes.
fn publication(channel: String) -> Value {
    let record = json!({"id": "benchmark000000", "content": "x".repeat(165)});
    json!({"channels": [channel], "data": {"action": "create", "collection": "messages", "record": record}})
}

fn record(stage: &Stage, action: &str, access: Value) -> Value {
    let id = &stage.site.crowd.rooms[stage.concerned()];
    let updates = json!({"channels": [UPDATES], "users": [stage.site.author.id]});
    let data = json!({"action": action, "collection": "rooms", "record": {"id": id, "name": "Room"}});
    let mut event = json!({"channels": [], "data": data, "updates": updates});
    if access.as_array().is_some_and(|changes| !changes.is_empty()) {
        event["access"] = access;
    }
    event
}

/// The work of a second without events.
pub async fn idle(stage: &Stage<'_>, seconds: f64) -> Usage {
    settle(stage).await;
    let calls = calls(stage).await;
    let before = Snapshot::of(stage);
    sleep(Duration::from_secs_f64(seconds)).await;
    let mut usage = before.until_now(stage);
    usage.calls = self::calls(stage).await - calls;
    usage.per_second()
}

/// The cost of an event of the kind.
pub async fn measure(stage: &mut Stage<'_>, work: &Work, options: &Options, idle: &Usage) -> Usage {
    let rate = options.rate * work.share;
    let events = (rate * options.seconds).round().max(2.0) as usize;
    let calls = calls(stage).await;
    let before = Snapshot::of(stage);
    let mut pace = interval(Duration::from_secs_f64(1.0 / rate));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0..events {
        pace.tick().await;
        let event = (work.event)(stage, number);
        stage.post(&event).await;
    }
    finish(stage, before, calls, events, idle).await
}

/// The cost of a join into the hot room and the following leave.
pub async fn join_and_leave(stage: &mut Stage<'_>, client: &mut Client, options: &Options, idle: &Usage) -> Usage {
    let rate = options.rate * 0.1;
    let events = (rate * options.seconds).round().max(2.0) as usize;
    let channel = stage.hot();
    let calls = calls(stage).await;
    let before = Snapshot::of(stage);
    let mut pace = interval(Duration::from_secs_f64(1.0 / rate));
    for _ in 0..events {
        pace.tick().await;
        client.subscribe(&channel).await;
        client.call("unsubscribe", json!({"channel": channel})).await;
    }
    finish(stage, before, calls, events, idle).await
}

async fn finish(stage: &Stage<'_>, before: Snapshot, calls_before: f64, events: usize, idle: &Usage) -> Usage {
    settle(stage).await;
    let mut usage = before.until_now(stage);
    usage.calls = calls(stage).await - calls_before;
    usage.each(events, idle)
}

/// Waits until every message is processed and PocketBase is idle.
async fn settle(stage: &Stage<'_>) {
    let pid = stage.site.pocketbase.process.pid();
    let deadline = Instant::now() + SETTLING;
    loop {
        let before = cpu::of_process(pid);
        sleep(LOOK).await;
        let is_calm = stage.redis.is_delivered() && cpu::of_process(pid).saturating_sub(before) <= CALM;
        if is_calm || Instant::now() > deadline {
            return;
        }
    }
}

async fn calls(stage: &Stage<'_>) -> f64 {
    stage.metric("gateway_pocketbase_seconds_count", "").await
}

/// The commands of an event by kind, without kinds that did not occur.
pub fn commands(traffic: &Traffic) -> String {
    let kinds = crate::simulated_redis::COMMANDS.iter();
    let counts =
        kinds.map(|&(name, kind): &(&str, Command)| (name, traffic.of(kind))).filter(|(_, count)| *count >= 0.05);
    counts.map(|(name, count)| format!("{name} {count:.1}")).collect::<Vec<_>>().join(", ")
}
