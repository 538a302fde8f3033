//! The public listener: the WebSocket handshake, the hooks' intake, and the server API.

use super::api;
use super::door::Caller;
use super::forwarded;
use super::handshake::{self, SUBPROTOCOL, Subprotocols};
use super::respond::{Answer, error, json};
use crate::config::BasePath;
use crate::event::Events;
use crate::limits::addresses::{AddressPlace, Addresses};
use crate::limits::lines::Lines;
use crate::limits::newcomers::{NewcomerPlace, Newcomers};
use crate::limits::places::{Place, Places};
use crate::limits::replays::Replays;
use crate::outbox::writer::Writers;
use crate::outbox::{Budget, Outbox};
use crate::session::{Services, Session};
use crate::shutdown::Shutdown;
use crate::signature::{MAX_SKEW, SIGNATURE, Signer, TIMESTAMP, Verified};
use crate::socket;
use crate::stream::ClientStream;
use crate::tasks;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::OptionFuture;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, HeaderValue, ORIGIN, RETRY_AFTER, SEC_WEBSOCKET_PROTOCOL};
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use prometheus::IntCounter;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tungstenite::handshake::server::create_response_with_body;

pub const WEBSOCKET: &str = "/connection/websocket";
pub const HOOKS: &str = "/hooks/pocketbase";

/// Maximum length of a request's path and query, in bytes.
const URI_MAX: usize = 2048;
/// Memory for large bodies of hooks that are being read, as a multiple of `max_hook_size`. Bodies are read before the
/// sender is verified.
const BODIES: usize = 4;
/// Maximum size of a small body, in bytes. Small bodies always have room, since there are never more of them than
/// pending sockets: a sender that announces large bodies and sends nothing must not keep out the hooks' usual posts.
const BODY_SMALL: usize = 64 * 1024;
/// Unit in which memory for bodies is counted, in bytes.
const BODY_UNIT: usize = 1024;
/// `Retry-After` of a full gateway, in seconds.
const FULL_PAUSE: &str = "10";

/// Log lines about refused requests per [`REFUSALS_PERIOD`]: enough to find a wrong setting.
const REFUSALS: u32 = 10;
const REFUSALS_PERIOD: Duration = Duration::from_secs(60);

/// Limits on reading a refused body: bytes and time.
const DISCARDED: usize = 32 * 1024 * 1024;
const DISCARDING: Duration = Duration::from_secs(1);

const STOPPING: &str = "this gateway is stopping; retry at another gateway, or here after the restart";

pub struct Public {
    services: Arc<Services>,
    signer: Signer,
    writers: Writers,
    next_connection: AtomicU64,
    open: Places,
    newcomers: Newcomers,
    addresses: Arc<Addresses>,
    replays: Replays,
    refusals: Lines,
    silent_proxy: Once,
    bodies: Semaphore,
    /// Tasks that a stop waits for: requests of hooks, and connections.
    hooks: TaskTracker,
    connections: TaskTracker,
    shutdown: Arc<Shutdown>,
}

impl Public {
    /// `connections`: maximum number of connections; `addresses`: sockets per address; `hooks`, `clients`: tasks that
    /// a stop waits for.
    pub fn new(
        services: Arc<Services>,
        connections: usize,
        addresses: Arc<Addresses>,
        (hooks, clients): (TaskTracker, TaskTracker),
        shutdown: Shutdown,
    ) -> Self {
        let (config, metrics) = (&services.config, &services.metrics);
        Self {
            signer: Signer::new(&config.secret).accepting(&config.secret_second),
            writers: Writers::start(
                config.write_hold.0,
                &Budget::new(config.max_total_queue_size, metrics.queued_bytes.clone()),
                &metrics.outbox_seconds,
            ),
            next_connection: AtomicU64::new(1),
            open: Places::new(connections, metrics.connections.clone()),
            newcomers: Newcomers::new(
                // At most half of all connections: newcomers displace the oldest newcomer before the gateway is full.
                config.max_unauthenticated.min(connections / 2).max(1),
                metrics.unauthenticated.clone(),
            ),
            addresses,
            replays: Replays::default(),
            refusals: Lines::new("refused requests", REFUSALS, REFUSALS_PERIOD),
            silent_proxy: Once::new(),
            bodies: Semaphore::new(body_units(config.max_hook_size) * BODIES),
            hooks,
            connections: clients,
            shutdown: Arc::new(shutdown),
            services,
        }
    }

