//! The admin listener: a [`page`] for operators, metrics for Prometheus, and health checks for supervisors and load
//! balancers.
//!
//! The page requests JSON: an [`overview`] of the gateway, and the connections of one [`user`]. Both have names of
//! channels and keys of users, but no content and no secrets. With the token, an operator can [`publish`] a test
//! message.

mod origin;
mod overview;
mod page;
mod publish;
mod user;

use super::admission::Caller;
use super::api::methods::Methods;
use super::respond::{Answer, error, json, text, uncached};
use crate::refusals::{Code, Refusal};
use crate::relay::Relay;
use crate::session::Services;
use crate::shutdown::Shutdown;
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use overview::Largest;
use page::Page;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Maximum time for the broker's answer to a health check.
const CHECK: Duration = Duration::from_secs(1);

pub struct Admin {
    services: Arc<Services>,
    relay: Relay,
    methods: Methods,
    shutdown: Shutdown,
    page: Page,
    largest: Largest,
    started: Instant,
}

/// Health of this gateway and of its dependencies.
struct Health {
    /// Causes of unreadiness.
    problems: Vec<String>,
    /// Parts of the config that do not work. The rest works, so the gateway stays in service.
    warnings: Vec<String>,
    /// Error of the broker's health check.
    broker: Option<String>,
}

impl Admin {
    pub fn new(services: Arc<Services>, relay: Relay, methods: Methods, shutdown: Shutdown) -> Self {
        let (page, largest, started) = (Page::new(), Largest::default(), Instant::now());
        Self { services, relay, methods, shutdown, page, largest, started }
    }

    pub async fn answer(self: Arc<Self>, request: Request<Incoming>, caller: Arc<Caller>) -> Answer {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/metrics") => match self.metrics().await {
                Ok(body) => text(StatusCode::OK, "text/plain; version=0.0.4", body),
                Err(bad) => error(StatusCode::INTERNAL_SERVER_ERROR, "metrics", &bad.to_string()),
            },
            (&Method::GET, "/livez") => json(StatusCode::OK, &serde_json::json!({"alive": true})),
            (&Method::GET, "/readyz") => self.ready().await,
            (_, "/" | "/overview" | "/user" | "/publish") if !origin::is_own(request.headers()) => {
                self.refuse(caller.peer, StatusCode::FORBIDDEN, "foreign_host", origin::ADVICE)
            }
            (&Method::GET, "/") => self.page.answer(),
            (&Method::GET, "/overview") => uncached(json(StatusCode::OK, &self.overview().await)),
            (&Method::GET, "/user") => uncached(self.user(request.uri().query().unwrap_or_default()).await),
            (&Method::POST, "/publish") => uncached(self.publish(request, caller.peer).await),
            (_, "/" | "/overview" | "/user" | "/publish") => error(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "use POST for /publish and GET for all else",
            ),
            _ => error(StatusCode::NOT_FOUND, "not_found", "there is a page at /, and /metrics, /livez and /readyz"),
        }
    }

    async fn metrics(&self) -> Result<Vec<u8>, prometheus::Error> {
        let metrics = &self.services.metrics;
        metrics.redis_up.set(i64::from(self.broker_failure().await.is_none()));
        self.services.updates.report();
        metrics.render()
    }

    /// 200 while this node can serve clients, otherwise 503 with the `problems`.
    async fn ready(&self) -> Answer {
        let Health { problems, warnings, .. } = self.health().await;
        let status = if problems.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        json(status, &serde_json::json!({"ready": problems.is_empty(), "problems": problems, "warnings": warnings}))
    }

    async fn health(&self) -> Health {
        let mut problems = Vec::new();
        if self.shutdown.is_asked() {
            problems.push("draining: this gateway is stopping".to_owned());
        }
        let broker = self.broker_failure().await;
        problems.extend(broker.iter().map(|problem| format!("broker: {problem}")));
        problems.extend(self.relay.failure().map(|problem| format!("relay: {problem}")));
        let behind = self.services.updates.behind();
        problems.extend(behind.into_iter().map(|(channel, age)| {
            format!("updates: {channel} is {} s behind; PocketBase answers too slowly", age.as_secs())
        }));
        Health { problems, warnings: self.relay.warnings(), broker }
    }

    async fn broker_failure(&self) -> Option<String> {
        match tokio::time::timeout(CHECK, self.services.broker.check()).await {
            Ok(Ok(())) => None,
            Ok(Err(problem)) => Some(problem.to_string()),
            Err(_) => Some("no answer within a second".to_owned()),
        }
    }

    /// A counted and noted refusal.
    fn refuse(&self, peer: IpAddr, status: StatusCode, reason: &'static str, message: &str) -> Answer {
        self.services.metrics.hooks_refused.with_label_values(&[reason]).inc();
        let (code, address) = (Code::Word(reason), Some(peer));
        self.services.refusals.note(&Refusal {
            action: "admin",
            channel: None,
            user: "",
            address,
            code,
            cause: message,
        });
        uncached(error(status, reason, message))
    }
}
