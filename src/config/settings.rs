//! The table of all settings.

use super::value::{Delay, HeadSize, HttpUrl, Limit, LogFormat, Milliseconds, Threads, Value, Words};
use super::{
    Authorities, BasePath, Certificates, ConfigError, ListenAddress, LogLevel, Networks, Origins, PrivateKey, RedisUrl,
};
use secrecy::SecretString;
use std::time::Duration;

/// A row of the table of settings.
pub struct Setting {
    pub name: &'static str,
    /// Heading of the setting's group.
    pub group: &'static str,
    /// Kind of value, with the unit.
    pub takes: &'static str,
    pub default: &'static str,
    pub help: &'static str,
    pub(super) set: fn(&mut Config, &str) -> Result<(), String>,
    pub(super) show: fn(&Config) -> String,
}

macro_rules! settings {
    ($($group:literal { $($name:ident: $type:ty = $default:literal, $takes:literal, $help:literal;)+ })+) => {
        #[derive(Clone, Debug)]
        pub struct Config {
            $($(#[doc = $help] pub $name: $type,)+)+
            /// The source of each setting that is not a default.
            pub(super) origins: std::collections::HashMap<&'static str, String>,
        }

        /// Every setting, in the order of the tables in deploy/configuration.md.
        pub const SETTINGS: &[Setting] = &[$($(Setting {
            name: stringify!($name),
            group: $group,
            takes: $takes,
            default: $default,
            help: $help,
            set: |config, text| { config.$name = Value::parse(text)?; Ok(()) },
            show: |config| Value::show(&config.$name),
        },)+)+];

        impl Config {
            pub(super) fn defaults() -> Result<Self, ConfigError> {
                Ok(Self {
                    $($($name: Value::parse($default)
                        .map_err(|why| ConfigError::bad("the defaults", stringify!($name), &why))?,)+)+
                    origins: Default::default(),
                })
            }
        }
    };
}

settings! {
"Listeners" {
    listen: ListenAddress = "127.0.0.1:8000", "address:port or unix:///path", "Public listener: WebSocket clients, PocketBase's hooks and the server API";
    admin_listen: ListenAddress = "127.0.0.1:8001", "address:port or unix:///path", "Admin listener: a page for operators at /, and /metrics, /livez, /readyz; keep it private";
    admin_token: SecretString = "", "text", "Token that lets operators publish test messages from the admin page, at least 32 characters; unset: the page is read-only; has no flag, since other users of the machine can see flags";
    base_path: BasePath = "", "path", "Prefix of all paths of the public listener, as in /realtime/connection/websocket; for a proxy that forwards a path without removing the prefix";
    trusted_proxies: Networks = "", "comma-separated networks", "Proxies whose Forwarded or X-Forwarded-For header is believed, so that limits per address count clients instead of the proxy";
    allowed_origins: Origins = "", "comma-separated origins", "Origins of web pages that may connect, such as https://chat.example.org, https://*.example.org, capacitor://localhost, file:// or null; other pages get 403; unset: all";
}
"PocketBase" {
    pocketbase_url: HttpUrl = "http://127.0.0.1:8090", "URL", "URL of PocketBase, http:// or https://";
    pocketbase_ca_file: Option<Authorities> = "", "path", "Certificate authorities (PEM) for PocketBase's https:// certificate; unset: the authorities of the system";
    secret: SecretString = "", "text", "Secret shared with PocketBase's hooks, at least 32 characters; has no flag, since other users of the machine can see flags";
    secret_second: SecretString = "", "text", "Second secret, accepted beside `secret` but not used for signing: for a change of the secret without refused requests; has no flag";
    pocketbase_timeout: Duration = "3s", "duration", "Timeout of a call to PocketBase";
    pull_interval: Duration = "3s", "duration", "Interval between reads of PocketBase's outbox, the safety net behind the hooks' posts; 0.2 s while posts fail, or while reads find events that no post has delivered; up to four intervals while posts arrive, here or at another gateway";
}
"Redis" {
    redis_url: Option<RedisUrl> = "", "URL", "Redis shared by all gateways: redis://host:port; unix:///path; a Redis Cluster: redis-cluster://host:port,host:port; sentinels: redis-sentinel://host:port,host:port/service; rediss in place of redis means TLS; unset: a single gateway that keeps all state in its process";
    redis_ca_file: Option<Authorities> = "", "path", "Certificate authorities (PEM) for Redis's certificates; unset: the authorities of the system";
    redis_cert_file: Option<Certificates> = "", "path", "Client certificate (PEM) for Redis, followed by its intermediate authorities";
    redis_key_file: Option<PrivateKey> = "", "path", "Private key (PEM) of redis_cert_file";
    redis_prefix: String = "konvert", "text", "Prefix of every Redis key and channel; choose different prefixes for deployments that share a Redis";
}
"Process" {
    threads: Threads = "", "count", "Worker threads; unset: half of the machine's cores, since PocketBase and Redis need the other half";
    log_level: LogLevel = "info", "filter", "error, warn, info, debug or trace; also per module, as in info,konvert_gateway::relay=debug";
    log_format: LogFormat = "text", "text|json", "Format of the logs on standard error";
    drain_delay: Delay = "0s", "duration or 0", "At a stop, time of normal service after /readyz has begun to fail: as long as the load balancer needs to notice";
    shutdown_spread: Delay = "5s", "duration or 0", "At a stop, period over which clients are told to reconnect, so that they do not all return at once";
    shutdown_timeout: Duration = "10s", "duration", "At a stop, maximum time after drain_delay; remaining clients are then cut off";
}
"Connections" {
    max_connections: Option<usize> = "", "count", "Connections of clients, by WebSocket or stream; further connections get 503; unset: nine tenths of `ulimit -n`, which the gateway raises to the hard limit at the start";
    max_connections_per_ip: Limit = "1000", "count or 0", "Sockets of an address (IPv6: of a /64 network), including sockets before the WebSocket handshake; further sockets get 429; 0: no limit";
    max_connections_per_user: Limit = "50", "count or 0", "Connections of a user, on all gateways that share a Redis; further connections are closed with 3504; 0: no limit";
    max_guests_per_ip: Limit = "100", "count or 0", "Guests (connections without a token, where gateway.config.js allows guests) of an address (IPv6: of a /64 network); further guests are closed with 4002; 0: no limit";
    max_unauthenticated: usize = "2000", "count", "Connections that have not sent their token yet; past the limit the oldest of them is closed with 4003";
    max_pending: usize = "5000", "count", "Sockets before the WebSocket handshake, at most a tenth of `ulimit -n`; past the limit the socket that has waited longest is closed";
    max_head_size: HeadSize = "16384", "bytes", "Size of an HTTP request's head, including the request line; larger heads get 431";
    request_timeout: Duration = "10s", "duration", "Time for a request's head to arrive, and then for the body; also the idle time between requests";
    connect_timeout: Duration = "10s", "duration", "Time for a new connection to send its token";
    token_grace: Duration = "25s", "duration", "Time that a connection outlives its token, for the refresh to arrive";
    ping_interval: Duration = "25s", "duration", "Interval between the server's pings to a client";
    pong_timeout: Duration = "10s", "duration", "Time for a client to answer a ping";
    write_timeout: Duration = "10s", "duration", "Time for a client to accept 32768 bytes while its socket is full";
    write_hold: Milliseconds = "2ms", "duration up to 100ms", "Batching window: later messages to a client wait up to this long and leave together; after an idle period the first message leaves at once";
}
"Commands and queues of clients" {
    command_timeout: Duration = "5s", "duration", "Time that a command may wait for PocketBase and Redis before it fails with error 100";
    max_commands_per_second: Limit = "50", "count or 0", "Long-term rate of a connection's commands; excess commands fail with error 111, and a connection that ignores the errors is closed with 3013; 0: no limit";
    max_commands_burst: usize = "500", "count", "Commands of a connection in a burst; SDKs subscribe to all their channels again after a reconnect";
    max_signals_per_second: Limit = "10", "count or 0", "Rate of a user's signals into a channel through this gateway; excess signals fail with error 111; 0: no limit";
    max_signals_burst: usize = "20", "count", "Signals of a user into a channel in a burst";
    max_reads_per_second: Limit = "100", "count or 0", "Rate of a user's reads through this gateway, over all connections: `history`, `presence` and `presence_stats` cost 1, and as recoveries do, 1 more per 30 publications or 16384 bytes of the answer; a failed recovery costs 5; excess reads fail with error 111; 0: no limit";
    max_reads_burst: usize = "2000", "count", "Reads of a user in a burst";
    max_questions_per_second: Limit = "100", "count or 0", "Rate of access checks at PocketBase for a user, through this gateway, where a refusal costs 2; excess commands that need a check fail with error 111; 0: no limit";
    max_questions_burst: usize = "2000", "count", "Access checks for a user in a burst, as after a reconnect";
    max_status_changes_per_second: Limit = "2", "count or 0", "Rate of a user's calls of `status.set` with a status, and of `status.idle`, through this gateway; excess calls fail with error 111; 0: no limit";
    max_status_changes_burst: usize = "100", "count", "Such calls of a user in a burst";
    max_subscriptions: usize = "256", "count", "Subscriptions of a connection";
    max_frame_size: usize = "65536", "bytes", "Size of a frame from a client";
    max_signal_size: usize = "4096", "bytes", "Size of a payload that a client publishes";
    signals: Words = "typing", "comma-separated words", "Values of \"type\" that members may publish into a channel";
    max_queue_size: usize = "1048576", "bytes", "Unsent frames of a connection; past the limit the client is disconnected as slow";
    max_total_queue_size: usize = "268435456", "bytes", "Unsent frames of all connections; past the limit, clients with more than 131072 bytes of them are disconnected as slow";
}
"Hooks" {
    max_hook_size: usize = "16777216", "bytes", "Size of a request body from the hooks";
    max_hook_events: usize = "1000", "count", "Events in a request from the hooks";
}
"History" {
    history_size: usize = "500", "count", "Publications kept per channel, for returning clients";
    history_bytes: usize = "4194304", "bytes", "Payload kept per channel; past the limit the oldest publications are dropped";
    history_total_bytes: usize = "268435456", "bytes", "Payload kept in all channels (in Redis: of all gateways together, enforced about once a second); past the limit the channels with the most payload lose their oldest publications";
    history_ttl: Duration = "1h", "duration", "Time that a history is kept after the channel's last publication";
    history_limit: usize = "300", "count", "Publications in an answer to `history`; clients ask for more with `since`";
}
"Presence and status" {
    presence_ttl: Duration = "30s", "duration", "Lease of a client: after a gateway or its network has died, its clients leave the presence and go offline within this time";
    presence_max: usize = "1000", "count", "Clients in an answer to `presence`; in a channel with more clients `presence` fails with error 106, and `presence_stats` counts them";
    join_leave_max: usize = "200", "count", "Clients in a channel up to which joins and leaves are pushed";
    status_grace: Duration = "10s", "duration", "Time that users stay online after their last connection was closed, so that a page reload goes unnoticed";
    last_seen_ttl: Duration = "30d", "duration", "Time that a user's last_seen and invisibility are kept after the user's last connection";
}
"Access" {
    access_ttl: Duration = "60s", "duration", "Time that PocketBase's answer to an access check is cached; a change in PocketBase ends it at once";
    access_cache_size: usize = "100000", "count", "Cached answers to access checks";
    recheck_interval: Duration = "5m", "duration", "Interval between checks of all running subscriptions, for rules that depend on time and for writes that bypass PocketBase's hooks";
    key_ttl: Duration = "60s", "duration", "Time that a user's token key is cached";
}
}
