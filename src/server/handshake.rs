//! The WebSocket handshake: checks the request, takes the connection's places, and serves the connection after the
//! upgrade.

mod headers;

use super::admission::Caller;
use super::forwarded;
use super::respond::{Answer, STOPPED_PAUSE, STOPPING, refused, retry_after};
use crate::limits::addresses::{AddressPlace, Addresses};
use crate::limits::newcomers::{NewcomerPlace, Newcomers};
use crate::limits::places::{Place, Places};
use crate::outbox::writer::Writers;
use crate::outbox::{Budget, Outbox};
use crate::protocol::format::{Encoding, Format};
use crate::session::{Services, Session};
use crate::shutdown::Shutdown;
use crate::socket;
use crate::stream::ClientStream;
use crate::tasks;
use futures_util::FutureExt;
use futures_util::future::OptionFuture;
use headers::{Fault, Subprotocols};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{HeaderValue, ORIGIN, SEC_WEBSOCKET_PROTOCOL};
use hyper::upgrade::Upgraded;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use prometheus::IntCounter;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};
use tokio_util::task::TaskTracker;
use tungstenite::handshake::server::create_response_with_body;

pub const WEBSOCKET: &str = "/connection/websocket";

/// `Retry-After` of a full gateway, in seconds.
const FULL_PAUSE: &str = "10";

pub struct Handshakes {
    services: Arc<Services>,
    writers: Writers,
    next_connection: AtomicU64,
    open: Places,
    newcomers: Newcomers,
    addresses: Arc<Addresses>,
    silent_proxy: Once,
    /// Tasks of the connections, which a stop waits for.
    connections: TaskTracker,
    shutdown: Arc<Shutdown>,
}

impl Handshakes {
    /// `limit`: maximum number of connections; `addresses`: sockets per address; `connections`: tasks that a stop waits
    /// for.
    pub fn new(
        services: Arc<Services>,
        limit: usize,
        addresses: Arc<Addresses>,
        connections: TaskTracker,
        shutdown: Arc<Shutdown>,
    ) -> Self {
        let (config, metrics) = (&services.config, &services.metrics);
        Self {
            writers: Writers::start(
                config.write_hold.0,
                &Budget::new(config.max_total_queue_size, metrics.queued_bytes.clone()),
                &metrics.outbox_seconds,
            ),
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

    pub fn answer(
        self: &Arc<Self>,
        mut request: Request<Incoming>,
        caller: Arc<Caller>,
    ) -> Result<Answer, Box<Answer>> {
        if self.shutdown.is_intake_closed() {
            let answer = self.refuse("draining", StatusCode::SERVICE_UNAVAILABLE, STOPPING);
            return Err(Box::new(retry_after(answer, STOPPED_PAUSE)));
        }
        let (subprotocol, encoding) = self.check(&request)?;
        let format = match encoding {
            Encoding::Json => Format::WebSocketJson,
            Encoding::Protobuf => Format::WebSocketProtobuf,
        };
        let places = self.find_places(&request, caller)?;
        let upgrade = hyper::upgrade::on(&mut request);
        let (parts, _) = request.into_parts();
        let mut response = create_response_with_body(&Request::from_parts(parts, ()), Full::default)
            .map_err(|bad| Box::new(self.refuse("bad_handshake", StatusCode::BAD_REQUEST, &bad.to_string())))?;
        if let Some(subprotocol) = subprotocol {
            response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol));
        }
        let me = Arc::clone(self);
        self.connections.spawn(tasks::contained(upgrade.then(move |upgraded| me.serve(upgraded, format, places))));
        Ok(response)
    }

