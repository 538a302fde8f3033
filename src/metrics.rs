//! Names and help texts of all metrics.
//!
//! No label contains a user, or a channel that clients choose: the number of time series is fixed at the start, except
//! for codes and for updates channels, which the hooks' configuration names.

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts,
    Registry, TextEncoder,
};
use std::time::{SystemTime, UNIX_EPOCH};

/// Handles to all metrics of a gateway. Clones share the metrics.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    pub connections: IntGauge,
    pub connections_total: IntCounter,
    pub unauthenticated: IntGauge,
    pub guests: IntGauge,
    pub guests_refused: IntCounterVec,
    pub sockets_refused: IntCounterVec,
    pub handshakes_refused: IntCounterVec,
    pub disconnects: IntCounterVec,
    pub queued_bytes: IntGauge,
    pub session_panics: IntCounter,
    pub commands: IntCounterVec,
    pub command_errors: IntCounterVec,
    pub rate_limited: IntCounterVec,
    pub bad_frames: IntCounterVec,
    pub access_checks: IntCounterVec,
    pub revocations: IntCounterVec,
    pub subscriptions: IntGauge,
    pub channels: IntGauge,
    pub publications: IntCounter,
    pub deliveries: IntCounter,
    pub status_changes: IntCounter,
    pub publication_repeats: IntCounter,
    pub publications_early: IntCounter,
    pub gaps: IntCounterVec,
    pub signals_dropped: IntCounter,
    pub updates_lost: IntCounter,
    pub updates_behind: GaugeVec,
    pub recoveries: IntCounterVec,
    pub relay_events: IntCounterVec,
    pub events: IntCounterVec,
    pub relay_cursor: IntGauge,
    pub config_problems: IntGauge,
    pub relay_pulls: IntCounterVec,
    pub relay_restarts: IntCounter,
    pub api_requests: IntCounterVec,
    pub hooks_refused: IntCounterVec,
    pub hooks_failing: IntGauge,
    pub pocketbase_up: IntGauge,
    pub redis_up: IntGauge,
    pub outbox_lag_rows: IntGauge,
    pub outbox_lag_seconds: Gauge,
    pub outbox_seconds: Histogram,
    pub hook_last_arrival: Gauge,
    pub pocketbase_failures: IntCounterVec,
    pub pocketbase_seconds: HistogramVec,
    pub broker_errors: IntCounterVec,
    pub publish_seconds: Histogram,
}

/// Bucket limits in seconds: calls to PocketBase and Redis on the same machine take from a few hundred microseconds.
const SECONDS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

const SOCKET_REASONS: &[&str] =
    &["pending", "max_connections_per_ip", "request_timeout", "too_large", "malformed", "broken"];
const HANDSHAKE_REASONS: &[&str] =
    &["bad_handshake", "unsupported_subprotocol", "origin", "draining", "max_connections", "max_connections_per_ip"];
const HOOK_REASONS: &[&str] = &[
    "missing_signature",
    "bad_signature",
    "stale_timestamp",
    "replayed",
    "bad_request",
    "too_many_events",
    "too_large",
    "busy",
    "incomplete",
    "request_timeout",
    "draining",
    "unavailable",
];

