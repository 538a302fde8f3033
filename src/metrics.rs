//! Names and help texts of all metrics.
//!
//! No label contains a user, or a channel that clients choose: the number of time series is fixed at the start, except
//! for codes and for updates channels, which the hooks' configuration names.

use prometheus::core::Collector;
use prometheus::{
    Counter, Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    Opts, Registry, TextEncoder,
};
use std::time::{SystemTime, UNIX_EPOCH};

/// Turns the table of metrics into the struct of their handles, and the function that registers all of them. A row names
/// the field, the kind, the metric, the label if there is one, and the help text.
macro_rules! metrics {
    ($($field:ident: $kind:ident = $name:literal, $(by $label:literal,)? $help:literal;)+) => {
        /// Handles to all metrics of a gateway. Clones share the metrics.
        #[derive(Clone)]
        pub struct Metrics {
            registry: Registry,
            $(#[doc = $help] pub $field: $kind,)+
        }

        /// Name, kind, label (or nothing) and help text of every metric, for the tests of the documentation.
        #[cfg(test)]
        const ALL: &[(&str, &str, &str, &str)] = &[$(($name, stringify!($kind), concat!($($label)?), $help),)+];

        impl Metrics {
            fn register_all(registry: Registry) -> Result<Self, prometheus::Error> {
                Ok(Self {
                    $($field: register(&registry, $name, $help, &[$($label)?])?,)+
                    registry,
                })
            }
        }
    };
}

metrics! {
    connections: IntGauge = "gateway_connections",
        "Open connections of clients: WebSockets and streams";
    connections_total: IntCounter = "gateway_connections_total",
        "Connections of clients opened since the start";
    streams_total: IntCounterVec = "gateway_streams_total", by "transport",
        "Connections among them that are no WebSocket: 'http_stream' and 'sse'";
    emulation_requests: IntCounterVec = "gateway_emulation_requests_total", by "outcome",
        "Requests with commands of streams' clients: 'delivered' to this node, 'forwarded' to another, or refused";
    unauthenticated: IntGauge = "gateway_unauthenticated_connections",
        "Connections that have not sent their token yet; at max_unauthenticated, each new one displaces the oldest";
    guests: IntGauge = "gateway_guests",
        "Open connections without a token";
    guests_refused: IntCounterVec = "gateway_guests_refused_total", by "reason",
        "Connections without a token that were refused: 'not_allowed' (error 101), 'max_guests_per_ip' (4002)";
    sockets_refused: IntCounterVec = "gateway_sockets_refused_total", by "reason",
        "Sockets closed before a complete and valid HTTP request had arrived";
    handshakes_refused: IntCounterVec = "gateway_handshakes_refused_total", by "reason",
        "Requests for a WebSocket or a stream answered with an HTTP error";
    disconnects: IntCounterVec = "gateway_disconnects_total", by "code",
        "Connections ended, by close code (see proto/README.md); 'client': the client closed or vanished";
    queued_bytes: IntGauge = "gateway_queued_bytes",
        "Bytes of unsent frames of all connections; at max_total_queue_size, connections with large queues are disconnected (3008)";
    session_panics: IntCounter = "gateway_session_panics_total",
        "Connections ended by a bug in the gateway; please report any value but 0";
    commands: IntCounterVec = "gateway_commands_total", by "command",
        "Commands received";
    command_errors: IntCounterVec = "gateway_command_errors_total", by "code",
        "Commands answered with an error, by error code";
    rate_limited: IntCounterVec = "gateway_rate_limited_total", by "limit",
        "Commands, signals, status changes, reads and questions to PocketBase past their limits (error 111), and commands that ended their connection (3013)";
    bad_frames: IntCounterVec = "gateway_bad_frames_total", by "kind",
        "Frames that ended their connection";
    access_checks: IntCounterVec = "gateway_access_checks_total", by "outcome",
        "Access checks: answered from the cache ('remembered'), 'asked' of PocketBase, or 'failed'";
    revocations: IntCounterVec = "gateway_revocations_total", by "cause",
        "Subscriptions and connections ended because the access ended, by cause";
    subscriptions: IntGauge = "gateway_subscriptions",
        "Open subscriptions";
    channels: IntGauge = "gateway_channels",
        "Channels with at least one subscriber on this node";
    publications: IntCounter = "gateway_publications_total",
        "Publications that reached this node's subscribers";
    deliveries: IntCounter = "gateway_deliveries_total",
        "Publications queued for single subscribers";
    status_changes: IntCounter = "gateway_status_changes_total",
        "Changes of users' statuses delivered to this node's subscribers";
    publications_early: IntCounter = "gateway_publications_early_total",
        "Publications that arrived before an earlier access change and were held back until the change took effect";
    publication_repeats: IntCounter = "gateway_publication_repeats_total",
        "Publications that the broker delivered again; no subscriber got them twice";
    gaps: IntCounterVec = "gateway_gaps_total", by "outcome",
        "Channels whose missed publications were read from history ('filled') or no longer available ('lost': subscribers were told)";
    signals_dropped: IntCounter = "gateway_signals_dropped_total",
        "Signals not delivered to a subscriber because more than half of the subscriber's queue was full";
    updates_lost: IntCounter = "gateway_updates_lost_total",
        "Times an updates channel fell too far behind, or PocketBase was unreachable for too long; subscribers were told to reload";
    updates_behind: GaugeVec = "gateway_updates_behind_seconds", by "channel",
        "Age of the oldest unsettled change or subscribe of an updates channel, in seconds; from 5 on, /readyz names the channel";
    recoveries: IntCounterVec = "gateway_recoveries_total", by "outcome",
        "Subscribes that asked for missed publications";
    relay_events: IntCounterVec = "gateway_relay_events_total", by "outcome",
        "Outbox events: new ones by source ('hook', 'pull'), 'repeat' (published before) and 'dropped' (left in the outbox and read from there later)";
    events: IntCounterVec = "gateway_events_total", by "outcome",
        "Outbox events not published as written: 'unreadable' (skipped), 'truncated' (only the record's id), 'impossible_channel' (one for each channel left out because of its name)";
    config_problems: IntGauge = "gateway_config_problems",
        "Parts of gateway.config.js that do not fit PocketBase's current schema; /readyz names them";
    relay_cursor: IntGauge = "gateway_relay_cursor",
        "Outbox sequence number up to which all rows are published";
    relay_pulls: IntCounterVec = "gateway_relay_pulls_total", by "cause",
        "Reads of the outbox, by cause";
    relay_restarts: IntCounter = "gateway_relay_restarts_total",
        "Times PocketBase's outbox did not continue the outbox relayed so far, as after a restore from a backup; all clients were told to reload";
    relay_paused_seconds: Counter = "gateway_relay_paused_seconds_total",
        "Time in which publishing waited, since this gateway delivered more slowly than PocketBase commits, in seconds";
    api_requests: IntCounterVec = "gateway_api_requests_total", by "method",
        "Requests of the server API carried out";
    hooks_refused: IntCounterVec = "gateway_hooks_refused_total", by "reason",
        "Requests of hooks, of the server API and of the admin page answered with an HTTP error";
    pocketbase_up: IntGauge = "gateway_pocketbase_up",
        "1 if the last read of PocketBase's outbox succeeded";
    redis_up: IntGauge = "gateway_redis_up",
        "1 if Redis answers at the time of the scrape, or none is configured";
    outbox_lag_rows: IntGauge = "gateway_outbox_lag_rows",
        "Unpublished outbox rows at the last read";
    outbox_lag_seconds: Gauge = "gateway_outbox_lag_seconds",
        "Age of the oldest unpublished outbox row at the last read, in seconds";
    outbox_seconds: Histogram = "gateway_outbox_seconds",
        "Time from the write of an outbox row to the write into subscribers' sockets, in seconds, once per publication and writer";
    hooks_failing: IntGauge = "gateway_hooks_failing",
        "1 while the last request of PocketBase's hooks to the gateway failed (GATEWAY_URL): changes arrive late";
    hook_last_arrival: Gauge = "gateway_hook_last_arrival_timestamp_seconds",
        "Time of the last request from PocketBase's hooks to this gateway, in Unix seconds; 0: none yet";
    pocketbase_failures: IntCounterVec = "gateway_pocketbase_failures_total", by "route",
        "Failed calls to PocketBase";
    pocketbase_seconds: HistogramVec = "gateway_pocketbase_seconds", by "route",
        "Duration of calls to PocketBase, in seconds";
    broker_errors: IntCounterVec = "gateway_broker_errors_total", by "operation",
        "Failed broker operations (Redis unreachable)";
    publish_seconds: Histogram = "gateway_publish_seconds",
        "Time to publish a batch of events, in seconds";
}

/// Bucket limits in seconds: calls to PocketBase and Redis on the same machine take from a few hundred microseconds.
const SECONDS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

const SOCKET_REASONS: &[&str] =
    &["pending", "max_connections_per_ip", "request_timeout", "too_large", "malformed", "broken"];
const HANDSHAKE_REASONS: &[&str] = &[
    "bad_handshake",
    "unsupported_subprotocol",
    "origin",
    "draining",
    "max_connections",
    "max_connections_per_ip",
    "no_commands",
    "not_utf8",
    "too_large",
    "incomplete",
    "request_timeout",
];
const EMULATION_OUTCOMES: &[&str] = &[
    "delivered",
    "forwarded",
    "unknown_session",
    "session_busy",
    "bad_request",
    "too_large",
    "incomplete",
    "request_timeout",
    "origin",
    "busy",
    "unavailable",
];
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
    "foreign_host",
    "read_only",
    "bad_token",
];