    pub async fn answer(self: Arc<Self>, request: Request<Incoming>, caller: Arc<Caller>) -> Answer {
        let path = route(&self.services.config.base_path, request.uri().path());
        let mut answer = match (request.method(), path) {
            _ if request.uri().path_and_query().is_some_and(|target| target.as_str().len() > URI_MAX) => error(
                StatusCode::URI_TOO_LONG,
                "uri_too_long",
                &format!("path and query may have {URI_MAX} bytes at most"),
            ),
            (&Method::GET, WEBSOCKET) => self.handshake(request, Arc::clone(&caller)),
            (&Method::POST, HOOKS) => self.take_events(request).await,
            (&Method::POST, path) if let Some(method) = api::Method::of(path) => self.serve_api(method, request).await,
            (_, path) if matches!(path, WEBSOCKET | HOOKS) || api::Method::of(path).is_some() => error(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "use GET for the WebSocket and POST for all else",
            ),
            _ => error(
                StatusCode::NOT_FOUND,
                "not_found",
                &format!(
                    "there is {base}{WEBSOCKET} for clients, {base}{HOOKS} for PocketBase's hooks, {base}{}… for back ends",
                    api::PREFIX,
                    base = self.services.config.base_path.as_str(),
                ),
            ),
        };
        if let Some(Refused { reason, message }) = answer.extensions_mut().remove()
            && self.refusals.passes()
        {
            tracing::warn!(peer = %caller.peer, reason, cause = message, "a request was refused");
        }
        if answer.status().is_client_error() || answer.status().is_server_error() {
            // A refused caller starts again with a new connection, which is counted.
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }

    fn refuse(&self, reason: &'static str, status: StatusCode, message: &str) -> Answer {
        self.services.metrics.handshakes_refused.with_label_values(&[reason]).inc();
        refused(status, reason, message)
    }

    fn handshake(self: &Arc<Self>, mut request: Request<Incoming>, caller: Arc<Caller>) -> Answer {
        if self.shutdown.is_intake_closed() {
            return come_back(self.refuse("draining", StatusCode::SERVICE_UNAVAILABLE, STOPPING), STOPPED_PAUSE);
        }
        if let Some(handshake::Fault { reason, status, message }) = handshake::fault(request.headers()) {
            return handshake::invite(self.refuse(reason, status, message));
        }
        let subprotocols = handshake::subprotocols(request.headers());
        if subprotocols == Subprotocols::OnlyOthers {
            return self.refuse(
                "unsupported_subprotocol",
                StatusCode::BAD_REQUEST,
                "only JSON is supported: request no subprotocol, or centrifuge-json",
            );
        }
        if !self.is_allowed_origin(&request) {
            return self.refuse(
                "origin",
                StatusCode::FORBIDDEN,
                "pages of this origin may not connect (allowed_origins)",
            );
        }
        let places = match self.find_places(&request, caller) {
            Ok(places) => places,
            Err(full) => return *full,
        };
        let upgrade = hyper::upgrade::on(&mut request);
        let (parts, _) = request.into_parts();
        let mut response = match create_response_with_body(&Request::from_parts(parts, ()), Full::default) {
            Ok(response) => response,
            Err(bad) => return self.refuse("bad_handshake", StatusCode::BAD_REQUEST, &bad.to_string()),
        };
        if subprotocols == Subprotocols::WithOurs {
            response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        }
        let me = Arc::clone(self);
        self.connections.spawn(tasks::contained(upgrade.then(move |upgraded| me.serve(upgraded, places))));
        response
    }

    /// `None` if the client did not wait for the answer.
    fn serve(
        &self,
        upgraded: hyper::Result<Upgraded>,
        (open, newcomer, address): (Open, NewcomerPlace, IpAddr),
    ) -> OptionFuture<impl Future<Output = ()> + Send + use<>> {
        // Only the stream is needed from here on; hyper's buffer would stay for the connection's life.
        let parts = upgraded.ok().and_then(|it| it.downcast::<TokioIo<ClientStream>>().ok());
        let serving = parts.map(|parts| {
            let services = Arc::clone(&self.services);
            services.metrics.connections_total.inc();
            let held = (open, NoticedPanic(services.metrics.session_panics.clone()));
            let stream = Arc::new(parts.io.into_inner());
            let outbox = Outbox::new(services.config.max_queue_size, stream.clone(), self.writers.next());
            newcomer.opened(&outbox);
            let connection = self.next_connection.fetch_add(1, Ordering::Relaxed);
            let session =
                Session::new(connection, Arc::clone(&services), Arc::clone(&outbox), address, Some(Box::new(newcomer)));
            socket::serve(stream, parts.read_buf, session, outbox, services, Arc::clone(&self.shutdown), held)
        });
        serving.into()
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
        let full = |reason, status, message| Box::new(come_back(self.refuse(reason, status, message), FULL_PAUSE));
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

    async fn take_events(&self, request: Request<Incoming>) -> Answer {
        let _under_way = self.hooks.token();
        if self.shutdown.is_intake_closed() {
            return come_back(self.refuse_hook(StatusCode::SERVICE_UNAVAILABLE, "draining", STOPPING), STOPPED_PAUSE);
        }
        let (parts, body) = request.into_parts();
        let read = match self.room_for(&body) {
            Ok(_room) => self.read(body).await,
            Err(refused) => {
                discard(body).await;
                Err(refused)
            }
        };
        match read.and_then(|body| Ok((self.verified(&parts, &body)?, body.len()))) {
            Ok((events, bytes)) => {
                let accepted = events.events.len();
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                self.services.metrics.hook_last_arrival.set(now.as_secs_f64());
                // A request without events only tests the way to the gateway.
                if accepted > 0 {
                    self.services.relay.offer(events, bytes);
                }
                json(StatusCode::ACCEPTED, &serde_json::json!({"accepted": accepted}))
            }
            Err(answer) => *answer,
        }
    }

    async fn serve_api(&self, method: api::Method, request: Request<Incoming>) -> Answer {
        let _under_way = self.hooks.token();
        if self.shutdown.is_intake_closed() {
            return come_back(self.refuse_hook(StatusCode::SERVICE_UNAVAILABLE, "draining", STOPPING), STOPPED_PAUSE);
        }
        let (parts, body) = request.into_parts();
        if body.size_hint().upper().is_none_or(|length| length > api::BODY_MAX as u64) {
            discard(body).await;
            let message = format!("a request needs a content-length of {} bytes at most", api::BODY_MAX);
            return self.refuse_hook(StatusCode::PAYLOAD_TOO_LARGE, "too_large", &message);
        }
        let body = match self.read(body).await {
            Ok(body) => body,
            Err(refused) => return *refused,
        };
        let taken = match self.signed(&parts, &body) {
            Ok(_) if method.is_question() => Ok(()),
            Ok(verified) => self.first_anywhere(&verified).await,
            Err(refused) => Err(refused),
        };
        if let Err(refused) = taken {
            return *refused;
        }
        match method.carry_out(&self.services, &body).await {
            Ok(answer) => json(StatusCode::OK, &answer),
            Err(refusal) => {
                let (status, reason, message) = refusal.parts();
                self.refuse_hook(status, reason, message)
            }
        }
    }

    /// Reserves memory for a body of the announced length, or of the maximum length if none is announced.
    fn room_for(&self, body: &Incoming) -> Result<Option<SemaphorePermit<'_>>, Box<Answer>> {
        let max = self.services.config.max_hook_size;
        let length = body.size_hint().upper().map_or(max, |length| usize::try_from(length).unwrap_or(usize::MAX));
        if length > max {
            return Err(self.too_large());
        }
        if length <= BODY_SMALL {
            return Ok(None);
        }
        let units = u32::try_from(body_units(length)).unwrap_or(u32::MAX);
        self.bodies.try_acquire_many(units).map(Some).map_err(|_| {
            let busy = "busy reading other requests; the gateway will read these events from the outbox";
            Box::new(come_back(self.refuse_hook(StatusCode::SERVICE_UNAVAILABLE, "busy", busy), STOPPED_PAUSE))
        })
    }

    async fn read(&self, body: Incoming) -> Result<Bytes, Box<Answer>> {
        let config = &self.services.config;
        match timeout(config.request_timeout, Limited::new(body, config.max_hook_size).collect()).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(cause)) if cause.is::<LengthLimitError>() => Err(self.too_large()),
            Ok(Err(_)) => {
                Err(Box::new(self.refuse_hook(StatusCode::BAD_REQUEST, "incomplete", "the body ended early")))
            }
            Err(_) => {
                let slow = "the body took longer than request_timeout";
                Err(Box::new(self.refuse_hook(StatusCode::REQUEST_TIMEOUT, "request_timeout", slow)))
            }
        }
    }

    fn too_large(&self) -> Box<Answer> {
        Box::new(self.refuse_hook(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "the body exceeds max_hook_size"))
    }

    fn verified(&self, parts: &hyper::http::request::Parts, body: &[u8]) -> Result<Events, Box<Answer>> {
        let verified = self.signed(parts, body)?;
        let refuse = |reason, message: &str| Box::new(self.refuse_hook(StatusCode::BAD_REQUEST, reason, message));
        let events = Events::parse(body).map_err(|bad| refuse("bad_request", &bad.to_string()))?;
        if events.events.len() > self.services.config.max_hook_events {
            return Err(refuse("too_many_events", "a request may contain max_hook_events events at most"));
        }
        // Last, so that a refused request may be corrected and sent again.
        self.first(&verified)?;
        Ok(events)
    }

    fn signed(&self, parts: &hyper::http::request::Parts, body: &[u8]) -> Result<Verified, Box<Answer>> {
        let header = |name| parts.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        // Signed without the base path: the signer does not know whether a proxy cuts the base path off.
        let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
        let target = self.services.config.base_path.strip(target).unwrap_or(target);
        let (signature, request) = ((header(TIMESTAMP), header(SIGNATURE)), (parts.method.as_str(), target, body));
        self.signer.verify(SystemTime::now(), signature, request).map_err(|refusal| {
            Box::new(self.refuse_hook(StatusCode::UNAUTHORIZED, refusal.code(), &refusal.to_string()))
        })
    }

    /// Checks that this gateway has not taken the hooks' request before. Another gateway may have taken it: publishing
    /// is idempotent by outbox number.
    fn first(&self, &Verified { timestamp, signature, oldest }: &Verified) -> Result<(), Box<Answer>> {
        self.replays.note(timestamp, signature, oldest).then_some(()).ok_or_else(|| self.replayed())
    }

    /// Checks that no gateway has taken the back end's request before.
    async fn first_anywhere(&self, verified: &Verified) -> Result<(), Box<Answer>> {
        let name = format!("{:032x}", verified.signature);
        // For as long as the timestamp is valid, wherever it lies within the allowed skew.
        match self.services.broker.claim(&name, 2 * MAX_SKEW).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.replayed()),
            Err(error) => {
                self.services.metrics.broker_errors.with_label_values(&["api"]).inc();
                tracing::debug!(%error, "the broker did not answer the replay check; the request is refused");
                let message = "the broker does not answer; sign the request anew and send it again";
                let answer = self.refuse_hook(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message);
                Err(Box::new(come_back(answer, STOPPED_PAUSE)))
            }
        }
    }

    fn replayed(&self) -> Box<Answer> {
        let message = "this request was taken before; sign every request anew";
        Box::new(self.refuse_hook(StatusCode::CONFLICT, "replayed", message))
    }

    fn refuse_hook(&self, status: StatusCode, reason: &'static str, message: &str) -> Answer {
        self.services.metrics.hooks_refused.with_label_values(&[reason]).inc();
        refused(status, reason, message)
    }
}

