//! The `konvert-gateway doctor` command: tries PocketBase, its hooks and Redis, and prints problems and remedies in
//! plain words.

use crate::broker::redis::RedisBroker;
use crate::broker::{Broker, Retention};
use crate::config::{Config, ListenAddress, RedisUrl};
use crate::metrics::Metrics;
use crate::pocketbase::{PocketBase, PocketBaseError, version};
use crate::server::redis_tls;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// One check with its result.
pub struct Finding {
    pub what: String,
    pub outcome: Outcome,
}

pub enum Outcome {
    Good,
    /// The problem and its remedy.
    Wrong(String),
    /// The reason why the check was not possible.
    Untested(String),
}

impl Finding {
    fn new(what: impl Into<String>, problem: Option<String>) -> Self {
        Self { what: what.into(), outcome: problem.map_or(Outcome::Good, Outcome::Wrong) }
    }
}

/// Checks PocketBase with the real secret, and Redis if one is configured.
pub async fn examine(config: &Config, metrics: Metrics) -> Vec<Finding> {
    let mut findings = examine_pocketbase(config, metrics).await;
    findings.push(match &config.redis_url {
        Some(url) => Finding::new("Redis", examine_redis(url, config).await.err()),
        None => Finding::new("no Redis configured: a single node, all state in the gateway's process", None),
    });
    findings
}

async fn examine_pocketbase(config: &Config, metrics: Metrics) -> Vec<Finding> {
    let url = &config.pocketbase_url.0;
    let pocketbase = match PocketBase::new(config, metrics) {
        Ok(pocketbase) => pocketbase,
        Err(error) => return vec![Finding::new(format!("PocketBase at {url}"), Some(error.to_string()))],
    };
    let advice = match pocketbase.events(0, 1).await {
        Ok(events) => {
            let way = examine_hooks(&pocketbase, config).await;
            let works = format!(
                "PocketBase at {url}: the hooks answer and the secret is correct; {} changes so far",
                events.last
            );
            let advice = "Correct gateway.config.js or the schema, then restart PocketBase.";
            let misfits = events.problems.into_iter().map(|problem| {
                Finding::new("gateway.config.js and PocketBase's schema", Some(format!("{problem}\n    {advice}")))
            });
            let versions = version::mismatch(events.version.as_deref());
            let versions =
                versions.map(|mismatch| Finding::new("versions of PocketBase's hooks and gateway", Some(mismatch)));
            return [Finding::new(works, None)].into_iter().chain(versions).chain(misfits).chain(way).collect();
        }
        Err(error @ PocketBaseError::Refused { status: 401, .. }) => {
            format!(
                "{error}\n    Start PocketBase and the gateway with the same GATEWAY_SECRET, and with clocks less than 5 minutes apart."
            )
        }
        Err(error @ PocketBaseError::Refused { status: 404, .. }) => {
            format!(
                "{error}\n    Is this PocketBase? Then run \"konvert-gateway init DIR\", where DIR holds pb_data, and restart PocketBase. \
                 Otherwise set GATEWAY_POCKETBASE_URL to PocketBase's address."
            )
        }
        Err(error @ (PocketBaseError::Unreachable(_) | PocketBaseError::Timeout)) => {
            format!("{error}\n    Is PocketBase running there? Otherwise set GATEWAY_POCKETBASE_URL to its address.")
        }
        Err(error) => error.to_string(),
    };
    vec![Finding::new(format!("PocketBase at {url}"), Some(advice))]
}

/// Asks PocketBase to call the gateway. A failed call counts only while a gateway runs at `listen`.
async fn examine_hooks(pocketbase: &PocketBase, config: &Config) -> Option<Finding> {
    let what = "requests from PocketBase's hooks to the gateway";
    let delivery = match pocketbase.probe().await {
        Ok(delivery) => delivery,
        Err(PocketBaseError::Refused { status: 404, .. }) => {
            let advice =
                "the hooks are older than this gateway: run \"konvert-gateway init DIR\" and restart PocketBase";
            return Some(Finding::new(what, Some(advice.to_owned())));
        }
        Err(error) => return Some(Finding::new(what, Some(error.to_string()))),
    };
    let url = &delivery.url;
    Some(if delivery.error.is_empty() {
        Finding::new(format!("{what}: PocketBase reaches it at {url}"), None)
    } else if is_served(&config.listen).await {
        Finding::new(what, Some(delivery.advice()))
    } else {
        let reason = format!("no gateway runs at {} now; once one runs, PocketBase will call {url}", config.listen);
        Finding { what: what.to_owned(), outcome: Outcome::Untested(reason) }
    })
}

/// Whether a process listens on an address that a gateway would listen on.
async fn is_served(address: &ListenAddress) -> bool {
    let connecting = async {
        match address {
            ListenAddress::Unix(path) => tokio::net::UnixStream::connect(path).await.map(drop),
            ListenAddress::Tcp(address) => {
                let mut address = *address;
                if address.ip().is_unspecified() {
                    let v4 = address.is_ipv4();
                    address.set_ip(if v4 { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
                }
                tokio::net::TcpStream::connect(address).await.map(drop)
            }
        }
    };
    matches!(tokio::time::timeout(Duration::from_secs(1), connecting).await, Ok(Ok(())))
}

async fn examine_redis(url: &RedisUrl, config: &Config) -> Result<(), String> {
    let advice = if url.tls {
        "Is Redis running there with TLS on that port, and does GATEWAY_REDIS_URL contain the password?\n    \
         redis-cli -u URL --tls --cacert FILE ping should answer PONG."
    } else {
        "Is Redis running there, and does GATEWAY_REDIS_URL contain the password? redis-cli -u URL ping should answer PONG.\n    \
         The URL begins with redis-cluster:// for a cluster, with redis-sentinel:// for sentinels; rediss instead of redis means TLS."
    };
    let second = Duration::from_secs(1);
    let retention =
        Retention { size: 1, ttl: second, position_ttl: second, presence_ttl: second, ..Retention::default() };
    let tls = redis_tls(config).map_err(|error| error.to_string())?;
    let broker = RedisBroker::connect_with(url.clone(), tls, &config.redis_prefix, retention)
        .await
        .map_err(|error| format!("{error}\n    {advice}"))?;
    let deadline = tokio::time::Instant::now() + 3 * second;
    loop {
        // The links come up in the background.
        match broker.check().await {
            Ok(()) => return Ok(()),
            Err(error) if tokio::time::Instant::now() > deadline => return Err(format!("{error}\n    {advice}")),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
