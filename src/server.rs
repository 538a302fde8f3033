//! The composition root: builds the parts, binds both listeners, and serves until told to stop.

mod admin;
mod admission;
mod api;
mod forwarded;
mod handshake;
mod hooks;
mod http;
mod listener;
mod public;
mod respond;
mod signed;

use crate::access::Access;
use crate::access::change_log::Changes;
use crate::auth::Auth;
use crate::broker::memory::MemoryBroker;
use crate::broker::redis::RedisBroker;
use crate::broker::status_store::StatusStore;
use crate::broker::{Broker, BrokerError, Retention, Sink};
use crate::channel::CONTROL;
use crate::config::{Config, ListenAddress, Networks};
use crate::connection::Connections;
use crate::control::Control;
use crate::hub::{Hub, Watcher};
use crate::limits::Limits;
use crate::limits::addresses::Addresses;
use crate::limits::buckets::Buckets;
use crate::limits::descriptors::{self, Shares, TooFew};
use crate::members::presence::Presence;
use crate::members::user_status::UserStatuses;
use crate::metrics::Metrics;
use crate::pocketbase::{self, PocketBase};
use crate::refusals::Refusals;
use crate::relay::Relay;
use crate::revocation::Revocation;
use crate::session::Services;
use crate::shutdown::Shutdown;
use crate::tasks::{self, Task};
use crate::tls::{Tls, TlsError};
use crate::updates::Updates;
use admin::Admin;
use admission::Admission;
use http::{Reading, accept};
use listener::Listener;
use public::Public;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Sockets of the admin listener. Operators and Prometheus need a few.
const ADMIN_SOCKETS: usize = 50;

