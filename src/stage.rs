//! The parts of a gateway on the memory broker, for unit tests. PocketBase's answers come from a table
//! ([`Answers`]).

use crate::access::Access;
use crate::access::change_log::Changes;
use crate::auth::Auth;
use crate::broker::memory::MemoryBroker;
use crate::broker::{Broker, Entry, Retention};
use crate::config::{Config, Sources};
use crate::connection::Connections;
use crate::hub::Hub;
use crate::limits::Limits;
use crate::members::presence::Presence;
use crate::members::user_status::UserStatuses;
use crate::metrics::Metrics;
use crate::outbox::Outbox;
use crate::pocketbase::answers::Answers;
use crate::pocketbase::{AccountId, PocketBase, UserKey, Verdict};
use crate::protocol::Payload;
use crate::protocol::codes::Disconnect;
use crate::protocol::decode::ClientFrame;
use crate::relay::RelayStart;
use crate::session::timing::Clock;
use crate::session::{Services, Session};
use crate::updates::Updates;
use bytes::Bytes;
use futures_util::FutureExt;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

pub const ROOM: &str = "room:a";
/// The signing key of all users.
pub const KEY: &str = "a signing key for tests, of the length of a real one";

pub fn config() -> Config {
    let environment = [("GATEWAY_SECRET", "0123456789abcdef0123456789abcdef"), ("GATEWAY_POCKETBASE_URL", UNREACHABLE)];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    Config::load(&Sources { environment, ..Sources::default() }).unwrap()
}

/// A port on which nothing listens.
const UNREACHABLE: &str = "http://127.0.0.1:1";

pub fn account_id(user: &str) -> AccountId {
    AccountId::new("users1", user).unwrap()
}

/// A token that is valid for `seconds`, or expired for negative seconds.
pub fn token(user: &str, seconds: i64) -> String {
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    let claims = json!({"id": user, "type": "auth", "collectionId": "users1", "exp": now + seconds});
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(KEY.as_bytes())).unwrap()
}

pub struct Stage {
    pub services: Arc<Services>,
    pub answers: Arc<Answers>,
    pub changes: Arc<Changes>,
    /// Whether the relay knows its first event.
    pub relay_start: watch::Sender<bool>,
    seq: AtomicU64,
    _tasks: [AbortOnDropHandle<()>; 2],
}

