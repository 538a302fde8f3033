//! The commanding link: one multiplexed connection, made again whenever it fails.
//!
//! `redis` has a connection manager of its own. It does not notice a peer that is silent but not gone, lets
//! commands wait for as long as it reconnects, and when told to retry without end goes on after its last handle
//! was dropped; hence this one.

use super::task::Task;
use crate::broker::BrokerError;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, Pipeline, Script, Value};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

/// To the answer of a command or of a whole pipeline, with the wait for room on the connection.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(2);
/// For one attempt, with its handshake and a first PING.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a command waits for a link that is down: bridges a reconnection, and no more.
const DOWN_WAIT: Duration = Duration::from_millis(250);
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// So many unanswered PINGs in a row, and the connection is made again.
const LOST_PINGS: u32 = 2;
/// Bounds of the pause between attempts to connect.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Per pipeline, so that one answer fits into its time and other callers get in between.
pub const MAX_COMMANDS: usize = 512;
pub const MAX_BYTES: usize = 4 << 20;

pub struct Link {
    shared: Arc<Shared>,
    up: watch::Receiver<Option<Connection>>,
    _task: Task,
}

#[derive(Clone)]
struct Connection {
    /// Which of this link's connections it is, from 1.
    number: u64,
    inner: MultiplexedConnection,
}

struct Shared {
    /// The newest connection that a command saw fail.
    failed: AtomicU64,
    failure: Notify,
    /// Why it is down, for whoever asks meanwhile.
    reason: Mutex<String>,
}

impl Link {
    pub fn start(client: Client) -> Self {
        let shared = Arc::new(Shared {
            failed: AtomicU64::new(0),
            failure: Notify::new(),
            reason: Mutex::new("not connected yet".into()),
        });
        let (sender, up) = watch::channel(None);
        let task = Task::spawn(keep(client, Arc::clone(&shared), sender));
        Self { shared, up, _task: task }
    }

    /// Waits until it is up; forever, if Redis stays out of reach.
    pub async fn ready(&self) {
        // It fails only when the task has ended, which is when this is dropped.
        let _ = self.up.clone().wait_for(Option::is_some).await;
    }

    /// Sends one command.
    pub async fn send(&self, command: Cmd) -> Result<Value, BrokerError> {
        let answers = self.run(std::slice::from_ref(&command)).await?;
        answers.into_iter().next().ok_or_else(|| BrokerError::Corrupt("no answer to a command".into()))
    }

    /// Sends calls of a script, at most [`MAX_COMMANDS`], and sends those again that failed because Redis had
    /// lost it, with all that followed: repeating a call must be harmless.
    pub async fn call(&self, script: &Script, calls: &[Cmd]) -> Result<Vec<Value>, BrokerError> {
        self.call_on(None, script, calls).await
    }

    /// As [`Link::call`], but fails unless it goes over the connection with this number.
    pub async fn call_on(
        &self,
        number: Option<u64>,
        script: &Script,
        mut calls: &[Cmd],
    ) -> Result<Vec<Value>, BrokerError> {
        let mut answers = Vec::with_capacity(calls.len());
        let mut in_vain = 0;
        while in_vain < SCRIPT_ATTEMPTS {
            let mut new = self.attempt(number, calls).await?;
            let missing = new.iter().position(is_no_script).unwrap_or(new.len());
            new.truncate(missing);
            answers.append(&mut checked(new)?);
            calls = &calls[missing..];
            if calls.is_empty() {
                return Ok(answers);
            }
            in_vain = if missing == 0 { in_vain + 1 } else { 0 };
            self.load(script).await?;
        }
        Err(BrokerError::Unavailable("Redis keeps losing its scripts".into()))
    }

    /// Sends commands in one go. The first error among the answers is the result.
    pub async fn run(&self, commands: &[Cmd]) -> Result<Vec<Value>, BrokerError> {
        checked(self.attempt(None, commands).await?)
    }

    /// As [`Link::run`], but fails unless it goes over the connection with this number.
    pub async fn run_on(&self, number: u64, commands: &[Cmd]) -> Result<Vec<Value>, BrokerError> {
        checked(self.attempt(Some(number), commands).await?)
    }

    /// Of the connection that is up now. Behind another one there may be another Redis, or one without its data.
    pub async fn number(&self) -> Result<u64, BrokerError> {
        Ok(self.connection().await?.number)
    }

    async fn attempt(&self, number: Option<u64>, commands: &[Cmd]) -> Result<Vec<Value>, BrokerError> {
        let mut connection = self.connection().await?;
        if number.is_some_and(|number| number != connection.number) {
            return Err(BrokerError::Unavailable("the connection was made anew".into()));
        }
        let mut pipeline = Pipeline::with_capacity(commands.len());
        for command in commands {
            pipeline.add_command(command.clone());
        }
        let sent = connection.inner.send_packed_commands(&pipeline, 0, commands.len());
        match timeout(COMMAND_TIMEOUT, sent).await {
            Ok(Ok(answers)) => {
                if answers.iter().any(is_wrong_server) {
                    self.shared.report(connection.number);
                }
                Ok(answers)
            }
            Ok(Err(error)) => {
                if error.is_unrecoverable_error() {
                    self.shared.report(connection.number);
                }
                Err(BrokerError::Unavailable(error.to_string()))
            }
            Err(_) => Err(silent()),
        }
    }