/// Maximum time that a stop waits for the hooks' events to be published.
const INTAKE_PATIENCE: Duration = Duration::from_secs(2);
/// Maximum time that a stop waits, at the end, for the broker to learn of departures.
const PRESENCE_PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {address} (`{setting}`): {cause}")]
    Listen { setting: &'static str, address: ListenAddress, cause: std::io::Error },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error(transparent)]
    Descriptors(#[from] TooFew),
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// A gateway with bound addresses.
pub struct Server {
    services: Arc<Services>,
    shares: Shares,
    public: Listener,
    admin: Listener,
}

impl Server {
    /// Binds first, so that a taken port is reported before anything else happens; then builds the parts.
    pub async fn bind(config: Config) -> Result<Self, StartError> {
        let descriptors = descriptors::raise();
        let public = listen("listen", &config.listen).await?;
        let admin = listen("admin_listen", &config.admin_listen).await?;
        let services = build(config).await?;
        let own = descriptors::own(descriptors::open(), ADMIN_SOCKETS + pocketbase::CALLS);
        let (connections, pending) = (services.config.max_connections, services.config.max_pending);
        let shares = descriptors::share(descriptors, own, connections, pending)?;
        tracing::info!(shares.connections, shares.pending, descriptors, own, "room for connections");
        Ok(Self { services, shares, public, admin })
    }

    /// Address of the public listener, with the real port if port 0 was configured.
    pub fn public_address(&self) -> std::io::Result<ListenAddress> {
        self.public.address()
    }

    pub fn admin_address(&self) -> std::io::Result<ListenAddress> {
        self.admin.address()
    }

    /// Serves until `asked` is cancelled, then stops in the steps of [`Shutdown`]. Both listeners answer until the
    /// end, so that late requests get an explicit refusal.
    pub async fn run(self, asked: CancellationToken) {
        let Self { services, shares, public, admin } = self;
        let (config, refused) = (&services.config, &services.metrics.sockets_refused);
        let addresses = Addresses::new(config.max_connections_per_ip.0);
        let trusted = config.trusted_proxies.clone();
        let noted = || (Arc::clone(&services.refusals), refused.clone());
        let public_admission = Admission::new(shares.pending, Arc::clone(&addresses), trusted, noted());
        let admin_admission = Admission::new(ADMIN_SOCKETS, Addresses::new(0), Networks::default(), noted());
        let reading = Reading { head: config.max_head_size.0, timeout: config.request_timeout };
        let shutdown = Shutdown::new(asked, services.config.shutdown_spread.0);
        let (hooks, clients, end) = (TaskTracker::new(), TaskTracker::new(), CancellationToken::new());
        let trackers = (hooks.clone(), clients.clone());
        let front = Public::new(Arc::clone(&services), shares.connections, addresses, trackers, shutdown.clone());
        let front = Arc::new(front);
        let operators = Arc::new(Admin::new(Arc::clone(&services), shutdown.clone()));
        let listeners = [
            tasks::spawn(
                Task::PublicListener,
                accept(public, public_admission, reading, end.clone(), move |request, caller| {
                    Arc::clone(&front).answer(request, caller)
                }),
            ),
            tasks::spawn(
                Task::AdminListener,
                accept(admin, admin_admission, reading, end.clone(), move |request, caller| {
                    Arc::clone(&operators).answer(request, caller)
                }),
            ),
        ];
        shutdown.asked().await;
        stop(&services, &shutdown, &hooks, &clients).await;
        end.cancel();
        for listener in listeners {
            let _ = listener.await;
        }
    }
}

async fn stop(services: &Services, shutdown: &Shutdown, hooks: &TaskTracker, clients: &TaskTracker) {
    let (config, open) = (&services.config, &services.metrics.connections);
    tracing::info!(connections = open.get(), drain_delay = ?config.drain_delay.0, "stopping: no longer ready");
    tokio::time::sleep(config.drain_delay.0).await;

    let all_gone = async {
        services.relay.expect_refusals();
        shutdown.close_intake();
        hooks.close();
        let taken = async {
            hooks.wait().await;
            services.relay.processed().await;
        };
        // Unpublished events stay in the outbox, for other gateways or for the next start.
        let _ = tokio::time::timeout(INTAKE_PATIENCE, taken).await;
        tracing::info!(connections = open.get(), "stopping: clients are told to reconnect");
        shutdown.say_farewell();
        clients.close();
        clients.wait().await;
    };
    if tokio::time::timeout(config.shutdown_timeout, all_gone).await.is_err() {
        tracing::warn!(connections = open.get(), "stopping: shutdown_timeout is over, remaining connections are cut");
    }
    services.statuses.withdraw();
    let told = async { tokio::join!(services.presence.withdraw(), services.statuses.all_reported()) };
    if tokio::time::timeout(PRESENCE_PATIENCE, told).await.is_err() {
        tracing::warn!(
            "the broker did not learn of all departures in time; the remaining presence expires after presence_ttl"
        );
    }
}

async fn listen(setting: &'static str, address: &ListenAddress) -> Result<Listener, StartError> {
    let listener = Listener::bind(address).await;
    listener.map_err(|cause| StartError::Listen { setting, address: address.clone(), cause })
}

async fn build(config: Config) -> Result<Arc<Services>, StartError> {
    let metrics = Metrics::new()?;
    let retention = Retention {
        size: config.history_size,
        bytes: config.history_bytes,
        total_bytes: config.history_total_bytes,
        read_bytes: config.max_queue_size / 2,
        ttl: config.history_ttl,
        position_ttl: config.history_ttl.max(Duration::from_secs(24 * 3600)),
        presence_ttl: config.presence_ttl,
        presence_max: config.presence_max,
        status_grace: config.status_grace,
        last_seen_ttl: config.last_seen_ttl,
        join_leave_max: config.join_leave_max,
    };
    let broker: Arc<dyn Broker> = match &config.redis_url {
        Some(url) => {
            let tls = redis_tls(&config)?;
            RedisBroker::connect_with(url.clone(), tls, &config.redis_prefix, retention).await?
        }
        None => {
            let broker = MemoryBroker::new(retention);
            tasks::spawn(Task::MemorySweep, MemoryBroker::sweep(Arc::downgrade(&broker)));
            broker
        }
    };
    let presence = Presence::new(Arc::clone(&broker));
    tasks::spawn(Task::PresenceRenewal, Presence::renew(Arc::downgrade(&presence), config.presence_ttl));
    let hub = Hub::new(Arc::clone(&broker), Arc::clone(&presence), metrics.clone());
    let sink: Weak<Hub> = Arc::downgrade(&hub);
    broker.start(sink as Weak<dyn Sink>).await?;
    tasks::spawn(Task::PositionChecks, Hub::check_positions(Arc::downgrade(&hub)));

    let pocketbase = PocketBase::new(&config, metrics.clone())?;
    let changes = Arc::<Changes>::default();
    let auth = Auth::new(&config, pocketbase.clone(), Arc::clone(&changes));
    tasks::spawn(Task::AccountSweep, Auth::sweep(Arc::downgrade(&auth)));
    let store = Arc::clone(&broker) as Arc<dyn StatusStore>;
    let connections = Arc::<Connections>::default();
    let statuses = UserStatuses::new(&config, store, Arc::clone(&presence), Arc::clone(&connections), metrics.clone());
    tasks::spawn(Task::StatusReports, UserStatuses::run(Arc::downgrade(&statuses)));
    let access = Arc::new(Access::new(&config, pocketbase.clone(), Arc::clone(&changes), metrics.clone()));
    tasks::spawn(Task::AccessSweep, Access::sweep(Arc::downgrade(&access)));
    let refusals = Arc::<Refusals>::default();
    let revocation = Arc::new(Revocation {
        hub: Arc::clone(&hub),
        auth: Arc::clone(&auth),
        access: Arc::clone(&access),
        connections: Arc::clone(&connections),
        refusals: Arc::clone(&refusals),
        metrics: metrics.clone(),
    });
    let updates = Updates::new(Arc::new(pocketbase.clone()), metrics.clone());
    let control =
        Arc::new(Control { revocation, updates: Arc::clone(&updates), connections: Arc::clone(&connections), changes });
    let watcher: Weak<Control> = Arc::downgrade(&control);
    hub.watch(CONTROL, watcher.clone() as Weak<dyn Watcher>);
    tasks::spawn(Task::AccessRechecks, Control::recheck(watcher, config.recheck_interval));
    let limits = Limits::new(&config, metrics.guests.clone());
    for table in [&limits.signals, &limits.reads, &limits.statuses] {
        tasks::spawn(Task::RateSweep, Buckets::sweep(Arc::downgrade(table)));
    }
    let relay = Relay::start(&config, pocketbase, Arc::clone(&broker), metrics.clone());
    Ok(Arc::new(Services {
        config,
        auth,
        access,
        connections,
        _control: control,
        updates,
        broker,
        hub,
        presence,
        statuses,
        relay,
        limits,
        refusals,
        metrics,
    }))
}

/// TLS towards Redis, if `redis_url` asks for TLS.
pub fn redis_tls(config: &Config) -> Result<Option<Tls>, TlsError> {
    let wants_tls = config.redis_url.as_ref().is_some_and(|url| url.tls);
    let new = || Tls::new(config.redis_ca_file.as_ref(), config.redis_identity(), "redis_ca_file");
    wants_tls.then(new).transpose()
}
