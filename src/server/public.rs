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
use crate::outbox::{Budget, Outbox};
use crate::session::{Services, Session};
use crate::shutdown::Shutdown;
use crate::signature::{MAX_SKEW, SIGNATURE, Signer, TIMESTAMP, Verified};
use crate::socket;
use crate::stream::ClientStream;
use crate::tasks;
use crate::writer::Writers;
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

/// The longest address that is looked at, in bytes.
const URI_MAX: usize = 2048;
/// Bodies of hooks are read before it is known who posts them. All large ones that are being read may hold so many
/// times `max_hook_size`.
const BODIES: usize = 4;
/// Up to here a body is small, in bytes, and always has room: there are never more of them than sockets that are
/// pending, and whoever announces large ones and sends nothing must not keep out what the hooks usually post.
const BODY_SMALL: usize = 64 * 1024;
/// The unit in which that is counted, in bytes.
const BODY_UNIT: usize = 1024;
/// Seconds after which a full gateway may be tried again.
const FULL_PAUSE: &str = "10";

/// Log lines about refused requests, within a minute: enough to find a wrong setting by.
const REFUSALS: u32 = 10;
const REFUSALS_PERIOD: Duration = Duration::from_secs(60);

/// Of a body that is refused, how much is read all the same, and for how long.
const DISCARDED: usize = 32 * 1024 * 1024;
const DISCARDING: Duration = Duration::from_secs(1);

const STOPPING: &str = "this gateway is stopping; another one, or this one after its restart, goes on";

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
    /// What a stop waits for: requests of hooks, and the connections' tasks.
    hooks: TaskTracker,
    connections: TaskTracker,
    shutdown: Arc<Shutdown>,
}

