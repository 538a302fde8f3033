//! The public listener: the WebSocket handshake and the hooks' intake.

use super::handshake;
use super::respond::{Answer, error, json};
use crate::event::Events;
use crate::outbox::{Budget, Outbox};
use crate::session::{Services, Session};
use crate::shutdown::Shutdown;
use crate::signature::{SIGNATURE, Signer, TIMESTAMP};
use crate::socket;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_PROTOCOL};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_util::task::TaskTracker;

pub const WEBSOCKET: &str = "/connection/websocket";
pub const HOOKS: &str = "/hooks/pocketbase";

/// The one subprotocol that may be named; without any, JSON is spoken too.
const SUBPROTOCOL: &str = "centrifuge-json";

const STOPPING: &str = "this gateway is stopping; another one, or this one after its restart, goes on";

pub struct Public {
    services: Arc<Services>,
    signer: Signer,
    budget: Budget,
    next_connection: AtomicU64,
    /// What a stop waits for: requests of hooks, and the connections' tasks.
    hooks: TaskTracker,
    connections: TaskTracker,
    shutdown: Shutdown,
}

impl Public {
    pub fn new(services: Arc<Services>, hooks: TaskTracker, connections: TaskTracker, shutdown: Shutdown) -> Self {
        let signer = Signer::new(&services.config.secret);
        let budget = Budget::new(services.config.max_total_queue_size, services.metrics.queued_bytes.clone());
        Self { services, signer, budget, next_connection: AtomicU64::new(1), hooks, connections, shutdown }
    }

    pub async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        match (request.method(), request.uri().path()) {
            (&Method::GET, WEBSOCKET) => self.handshake(request),
            (&Method::POST, HOOKS) => self.take_events(request).await,
            (_, WEBSOCKET | HOOKS) => {
                error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "GET for the WebSocket, POST for the hooks")
            }
            _ => error(
                StatusCode::NOT_FOUND,
                "not_found",
                &format!("there is {WEBSOCKET} for clients and {HOOKS} for PocketBase's hooks"),
            ),
        }
    }

    fn refuse(&self, reason: &'static str, status: StatusCode, message: &str) -> Answer {
        self.services.metrics.handshakes_refused.with_label_values(&[reason]).inc();
        error(status, reason, message)
    }

    fn handshake(&self, mut request: Request<Incoming>) -> Answer {
        if self.shutdown.is_intake_closed() {
            return come_back(self.refuse("draining", StatusCode::SERVICE_UNAVAILABLE, STOPPING));
        }
        if let Some(handshake::Fault { reason, status, message }) = handshake::fault(request.headers()) {
            return handshake::invite(self.refuse(reason, status, message));
        }
        let offered = request
            .headers()
            .get(SEC_WEBSOCKET_PROTOCOL)
            .map(|offered| offered.to_str().unwrap_or_default().to_owned());
        if offered.as_ref().is_some_and(|offered| !offered.split(',').any(|one| one.trim() == SUBPROTOCOL)) {
            return self.refuse(
                "unsupported_subprotocol",
                StatusCode::BAD_REQUEST,
                "only JSON is spoken: name no subprotocol, or centrifuge-json",
            );
        }
        let upgrade = hyper::upgrade::on(&mut request);
        let (parts, _) = request.into_parts();
        let mut response = match create_response_with_body(&Request::from_parts(parts, ()), Full::default) {
            Ok(response) => response,
            Err(bad) => return self.refuse("bad_handshake", StatusCode::BAD_REQUEST, &bad.to_string()),
        };
        if offered.is_some() {
            response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        }
        let (services, budget, shutdown) = (Arc::clone(&self.services), self.budget.clone(), self.shutdown.clone());
        let connection = self.next_connection.fetch_add(1, Ordering::Relaxed);
        self.connections.spawn(async move {
            let Ok(upgraded) = upgrade.await else { return };
            // Only its TCP stream is of use from here on; hyper's buffer would stay for the connection's life.
            let Ok(parts) = upgraded.downcast::<TokioIo<TcpStream>>() else { return };
            let _counted = Counted::new(&services);
            let outbox = Arc::new(Outbox::new(services.config.max_queue_size, budget));
            let session = Session::new(connection, Arc::clone(&services), Arc::clone(&outbox));
            socket::serve(parts.io.into_inner(), parts.read_buf, session, outbox, services, shutdown).await;
        });
        response
    }

    async fn take_events(&self, request: Request<Incoming>) -> Answer {
        let _under_way = self.hooks.token();
        if self.shutdown.is_intake_closed() {
            return come_back(self.refuse_hook(StatusCode::SERVICE_UNAVAILABLE, "draining", STOPPING));
        }
        let (parts, body) = request.into_parts();
        let body = match Limited::new(body, self.services.config.max_hook_size).collect().await {
            Ok(body) => body.to_bytes(),
            Err(cause) if cause.is::<LengthLimitError>() => {
                return self.refuse_hook(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "the body exceeds max_hook_size");
            }
            Err(_) => return self.refuse_hook(StatusCode::BAD_REQUEST, "incomplete", "the body ended early"),
        };
        match self.verified(&parts, body) {
            Ok(events) => {
                let accepted = events.events.len();
                self.services.relay.offer(events);
                json(StatusCode::ACCEPTED, &serde_json::json!({"accepted": accepted}))
            }
            Err(answer) => *answer,
        }
    }

    fn verified(&self, parts: &hyper::http::request::Parts, body: Bytes) -> Result<Events, Box<Answer>> {
        let header = |name| parts.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let target = parts.uri.path_and_query().map_or(HOOKS, |target| target.as_str());
        let request = (parts.method.as_str(), target, body.as_ref());
        self.signer.verify(SystemTime::now(), (header(TIMESTAMP), header(SIGNATURE)), request).map_err(|refusal| {
            Box::new(self.refuse_hook(StatusCode::UNAUTHORIZED, refusal.code(), &refusal.to_string()))
        })?;
        Events::parse(&body)
            .map_err(|bad| Box::new(self.refuse_hook(StatusCode::BAD_REQUEST, "bad_request", &bad.to_string())))
    }

    fn refuse_hook(&self, status: StatusCode, reason: &'static str, message: &str) -> Answer {
        self.services.metrics.hooks_refused.with_label_values(&[reason]).inc();
        tracing::warn!(reason, message, "a hook request was refused");
        error(status, reason, message)
    }
}

/// A second is enough: whoever spreads requests over several gateways sends the next one elsewhere. What idles
/// between two requests is not closed on our side, which would cross with the next one; its answer closes it.
fn come_back(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}

/// Counts a connection for as long as it lives, and notices when a bug ends it.
struct Counted(Arc<Services>);

impl Counted {
    fn new(services: &Arc<Services>) -> Self {
        services.metrics.connections.inc();
        services.metrics.connections_total.inc();
        Self(Arc::clone(services))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.metrics.connections.dec();
        if std::thread::panicking() {
            self.0.metrics.session_panics.inc();
        }
    }
}
