//! The subscribing link: what is published into the channels that this node wants, handed to the sink.
//!
//! Three things of `fred` to know: its SUBSCRIBE returns when it was written, not when Redis has answered; it
//! replays no subscriptions after a reconnection; and its queue of messages says when it dropped some, as
//! Redis itself does by closing the connection of a subscriber that is too slow. So a PING follows each
//! SUBSCRIBE, whose answer comes after Redis has acted on it; all wanted channels are subscribed to again after
//! each reconnection; and after that, as after a dropped message, the sink is told of the gap.

use super::keys::Keys;
use super::subscriptions::{Request, answered, keep_subscribed};
use super::task::Task;
use super::wire::{self, Message};
use crate::broker::{BrokerError, Sink};
use bytes::Bytes;
use fred::clients::SubscriberClient;
use fred::interfaces::{ClientLike, EventInterface};
use fred::types::config::{Config, ReconnectPolicy, ServerConfig, TcpConfig, UnresponsiveConfig};
use fred::types::{Builder, RespVersion, Value};
use redis::{ConnectionAddr, ConnectionInfo};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::{sleep, timeout};

/// Messages received and not yet handed over. Its memory is taken at once: 40 MB.
const QUEUE: usize = 65_536;
/// Of callers that want to subscribe or unsubscribe; more wait.
const REQUESTS: usize = 1024;
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// Of the pause between attempts to connect, in milliseconds.
const PAUSE: (u32, u32) = (50, 1000);

pub struct Subscriber {
    requests: mpsc::Sender<Request>,
    state: Arc<State>,
    client: SubscriberClient,
    _tasks: [Task; 4],
}

pub struct State {
    pub keys: Arc<Keys>,
    sink: OnceLock<Weak<dyn Sink>>,
    /// A std Mutex is enough: never held across an await.
    wanted: Mutex<HashSet<String>>,
    /// All wanted channels are subscribed to.
    pub whole: AtomicBool,
    /// What last went wrong.
    trouble: Mutex<String>,
}

impl Subscriber {
    pub fn start(info: &ConnectionInfo, keys: Arc<Keys>) -> Result<Self, BrokerError> {
        let client = client(info)?;
        let (requests, queue) = mpsc::channel(REQUESTS);
        let state = Arc::new(State {
            keys,
            sink: OnceLock::new(),
            wanted: Mutex::default(),
            whole: AtomicBool::new(false),
            trouble: Mutex::new("not connected yet".into()),
        });
        let tasks = [
            Task::spawn(deliver(client.message_rx(), Arc::clone(&state))),
            Task::spawn(keep_subscribed(client.clone(), queue, Arc::clone(&state))),
            Task::spawn(heartbeat(client.clone())),
            Task::spawn(stay_connected(client.clone())),
        ];
        Ok(Self { requests, state, client, _tasks: tasks })
    }

    pub fn set_sink(&self, sink: Weak<dyn Sink>) -> Result<(), BrokerError> {
        self.state.sink.set(sink).map_err(|_| BrokerError::Unavailable("it was started twice".into()))
    }

    /// Whether everything published into the wanted channels arrives here.
    pub fn check(&self) -> Result<(), BrokerError> {
        if self.client.is_connected() && self.state.whole.load(Ordering::Acquire) {
            Ok(())
        } else {
            Err(self.state.down())
        }
    }

    /// Tells the sink that it may have missed something.
    pub fn gap(&self) {
        self.state.gap();
    }