    async fn load(&self, script: &Script) -> Result<(), BrokerError> {
        let mut connection = self.connection().await?;
        match timeout(COMMAND_TIMEOUT, script.load_async(&mut connection.inner)).await {
            Ok(result) => result.map(drop).map_err(|error| BrokerError::Unavailable(error.to_string())),
            Err(_) => Err(silent()),
        }
    }

    async fn connection(&self) -> Result<Connection, BrokerError> {
        let mut up = self.up.clone();
        let found = timeout(DOWN_WAIT, up.wait_for(Option::is_some)).await;
        match found {
            Ok(Ok(connection)) => connection.clone(),
            _ => None,
        }
        .ok_or_else(|| BrokerError::Unavailable(self.shared.reason()))
    }
}

/// Without a single call that went through. Two would do, were nobody flushing the scripts at the same time.
const SCRIPT_ATTEMPTS: usize = 4;

impl Shared {
    fn report(&self, number: u64) {
        self.failed.fetch_max(number, Ordering::Relaxed);
        self.failure.notify_one();
    }

    fn reason(&self) -> String {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_reason(&self, reason: String) {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }
}

/// Connects, watches the connection until it fails, and again, for as long as the link lives.
async fn keep(client: Client, shared: Arc<Shared>, up: watch::Sender<Option<Connection>>) {
    let address = client.get_connection_info().addr().to_string();
    let mut number = 0;
    let mut pause = PAUSE.0;
    let mut announced = false;
    loop {
        match connect(&client).await {
            Ok(inner) => {
                number += 1;
                pause = PAUSE.0;
                announced = false;
                tracing::info!(%address, "the commanding link to Redis is up");
                up.send_replace(Some(Connection { number, inner: inner.clone() }));
                let reason = watch_over(inner, number, &shared).await;
                tracing::warn!(%address, %reason, "the commanding link to Redis is down");
                shared.set_reason(reason);
                up.send_replace(None);
            }
            Err(reason) => {
                // Once per outage: the attempts after it say nothing new.
                if !announced {
                    tracing::warn!(%address, %reason, "Redis is out of reach, trying on");
                    announced = true;
                }
                shared.set_reason(reason);
            }
        }
        sleep(pause).await;
        pause = (2 * pause).min(PAUSE.1);
    }
}

async fn connect(client: &Client) -> Result<MultiplexedConnection, String> {
    // Timeouts are set around whole commands instead, so that the wait for room counts.
    let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    let attempt = async {
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        // A server that is loading its data takes connections, but no commands.
        redis::cmd("PING").exec_async(&mut connection).await?;
        Ok(connection)
    };
    match timeout(CONNECT_TIMEOUT, attempt).await {
        Ok(result) => result.map_err(|error: redis::RedisError| error.to_string()),
        Err(_) => Err("no answer in time".into()),
    }
}

/// Returns why the connection is of no use any more.
async fn watch_over(mut connection: MultiplexedConnection, number: u64, shared: &Shared) -> String {
    let mut lost = 0;
    loop {
        tokio::select! {
            () = sleep(PING_INTERVAL) => {}
            () = shared.failure.notified() => {}
        }
        if shared.failed.load(Ordering::Relaxed) >= number {
            return "a command failed".into();
        }
        match timeout(COMMAND_TIMEOUT, redis::cmd("PING").exec_async(&mut connection)).await {
            Ok(Ok(())) => lost = 0,
            Ok(Err(error)) => return error.to_string(),
            Err(_) => lost += 1,
        }
        if lost >= LOST_PINGS {
            return "it is silent".into();
        }
    }
}

fn silent() -> BrokerError {
    BrokerError::Unavailable("Redis did not answer in time".into())
}

fn is_no_script(answer: &Value) -> bool {
    matches!(answer, Value::ServerError(error) if error.code() == "NOSCRIPT")
}

/// After a failover: another connection may reach the right one.
fn is_wrong_server(answer: &Value) -> bool {
    matches!(answer, Value::ServerError(error) if matches!(error.code(), "READONLY" | "MASTERDOWN" | "NOAUTH"))
}

fn checked(answers: Vec<Value>) -> Result<Vec<Value>, BrokerError> {
    for answer in &answers {
        if let Value::ServerError(error) = answer {
            return Err(match error.code() {
                "CONFLICT" => BrokerError::Conflict,
                "WRONGTYPE" => BrokerError::Corrupt("a key of another type".into()),
                _ => BrokerError::Unavailable(error.to_string()),
            });
        }
    }
    Ok(answers)
}
