//! The topology: PocketBase, Redis and three gateways, with a proxy on every link between them and to their clients.

use super::clock::Clock;
use super::record::Epochs;
use super::store::{PREFIX, Store};
use crate::harness::gateway::Gateway;
use crate::harness::http::Http;
use crate::harness::pocketbase::{PocketBase, User, chat, install};
use crate::harness::process::free_port;
use crate::harness::proxy::Proxy;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{sleep, timeout};

pub const GATEWAYS: usize = 3;
/// `history_size`, small enough for some clients to be away for longer.
pub const HISTORY: u64 = 200;
/// Time limit for a call to PocketBase.
const CALL: Duration = Duration::from_secs(10);

pub struct Topology {
    /// Locked while a fault changes the process: one fault at a time per process.
    pub pocketbase: AsyncMutex<PocketBase>,
    pub redis: AsyncMutex<Store>,
    pub clustered: bool,
    pub gateways: Vec<AsyncMutex<Gateway>>,
    /// One clock per gateway.
    pub clocks: Vec<Clock>,
    pub links: Links,
    pub world: Arc<World>,
    logs: PathBuf,
    _hooks: TempDir,
}

/// The proxies, by caller and server; the first three lists have one proxy per gateway. A Redis Cluster has no proxies,
/// since its nodes announce their own addresses.
pub struct Links {
    pub clients: Vec<Proxy>,
    pub redis: Vec<Proxy>,
    pub pocketbase: Vec<Proxy>,
    pub hooks: Proxy,
    /// Number of the gateway to which the hooks' link leads.
    pub hooks_to: AtomicUsize,
    /// The gateways' own ports.
    pub ports: Vec<u16>,
}

impl Links {
    fn new(hooks: Proxy, ports: &[u16]) -> Self {
        let hooks_to = AtomicUsize::new(0);
        Self { clients: vec![], redis: vec![], pocketbase: vec![], hooks, hooks_to, ports: ports.to_vec() }
    }

    pub fn all(&self) -> impl Iterator<Item = &Proxy> {
        self.clients.iter().chain(&self.redis).chain(&self.pocketbase).chain([&self.hooks])
    }
}

/// Shared state of clients and writers.
pub struct World {
    pub pocketbase: String,
    pub websockets: Vec<String>,
    pub rooms: Vec<Room>,
    pub users: Vec<User>,
    pub http: Http,
    /// Number of times that Redis has lost its data so far.
    pub losses: AtomicU32,
    pub epochs: Mutex<Epochs>,
    pub counts: Counts,
    /// Violations outside the checker's scope.
    violations: Mutex<Vec<String>>,
}

pub struct Room {
    pub id: String,
    pub channel: Arc<str>,
}

#[derive(Default)]
pub struct Counts {
    pub connects: AtomicU64,
    pub deliveries: AtomicU64,
    pub fresh: AtomicU64,
    pub recovered: AtomicU64,
    /// Recoveries with publications that were not handed out.
    pub interrupted: AtomicU64,
    pub unrecovered: AtomicU64,
    pub insufficient: AtomicU64,
    pub refusals: AtomicU64,
    pub visits: AtomicU64,
    pub moves: AtomicU64,
    /// Unsubscribes with 2100 to 2104.
    pub removed: AtomicU64,
    /// Errors with code 103.
    pub denials: AtomicU64,
    pub writes: AtomicU64,
    pub batches: AtomicU64,
    pub rolled_back: AtomicU64,
    pub unanswered: AtomicU64,
    pub closes: Mutex<std::collections::BTreeMap<u16, u64>>,
}

pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub fn violation(&self, what: String) {
        eprintln!("VIOLATION: {what}");
        lock(&self.violations).push(what);
    }

    pub fn violations(&self) -> Vec<String> {
        lock(&self.violations).clone()
    }

    /// Text of the progress line.
    pub fn progress(&self) -> String {
        let c = &self.counts;
        let [writes, deliveries, connects, recovered, unrecovered] =
            [&c.writes, &c.deliveries, &c.connects, &c.recovered, &c.unrecovered].map(|it| it.load(Ordering::Relaxed));
        format!(
            "{writes} writes, {deliveries} deliveries, {connects} connections, {recovered} recovered, {unrecovered} not"
        )
    }

    /// The highest sequence number of the outbox, as soon as PocketBase answers.
    pub async fn last_seq(&self) -> u64 {
        let url = format!("{}/api/faults/last", self.pocketbase);
        loop {
            if let Ok(Ok(response)) = timeout(CALL, self.http.get(&url)).await
                && let Some(last) = response.json()["last"].as_u64()
            {
                return last;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Topology {
    pub async fn start(rooms: usize, users: usize, clustered: bool, logs: &Path) -> Self {
        std::fs::create_dir_all(logs).expect("the folder of the logs can be made");
        let redis = Store::start(clustered).await;
        let ports: Vec<u16> = (0..GATEWAYS).map(|_| free_port()).collect();
        let hooks = Proxy::start(ports[0]).await;
        let folder = hooks_for_tests();
        let hooks_url = format!("http://127.0.0.1:{}", hooks.port);
        let pocketbase = PocketBase::start_with(&hooks_url, folder.path(), &["--hooksPool=100"]).await;

        let mut links = Links::new(hooks, &ports);
        let (mut gateways, mut clocks) = (Vec::new(), Vec::new());
        for port in ports {
            let to_pocketbase = Proxy::start(pocketbase.port).await;
            let redis_url = match &redis {
                Store::Single(redis) => {
                    let to_redis = Proxy::start(redis.port()).await;
                    let url = format!("redis://127.0.0.1:{}", to_redis.port);
                    links.redis.push(to_redis);
                    url
                }
                Store::Cluster(cluster) => cluster.url(),
            };
            let settings = [
                ("GATEWAY_REDIS_URL", redis_url),
                ("GATEWAY_REDIS_PREFIX", PREFIX.into()),
                ("GATEWAY_HISTORY_SIZE", HISTORY.to_string()),
                ("GATEWAY_PING_INTERVAL", "5".into()),
                ("GATEWAY_PONG_TIMEOUT", "3".into()),
                ("GATEWAY_THREADS", "2".into()),
                // Connections of a killed gateway count until their leases expire, and kills are frequent.
                ("GATEWAY_MAX_CONNECTIONS_PER_USER", "1000".into()),
            ];
            let clock = Clock::new();
            let settings: Vec<(&str, String)> = settings.into_iter().chain(clock.environment()).collect();
            clocks.push(clock);
            let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let url = format!("http://127.0.0.1:{}", to_pocketbase.port);
            gateways.push(AsyncMutex::new(Gateway::start(port, &url, &settings).await));
            links.clients.push(Proxy::start(port).await);
            links.pocketbase.push(to_pocketbase);
        }
        let (rooms, users) = people(&pocketbase, rooms, users).await;
        let world = World {
            pocketbase: pocketbase.url.clone(),
            websockets: links
                .clients
                .iter()
                .map(|link| format!("ws://127.0.0.1:{}/connection/websocket", link.port))
                .collect(),
            rooms,
            users,
            http: Http::new(),
            losses: AtomicU32::new(0),
            epochs: Mutex::default(),
            counts: Counts::default(),
            violations: Mutex::default(),
        };
        let (pocketbase, redis) = (AsyncMutex::new(pocketbase), AsyncMutex::new(redis));
        Self {
            pocketbase,
            redis,
            clustered,
            gateways,
            clocks,
            links,
            world: Arc::new(world),
            logs: logs.to_owned(),
            _hooks: folder,
        }
    }

    /// Appends a gateway's output to the log file and looks for panics. Called before the process is replaced, and at
    /// the end.
    pub fn keep_log(&self, number: usize, gateway: &Gateway) {
        let log = gateway.process.log();
        if log.contains("panicked at") {
            self.world.violation(format!("gateway {number} panicked; see {}", self.logs.display()));
        }
        append(&self.logs.join(format!("gateway-{number}.log")), &log);
    }

    pub fn keep_pocketbase_log(&self, pocketbase: &PocketBase) {
        append(&self.logs.join("pocketbase.log"), &pocketbase.process.log());
    }

    /// Reports unexpectedly ended processes. Processes under a fault are skipped.
    pub fn check_processes(&self) {
        for (number, gateway) in self.gateways.iter().enumerate() {
            if let Ok(mut gateway) = gateway.try_lock()
                && gateway.process.has_ended()
            {
                self.world.violation(format!("gateway {number} ended by itself"));
                self.keep_log(number, &gateway);
                gateway.launch();
            }
        }
        if let Ok(mut pocketbase) = self.pocketbase.try_lock()
            && pocketbase.process.has_ended()
        {
            self.world.violation(format!("PocketBase ended by itself:\n{}", tail(&pocketbase.process.log())));
            // The run has failed; one report is enough.
            std::process::abort();
        }
        if let Ok(mut redis) = self.redis.try_lock()
            && redis.has_ended()
        {
            panic!("Redis ended by itself");
        }
    }
}

fn append(path: &Path, text: &str) {
    use std::io::Write;
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    let _ = file.and_then(|mut file| writeln!(file, "{text}\n--- end of this process"));
}

fn tail(text: &str) -> String {
    text.lines().rev().take(40).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// The deployed hooks, with an outbox that is never trimmed, since the outbox is the truth for the comparison.
fn hooks_for_tests() -> TempDir {
    let folder = TempDir::new().expect("a temporary directory");
    install(&chat(), "pb_hooks", folder.path());
    let config = folder.path().join("gateway.config.js");
    let text = std::fs::read_to_string(&config).expect("the hooks' config");
    let kept = text.replace("module.exports = {", "module.exports = {\n  outbox: { keepSeconds: 10000000 },");
    assert_ne!(text, kept, "gateway.config.js exports an object");
    std::fs::write(&config, kept).expect("the config can be written");
    std::fs::write(folder.path().join("faults.pb.js"), include_str!("harness.pb.js")).expect("a hook");
    folder
}

async fn people(pocketbase: &PocketBase, rooms: usize, users: usize) -> (Vec<Room>, Vec<User>) {
    let mut all = Vec::new();
    for number in 0..users {
        all.push(pocketbase.user(&format!("user{number}")).await);
    }
    let mut made = Vec::new();
    for _ in 0..rooms {
        let id = pocketbase.room(&all[0]).await;
        for user in &all[1..] {
            pocketbase.join(&id, user).await;
        }
        made.push(Room { channel: format!("room:{id}").into(), id });
    }
    (made, all)
}