    pub async fn ready(&self) {
        while self.check().is_err() {
            sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn set(&self, channel: &str, wanted: bool) -> Result<(), BrokerError> {
        let (done, answer) = oneshot::channel();
        let request = Request { channel: channel.to_owned(), wanted, done };
        let asked = async {
            self.requests.send(request).await.map_err(|_| self.state.down())?;
            answer.await.map_err(|_| self.state.down())?
        };
        // What times out here is undone there.
        timeout(2 * ANSWER_TIMEOUT, asked).await.unwrap_or_else(|_| Err(self.state.down()))
    }

    pub fn wanted(&self) -> Vec<String> {
        self.state.wanted().iter().cloned().collect()
    }
}

impl State {
    pub fn wanted(&self) -> MutexGuard<'_, HashSet<String>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn down(&self) -> BrokerError {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        BrokerError::Unavailable(format!("the subscribing link to Redis is down: {trouble}"))
    }

    pub fn set_trouble(&self, trouble: String) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    fn sink(&self) -> Option<Arc<dyn Sink>> {
        self.sink.get().and_then(Weak::upgrade)
    }

    pub fn gap(&self) {
        if let Some(sink) = self.sink() {
            sink.gap();
        }
    }
}

fn client(info: &ConnectionInfo) -> Result<SubscriberClient, BrokerError> {
    let ConnectionAddr::Tcp(host, port) = info.addr() else {
        return Err(BrokerError::Unavailable("Redis is reached by redis://host:port only".into()));
    };
    let settings = info.redis_settings();
    let database = u8::try_from(settings.db())
        .map_err(|_| BrokerError::Unavailable("the number of Redis's database is out of range".into()))?;
    let config = Config {
        server: ServerConfig::new_centralized(host.as_str(), *port),
        username: settings.username().map(str::to_owned),
        password: settings.password().map(str::to_owned),
        database: Some(database),
        // Version 3 begins with HELLO, which fred writes as plain words: a password with a space would be torn.
        version: RespVersion::RESP2,
        fail_fast: false,
        ..Config::default()
    };
    Builder::from_config(config)
        .with_performance_config(|performance| performance.broadcast_channel_capacity = QUEUE)
        .with_connection_config(|connection| {
            connection.connection_timeout = ANSWER_TIMEOUT;
            connection.internal_command_timeout = ANSWER_TIMEOUT;
            connection.reconnect_on_auth_error = true;
            connection.unresponsive =
                UnresponsiveConfig { max_timeout: Some(ANSWER_TIMEOUT), interval: Duration::from_millis(500) };
            connection.tcp = TcpConfig { nodelay: Some(true), ..TcpConfig::default() };
        })
        .set_policy(ReconnectPolicy::new_exponential(0, PAUSE.0, PAUSE.1, 2))
        .build_subscriber_client()
        // Its text may repeat the configuration, which holds the password.
        .map_err(|_| BrokerError::Unavailable("Redis cannot be reached with these settings".into()))
}

/// Runs the client's own connection task, and again should it give up on an error that it holds for final.
async fn stay_connected(client: SubscriberClient) {
    loop {
        let connected = &mut Task(client.connect()).0;
        if let Ok(Err(error)) = connected.await {
            tracing::warn!(%error, "the subscribing link to Redis ended, starting it again");
        }
        sleep(Duration::from_secs(1)).await;
    }
}

/// Gives the detection of silent connections something that must be answered.
async fn heartbeat(client: SubscriberClient) {
    loop {
        sleep(PING_INTERVAL).await;
        let _ = answered(&client).await;
    }
}

/// The one task that hands messages over, which keeps the order in which Redis sent them.
async fn deliver(mut messages: broadcast::Receiver<fred::types::Message>, state: Arc<State>) {
    loop {
        match messages.recv().await {
            Ok(message) => hand_over(&message.channel, message.value, &state),
            Err(RecvError::Lagged(count)) => {
                tracing::warn!(count, "publications came faster than they were handed on; some were dropped");
                state.gap();
            }
            Err(RecvError::Closed) => return,
        }
    }
}

fn hand_over(live: &str, value: Value, state: &State) {
    let Some(sink) = state.sink() else { return };
    let message: Option<Bytes> = match value {
        Value::String(text) => Some(text.into_inner()),
        Value::Bytes(bytes) => Some(bytes),
        _ => None,
    };
    let Some(channel) = state.keys.channel(live) else { return };
    match message.as_ref().and_then(wire::read) {
        Some(Message::Publication { epoch, publication }) => sink.publication(&channel, &epoch, publication),
        Some(Message::Signal(publication)) => sink.signal(&channel, publication),
        Some(Message::Movement(movement, info)) => sink.movement(&channel, movement, info),
        Some(Message::Status(state)) => sink.status(&channel, state),
        None => tracing::warn!(
            channel_bytes = channel.len(),
            message_bytes = message.map_or(0, |message| message.len()),
            "something unreadable was published into a channel's place in Redis; it is ignored"
        ),
    }
}
