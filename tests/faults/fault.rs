//! The faults: drawn from the seed, injected into the topology, and healed.

use super::topology::{GATEWAYS, Topology, lock};
use crate::harness::proxy::{Incident, Proxy, Weather};
use crate::harness::rng::Rng;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Time limit for a gateway's planned stop.
const STOPPING: Duration = Duration::from_secs(40);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    GatewayKilled,
    GatewayHung,
    GatewayRestarted,
    ClockJumped,
    RedisKilled,
    RedisKilledDataLost,
    RedisHung,
    MasterKilled,
    MasterHung,
    MasterReplaced,
    PocketBaseKilled,
    PocketBaseHung,
    Link(Link, Trouble),
    HookEndpointSlow,
    HooksMoved,
    ClientsVanished,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Link {
    Clients,
    Redis,
    PocketBase,
    Hooks,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    Cut,
    Dark,
    Delayed,
    Throttled,
    HalfClosed,
    Truncated,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Kind::Link(link, trouble) = self else {
            return f.write_str(match self {
                Kind::GatewayKilled => "gateway: kill -9",
                Kind::GatewayHung => "gateway: SIGSTOP, SIGCONT",
                Kind::GatewayRestarted => "gateway: SIGTERM, new start",
                Kind::ClockJumped => "gateway: its clock jumps, and back",
                Kind::RedisKilled => "Redis: kill -9, data kept",
                Kind::RedisKilledDataLost => "Redis: kill -9, data lost",
                Kind::RedisHung => "Redis: SIGSTOP, SIGCONT",
                Kind::MasterKilled => "Redis Cluster: a master, kill -9, data kept",
                Kind::MasterHung => "Redis Cluster: a master, SIGSTOP, SIGCONT",
                Kind::MasterReplaced => "Redis Cluster: CLUSTER FAILOVER",
                Kind::PocketBaseKilled => "PocketBase: kill -9",
                Kind::PocketBaseHung => "PocketBase: SIGSTOP, SIGCONT",
                Kind::HookEndpointSlow => "hooks → gateway: slower than the hooks' timeout",
                Kind::HooksMoved => "hooks → gateway: led to another gateway",
                Kind::ClientsVanished => "clients → gateway: clients vanish without closing",
                Kind::Link(..) => unreachable!(),
            });
        };
        let link = match link {
            Link::Clients => "clients → gateway",
            Link::Redis => "gateway → Redis",
            Link::PocketBase => "gateway → PocketBase",
            Link::Hooks => "hooks → gateway",
        };
        let trouble = match trouble {
            Trouble::Cut => "cut",
            Trouble::Dark => "black hole",
            Trouble::Delayed => "slow (latency)",
            Trouble::Throttled => "slow (bandwidth)",
            Trouble::HalfClosed => "half-closed",
            Trouble::Truncated => "truncated within a frame",
        };
        write!(f, "{link}: {trouble}")
    }
}

/// Every kind of fault for the topology, with repetitions for more frequent kinds.
pub fn kinds(clustered: bool) -> Vec<Kind> {
    // The order is part of a seed's meaning.
    let [killed, hung] =
        if clustered { [Kind::MasterKilled, Kind::MasterHung] } else { [Kind::RedisKilled, Kind::RedisHung] };
    let mut all =
        [Kind::GatewayKilled, Kind::GatewayHung, killed, hung, Kind::PocketBaseKilled, Kind::PocketBaseHung].repeat(3);
    if clustered {
        all.extend([Kind::MasterReplaced, hung, hung]);
    } else {
        // After a data loss every client reloads, which hides other faults; hence rare.
        all.push(Kind::RedisKilledDataLost);
    }
    all.extend([Kind::GatewayKilled, killed, Kind::PocketBaseKilled]);
    all.extend([
        Kind::GatewayRestarted,
        Kind::ClockJumped,
        Kind::HookEndpointSlow,
        Kind::HooksMoved,
        Kind::ClientsVanished,
    ]);
    let links = [Link::Clients, Link::Redis, Link::PocketBase, Link::Hooks];
    for link in links.into_iter().filter(|link| !(clustered && *link == Link::Redis)) {
        use Trouble::{Cut, Dark, Delayed, HalfClosed, Throttled, Truncated};
        all.extend([Cut, Dark, Delayed, Throttled, HalfClosed, Truncated].map(|trouble| Kind::Link(link, trouble)));
    }
    all
}

