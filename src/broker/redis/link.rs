//! The command link to one node: a multiplexed connection, replaced after every failure.
//!
//! The connection manager of the `redis` crate is not used: it does not notice a silent peer, lets commands wait for as
//! long as a reconnection takes, and, with unlimited retries, keeps running after its last handle was dropped.

use super::address::Endpoint;
use super::error::LinkError;
use crate::backoff::Backoff;
use crate::tasks::{self, Task};
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, Pipeline, Script, Value};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

/// Limit for the answer to a command or a whole pipeline, including the wait for room on the connection.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(2);
/// Limit for an attempt to connect, including the handshake and a first PING.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a command waits for a link that is down: long enough for a quick reconnection only.
const DOWN_WAIT: Duration = Duration::from_millis(250);
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// Unanswered PINGs in a row after which the connection is replaced.
const LOST_PINGS: u32 = 2;
/// Shortest and longest pause between attempts to connect.
const PAUSE: Range<Duration> = Duration::from_millis(50)..Duration::from_secs(1);
/// Largest pipeline in commands and payload bytes: answered within the timeout, and with room for other callers between
/// two pipelines.
pub const MAX_COMMANDS: usize = 512;
pub const MAX_BYTES: usize = 4 << 20;

pub struct CommandLink {
    health: Arc<LinkHealth>,
    up: watch::Receiver<Option<NumberedConnection>>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Clone)]
struct NumberedConnection {
    /// Value of the link's counter at this connection, from 1.
    number: u64,
    inner: MultiplexedConnection,
    /// Task that reads and writes the socket; ends with the last clone of the connection.
    _driver: Arc<AbortOnDropHandle<()>>,
}

/// Failures of the link, between commands and the task that connects.
struct LinkHealth {
    /// Number of the newest connection that failed during a command.
    failed: AtomicU64,
    failure: Notify,
    /// Why the link is down, for error messages.
    reason: Mutex<LinkError>,
}

impl CommandLink {
    /// Starts a link. Connections get numbers from `counter`. `peer` names the server in log lines, such as "Redis".
    pub fn start(endpoint: Endpoint, counter: Arc<AtomicU64>, peer: &'static str) -> Self {
        let health = Arc::new(LinkHealth {
            failed: AtomicU64::new(0),
            failure: Notify::new(),
            reason: Mutex::new(LinkError::NotConnected),
        });
        let (sender, up) = watch::channel(None);
        let task = tasks::spawn(Task::RedisLink, keep(endpoint, counter, peer, Arc::clone(&health), sender));
        Self { health, up, _task: task }
    }

    /// The number of the current connection. Another connection may lead to another Redis, or to a Redis that has lost
    /// the data.
    pub async fn number(&self) -> Result<u64, LinkError> {
        Ok(self.connection().await?.number)
    }

    /// Sends commands in one pipeline; returns the answers, error replies included. `fence`: fails if the connection's
    /// number is higher. `asking`: sends `ASKING` before each command, as required by a node that is importing the
    /// slot.
    pub async fn attempt(&self, fence: Option<u64>, commands: &[&Cmd], asking: bool) -> Result<Vec<Value>, LinkError> {
        let mut connection = self.connection().await?;
        if fence.is_some_and(|fence| connection.number > fence) {
            return Err(LinkError::Replaced);
        }
        let each = if asking { 2 } else { 1 };
        let mut pipeline = Pipeline::with_capacity(each * commands.len());
        for &command in commands {
            if asking {
                pipeline.add_command(redis::cmd("ASKING"));
            }
            pipeline.add_command(command.clone());
        }
        let sent = connection.inner.send_packed_commands(&pipeline, 0, each * commands.len());
        match timeout(COMMAND_TIMEOUT, sent).await {
            Ok(Ok(mut answers)) => {
                if asking {
                    answers = answers.into_iter().skip(1).step_by(2).collect();
                }
                if answers.iter().any(is_wrong_server) {
                    self.health.report(connection.number);
                }
                Ok(answers)
            }
            Ok(Err(error)) => {
                if error.is_unrecoverable_error() {
                    self.health.report(connection.number);
                }
                Err(error.into())
            }
            Err(_) => Err(LinkError::Silent),
        }
    }

