//! The commanding link to one node: one multiplexed connection, made again whenever it fails.
//!
//! `redis` has a connection manager of its own. It does not notice a peer that is silent but not gone, lets
//! commands wait for as long as it reconnects, and when told to retry without end goes on after its last handle
//! was dropped; hence this one.

use super::address::Endpoint;
use crate::broker::BrokerError;
use crate::tasks::{self, Task};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, Pipeline, RedisError, Script, Value};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

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
    _task: AbortOnDropHandle<()>,
}

#[derive(Clone)]
struct Connection {
    /// Which it is of the connections that this gateway has made to Redis, from 1.
    number: u64,
    inner: MultiplexedConnection,
    /// Reads and writes for it, until its last user is gone.
    _driver: Arc<AbortOnDropHandle<()>>,
}

struct Shared {
    /// The newest connection that a command saw fail.
    failed: AtomicU64,
    failure: Notify,
    /// Why it is down, for whoever asks meanwhile.
    reason: Mutex<String>,
}

impl Link {
    /// Its connections take their numbers from `counter`; `peer` is the word for what is there, such as "Redis".
    pub fn start(endpoint: Endpoint, counter: Arc<AtomicU64>, peer: &'static str) -> Self {
        let shared = Arc::new(Shared {
            failed: AtomicU64::new(0),
            failure: Notify::new(),
            reason: Mutex::new("not connected yet".into()),
        });
        let (sender, up) = watch::channel(None);
        let task = tasks::spawn_owned(Task::RedisLink, keep(endpoint, counter, peer, Arc::clone(&shared), sender));
        Self { shared, up, _task: task }
    }

    /// Of the connection that is up now. Behind another one there may be another Redis, or one without its data.
    pub async fn number(&self) -> Result<u64, BrokerError> {
        Ok(self.connection().await?.number)
    }

    /// Sends commands in one go and returns their answers, errors among them. `fence`: fails unless the connection
    /// was made by then. `asking`: the node has them only in part yet, and answers whoever says that he knows.
    pub async fn attempt(
        &self,
        fence: Option<u64>,
        commands: &[&Cmd],
        asking: bool,
    ) -> Result<Vec<Value>, BrokerError> {
        let mut connection = self.connection().await?;
        if fence.is_some_and(|fence| connection.number > fence) {
            return Err(BrokerError::Unavailable("the connection was made anew".into()));
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

    pub async fn load(&self, script: &Script) -> Result<(), BrokerError> {
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
async fn keep(
    endpoint: Endpoint,
    counter: Arc<AtomicU64>,
    peer: &'static str,
    shared: Arc<Shared>,
    up: watch::Sender<Option<Connection>>,
) {
    let address = endpoint.name();
    let mut pause = PAUSE.0;
    let mut announced = false;
    loop {
        match connect(&endpoint).await {
            Ok((inner, driver)) => {
                let number = counter.fetch_add(1, Ordering::AcqRel) + 1;
                pause = PAUSE.0;
                announced = false;
                tracing::info!(%address, "the commanding link to {peer} is up");
                up.send_replace(Some(Connection { number, inner: inner.clone(), _driver: driver }));
                let reason = watch_over(inner, number, &shared).await;
                tracing::warn!(%address, %reason, "the commanding link to {peer} is down");
                shared.set_reason(reason);
                up.send_replace(None);
            }
            Err(reason) => {
                // Once per outage: the attempts after it say nothing new.
                if !announced {
                    tracing::warn!(%address, %reason, "{peer} is out of reach, trying on");
                    announced = true;
                }
                shared.set_reason(reason);
            }
        }
        sleep(pause).await;
        pause = (2 * pause).min(PAUSE.1);
    }
}

async fn connect(endpoint: &Endpoint) -> Result<(MultiplexedConnection, Arc<AbortOnDropHandle<()>>), String> {
    // Timeouts are set around whole commands instead, so that the wait for room counts.
    let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    let attempt = async {
        let socket = endpoint.connect().await?.whole();
        let failed = |error: RedisError| error.to_string();
        let connecting = MultiplexedConnection::new_with_config(&endpoint.login, socket, config);
        let (mut connection, driver) = connecting.await.map_err(failed)?;
        let driver = Arc::new(tasks::spawn_owned(Task::RedisConnection, driver));
        // A server that is loading its data takes connections, but no commands.
        redis::cmd("PING").exec_async(&mut connection).await.map_err(failed)?;
        Ok((connection, driver))
    };
    timeout(CONNECT_TIMEOUT, attempt).await.unwrap_or_else(|_| Err("no answer in time".into()))
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

/// After a failover: another connection may reach the right one.
fn is_wrong_server(answer: &Value) -> bool {
    matches!(answer, Value::ServerError(error) if matches!(error.code(), "READONLY" | "MASTERDOWN" | "NOAUTH"))
}