/// The gateway, or the gateway's link, that a fault affects.
#[derive(Clone, Copy, Debug)]
enum Target {
    Gateway(usize),
    WhereHooksGo,
}

/// One fault with its random decisions.
#[derive(Clone, Debug)]
pub struct Fault {
    pub kind: Kind,
    target: Target,
    pub lasts: Duration,
    /// Seed of the decisions during the fault.
    salt: u64,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {:?}, {} ms", self.kind, self.target, self.lasts.as_millis())
    }
}

impl Fault {
    pub fn draw(kind: Kind, rng: &mut Rng) -> Self {
        let lasts = match kind {
            Kind::GatewayHung | Kind::RedisHung | Kind::PocketBaseHung => 300..6_000,
            // Half last longer than a replica waits before a failover.
            Kind::MasterKilled | Kind::MasterHung => 300..12_000,
            Kind::RedisKilled | Kind::RedisKilledDataLost | Kind::PocketBaseKilled => 50..2_000,
            Kind::Link(_, Trouble::HalfClosed | Trouble::Truncated) | Kind::HooksMoved => 100..1_000,
            // Longer than a client waits for a ping.
            Kind::Link(Link::Clients, Trouble::Dark) => 300..20_000,
            Kind::Link(..) => 300..6_000,
            Kind::HookEndpointSlow => 1_500..5_000,
            // The process notices a jump within a second.
            Kind::ClockJumped => 1_500..8_000,
            _ => 200..3_000,
        };
        // Short faults are more frequent: equally hard to survive, and more fit into a run.
        let lasts = rng.millis(lasts.clone()).min(rng.millis(lasts.clone())).min(rng.millis(lasts));
        let of_gateway = matches!(kind, Kind::GatewayKilled | Kind::GatewayHung | Kind::GatewayRestarted);
        let target =
            if of_gateway && rng.chance(40) { Target::WhereHooksGo } else { Target::Gateway(rng.below(GATEWAYS)) };
        Self { kind, target, lasts, salt: rng.next() }
    }

    fn target(&self, topology: &Topology) -> usize {
        match self.target {
            Target::Gateway(number) => number,
            Target::WhereHooksGo => topology.links.hooks_to.load(Ordering::Relaxed),
        }
    }

    /// Injects the fault, waits, and heals the fault.
    pub async fn inject(&self, topology: &Topology) {
        let mut rng = Rng::new(self.salt);
        let (target, lasts) = (self.target(topology), self.lasts);
        let gateway = &topology.gateways[target];
        match self.kind {
            Kind::GatewayKilled => {
                let mut gateway = gateway.lock().await;
                gateway.process.kill();
                topology.keep_log(target, &gateway);
                sleep(lasts).await;
                gateway.launch();
            }
            Kind::GatewayHung => {
                let gateway = gateway.lock().await;
                gateway.process.signal("STOP");
                sleep(lasts).await;
                gateway.process.signal("CONT");
            }
            Kind::GatewayRestarted => {
                let mut gateway = gateway.lock().await;
                gateway.process.signal("TERM");
                let deadline = Instant::now() + STOPPING;
                while !gateway.process.has_ended() && Instant::now() < deadline {
                    sleep(Duration::from_millis(20)).await;
                }
                if !gateway.process.has_ended() {
                    topology.world.violation(format!("gateway {target} does not stop on SIGTERM"));
                    gateway.process.kill();
                }
                topology.keep_log(target, &gateway);
                sleep(lasts / 4).await;
                gateway.launch();
            }
            Kind::ClockJumped => {
                // Half of the jumps exceed the age at which signatures are refused.
                let seconds = if rng.chance(50) { rng.below(200) } else { 400 + rng.below(20_000) } as i64;
                topology.clocks[target].jump(if rng.chance(50) { seconds } else { -seconds });
                sleep(lasts).await;
                topology.clocks[target].jump(0);
            }
            Kind::RedisKilled | Kind::RedisKilledDataLost => self.kill_redis(topology).await,
            Kind::RedisHung => {
                let mut store = topology.redis.lock().await;
                let redis = store.single();
                redis.pause();
                sleep(lasts).await;
                redis.resume();
            }
            Kind::MasterKilled => topology.redis.lock().await.kill_master(&topology.world, lasts, &mut rng).await,
            Kind::MasterHung => topology.redis.lock().await.stop_master(&topology.world, lasts, &mut rng).await,
            Kind::MasterReplaced => topology.redis.lock().await.fail_over(&topology.world, &mut rng).await,
            Kind::PocketBaseKilled => {
                let mut pocketbase = topology.pocketbase.lock().await;
                pocketbase.process.kill();
                topology.keep_pocketbase_log(&pocketbase);
                sleep(lasts).await;
                pocketbase.restart().await;
            }
            Kind::PocketBaseHung => {
                let pocketbase = topology.pocketbase.lock().await;
                pocketbase.process.signal("STOP");
                sleep(lasts).await;
                pocketbase.process.signal("CONT");
            }
            Kind::Link(link, trouble) => {
                let links = &topology.links;
                let proxy = match link {
                    Link::Clients => &links.clients[target],
                    Link::Redis => &links.redis[target],
                    Link::PocketBase => &links.pocketbase[target],
                    Link::Hooks => &links.hooks,
                };
                self.trouble(proxy, trouble, &mut rng).await;
            }
            Kind::HookEndpointSlow => {
                topology.links.hooks.set(Weather::Delay(rng.millis(1_100..2_500)));
                sleep(lasts).await;
                topology.links.hooks.set(Weather::Clear);
            }
            Kind::HooksMoved => {
                let links = &topology.links;
                links.hooks_to.store(target, Ordering::Relaxed);
                links.hooks.lead_to(links.ports[target]);
                // Open connections still lead to the previous gateway.
                links.hooks.strike(Incident::Close, 100, self.salt);
                sleep(lasts).await;
            }
            Kind::ClientsVanished => {
                topology.links.clients[target].strike(Incident::Vanish, 20 + rng.next() % 80, self.salt);
                sleep(lasts).await;
            }
        }
    }

