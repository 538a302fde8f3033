//! Intake of the hooks' events: signed requests of PocketBase's hooks, passed to the relay.

use super::body::discard;
use super::respond::{Answer, STOPPED_PAUSE, json, retry_after};
use super::signed::SignedRequests;
use crate::config::Config;
use crate::event::Events;
use crate::limits::replays::Replays;
use crate::metrics::Metrics;
use crate::relay::Relay;
use crate::signature::VerifiedSignature;
use hyper::body::{Body, Incoming};
use hyper::http::request::Parts;
use hyper::{Request, StatusCode};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{Semaphore, SemaphorePermit};

pub const HOOKS: &str = "/hooks/pocketbase";

/// Memory for large bodies of hooks being read, as a multiple of `max_hook_size`. Bodies are read before the
/// sender is verified.
const BODIES: usize = 4;
/// Maximum size of a small body, in bytes. Small bodies always have room, since small bodies never outnumber pending
/// sockets: a sender that announces large bodies and sends nothing must not keep out the hooks' usual posts.
const BODY_SMALL: usize = 64 * 1024;
/// Unit in which memory for bodies is counted, in bytes.
const BODY_UNIT: usize = 1024;

pub struct Hooks {
    relay: Relay,
    metrics: Metrics,
    /// `max_hook_size` and `max_hook_events`.
    limits: (usize, usize),
    signed: Arc<SignedRequests>,
    replays: Replays,
    /// Memory for large bodies, in [`BODY_UNIT`]s.
    bodies: Semaphore,
}

impl Hooks {
    pub fn new(config: &Config, relay: Relay, metrics: Metrics, signed: Arc<SignedRequests>) -> Self {
        let bodies = Semaphore::new(body_units(config.max_hook_size) * BODIES);
        let limits = (config.max_hook_size, config.max_hook_events);
        Self { relay, metrics, limits, signed, replays: Replays::default(), bodies }
    }

    pub async fn answer(&self, request: Request<Incoming>) -> Result<Answer, Box<Answer>> {
        let _under_way = self.signed.begin()?;
        let (parts, body) = request.into_parts();
        let body = match self.room_for(&body) {
            Ok(_room) => self.signed.read(body).await?,
            Err(refused) => {
                discard(body).await;
                return Err(refused);
            }
        };
        let events = self.verified(&parts, &body)?;
        let accepted = events.events.len();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.metrics.hook_last_arrival.set(now.as_secs_f64());
        // A request without events only tests the way to the gateway.
        if accepted > 0 {
            self.relay.offer(events, body.len());
        }
        Ok(json(StatusCode::ACCEPTED, &serde_json::json!({"accepted": accepted})))
    }

    /// Reserves memory for a body of the announced length, or of the maximum length if none is announced.
    fn room_for(&self, body: &Incoming) -> Result<Option<SemaphorePermit<'_>>, Box<Answer>> {
        let (max, _) = self.limits;
        let length = body.size_hint().upper().map_or(max, |length| usize::try_from(length).unwrap_or(usize::MAX));
        if length > max {
            return Err(self.signed.too_large());
        }
        if length <= BODY_SMALL {
            return Ok(None);
        }
        let units = u32::try_from(body_units(length)).unwrap_or(u32::MAX);
        self.bodies.try_acquire_many(units).map(Some).map_err(|_| {
            let busy = "busy reading other requests; the gateway will read these events from the outbox";
            let answer = self.signed.refuse(StatusCode::SERVICE_UNAVAILABLE, "busy", busy);
            Box::new(retry_after(answer, STOPPED_PAUSE))
        })
    }

    fn verified(&self, parts: &Parts, body: &[u8]) -> Result<Events, Box<Answer>> {
        let verified = self.signed.verify(parts, body)?;
        let refuse = |reason, message: &str| Box::new(self.signed.refuse(StatusCode::BAD_REQUEST, reason, message));
        let events = Events::parse(body).map_err(|bad| refuse("bad_request", &bad.to_string()))?;
        if events.events.len() > self.limits.1 {
            return Err(refuse("too_many_events", "a request may contain max_hook_events events at most"));
        }
        // Last, so that a refused request may be corrected and sent again.
        self.first(&verified)?;
        Ok(events)
    }

    /// Checks that this gateway has not taken the hooks' request before. Another gateway may have taken the request:
    /// publishing is idempotent by outbox number.
    fn first(
        &self,
        &VerifiedSignature { timestamp, signature, oldest }: &VerifiedSignature,
    ) -> Result<(), Box<Answer>> {
        self.replays.note(timestamp, signature, oldest).then_some(()).ok_or_else(|| self.signed.replayed())
    }
}

fn body_units(bytes: usize) -> usize {
    bytes.div_ceil(BODY_UNIT).max(1)
}
