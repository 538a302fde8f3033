//! The entrance of clients, by WebSocket or by stream: origin, places, and the start of the session.

use super::admission::Caller;
use super::forwarded;
use super::respond::{Answer, STOPPED_PAUSE, STOPPING, refused, retry_after};
use crate::limits::addresses::{AddressPlace, Addresses};
use crate::limits::newcomers::{NewcomerPlace, Newcomers};
use crate::limits::places::{Place, Places};
use crate::outbox::Outbox;
use crate::outbox::writer::Writers;
use crate::protocol::StreamAddress;
use crate::protocol::format::Format;
use crate::session::{BeforeConnect, Services, Session};
use crate::shutdown::Shutdown;
use crate::socket::Parts;
use crate::stream::ClientStream;
use crate::tasks;
use hyper::StatusCode;
use hyper::header::{HeaderMap, ORIGIN};
use prometheus::IntCounter;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};
use tokio_util::task::TaskTracker;

/// `Retry-After` of a full gateway, in seconds.
const FULL_PAUSE: &str = "10";

pub struct Entrance {
    pub services: Arc<Services>,
    writers: Arc<Writers>,
    next_connection: AtomicU64,
    open: Places,
    newcomers: Newcomers,
    addresses: Arc<Addresses>,
    silent_proxy: Once,
    /// Tasks of the connections, which a stop waits for.
    connections: TaskTracker,
    shutdown: Arc<Shutdown>,
}

/// The places of a connection before its token is verified, and the client's address.
pub struct Admitted {
    open: Open,
    newcomer: NewcomerPlace,
    address: IpAddr,
}

/// Parts of a connection, with the places that it holds while open.
pub type Connecting = Parts<(Open, NoticedPanic)>;

impl Entrance {
    /// `writers`: of all connections; `limit`: maximum number of connections; `addresses`: sockets per address; `connections`: tasks that a stop waits
    /// for.
    pub fn new(
        services: Arc<Services>,
        writers: Arc<Writers>,
        limit: usize,
        addresses: Arc<Addresses>,
        connections: TaskTracker,
        shutdown: Arc<Shutdown>,
    ) -> Self {
        let (config, metrics) = (&services.config, &services.metrics);
        Self {
            writers,
            next_connection: AtomicU64::new(1),
            open: Places::new(limit, metrics.connections.clone()),
            newcomers: Newcomers::new(
                // At most half of all connections: newcomers displace the oldest newcomer before the gateway is full.
                config.max_unauthenticated.min(limit / 2).max(1),
                metrics.unauthenticated.clone(),
            ),
            addresses,
            silent_proxy: Once::new(),
            connections,
            shutdown,
            services,
        }
    }

    /// Refuses new clients once the stop has closed the intake.
    pub fn check_intake(&self) -> Result<(), Box<Answer>> {
        if !self.shutdown.is_intake_closed() {
            return Ok(());
        }
        let answer = self.refuse("draining", StatusCode::SERVICE_UNAVAILABLE, STOPPING);
        Err(Box::new(retry_after(answer, STOPPED_PAUSE)))
    }

    pub fn check_origin(&self, headers: &HeaderMap) -> Result<(), Box<Answer>> {
        if self.is_allowed_origin(headers) {
            return Ok(());
        }
        let message = "pages of this origin may not connect (allowed_origins)";
        Err(Box::new(self.refuse("origin", StatusCode::FORBIDDEN, message)))
    }

    /// Clients other than browsers send no origin and may connect: a program could send any origin.
    pub fn is_allowed_origin(&self, headers: &HeaderMap) -> bool {
        let allowed = &self.services.config.allowed_origins;
        let mut origins = headers.get_all(ORIGIN).iter();
        allowed.allow_all() || origins.all(|origin| origin.to_str().is_ok_and(|origin| allowed.allow(origin)))
    }

