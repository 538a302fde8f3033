//! The composition root: builds the parts behind the listeners, holds the guards of the tasks, and stops the parts.

use super::StartError;
use super::admin::Admin;
use super::api::Api;
use super::api::methods::Methods;
use super::entrance::Entrance;
use super::hooks::Hooks;
use super::public::Public;
use super::signed::SignedRequests;
use crate::access::Access;
use crate::access::change_log::Changes;
use crate::auth::Auth;
use crate::broker::memory::MemoryBroker;
use crate::broker::redis::RedisBroker;
use crate::broker::status_store::StatusStore;
use crate::broker::{Broker, Retention, Sink};
use crate::channel::CONTROL;
use crate::config::Config;
use crate::connection::Connections;
use crate::control::Control;
use crate::hub::{Hub, Mailbox, Watcher};
use crate::inboxes::Inboxes;
use crate::limits::Limits;
use crate::limits::addresses::Addresses;
use crate::members::presence::Presence;
use crate::members::user_status::UserStatuses;
use crate::metrics::Metrics;
use crate::outbox::Budget;
use crate::outbox::writer::Writers;
use crate::pocketbase::batch::Batcher;
use crate::pocketbase::{Check, PocketBase, Verdict};
use crate::refusals::Refusals;
use crate::relay::Relay;
use crate::revocation::Revocation;
use crate::session::Services;
use crate::shutdown::Shutdown;
use crate::tls::{Tls, TlsError};
use crate::updates::Updates;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// Maximum time of a stop for the hooks' events to be published.
const INTAKE_PATIENCE: Duration = Duration::from_secs(2);
/// Maximum time at the end of a stop for the broker to learn of departures.
const PRESENCE_PATIENCE: Duration = Duration::from_secs(2);