    pub async fn load(&self, script: &Script) -> Result<(), LinkError> {
        let mut connection = self.connection().await?;
        match timeout(COMMAND_TIMEOUT, script.load_async(&mut connection.inner)).await {
            Ok(result) => Ok(result.map(drop)?),
            Err(_) => Err(LinkError::Silent),
        }
    }

    async fn connection(&self) -> Result<NumberedConnection, LinkError> {
        let mut up = self.up.clone();
        let found = timeout(DOWN_WAIT, up.wait_for(Option::is_some)).await;
        match found {
            Ok(Ok(connection)) => connection.clone(),
            _ => None,
        }
        .ok_or_else(|| self.health.reason())
    }
}

impl LinkHealth {
    fn report(&self, number: u64) {
        self.failed.fetch_max(number, Ordering::Relaxed);
        self.failure.notify_one();
    }

    fn reason(&self) -> LinkError {
        self.reason.lock().clone()
    }

    fn set_reason(&self, reason: LinkError) {
        *self.reason.lock() = reason;
    }
}

/// Connects, watches the connection until a failure, and connects again, for as long as the link lives.
async fn keep(
    endpoint: Endpoint,
    counter: Arc<AtomicU64>,
    peer: &'static str,
    health: Arc<LinkHealth>,
    up: watch::Sender<Option<NumberedConnection>>,
) {
    let address = endpoint.name();
    let mut backoff = Backoff::new(PAUSE);
    let mut announced = false;
    loop {
        match connect(&endpoint).await {
            Ok((inner, driver)) => {
                let number = counter.fetch_add(1, Ordering::AcqRel) + 1;
                backoff.reset();
                announced = false;
                tracing::info!(%address, "connected to {peer}");
                up.send_replace(Some(NumberedConnection { number, inner: inner.clone(), _driver: driver }));
                let reason = watch_over(inner, number, &health).await;
                tracing::warn!(%address, %reason, "lost the connection to {peer}, reconnecting");
                health.set_reason(reason);
                up.send_replace(None);
            }
            Err(reason) => {
                // Once per outage.
                if !announced {
                    tracing::warn!(%address, %reason, "cannot connect to {peer}, retrying about once a second");
                    announced = true;
                }
                health.set_reason(reason);
            }
        }
        sleep(backoff.pause()).await;
    }
}

async fn connect(endpoint: &Endpoint) -> Result<(MultiplexedConnection, Arc<AbortOnDropHandle<()>>), LinkError> {
    // Timeouts cover whole commands instead, including the wait for room.
    let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    let attempt = async {
        let socket = endpoint.connect().await?.whole();
        let connecting = MultiplexedConnection::new_with_config(&endpoint.login, socket, config);
        let (mut connection, driver) = connecting.await?;
        let driver = Arc::new(tasks::spawn(Task::RedisConnection, driver));
        // A server that is loading data accepts connections, but no commands.
        redis::cmd("PING").exec_async(&mut connection).await?;
        Ok((connection, driver))
    };
    timeout(CONNECT_TIMEOUT, attempt).await.unwrap_or(Err(LinkError::ConnectTimeout))
}

/// Watches a connection until a failure; returns the reason.
async fn watch_over(mut connection: MultiplexedConnection, number: u64, health: &LinkHealth) -> LinkError {
    let mut lost = 0;
    loop {
        tokio::select! {
            () = sleep(PING_INTERVAL) => {}
            () = health.failure.notified() => {}
        }
        if health.failed.load(Ordering::Relaxed) >= number {
            return LinkError::CommandFailed;
        }
        match timeout(COMMAND_TIMEOUT, redis::cmd("PING").exec_async(&mut connection)).await {
            Ok(Ok(())) => lost = 0,
            Ok(Err(error)) => return error.into(),
            Err(_) => lost += 1,
        }
        if lost >= LOST_PINGS {
            return LinkError::LostPings;
        }
    }
}

/// Whether the answer comes from the wrong server, as after a failover: a new connection may reach the right server.
fn is_wrong_server(answer: &Value) -> bool {
    matches!(answer, Value::ServerError(error) if matches!(error.code(), "READONLY" | "MASTERDOWN" | "NOAUTH"))
}