impl Metrics {
    pub fn new() -> Result<Self, prometheus::Error> {
        let r = Registry::new();
        #[cfg(target_os = "linux")]
        r.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let metrics = Self {
            connections: gauge(&r, "gateway_connections", "Open WebSocket connections")?,
            connections_total: counter(
                &r,
                "gateway_connections_total",
                "WebSocket connections opened since the start",
            )?,
            unauthenticated: gauge(
                &r,
                "gateway_unauthenticated_connections",
                "WebSocket connections that have not sent their token yet; at max_unauthenticated, each new one displaces the oldest",
            )?,
            guests: gauge(&r, "gateway_guests", "Open connections without a token")?,
            guests_refused: counters(
                &r,
                "gateway_guests_refused_total",
                "Connections without a token that were refused: 'not_allowed' (error 101), 'max_guests_per_ip' (4002)",
                "reason",
            )?,
            sockets_refused: counters(
                &r,
                "gateway_sockets_refused_total",
                "Sockets closed before a complete and valid HTTP request had arrived",
                "reason",
            )?,
            handshakes_refused: counters(
                &r,
                "gateway_handshakes_refused_total",
                "WebSocket handshakes answered with an HTTP error",
                "reason",
            )?,
            disconnects: counters(
                &r,
                "gateway_disconnects_total",
                "Connections ended, by close code (see proto/README.md); 'client': the client closed or vanished",
                "code",
            )?,
            queued_bytes: gauge(
                &r,
                "gateway_queued_bytes",
                "Bytes of unsent frames of all connections; at max_total_queue_size, connections with large queues are disconnected (3008)",
            )?,
            session_panics: counter(
                &r,
                "gateway_session_panics_total",
                "Connections ended by a bug in the gateway; please report any value but 0",
            )?,
            commands: counters(&r, "gateway_commands_total", "Commands received", "command")?,
            command_errors: counters(
                &r,
                "gateway_command_errors_total",
                "Commands answered with an error, by error code",
                "code",
            )?,
            rate_limited: counters(
                &r,
                "gateway_rate_limited_total",
                "Commands, signals, status changes, reads and questions to PocketBase past their limits (error 111), and commands that ended their connection (3013)",
                "limit",
            )?,
            bad_frames: counters(&r, "gateway_bad_frames_total", "Frames that ended their connection", "kind")?,
            access_checks: counters(
                &r,
                "gateway_access_checks_total",
                "Access checks: answered from the cache ('remembered'), 'asked' of PocketBase, or 'failed'",
                "outcome",
            )?,
            revocations: counters(
                &r,
                "gateway_revocations_total",
                "Subscriptions and connections ended because the access ended, by cause",
                "cause",
            )?,
            subscriptions: gauge(&r, "gateway_subscriptions", "Open subscriptions")?,
            channels: gauge(&r, "gateway_channels", "Channels with at least one subscriber on this node")?,
            publications: counter(
                &r,
                "gateway_publications_total",
                "Publications that reached this node's subscribers",
            )?,
            deliveries: counter(&r, "gateway_deliveries_total", "Publications queued for single subscribers")?,
            status_changes: counter(
                &r,
                "gateway_status_changes_total",
                "Changes of users' statuses delivered to this node's subscribers",
            )?,
            publications_early: counter(
                &r,
                "gateway_publications_early_total",
                "Publications that arrived before an earlier access change and were held back until the change took effect",
            )?,
            publication_repeats: counter(
                &r,
                "gateway_publication_repeats_total",
                "Publications that the broker delivered again; no subscriber got them twice",
            )?,
            gaps: counters(
                &r,
                "gateway_gaps_total",
                "Channels whose missed publications were read from history ('filled') or no longer available ('lost': subscribers were told)",
                "outcome",
            )?,
            signals_dropped: counter(
                &r,
                "gateway_signals_dropped_total",
                "Signals not delivered to a subscriber because more than half of the subscriber's queue was full",
            )?,
            updates_lost: counter(
                &r,
                "gateway_updates_lost_total",
                "Times an updates channel fell too far behind, or PocketBase was unreachable for too long; subscribers were told to reload",
            )?,
            updates_behind: gauges(
                &r,
                "gateway_updates_behind_seconds",
                "Age of the oldest unsettled change or subscribe of an updates channel, in seconds; from 5 on, /readyz names the channel",
                "channel",
            )?,
            recoveries: counters(
                &r,
                "gateway_recoveries_total",
                "Subscribes that asked for missed publications",
                "outcome",
            )?,
            relay_events: counters(
                &r,
                "gateway_relay_events_total",
                "Outbox events: new ones by source ('hook', 'pull'), 'repeat' (published before) and 'dropped' (left in the outbox and read from there later)",
                "outcome",
            )?,
            events: counters(
                &r,
                "gateway_events_total",
                "Outbox events not published as written: 'unreadable' (skipped), 'truncated' (only the record's id), 'impossible_channel' (one for each channel left out because of its name)",
                "outcome",
            )?,
            config_problems: gauge(
                &r,
                "gateway_config_problems",
                "Parts of gateway.config.js that do not fit PocketBase's current schema; /readyz names them",
            )?,
            relay_cursor: gauge(
                &r,
                "gateway_relay_cursor",
                "Outbox sequence number up to which all rows are published",
            )?,
            relay_pulls: counters(&r, "gateway_relay_pulls_total", "Reads of the outbox, by cause", "cause")?,
            relay_restarts: counter(
                &r,
                "gateway_relay_restarts_total",
                "Times PocketBase's outbox did not continue the outbox relayed so far, as after a restore from a backup; all clients were told to reload",
            )?,
            api_requests: counters(
                &r,
                "gateway_api_requests_total",
                "Requests of the server API carried out",
                "method",
            )?,
            hooks_refused: counters(
                &r,
                "gateway_hooks_refused_total",
                "Requests of hooks and of the server API answered with an HTTP error",
                "reason",
            )?,
            pocketbase_up: gauge(&r, "gateway_pocketbase_up", "1 if the last read of PocketBase's outbox succeeded")?,
            redis_up: gauge(
                &r,
                "gateway_redis_up",
                "1 if Redis answers at the time of the scrape, or none is configured",
            )?,
            outbox_lag_rows: gauge(&r, "gateway_outbox_lag_rows", "Unpublished outbox rows at the last read")?,
            outbox_lag_seconds: seconds(
                &r,
                "gateway_outbox_lag_seconds",
                "Age of the oldest unpublished outbox row at the last read, in seconds",
            )?,
            outbox_seconds: histogram(
                &r,
                "gateway_outbox_seconds",
                "Time from the write of an outbox row to the write into subscribers' sockets, in seconds, once per publication and writer",
            )?,
            hooks_failing: gauge(
                &r,
                "gateway_hooks_failing",
                "1 while the last request of PocketBase's hooks to the gateway failed (GATEWAY_URL): changes arrive late",
            )?,
            hook_last_arrival: seconds(
                &r,
                "gateway_hook_last_arrival_timestamp_seconds",
                "Time of the last request from PocketBase's hooks to this gateway, in Unix seconds; 0: none yet",
            )?,
            pocketbase_failures: counters(
                &r,
                "gateway_pocketbase_failures_total",
                "Failed calls to PocketBase",
                "route",
            )?,
            pocketbase_seconds: histograms(
                &r,
                "gateway_pocketbase_seconds",
                "Duration of calls to PocketBase, in seconds",
                "route",
            )?,
            broker_errors: counters(
                &r,
                "gateway_broker_errors_total",
                "Failed broker operations (Redis unreachable)",
                "operation",
            )?,
            publish_seconds: histogram(&r, "gateway_publish_seconds", "Time to publish a batch of events, in seconds")?,
            registry: r,
        };
        metrics.begin_at_zero();
        gauges(&metrics.registry, "gateway_build_info", "Always 1; the version is in the label", "version")?
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1.0);
        Ok(metrics)
    }

    /// Creates the label values that alerts use, since an alert on growth misses a counter that begins at 1.
    fn begin_at_zero(&self) {
        let alerted: [(&IntCounterVec, &[&str]); 12] = [
            (&self.guests_refused, &["not_allowed", "max_guests_per_ip"]),
            (&self.sockets_refused, SOCKET_REASONS),
            (&self.handshakes_refused, HANDSHAKE_REASONS),
            (&self.hooks_refused, HOOK_REASONS),
            (&self.disconnects, &["client", "3008", "3012", "3013", "3504"]),
            (&self.rate_limited, &["commands", "signals", "reads", "questions", "statuses"]),
            (&self.access_checks, &["remembered", "asked", "failed"]),
            (&self.gaps, &["filled", "lost"]),
            (&self.relay_events, &["hook", "pull", "repeat", "dropped"]),
            (&self.relay_pulls, &["timer", "gap"]),
            (&self.pocketbase_failures, &["keys", "authorize", "visible", "view", "events", "confirm", "probe"]),
            (&self.broker_errors, &["subscribe", "publish", "history", "presence", "relay", "connect", "status"]),
        ];
        for (counter, labels) in alerted {
            for label in labels {
                counter.with_label_values(&[label]);
            }
        }
    }

    pub fn count_events(&self, outcome: &str, count: usize) {
        self.relay_events.with_label_values(&[outcome]).inc_by(count as u64);
    }

    /// All metrics in Prometheus' text format.
    pub fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut out = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut out)?;
        Ok(out)
    }
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    let metric = IntGauge::new(name, help)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn gauges(registry: &Registry, name: &str, help: &str, label: &str) -> Result<GaugeVec, prometheus::Error> {
    let metric = GaugeVec::new(Opts::new(name, help), &[label])?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn seconds(registry: &Registry, name: &str, help: &str) -> Result<Gauge, prometheus::Error> {
    let metric = Gauge::new(name, help)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    let metric = IntCounter::new(name, help)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn counters(registry: &Registry, name: &str, help: &str, label: &str) -> Result<IntCounterVec, prometheus::Error> {
    let metric = IntCounterVec::new(Opts::new(name, help), &[label])?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// Age in seconds of a time in Unix milliseconds, possibly of another machine's clock; 0 for an unknown or future
/// time.
pub fn age(at: u64) -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let now = u64::try_from(now).unwrap_or(u64::MAX);
    if at == 0 { 0.0 } else { now.saturating_sub(at) as f64 / 1000.0 }
}

fn histogram(registry: &Registry, name: &str, help: &str) -> Result<Histogram, prometheus::Error> {
    let metric = Histogram::with_opts(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()))?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn histograms(registry: &Registry, name: &str, help: &str, label: &str) -> Result<HistogramVec, prometheus::Error> {
    let metric = HistogramVec::new(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()), &[label])?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

#[cfg(test)]
mod tests {
    /// Names of metrics in a text, without the suffixes of histograms.
    fn names(text: &str) -> Vec<&str> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let names = words.filter(|word| word.starts_with("gateway_"));
        names.map(|name| name.trim_end_matches("_bucket").trim_end_matches("_count").trim_end_matches("_sum")).collect()
    }

    #[test]
    fn alerts_and_documentation_name_real_metrics() {
        let (registered, _) = include_str!("metrics.rs").split_once("fn render").expect("the metrics come first");
        for text in [include_str!("../deploy/prometheus/alerts.yml"), include_str!("../deploy/operations.md")] {
            let named = names(text);
            assert!(named.len() > 5, "{named:?}");
            for name in named {
                assert!(registered.contains(&format!("\"{name}\",")), "there is no metric {name}");
            }
        }
    }
}