/// The parts behind the listeners, with the guards of the tasks.
pub struct Gateway {
    pub services: Arc<Services>,
    relay: Relay,
    writers: Arc<Writers>,
    /// Kept alive here: the hub holds a weak reference only.
    _control: Arc<Control>,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl Gateway {
    /// `connections`: maximum number of connections; `addresses`: sockets per address; `hooks`, `clients`: tasks that a
    /// stop waits for.
    pub fn public(
        &self,
        connections: usize,
        addresses: Arc<Addresses>,
        (hooks, clients): (&TaskTracker, &TaskTracker),
        shutdown: &Shutdown,
    ) -> Public {
        let Services { config, metrics, .. } = &*self.services;
        let shutdown = Arc::new(shutdown.clone());
        let signed = SignedRequests::new(config, metrics.clone(), hooks.clone(), Arc::clone(&shutdown));
        let signed = Arc::new(signed);
        let methods = self.methods();
        Public::new(
            Arc::clone(&self.services),
            Entrance::new(
                Arc::clone(&self.services),
                Arc::clone(&self.writers),
                connections,
                addresses,
                clients.clone(),
                shutdown,
            ),
            Hooks::new(config, self.relay.clone(), metrics.clone(), Arc::clone(&signed)),
            Api { methods, signed },
        )
    }

    pub fn admin(&self, shutdown: &Shutdown) -> Admin {
        Admin::new(Arc::clone(&self.services), self.relay.clone(), self.methods(), shutdown.clone())
    }

    fn methods(&self) -> Methods {
        let Services { config, broker, statuses, metrics, .. } = &*self.services;
        Methods {
            broker: Arc::clone(broker),
            statuses: Arc::clone(statuses),
            metrics: metrics.clone(),
            timeout: config.command_timeout,
        }
    }

    pub async fn stop(&self, shutdown: &Shutdown, hooks: &TaskTracker, clients: &TaskTracker) {
        let Services { config, presence, statuses, metrics, .. } = &*self.services;
        let open = &metrics.connections;
        tracing::info!(connections = open.get(), drain_delay = ?config.drain_delay.0, "stopping: no longer ready");
        tokio::time::sleep(config.drain_delay.0).await;

        let all_gone = async {
            self.relay.expect_refusals();
            shutdown.close_intake();
            hooks.close();
            let taken = async {
                hooks.wait().await;
                self.relay.processed().await;
            };
            // Unpublished events stay in the outbox, for other gateways or for the next start.
            let _ = tokio::time::timeout(INTAKE_PATIENCE, taken).await;
            tracing::info!(connections = open.get(), "stopping: clients are told to reconnect");
            shutdown.say_farewell();
            clients.close();
            clients.wait().await;
        };
        if tokio::time::timeout(config.shutdown_timeout, all_gone).await.is_err() {
            tracing::warn!(
                connections = open.get(),
                "stopping: shutdown_timeout is over, remaining connections are cut"
            );
        }
        statuses.withdraw();
        let told = async { tokio::join!(presence.withdraw(), statuses.all_reported()) };
        if tokio::time::timeout(PRESENCE_PATIENCE, told).await.is_err() {
            tracing::warn!(
                "the broker did not learn of all departures in time; the remaining presence expires after presence_ttl"
            );
        }
    }
}

/// Builds all parts. `given`: takes the place of the config's broker.
pub async fn build(config: Config, given: Option<Arc<dyn Broker>>) -> Result<Gateway, StartError> {
    let metrics = Metrics::new()?;
    let (broker, sweep) = match given {
        Some(given) => (given, None),
        None => broker(&config).await?,
    };
    let mut tasks: Vec<AbortOnDropHandle<()>> = sweep.into_iter().collect();
    let presence = Presence::start(Arc::clone(&broker));
    let hub = Hub::new(Arc::clone(&broker), Arc::clone(&presence), metrics.clone());
    let sink: Weak<Hub> = Arc::downgrade(&hub);
    broker.start(sink as Weak<dyn Sink>).await?;
    tasks.push(hub.start_position_checks());

    let pocketbase = PocketBase::new(&config, metrics.clone())?;
    let changes = Arc::<Changes>::default();
    let auth = Auth::new(&config, pocketbase.clone(), Arc::clone(&changes));
    tasks.push(auth.start_sweep());
    let store = Arc::clone(&broker) as Arc<dyn StatusStore>;
    let connections = Arc::<Connections>::default();
    let statuses = UserStatuses::new(&config, store, Arc::clone(&presence), Arc::clone(&connections), metrics.clone());
    tasks.extend(statuses.start_reports());
    if config.redis_url.is_some() {
        tasks.extend([presence.start_renewal(config.presence_ttl), statuses.start_renewal()]);
    }
    let access = Access::new(&config, access_checks(pocketbase.clone()), Arc::clone(&changes), metrics.clone());
    let access = Arc::new(access);
    tasks.push(access.start_sweep());
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
    let inboxes = Arc::<Inboxes>::default();
    let mailbox: Weak<Inboxes> = Arc::downgrade(&inboxes);
    tasks.push(hub.receive(inboxes.node(), mailbox as Weak<dyn Mailbox>));
    let control =
        Arc::new(Control { revocation, updates: Arc::clone(&updates), connections: Arc::clone(&connections), changes });
    let watcher: Weak<Control> = Arc::downgrade(&control);
    hub.watch(CONTROL, watcher as Weak<dyn Watcher>);
    tasks.push(control.start_rechecks(config.recheck_interval));
    let limits = Limits::new(&config, metrics.guests.clone());
    tasks.extend(limits.start_sweeps());
    let budget = Budget::new(config.max_total_queue_size, metrics.queued_bytes.clone());
    let writers = Arc::new(Writers::start(config.write_hold.0, &budget, &metrics.outbox_seconds));
    let paced = config.redis_url.is_none().then(|| Arc::clone(&writers));
    let relay = Relay::start(&config, pocketbase, Arc::clone(&broker), paced, metrics.clone());
    let relay_start = relay.started();
    let services = Services {
        config,
        auth,
        access,
        connections,
        updates,
        broker,
        hub,
        inboxes,
        presence,
        statuses,
        relay_start,
        limits,
        refusals,
        metrics,
    };
    Ok(Gateway { services: Arc::new(services), relay, writers, _control: control, _tasks: tasks })
}

/// Length of leases without an end: 100 years.
const NO_END: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The broker of the config. In memory, with the guard of the sweep.
async fn broker(config: &Config) -> Result<(Arc<dyn Broker>, Option<AbortOnDropHandle<()>>), StartError> {
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
    let Some(url) = &config.redis_url else {
        // No client outlives this process, so leases need neither an end nor renewals.
        let broker = MemoryBroker::new(Retention { presence_ttl: NO_END, ..retention });
        let sweep = broker.start_sweep();
        return Ok((broker, Some(sweep)));
    };
    let broker = RedisBroker::connect_with(url.clone(), redis_tls(config)?, &config.redis_prefix, retention).await?;
    Ok((broker, None))
}

/// Access checks by PocketBase, in batches.
fn access_checks(pocketbase: PocketBase) -> Batcher<Check, Verdict> {
    Batcher::start(move |checks: Arc<[Check]>| {
        let pocketbase = pocketbase.clone();
        async move { pocketbase.authorize(&checks).await }
    })
}

/// TLS towards Redis, if `redis_url` asks for TLS.
pub fn redis_tls(config: &Config) -> Result<Option<Tls>, TlsError> {
    let wants_tls = config.redis_url.as_ref().is_some_and(|url| url.tls);
    let new = || Tls::new(config.redis_ca_file.as_ref(), config.redis_identity(), "redis_ca_file");
    wants_tls.then(new).transpose()
}