    async fn trouble(&self, proxy: &Proxy, trouble: Trouble, rng: &mut Rng) {
        let up = rng.chance(50);
        let weather = match trouble {
            Trouble::Cut => Weather::Cut,
            Trouble::Dark => Weather::Dark,
            Trouble::Delayed => Weather::Delay(rng.millis(20..700)),
            Trouble::Throttled => Weather::Throttle(2_000 + rng.below(100_000) as u32),
            Trouble::HalfClosed | Trouble::Truncated => {
                let after = 1 + rng.below(5_000);
                let half = trouble == Trouble::HalfClosed;
                let incident = if half { Incident::HalfClose { up } } else { Incident::Truncate { up, after } };
                proxy.strike(incident, 30 + rng.next() % 71, self.salt);
                return sleep(self.lasts).await;
            }
        };
        proxy.set(weather);
        sleep(self.lasts).await;
        proxy.set(Weather::Clear);
    }

    async fn kill_redis(&self, topology: &Topology) {
        let mut store = topology.redis.lock().await;
        let redis = store.single();
        let lost = self.kind == Kind::RedisKilledDataLost;
        if lost {
            remember_epochs(topology, redis.port()).await;
            topology.world.losses.fetch_add(1, Ordering::SeqCst);
        }
        redis.kill();
        if lost {
            redis.forget();
        }
        sleep(self.lasts).await;
        tokio::task::block_in_place(|| redis.restart());
    }
}

/// Records the current epochs, which are about to end and may not have been seen by any client yet.
async fn remember_epochs(topology: &Topology, port: u16) {
    let Ok(client) = redis::Client::open(format!("redis://127.0.0.1:{port}")) else { return };
    let Ok(mut connection) = client.get_multiplexed_async_connection().await else { return };
    let losses = topology.world.losses.load(Ordering::SeqCst);
    let keys: Vec<String> =
        redis::cmd("KEYS").arg("*:position:*").query_async(&mut connection).await.unwrap_or_default();
    for room in &topology.world.rooms {
        let Some(key) = keys.iter().find(|key| key.contains(&room.id)) else { continue };
        let epoch: Option<String> =
            redis::cmd("HGET").arg(key).arg("epoch").query_async(&mut connection).await.unwrap_or(None);
        if let Some(epoch) = epoch {
            lock(&topology.world.epochs).seen(&room.channel, &Arc::from(epoch), losses);
        }
    }
}
