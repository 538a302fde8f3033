//! The server: binds both listeners, builds the parts ([`gateway`]), and serves until told to stop.

mod admin;
mod admission;
mod api;
mod body;
mod cors;
mod emulation;
mod entrance;
mod forwarded;
mod gateway;
mod handshake;
mod hooks;
mod http;
mod inherited;
mod listener;
mod public;
mod respond;
mod signed;
mod streams;

use crate::broker::{Broker, BrokerError};
use crate::config::{Config, ListenAddress, Networks};
use crate::limits::addresses::Addresses;
use crate::limits::descriptors::{self, Shares, TooFew};
use crate::pocketbase;
use crate::shutdown::Shutdown;
use crate::tasks::{self, Task};
use crate::tls::TlsError;
use admission::Admission;
pub use gateway::redis_tls;
use gateway::{Gateway, build};
use http::{Reading, accept};
pub use inherited::Inherited;
use listener::Listener;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Sockets of the admin listener. Operators and Prometheus need a few.
const ADMIN_SOCKETS: usize = 50;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {address} (`{setting}`): {cause}")]
    Listen { setting: &'static str, address: ListenAddress, cause: std::io::Error },
    #[error(
        "the supervisor passed a socket at {0}, which is the address of neither `listen` nor `admin_listen`; \
         give both the same address"
    )]
    Unused(String),
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
    gateway: Gateway,
    shares: Shares,
    public: Listener,
    admin: Listener,
}

impl Server {
    /// Binds early, so that a taken port is reported before anything else happens; then builds the parts. A socket
    /// passed by the supervisor takes the place of one bound here.
    pub async fn bind(config: Config, inherited: Inherited) -> Result<Self, StartError> {
        Self::bind_to(config, inherited, None).await
    }

    /// As [`Server::bind`]. `broker` takes the place of the config's broker, for a simulation of many gateways. The
    /// config has to name a Redis if several gateways share the broker.
    pub async fn bind_to(
        config: Config,
        mut inherited: Inherited,
        broker: Option<Arc<dyn Broker>>,
    ) -> Result<Self, StartError> {
        let descriptors = descriptors::raise();
        // Too low a limit is refused before a port is bound. The links to Redis, once open, are counted too.
        shares_of(&config, descriptors)?;
        let public = listen("listen", &config.listen, &mut inherited).await?;
        let admin = listen("admin_listen", &config.admin_listen, &mut inherited).await?;
        if let Some(address) = inherited.unused().into_iter().next() {
            return Err(StartError::Unused(address));
        }
        let gateway = build(config, broker).await?;
        let shares = shares_of(&gateway.services.config, descriptors)?;
        tracing::info!(shares.connections, shares.pending, descriptors, "room for connections");
        Ok(Self { gateway, shares, public, admin })
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
        let Self { gateway, shares, public, admin } = self;
        let (config, metrics) = (&gateway.services.config, &gateway.services.metrics);
        let addresses = Addresses::new(config.max_connections_per_ip.0);
        let trusted = config.trusted_proxies.clone();
        let noted = || (Arc::clone(&gateway.services.refusals), metrics.sockets_refused.clone());
        let public_admission = Admission::new(shares.pending, Arc::clone(&addresses), trusted, noted());
        let admin_admission = Admission::new(ADMIN_SOCKETS, Addresses::new(0), Networks::default(), noted());
        let reading = Reading { head: config.max_head_size.0, timeout: config.request_timeout };
        let shutdown = Shutdown::new(asked, config.shutdown_spread.0);
        let (hooks, clients, end) = (TaskTracker::new(), TaskTracker::new(), CancellationToken::new());
        let front = Arc::new(gateway.public(shares.connections, addresses, (&hooks, &clients), &shutdown));
        let operators = Arc::new(gateway.admin(&shutdown));
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
        gateway.stop(&shutdown, &hooks, &clients).await;
        end.cancel();
        for listener in listeners {
            let _ = listener.await;
        }
    }
}

/// The sockets that clients may hold, of `descriptors` and beside the descriptors that are open now.
fn shares_of(config: &Config, descriptors: usize) -> Result<Shares, TooFew> {
    let own = descriptors::own(descriptors::open(), ADMIN_SOCKETS + pocketbase::CALLS);
    descriptors::share(descriptors, own, config.max_connections, config.max_pending)
}

async fn listen(
    setting: &'static str,
    address: &ListenAddress,
    inherited: &mut Inherited,
) -> Result<Listener, StartError> {
    let listener = match inherited.take(address) {
        Ok(Some(listener)) => Ok(listener),
        Ok(None) => Listener::bind(address).await,
        Err(error) => Err(error),
    };
    listener.map_err(|cause| StartError::Listen { setting, address: address.clone(), cause })
}