impl Public {
    /// `connections`: how many there may be; `addresses`: those of all sockets; `hooks`, `clients`: what a stop waits
    /// for.
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
                // So that others find room before they make room for each other.
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
            _ if request.uri().path_and_query().is_some_and(|target| target.as_str().len() > URI_MAX) => {
                error(StatusCode::URI_TOO_LONG, "uri_too_long", &format!("an address has {URI_MAX} bytes at most"))
            }
            (&Method::GET, WEBSOCKET) => self.handshake(request, Arc::clone(&caller)),
            (&Method::POST, HOOKS) => self.take_events(request).await,
            (&Method::POST, path) if let Some(method) = api::Method::of(path) => self.serve_api(method, request).await,
            (_, path) if matches!(path, WEBSOCKET | HOOKS) || api::Method::of(path).is_some() => {
                error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "GET for the WebSocket, POST for all else")
            }
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
            // Whoever is refused begins anew with a new connection, which is counted.
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
                "only JSON is spoken: name no subprotocol, or centrifuge-json",
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

    /// `None` where the client did not wait for the answer.
    fn serve(
        &self,
        upgraded: hyper::Result<Upgraded>,
        (open, newcomer, address): (Open, NewcomerPlace, IpAddr),
    ) -> OptionFuture<impl Future<Output = ()> + Send + use<>> {
        // Only its stream is of use from here on; hyper's buffer would stay for the connection's life.
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

    /// Who is no browser sends no origin and may connect: a program could send any.
    fn is_allowed_origin(&self, request: &Request<Incoming>) -> bool {
        let allowed = &self.services.config.allowed_origins;
        let mut origins = request.headers().get_all(ORIGIN).iter();
        allowed.allow_all() || origins.all(|origin| origin.to_str().is_ok_and(|origin| allowed.allow(origin)))
    }

    /// A connection's places: what it holds for as long as it is open, and until it has sent its token; and the client's
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
                         one address; have it send one of them"
                    );
                });
            }
            let address = forwarded::client(request.headers(), caller.peer, &self.services.config.trusted_proxies);
            let place = self.addresses.take(address).ok_or_else(|| {
                let message = "this address has as many connections here as one may have at once";
                full("max_connections_per_ip", StatusCode::TOO_MANY_REQUESTS, message)
            })?;
            (address, Some(place))
        } else {
            (caller.peer, None)
        };
        let unavailable = |reason| {
            let message = "this gateway has as many connections as it may have; another one may have room";
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
                // Without events it only tries whether it arrives.
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
            let message = format!("a request announces its length, of {} bytes at most", api::BODY_MAX);
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

    /// Room in memory for a body of the length that it announces, or the largest where it announces none.
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
            let busy = "other requests are being read; what this one holds will be read from the outbox";
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
            return Err(refuse("too_many_events", "a post has max_hook_events events at most"));
        }
        // Last, so that what was refused may be mended and sent again.
        self.first(&verified)?;
        Ok(events)
    }

    fn signed(&self, parts: &hyper::http::request::Parts, body: &[u8]) -> Result<Verified, Box<Answer>> {
        let header = |name| parts.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        // Signed without the base path: a proxy may cut it off or not, and the signer need not know.
        let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
        let target = self.services.config.base_path.strip(target).unwrap_or(target);
        let (signature, request) = ((header(TIMESTAMP), header(SIGNATURE)), (parts.method.as_str(), target, body));
        self.signer.verify(SystemTime::now(), signature, request).map_err(|refusal| {
            Box::new(self.refuse_hook(StatusCode::UNAUTHORIZED, refusal.code(), &refusal.to_string()))
        })
    }

    /// That this gateway has not taken a request of the hooks before. Another gateway may have: publishing is idempotent
    /// by outbox number.
    fn first(&self, &Verified { timestamp, signature, oldest }: &Verified) -> Result<(), Box<Answer>> {
        self.replays.note(timestamp, signature, oldest).then_some(()).ok_or_else(|| self.replayed())
    }

    /// That no gateway has taken a request of a back end before.
    async fn first_anywhere(&self, verified: &Verified) -> Result<(), Box<Answer>> {
        let name = format!("{:032x}", verified.signature);
        // As long as the timestamp is good, wherever it lies within the bounds.
        match self.services.broker.claim(&name, 2 * MAX_SKEW).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.replayed()),
            Err(error) => {
                self.services.metrics.broker_errors.with_label_values(&["api"]).inc();
                tracing::debug!(%error, "it could not be found out whether a request is a replay; it is refused");
                let message = "the broker does not answer; sign the request anew and send it again";
                let answer = self.refuse_hook(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message);
                Err(Box::new(come_back(answer, STOPPED_PAUSE)))
            }
        }
    }

    fn replayed(&self) -> Box<Answer> {
        let message = "this very request was taken before; sign each one anew";
        Box::new(self.refuse_hook(StatusCode::CONFLICT, "replayed", message))
    }

    fn refuse_hook(&self, status: StatusCode, reason: &'static str, message: &str) -> Answer {
        self.services.metrics.hooks_refused.with_label_values(&[reason]).inc();
        refused(status, reason, message)
    }
}

/// Kept with an answer until it is logged, where it is known from whom the request came.
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

/// The part of a path that decides where a request goes: what follows the base path; empty where the path does not begin
/// with that. A slash at the end of the clients' path does not matter. The private paths have one spelling alone, so that
/// a proxy that blocks it blocks them.
fn route<'a>(base: &BasePath, path: &'a str) -> &'a str {
    let path = base.strip(path).unwrap_or_default();
    path.strip_suffix('/').filter(|path| *path == WEBSOCKET).unwrap_or(path)
}

/// Seconds after which a request comes again to a gateway that stops: whoever spreads requests over several gateways
/// sends the next one elsewhere.
const STOPPED_PAUSE: &str = "1";

/// What idles between two requests is not closed on our side, which would cross with the next one; its answer closes
/// it, as every refusal does.
fn come_back(mut answer: Answer, seconds: &'static str) -> Answer {
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(seconds));
    answer
}

/// Reads on past what is refused, within bounds: to close while the caller is still writing would reset the connection,
/// and the answer would be lost with it.
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
    // Whoever is slow has had his chance.
    let _ = timeout(DISCARDING, reading).await;
}

fn body_units(bytes: usize) -> usize {
    bytes.div_ceil(BODY_UNIT).max(1)
}

/// What an open connection counts as.
struct Open {
    _connection: Place,
    /// For the client behind a trusted proxy.
    _client: Option<AddressPlace>,
    _caller: Arc<Caller>,
}

/// Notices when a bug ends a connection's task, which ends nothing else.
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