impl Stage {
    /// With the users "ann" and "bob", who may subscribe to [`ROOM`].
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = config();
        change(&mut config);
        let (metrics, answers) = (Metrics::new().unwrap(), Arc::<Answers>::default());
        for user in ["ann", "bob"] {
            answers.set_user(account_id(user), Some(UserKey::signing(user, KEY)));
            answers.set(user, ROOM, Verdict::Allowed);
        }
        let broker = MemoryBroker::new(Retention {
            size: config.history_size,
            ttl: config.history_ttl,
            position_ttl: config.history_ttl,
            presence_ttl: config.presence_ttl,
            presence_max: config.presence_max,
            status_grace: config.status_grace,
            last_seen_ttl: config.last_seen_ttl,
            ..Retention::default()
        });
        let presence = Presence::start(broker.clone());
        let hub = Hub::new(broker.clone(), Arc::clone(&presence), metrics.clone());
        let sink: Weak<Hub> = Arc::downgrade(&hub);
        broker.start(sink).await.unwrap();
        let (changes, connections) = (Arc::<Changes>::default(), Arc::<Connections>::default());
        let register = Arc::clone(&connections);
        let statuses = UserStatuses::new(&config, broker.clone(), Arc::clone(&presence), register, metrics.clone());
        let (relay_start, started) = watch::channel(true);
        let pocketbase = PocketBase::new(&config, metrics.clone()).unwrap();
        let services = Services {
            auth: Auth::asking(answers.keys(), config.key_ttl, Arc::clone(&changes)),
            access: Arc::new(Access::new(&config, answers.checks(), Arc::clone(&changes), metrics.clone())),
            updates: Updates::new(Arc::new(pocketbase), metrics.clone()),
            limits: Limits::new(&config, metrics.guests.clone()),
            relay_start: RelayStart(started),
            refusals: Arc::default(),
            inboxes: Arc::default(),
            config,
            connections,
            broker,
            hub,
            presence,
            metrics,
            statuses: Arc::clone(&statuses),
        };
        let (services, tasks) = (Arc::new(services), statuses.start_reports());
        Self { services, answers, changes, relay_start, seq: AtomicU64::new(0), _tasks: tasks }
    }

    /// Publishes into [`ROOM`], as the relay does.
    pub async fn publish(&self, data: Value) {
        let seq = self.seq.fetch_add(1, Ordering::Relaxed) + 1;
        let data = Payload::parse(&data.to_string()).unwrap();
        let entry = Entry { seq, at: 0, channel: ROOM.into(), data, barrier: false };
        self.services.broker.publish(&[entry]).await.unwrap();
    }

    /// A client that has not sent `connect`.
    pub fn client(&self, id: u64) -> Client {
        let (outbox, address) = (Outbox::alone(1 << 20), IpAddr::V4(Ipv4Addr::LOCALHOST));
        let session = Session::new(id, Arc::clone(&self.services), Arc::clone(&outbox), address, None);
        Client { session, outbox, clock: Clock::new(&self.services.config, Instant::now()) }
    }

    /// An authenticated client.
    pub async fn connected(&self, id: u64, user: &str) -> Client {
        let mut client = self.client(id);
        let connect = json!({"id": 1, "connect": {"token": token(user, 600)}});
        let replies = client.send(&[connect]).await.unwrap();
        assert!(replies[0]["connect"]["client"].is_string(), "{replies:?}");
        client
    }

    /// A client subscribed to [`ROOM`].
    pub async fn subscribed(&self, id: u64, user: &str) -> Client {
        let mut client = self.connected(id, user).await;
        let replies = client.send(&[subscribe(1, ROOM)]).await.unwrap();
        assert!(replies[0]["subscribe"].is_object(), "{replies:?}");
        client
    }
}

pub fn subscribe(id: u32, channel: &str) -> Value {
    json!({"id": id, "subscribe": {"channel": channel}})
}

/// Waits for a condition, on a paused clock: for less than a lease, whose end would also empty a presence.
pub async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    within(Duration::from_secs(10), what, condition).await;
}

/// As [`until`], with another limit.
pub async fn within(limit: Duration, what: &str, condition: impl AsyncFn() -> bool) {
    let reached = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(limit, reached).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// A session with its outbox, in place of a socket.
pub struct Client {
    pub session: Session,
    pub outbox: Arc<Outbox>,
    clock: Clock,
}

impl Client {
    /// Sends the commands in one frame. Returns the frames that the client gets meanwhile.
    pub async fn send(&mut self, commands: &[Value]) -> Result<Vec<Value>, Disconnect> {
        let frame: Vec<String> = commands.iter().map(Value::to_string).collect();
        self.session.handle(&ClientFrame::Json(frame.join("\n").into()), &self.clock).await?;
        Ok(self.received())
    }

    /// As [`Client::send`] for one command. Returns the code of the error reply, or 0 without an error.
    pub async fn code(&mut self, command: Value) -> u64 {
        let frames = self.send(&[command]).await.unwrap();
        frames.iter().find_map(|frame| frame["error"]["code"].as_u64()).unwrap_or(0)
    }

    /// The frames queued since the last call.
    pub fn received(&self) -> Vec<Value> {
        let mut frames: Vec<Bytes> = Vec::new();
        // Polled once: without a frame, nothing is waited for.
        let _ = self.outbox.take(&mut frames).now_or_never();
        frames.iter().map(|frame| serde_json::from_slice(frame).unwrap()).collect()
    }
}
