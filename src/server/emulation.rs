//! Commands of streams' clients (`POST /emulation`): delivered to the session's inbox on this node, or forwarded to
//! another node through the broker.
//!
//! The body contains the node and the secret session, both from the reply to `connect`. A load balancer may send the
//! request to any gateway. The answer 204 means that the commands were handed over; replies arrive over the stream.

use super::body::{self, Unreadable};
use super::entrance::Entrance;
use super::respond::{Answer, STOPPED_PAUSE, error, refused, retry_after};
use super::streams::encoding;
use crate::inboxes::{Parcel, SessionName, Undeliverable};
use crate::protocol::format::Encoding;
use crate::protocol::messages::EmulationRequest;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::{Request, Response, StatusCode};
use prost::Message;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::time::timeout;

pub const EMULATION: &str = "/emulation";

/// Room for the node's and the session's name in a body, in bytes.
const NAMES: usize = 1024;
/// Maximum number of concurrent messages to other nodes.
const FORWARDS: usize = 256;

pub struct Emulation {
    entrance: Arc<Entrance>,
    forwards: Semaphore,
}

impl Emulation {
    pub fn new(entrance: Arc<Entrance>) -> Self {
        Self { entrance, forwards: Semaphore::new(FORWARDS) }
    }

    pub async fn answer(&self, request: Request<Incoming>) -> Result<Answer, Box<Answer>> {
        let (parts, body) = request.into_parts();
        if !self.entrance.is_allowed_origin(&parts.headers) {
            let message = "pages of this origin may not send commands (allowed_origins)";
            return Err(self.refuse("origin", StatusCode::FORBIDDEN, message));
        }
        let EmulationRequest { node, session, data } = self.read(&parts.headers, body).await?;
        let unknown = || {
            // Not logged: normal for the clients of a gateway after a restart.
            self.count("unknown_session");
            let message = "no stream has this session: it has ended, or its gateway has stopped; connect again";
            Box::new(error(StatusCode::NOT_FOUND, "unknown_session", message))
        };
        let session = SessionName::parse(&session).ok_or_else(unknown)?;
        let inboxes = &self.entrance.services.inboxes;
        if node == inboxes.node() {
            inboxes.deliver(session, data).map_err(|undeliverable| match undeliverable {
                Undeliverable::UnknownSession => unknown(),
                Undeliverable::Malformed => self.malformed(),
                Undeliverable::Full => {
                    let message = "too many commands of this session are waiting; repeat the request later";
                    let answer = self.refuse("session_busy", StatusCode::TOO_MANY_REQUESTS, message);
                    Box::new(retry_after(*answer, STOPPED_PAUSE))
                }
            })?;
            self.count("delivered");
        } else if SessionName::parse(&node).is_some() && self.forward(&node, Parcel { session, commands: data }).await?
        {
            self.count("forwarded");
        } else {
            return Err(unknown());
        }
        let mut answer = Response::new(Full::new(Bytes::new()));
        *answer.status_mut() = StatusCode::NO_CONTENT;
        Ok(answer)
    }

    async fn read(&self, headers: &HeaderMap, body: Incoming) -> Result<EmulationRequest, Box<Answer>> {
        let config = &self.entrance.services.config;
        // In a JSON string, the commands' quotation marks take two bytes each.
        let max = 2 * config.max_frame_size + NAMES;
        let body = body::read(body, max, config.request_timeout).await;
        let request = match (body, encoding(headers)) {
            (Ok(body), Encoding::Json) => serde_json::from_slice(&body).map_err(|_| self.malformed())?,
            (Ok(body), Encoding::Protobuf) => EmulationRequest::decode(body).map_err(|_| self.malformed())?,
            (Err(Unreadable::TooLarge), _) => return Err(self.too_large()),
            (Err(unreadable @ Unreadable::Incomplete), _) => {
                return Err(self.refuse(unreadable.reason(), StatusCode::BAD_REQUEST, "the body ended early"));
            }
            (Err(unreadable @ Unreadable::TimedOut), _) => {
                let message = "the body took longer than request_timeout";
                return Err(self.refuse(unreadable.reason(), StatusCode::REQUEST_TIMEOUT, message));
            }
        };
        if request.data.len() > config.max_frame_size { Err(self.too_large()) } else { Ok(request) }
    }

    /// Sends commands to another node. Returns false if there is no such node.
    async fn forward(&self, node: &str, parcel: Parcel) -> Result<bool, Box<Answer>> {
        let services = &self.entrance.services;
        let unavailable = |reason, message| {
            let answer = self.refuse(reason, StatusCode::SERVICE_UNAVAILABLE, message);
            Box::new(retry_after(*answer, STOPPED_PAUSE))
        };
        let Ok(_permit) = self.forwards.try_acquire() else {
            return Err(unavailable(
                "busy",
                "too many commands are on their way to other gateways; repeat the request",
            ));
        };
        let sending = services.broker.send(node, parcel.message());
        match timeout(services.config.command_timeout, sending).await {
            Ok(Ok(is_received)) => Ok(is_received),
            Ok(Err(_)) | Err(_) => {
                services.metrics.broker_errors.with_label_values(&["emulation"]).inc();
                Err(unavailable("unavailable", "the other gateway is out of reach (Redis); repeat the request"))
            }
        }
    }

    fn malformed(&self) -> Box<Answer> {
        let message = "the body is not {session, node, data}, with data in the encoding of the stream";
        self.refuse("bad_request", StatusCode::BAD_REQUEST, message)
    }

    fn too_large(&self) -> Box<Answer> {
        self.refuse("too_large", StatusCode::PAYLOAD_TOO_LARGE, "the commands exceed max_frame_size")
    }

    fn refuse(&self, reason: &'static str, status: StatusCode, message: &str) -> Box<Answer> {
        self.count(reason);
        Box::new(refused(status, reason, message))
    }

    fn count(&self, outcome: &str) {
        self.entrance.services.metrics.emulation_requests.with_label_values(&[outcome]).inc();
    }
}
