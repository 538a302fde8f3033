//! The admin listener: metrics for Prometheus, and health checks for supervisors and load balancers.

use super::respond::{Answer, error, json, text};
use crate::broker::Broker;
use crate::metrics::Metrics;
use crate::relay::Relay;
use crate::shutdown::Shutdown;
use crate::updates::Updates;
use hyper::{Method, StatusCode};
use std::sync::Arc;
use std::time::Duration;

/// Maximum time for the broker's answer to the readiness check.
const CHECK: Duration = Duration::from_secs(1);

pub struct Admin {
    pub broker: Arc<dyn Broker>,
    pub relay: Relay,
    pub updates: Arc<Updates>,
    pub metrics: Metrics,
    pub shutdown: Shutdown,
}

impl Admin {
    pub async fn answer(self: Arc<Self>, method: Method, path: String) -> Answer {
        match (&method, path.as_str()) {
            (&Method::GET, "/metrics") => match self.metrics().await {
                Ok(body) => text(StatusCode::OK, "text/plain; version=0.0.4", body),
                Err(bad) => error(StatusCode::INTERNAL_SERVER_ERROR, "metrics", &bad.to_string()),
            },
            (&Method::GET, "/livez") => json(StatusCode::OK, &serde_json::json!({"alive": true})),
            (&Method::GET, "/readyz") => self.ready().await,
            _ => error(StatusCode::NOT_FOUND, "not_found", "there is /metrics, /livez and /readyz"),
        }
    }

    async fn metrics(&self) -> Result<Vec<u8>, prometheus::Error> {
        let metrics = &self.metrics;
        let answered = tokio::time::timeout(CHECK, self.broker.check()).await;
        metrics.redis_up.set(i64::from(matches!(answered, Ok(Ok(())))));
        self.updates.report();
        metrics.render()
    }

    /// 200 while this node can serve clients, otherwise 503 with the `problems`. `warnings` name parts of the config
    /// that do not work; the rest works, so the gateway stays in service.
    async fn ready(&self) -> Answer {
        let mut problems = Vec::new();
        if self.shutdown.is_asked() {
            problems.push("draining: this gateway is stopping".to_owned());
        }
        match tokio::time::timeout(CHECK, self.broker.check()).await {
            Ok(Ok(())) => {}
            Ok(Err(problem)) => problems.push(format!("broker: {problem}")),
            Err(_) => problems.push("broker: no answer within a second".to_owned()),
        }
        problems.extend(self.relay.failure().map(|problem| format!("relay: {problem}")));
        let behind = self.updates.behind();
        problems.extend(behind.into_iter().map(|(channel, age)| {
            format!("updates: {channel} is {} s behind; PocketBase answers too slowly", age.as_secs())
        }));
        let status = if problems.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let warnings = self.relay.warnings();
        json(status, &serde_json::json!({"ready": problems.is_empty(), "problems": problems, "warnings": warnings}))
    }
}