    /// Checks headers, subprotocols and origin. Returns the subprotocol to confirm, and the encoding.
    fn check(&self, request: &Request<Incoming>) -> Result<(Option<&'static str>, Encoding), Box<Answer>> {
        if let Some(Fault { reason, status, message }) = headers::fault(request.headers()) {
            return Err(Box::new(headers::invite(self.refuse(reason, status, message))));
        }
        let chosen = match headers::subprotocols(request.headers()) {
            Subprotocols::None => (None, headers::encoding(request.uri().query())),
            Subprotocols::Ours(subprotocol, encoding) => (Some(subprotocol), encoding),
            Subprotocols::OnlyOthers => {
                let message = "request centrifuge-json, centrifuge-protobuf, or no subprotocol";
                return Err(Box::new(self.refuse("unsupported_subprotocol", StatusCode::BAD_REQUEST, message)));
            }
        };
        if !self.is_allowed_origin(request) {
            let message = "pages of this origin may not connect (allowed_origins)";
            return Err(Box::new(self.refuse("origin", StatusCode::FORBIDDEN, message)));
        }
        Ok(chosen)
    }

    /// Clients other than browsers send no origin and may connect: a program could send any origin.
    fn is_allowed_origin(&self, request: &Request<Incoming>) -> bool {
        let allowed = &self.services.config.allowed_origins;
        let mut origins = request.headers().get_all(ORIGIN).iter();
        allowed.allow_all() || origins.all(|origin| origin.to_str().is_ok_and(|origin| allowed.allow(origin)))
    }

    /// The places of a connection, held while the connection is open and until its token is verified, and the client's
    /// address.
    fn find_places(
        &self,
        request: &Request<Incoming>,
        caller: Arc<Caller>,
    ) -> Result<(Open, NewcomerPlace, IpAddr), Box<Answer>> {
        let full = |reason, status, message| Box::new(retry_after(self.refuse(reason, status, message), FULL_PAUSE));
        let (address, client) = if caller.is_trusted_proxy {
            if forwarded::is_silent(request.headers()) {
                self.silent_proxy.call_once(|| {
                    tracing::warn!(
                        proxy = %caller.peer,
                        "a trusted proxy (of trusted_proxies, or on the Unix socket) sends neither Forwarded nor X-Forwarded-For: all its clients count as \
                         one address; configure the proxy to send one of these headers"
                    );
                });
            }
            let address = forwarded::client(request.headers(), caller.peer, &self.services.config.trusted_proxies);
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
        Ok((Open { _connection: connection, _client: client, _caller: caller }, newcomer, address))
    }

    /// `None` if the client did not wait for the answer.
    fn serve(
        &self,
        upgraded: hyper::Result<Upgraded>,
        format: Format,
        (open, newcomer, address): (Open, NewcomerPlace, IpAddr),
    ) -> OptionFuture<impl Future<Output = ()> + Send + use<>> {
        // Only the stream is needed from here on; hyper's buffer would stay for the connection's life.
        let parts = upgraded.ok().and_then(|it| it.downcast::<TokioIo<ClientStream>>().ok());
        let serving = parts.map(|parts| {
            let services = Arc::clone(&self.services);
            services.metrics.connections_total.inc();
            let held = (open, NoticedPanic(services.metrics.session_panics.clone()));
            let stream = Arc::new(parts.io.into_inner());
            let outbox = Outbox::new(services.config.max_queue_size, format, stream.clone(), self.writers.next());
            newcomer.opened(&outbox);
            let connection = self.next_connection.fetch_add(1, Ordering::Relaxed);
            let session =
                Session::new(connection, Arc::clone(&services), Arc::clone(&outbox), address, Some(Box::new(newcomer)));
            socket::serve(stream, parts.read_buf, session, outbox, services, Arc::clone(&self.shutdown), held)
        });
        serving.into()
    }

    /// A counted refusal.
    fn refuse(&self, reason: &'static str, status: StatusCode, message: &str) -> Answer {
        self.services.metrics.handshakes_refused.with_label_values(&[reason]).inc();
        refused(status, reason, message)
    }
}

/// The places of an open connection.
struct Open {
    _connection: Place,
    /// Place of the client behind a trusted proxy.
    _client: Option<AddressPlace>,
    _caller: Arc<Caller>,
}

/// Counts panics in connections' tasks. Such a panic ends nothing else.
struct NoticedPanic(IntCounter);

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