    /// Takes the places of a connection.
    pub fn admit(&self, headers: &HeaderMap, caller: Arc<Caller>) -> Result<Admitted, Box<Answer>> {
        let full = |reason, status, message| Box::new(retry_after(self.refuse(reason, status, message), FULL_PAUSE));
        let (address, client) = if caller.is_trusted_proxy {
            if forwarded::is_silent(headers) {
                self.silent_proxy.call_once(|| {
                    tracing::warn!(
                        proxy = %caller.peer,
                        "a trusted proxy (of trusted_proxies, or on the Unix socket) sends neither Forwarded nor X-Forwarded-For: all its clients count as \
                         one address; configure the proxy to send one of these headers"
                    );
                });
            }
            let address = forwarded::client(headers, caller.peer, &self.services.config.trusted_proxies);
            let place = self.addresses.take(address).ok_or_else(|| {
                let message = "too many connections from this address";
                full("max_connections_per_ip", StatusCode::TOO_MANY_REQUESTS, message)
            })?;
            (address, Some(place))
        } else {
            (caller.peer, None)
        };
        let unavailable = |reason| {
            let message = "this gateway has reached max_connections; another gateway may have room";
            full(reason, StatusCode::SERVICE_UNAVAILABLE, message)
        };
        let connection = self.open.take().ok_or_else(|| unavailable("max_connections"))?;
        let newcomer = self.newcomers.enter();
        Ok(Admitted { open: Open { _connection: connection, _client: client, _caller: caller }, newcomer, address })
    }

    /// Makes the parts of a connection. `address`: of a stream's session.
    pub fn connect(
        &self,
        stream: ClientStream,
        format: Format,
        Admitted { open, newcomer, address }: Admitted,
        stream_address: Option<StreamAddress>,
    ) -> Connecting {
        let services = Arc::clone(&self.services);
        services.metrics.connections_total.inc();
        let held = (open, NoticedPanic(services.metrics.session_panics.clone()));
        let stream = Arc::new(stream);
        let outbox = Outbox::new(services.config.max_queue_size, format, stream.clone(), self.writers.next());
        newcomer.opened(&outbox);
        let connection = self.next_connection.fetch_add(1, Ordering::Relaxed);
        let before = Some(Box::new(BeforeConnect { place: newcomer, stream: stream_address }));
        let session = Session::new(connection, Arc::clone(&services), Arc::clone(&outbox), address, before);
        Parts { stream, session, outbox, services, shutdown: Arc::clone(&self.shutdown), held }
    }

    /// Starts the task of a connection.
    pub fn spawn(&self, connection: impl Future<Output: Send + 'static> + Send + 'static) {
        self.connections.spawn(tasks::contained(connection));
    }

    /// A counted refusal.
    pub fn refuse(&self, reason: &'static str, status: StatusCode, message: &str) -> Answer {
        self.services.metrics.handshakes_refused.with_label_values(&[reason]).inc();
        refused(status, reason, message)
    }
}

/// The places of an open connection.
pub struct Open {
    _connection: Place,
    /// Place of the client behind a trusted proxy.
    _client: Option<AddressPlace>,
    _caller: Arc<Caller>,
}

/// Counts panics in connections' tasks. Such a panic ends nothing else.
pub struct NoticedPanic(IntCounter);

impl Drop for NoticedPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_ends_its_task_only_gives_its_places_back_and_is_counted() {
        let counter = IntCounter::new("panics", "for a test").unwrap();
        let taken = prometheus::IntGauge::new("taken", "for a test").unwrap();
        let tracker = TaskTracker::new();
        let places = Places::new(2, taken.clone());
        let serve = |panics: bool| {
            let (place, noticed) = (places.take().unwrap(), NoticedPanic(counter.clone()));
            tracker.spawn(async move {
                let _held = (place, noticed);
                tokio::task::yield_now().await;
                assert!(!panics, "a bug");
            })
        };
        let (bad, good) = (serve(true), serve(false));
        assert!(bad.await.unwrap_err().is_panic());
        good.await.unwrap();
        tracker.close();
        tracker.wait().await;
        assert_eq!((counter.get(), taken.get()), (1, 0));
    }
}