/// Attached to an answer until the refusal is logged, where the caller's address is known.
#[derive(Clone)]
struct Refused {
    reason: &'static str,
    message: String,
}

fn refused(status: StatusCode, reason: &'static str, message: &str) -> Answer {
    let mut answer = error(status, reason, message);
    answer.extensions_mut().insert(Refused { reason, message: message.to_owned() });
    answer
}

/// The path after the base path, which selects the handler; empty if the path does not begin with the base path. A
/// slash at the end of the clients' path is ignored. Private paths have a single spelling, so that a proxy that blocks
/// this spelling blocks the path.
fn route<'a>(base: &BasePath, path: &'a str) -> &'a str {
    let path = base.strip(path).unwrap_or_default();
    path.strip_suffix('/').filter(|path| *path == WEBSOCKET).unwrap_or(path)
}

/// `Retry-After` of a stopping gateway, in seconds: a load balancer sends the next request to another gateway.
const STOPPED_PAUSE: &str = "1";

/// Adds `Retry-After`. The gateway does not close idle connections itself, since the close could cross with the next
/// request. The answer to that request closes the connection, as every refusal does.
fn come_back(mut answer: Answer, seconds: &'static str) -> Answer {
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(seconds));
    answer
}

/// Reads the rest of a refused body, within limits: closing the connection while the caller is still writing would
/// reset it and lose the answer.
async fn discard(mut body: Incoming) {
    let reading = async {
        let mut left = DISCARDED;
        while let Some(Ok(frame)) = body.frame().await {
            let size = frame.data_ref().map_or(0, Bytes::len);
            if size > left {
                return;
            }
            left -= size;
        }
    };
    // A caller that is too slow may miss the answer.
    let _ = timeout(DISCARDING, reading).await;
}

fn body_units(bytes: usize) -> usize {
    bytes.div_ceil(BODY_UNIT).max(1)
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