impl Metrics {
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let help = "Always 1; the version is in the label";
        let build_info: GaugeVec = register(&registry, "gateway_build_info", help, &["version"])?;
        build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
        let metrics = Self::register_all(registry)?;
        metrics.begin_at_zero();
        Ok(metrics)
    }

    /// Creates the label values that alerts use, since an alert on growth misses a counter that begins at 1.
    fn begin_at_zero(&self) {
        let alerted: [(&IntCounterVec, &[&str]); 16] = [
            (&self.streams_total, &["http_stream", "sse"]),
            (&self.emulation_requests, EMULATION_OUTCOMES),
            (&self.guests_refused, &["not_allowed", "max_guests_per_ip"]),
            (&self.sockets_refused, SOCKET_REASONS),
            (&self.handshakes_refused, HANDSHAKE_REASONS),
            (&self.hooks_refused, HOOK_REASONS),
            (&self.disconnects, &["client", "3008", "3012", "3013", "3504"]),
            (&self.rate_limited, &["commands", "signals", "reads", "questions", "statuses"]),
            (&self.access_checks, &["remembered", "asked", "failed"]),
            (&self.gaps, &["filled", "lost"]),
            (&self.recoveries, &["recovered", "unrecoverable"]),
            (&self.events, &["unreadable", "truncated", "impossible_channel"]),
            (&self.relay_events, &["hook", "pull", "repeat", "dropped"]),
            (&self.relay_pulls, &["timer", "gap"]),
            (&self.pocketbase_failures, &["keys", "authorize", "visible", "view", "events", "confirm", "probe"]),
            (&self.broker_errors, &["subscribe", "publish", "history", "presence", "relay", "status", "emulation"]),
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

/// Creates and registers a metric.
fn register<K: MetricKind>(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<K, prometheus::Error> {
    let metric = K::create(Opts::new(name, help), labels)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// A kind of metric, with a time series per value of the label where there is a label.
trait MetricKind: Collector + Clone + 'static {
    fn create(opts: Opts, labels: &[&str]) -> Result<Self, prometheus::Error>;
}

macro_rules! kinds {
    ($($kind:ident: |$opts:ident, $labels:pat_param| $create:expr;)+) => {
        $(impl MetricKind for $kind {
            fn create($opts: Opts, $labels: &[&str]) -> Result<Self, prometheus::Error> {
                $create
            }
        })+
    };
}

kinds! {
    Counter: |opts, _| Self::with_opts(opts);
    IntCounter: |opts, _| Self::with_opts(opts);
    IntCounterVec: |opts, labels| Self::new(opts, labels);
    IntGauge: |opts, _| Self::with_opts(opts);
    Gauge: |opts, _| Self::with_opts(opts);
    GaugeVec: |opts, labels| Self::new(opts, labels);
    Histogram: |opts, _| Self::with_opts(HistogramOpts::from(opts).buckets(SECONDS.to_vec()));
    HistogramVec: |opts, labels| Self::new(HistogramOpts::from(opts).buckets(SECONDS.to_vec()), labels);
}

/// Age in seconds of a time in Unix milliseconds, possibly of another machine's clock; 0 for an unknown or future
/// time.
pub fn age(at: u64) -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let now = u64::try_from(now).unwrap_or(u64::MAX);
    if at == 0 { 0.0 } else { now.saturating_sub(at) as f64 / 1000.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALERTS: &str = include_str!("../deploy/prometheus/alerts.yml");

    /// Names of metrics in a text, without the suffixes of histograms.
    fn names(text: &str) -> Vec<&str> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let names = words.filter(|word| word.starts_with("gateway_"));
        names.map(|name| name.trim_end_matches("_bucket").trim_end_matches("_count").trim_end_matches("_sum")).collect()
    }

    #[test]
    fn alerts_and_documentation_name_real_metrics() {
        let dashboard = include_str!("../deploy/grafana/konvert-gateway.json");
        for text in [ALERTS, dashboard, include_str!("../deploy/operations.md")] {
            let named = names(text);
            assert!(named.len() > 5, "{named:?}");
            for name in named {
                let is_registered = name == "gateway_build_info" || ALL.iter().any(|(metric, ..)| *metric == name);
                assert!(is_registered, "there is no metric {name}");
            }
        }
    }

    /// An alert on the growth of a counter misses the first event if the time series begins with it.
    #[test]
    fn label_values_that_alerts_name_exist_from_the_start() {
        let rendered = String::from_utf8(Metrics::new().unwrap().render().unwrap()).unwrap();
        let mut found = 0;
        for expression in ALERTS.lines().filter(|line| line.contains("gateway_") && line.contains("=")) {
            for part in expression.split("gateway_").skip(1) {
                let Some((name, rest)) = part.split_once('{') else { continue };
                let selector = rest.split('}').next().unwrap();
                let Some((label, values)) = selector.split_once('=') else { continue };
                for value in values.trim_matches(['~', '"']).split('|') {
                    let series = format!("gateway_{name}{{{label}=\"{value}\"}} 0");
                    assert!(rendered.lines().any(|line| line == series), "{series} is missing in {rendered}");
                    found += 1;
                }
            }
        }
        assert!(found > 8, "{found}");
    }

    fn unit(name: &str) -> &str {
        match name {
            _ if name.ends_with("_timestamp_seconds") => "Unix seconds",
            _ if name.contains("seconds") => "seconds",
            _ if name.contains("bytes") => "bytes",
            _ if name.ends_with("_up") || name.ends_with("_failing") => "0 or 1",
            _ => "count",
        }
    }

    #[test]
    fn the_documentation_lists_every_metric() {
        let mut table = "| metric | kind | unit | meaning |\n|---|---|---|---|\n".to_owned();
        for (name, kind, label, help) in ALL {
            let kind = kind.trim_start_matches("Int").trim_end_matches("Vec").to_lowercase();
            let by = if label.is_empty() { String::new() } else { format!(" by `{label}`") };
            table.push_str(&format!("| `{name}` | {kind}{by} | {} | {help} |\n", unit(name)));
        }
        let documentation = include_str!("../deploy/operations.md");
        assert!(documentation.contains(&table), "deploy/operations.md must have this table:\n{table}");
    }
}
