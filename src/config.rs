//! All settings, in one table: the source of the defaults, the names in the TOML file and the environment, the flags,
//! `--help`, `check-config` and the tables of deploy/configuration.md.
//!
//! Precedence: built-in defaults < TOML file < environment < flags. The caller passes the sources in, so that tests
//! never touch the process's environment. An unknown name or an impossible value is an error that suggests a correct
//! value.

mod base_path;
mod environment;
mod listen;
mod log_level;
mod networks;
mod origins;
mod pem;
mod redis_url;
mod value;

pub use base_path::BasePath;
pub use environment::unknown_variables;
pub use listen::ListenAddress;
pub use log_level::LogLevel;
pub use networks::Networks;
pub use origins::Origins;
pub use pem::{Authorities, Certificates, Identity, PrivateKey};
pub use redis_url::{Place, RedisUrl, Topology};
use secrecy::{ExposeSecret, SecretString};
use std::time::Duration;
pub use value::{Delay, HeadSize, HttpUrl, Limit, LogFormat, Milliseconds, Threads};
use value::{Value, Words};

/// Minimum length of a secret, in characters.
pub const SECRET_MIN: usize = 32;

/// A row of the table of settings.
pub struct Setting {
    pub name: &'static str,
    /// Kind of value, with the unit.
    pub takes: &'static str,
    pub default: &'static str,
    pub help: &'static str,
    set: fn(&mut Config, &str) -> Result<(), String>,
    show: fn(&Config) -> String,
}

macro_rules! settings {
    ($($name:ident: $type:ty = $default:literal, $takes:literal, $help:literal;)+) => {
        #[derive(Clone, Debug)]
        pub struct Config { $(#[doc = $help] pub $name: $type),+ }

        /// Every setting, in the order of the table in deploy/configuration.md.
        pub const SETTINGS: &[Setting] = &[$(Setting {
            name: stringify!($name),
            takes: $takes,
            default: $default,
            help: $help,
            set: |config, text| { config.$name = Value::parse(text)?; Ok(()) },
            show: |config| Value::show(&config.$name),
        }),+];

        impl Config {
            fn defaults() -> Result<Self, ConfigError> {
                Ok(Self { $($name: Value::parse($default).map_err(|why| ConfigError::bad("the defaults", stringify!($name), &why))?),+ })
            }
        }
    };
}

settings! {
    listen: ListenAddress = "127.0.0.1:8000", "address:port or unix:///path", "Public listener: WebSocket clients, PocketBase's hooks and the server API";
    admin_listen: ListenAddress = "127.0.0.1:8001", "address:port or unix:///path", "Admin listener: /metrics, /livez, /readyz; keep it private";
    pocketbase_url: HttpUrl = "http://127.0.0.1:8090", "URL", "Where PocketBase answers, http:// or https://";
    pocketbase_ca_file: Option<Authorities> = "", "path", "Certificate authorities (PEM) that PocketBase's https:// certificate may be signed by; unset: those of the system";
    redis_url: Option<RedisUrl> = "", "URL", "Redis shared by all gateways: redis://host:port; unix:///path; a Redis Cluster, redis-cluster://host:port,host:port; sentinels, redis-sentinel://host:port,host:port/service; with rediss for redis over TLS; unset: one node, everything in this process";
    redis_ca_file: Option<Authorities> = "", "path", "Certificate authorities (PEM) that Redis's certificates may be signed by; unset: those of the system";
    redis_cert_file: Option<Certificates> = "", "path", "Client certificate (PEM) to show to Redis, followed by its intermediate authorities";
    redis_key_file: Option<PrivateKey> = "", "path", "Private key (PEM) of redis_cert_file";
    redis_prefix: String = "konvert", "text", "Begins every Redis key and channel name; differs between deployments that share a Redis";
    secret: SecretString = "", "text", "Shared with PocketBase's hooks, at least 32 characters; has no flag, since flags can be seen by other users of the machine";
    secret_second: SecretString = "", "text", "A second secret that is accepted beside `secret` and signs nothing: one replaces the other without a refused request; has no flag";
    base_path: BasePath = "", "path", "Begins all paths of the public listener, as in /realtime/connection/websocket, for a proxy that forwards one path and does not cut it off";
    threads: Threads = "", "count", "Worker threads; unset: half of the machine's cores, since PocketBase and Redis need theirs";
    log_level: LogLevel = "info", "filter", "error, warn, info, debug or trace; also per module, as in info,konvert_gateway::relay=debug";
    log_format: LogFormat = "text", "text|json", "Format of the logs on standard error";
    ping_interval: Duration = "25", "seconds", "Between the server's pings to a client";
    pong_timeout: Duration = "10", "seconds", "How long a client may take to answer a ping";
    connect_timeout: Duration = "10", "seconds", "How long a new connection may take to send its token";
    request_timeout: Duration = "10", "seconds", "How long a request's head may take to arrive, and then its body; how long a connection may idle between requests";
    token_grace: Duration = "25", "seconds", "How long a connection outlives its token, for the refresh to arrive";
    write_timeout: Duration = "10", "seconds", "How long a client may take for 32768 bytes while its socket is full";
    write_hold: Milliseconds = "2", "milliseconds, 0 to 100", "How long what follows a write to a client may be held back, to leave in one go with what comes meanwhile; the first after a pause leaves at once";
    command_timeout: Duration = "5", "seconds", "How long a command may wait for PocketBase and Redis before it fails with error 100";
    max_connections: Option<usize> = "", "count", "WebSocket connections; past it new ones get 503; unset: nine tenths of what `ulimit -n` allows, which is raised to its hard limit at the start";
    max_connections_per_ip: Limit = "1000", "count or 0", "Sockets from one address (IPv6: one /64), also those that are no WebSocket yet; past it new ones get 429; 0: no limit";
    max_connections_per_user: Limit = "50", "count or 0", "Connections of one user, on all gateways that share a Redis; past it new ones are closed with 3504; 0: no limit";
    max_guests_per_ip: Limit = "100", "count or 0", "Guests, that is connections without a token, from one address (IPv6: one /64), where the hooks' config allows guests; past it new ones are closed with 4002; 0: no limit";
    max_unauthenticated: usize = "2000", "count", "Connections that have not sent their token yet; past it the oldest of them is closed with 4003";
    max_pending: usize = "5000", "count", "Sockets that are no WebSocket yet, but no more than a tenth of `ulimit -n`; past it the one that has waited longest is closed";
    trusted_proxies: Networks = "", "comma-separated networks", "Proxies whose Forwarded or X-Forwarded-For is believed, so that max_connections_per_ip and max_guests_per_ip count clients and not the proxy";
    allowed_origins: Origins = "", "comma-separated origins", "Web pages that may connect, such as https://chat.example.org, https://*.example.org, capacitor://localhost, file:// or null; others get 403; unset: all";
    max_head_size: HeadSize = "16384", "bytes", "Largest head of a request, its first line included; past it: 431";
    max_commands_per_second: Limit = "50", "count or 0", "Commands of one connection in the long run; past it they fail with error 111, and who goes on regardless is closed with 3013; 0: no limit";
    max_commands_burst: usize = "500", "count", "Commands that a connection may send at once; SDKs subscribe again to all their channels after a reconnect";
    max_signals_per_second: Limit = "10", "count or 0", "Signals of one user into one channel through this gateway; past it they fail with error 111; 0: no limit";
    max_signals_burst: usize = "20", "count", "Signals of one user into one channel at once";
    max_reads_per_second: Limit = "100", "count or 0", "Reads of one user through this gateway, on all connections together: `history`, `presence` and `presence_stats` count one, and with recoveries one for each 30 publications or 16384 bytes that are read; a recovery that fails counts five; past it they fail with error 111; 0: no limit";
    max_reads_burst: usize = "2000", "count", "Reads of one user at once";
    max_questions_per_second: Limit = "100", "count or 0", "Questions to PocketBase about one user's access, through this gateway, where a refusal counts twice; past it commands that need one fail with error 111; 0: no limit";
    max_questions_burst: usize = "2000", "count", "Such questions at once, as after a reconnect";
    max_status_changes_per_second: Limit = "2", "count or 0", "Calls of `status.set` with a status, and of `status.idle`, of one user through this gateway; past it they fail with error 111; 0: no limit";
    max_status_changes_burst: usize = "100", "count", "Such calls at once";
    max_frame_size: usize = "65536", "bytes", "Largest frame that a client may send";
    max_signal_size: usize = "4096", "bytes", "Largest payload that a client may publish";
    max_subscriptions: usize = "256", "count", "Subscriptions of one connection";
    max_queue_size: usize = "1048576", "bytes", "Unsent frames of one connection; past it the client is disconnected as slow";
    max_total_queue_size: usize = "268435456", "bytes", "Unsent frames of all connections; past it those that hold more than 131072 bytes are disconnected as slow";
    max_hook_size: usize = "16777216", "bytes", "Largest request body that the hooks may post";
    max_hook_events: usize = "1000", "count", "Events that the hooks may post at once";
    signals: Words = "typing", "comma-separated words", "Values of \"type\" that members may publish into a room";
    history_size: usize = "500", "count", "Publications kept per channel for clients that come back";
    history_bytes: usize = "4194304", "bytes", "Payload kept per channel; past it the oldest publications go";
    history_total_bytes: usize = "268435456", "bytes", "Payload kept in all channels (in Redis: by all gateways together, enforced about once a second); past it the channels with the most lose their oldest publications";
    history_limit: usize = "300", "count", "Publications in one answer to `history`; clients ask for more with `since`";
    history_ttl: Duration = "3600", "seconds", "How long they are kept after the channel's last publication";
    presence_ttl: Duration = "30", "seconds", "After how long a client whose gateway or network has died leaves the presence, and its user goes offline";
    presence_max: usize = "1000", "count", "Clients that an answer to `presence` lists; where more are in the channel it fails with error 106, and `presence_stats` counts them";
    status_grace: Duration = "10", "seconds", "How long users stay online after their last connection was closed, so that a page's reload goes unnoticed";
    last_seen_ttl: Duration = "2592000", "seconds", "How long a user's last_seen and invisibility are kept after the user's last connection";
    join_leave_max: usize = "200", "count", "Clients in a channel up to which joins and leaves are told";
    access_ttl: Duration = "60", "seconds", "How long PocketBase's answer to who may see what is remembered; changes in PocketBase end it at once";
    access_cache_size: usize = "100000", "count", "Such answers that are remembered";
    recheck_interval: Duration = "300", "seconds", "Between checks of all running subscriptions, for rules that depend on time and for writes past PocketBase's hooks";
    key_ttl: Duration = "60", "seconds", "How long a user's token key is remembered before PocketBase is asked again";
    pocketbase_timeout: Duration = "3", "seconds", "How long a call to PocketBase may take";
    pull_interval: Duration = "3", "seconds", "Between reads of PocketBase's outbox, the safety net under the hooks; 0.2 s while posts fail, or reads bring rows that no post has brought";
    drain_delay: Delay = "0", "seconds or 0", "How long a stop goes on serving after /readyz has begun to fail: as long as a load balancer needs to notice";
    shutdown_spread: Delay = "5", "seconds or 0", "Over how long a stop spreads its telling clients to reconnect";
    shutdown_timeout: Duration = "10", "seconds", "How long a stop may take after drain_delay; clients that are left then are cut off";
}

/// Why the configuration cannot be used. Names the setting and its source.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ConfigError {
    #[error("{source_name}: unknown setting `{name}`{}", .suggestion.as_ref().map(|s| format!("; did you mean `{s}`?")).unwrap_or_default())]
    Unknown { source_name: String, name: String, suggestion: Option<String> },
    #[error("{source_name}: `{name}`: {why}")]
    Bad { source_name: String, name: String, why: String },
    #[error("{path}: {why}")]
    File { path: String, why: String },
}

impl ConfigError {
    fn bad(source_name: &str, name: &str, why: &str) -> Self {
        Self::Bad { source_name: source_name.into(), name: name.into(), why: why.into() }
    }

    /// Names the line without quoting it, unlike the error's own text: the line may contain the secret.
    fn no_toml(path: &str, text: &str, error: &toml::de::Error) -> Self {
        let before = error.span().map_or(0, |span| span.start);
        let line = 1 + text.bytes().take(before).filter(|byte| *byte == b'\n').count();
        Self::File { path: path.into(), why: format!("line {line}: {}", error.message()) }
    }
}

/// Sources of settings, in ascending precedence.
#[derive(Default)]
pub struct Sources<'a> {
    /// Name and text of the TOML file.
    pub file: Option<(&'a str, &'a str)>,
    /// Environment variables; only names that begin with `GATEWAY_` count.
    pub environment: Vec<(String, String)>,
    /// Settings from flags, by setting name.
    pub flags: Vec<(String, String)>,
}

impl Config {
    /// Merges the sources and checks the result.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let mut config = Self::defaults()?;
        if let Some((path, text)) = sources.file {
            let table: toml::Table = toml::from_str(text).map_err(|error| ConfigError::no_toml(path, text, &error))?;
            for (name, value) in &table {
                let text = value::from_toml(value).map_err(|why| ConfigError::bad(path, name, &why))?;
                config.set(path, name, &text)?;
            }
        }
        config.set_from_environment(&sources.environment)?;
        for (name, text) in &sources.flags {
            config.set("flags", name, text)?;
        }
        config.check()?;
        Ok(config)
    }

    fn set(&mut self, source: &str, name: &str, text: &str) -> Result<(), ConfigError> {
        let Some(setting) = SETTINGS.iter().find(|setting| setting.name == name) else {
            let suggestion = value::nearest(name, SETTINGS.iter().map(|setting| setting.name), 3);
            return Err(ConfigError::Unknown { source_name: source.into(), name: name.into(), suggestion });
        };
        (setting.set)(self, text).map_err(|why| ConfigError::bad(source, name, &why))
    }

    fn check(&self) -> Result<(), ConfigError> {
        let bad = |name, why: &str| Err(ConfigError::bad("configuration", name, why));
        if self.secret.expose_secret().chars().count() < SECRET_MIN {
            return bad(
                "secret",
                &format!(
                    "set GATEWAY_SECRET to at least {SECRET_MIN} random characters, the same as in PocketBase's environment; to make one: openssl rand -hex 32"
                ),
            );
        }
        let second = self.secret_second.expose_secret();
        if !second.is_empty() && second.chars().count() < SECRET_MIN {
            return bad(
                "secret_second",
                &format!("set GATEWAY_SECRET_SECOND to at least {SECRET_MIN} characters, or unset it"),
            );
        }
        if self.listen.is_same(&self.admin_listen) {
            return bad("admin_listen", "must differ from `listen`");
        }
        self.check_tls()?;
        if self.pong_timeout >= self.ping_interval {
            return bad("pong_timeout", "must be shorter than `ping_interval`");
        }
        if self.max_signal_size > self.max_frame_size {
            return bad("max_signal_size", "cannot exceed `max_frame_size`");
        }
        if self.max_queue_size < 64 * 1024 {
            return bad("max_queue_size", "must hold at least one large message: 65536 bytes or more");
        }
        if self.max_total_queue_size < self.max_queue_size {
            return bad("max_total_queue_size", "must be at least `max_queue_size`");
        }
        if self.shutdown_spread.0 >= self.shutdown_timeout {
            return bad("shutdown_spread", "must be shorter than `shutdown_timeout`");
        }
        Ok(())
    }

    /// Every setting with the effective value, as TOML, with secrets masked.
    pub fn effective(&self) -> String {
        SETTINGS.iter().map(|setting| format!("{} = {}\n", setting.name, (setting.show)(self))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn load(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let own = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut sources =
            Sources { file: Some(("gateway.toml", file)), environment: own(environment), flags: own(flags) };
        sources.environment.insert(0, ("GATEWAY_SECRET".into(), SECRET.into()));
        Config::load(&sources)
    }

    fn error(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> String {
        load(file, environment, flags).unwrap_err().to_string()
    }

    #[test]
    fn later_sources_win() {
        let config = load(
            "history_size = 1\nhistory_ttl = 1\npull_interval = 1\nsignals = [\"typing\", \"seen\"]",
            &[("GATEWAY_HISTORY_TTL", "2"), ("GATEWAY_PULL_INTERVAL", "2"), ("PATH", "/bin")],
            &[("pull_interval", "3")],
        )
        .unwrap();
        assert_eq!(config.history_size, 1);
        assert_eq!(config.history_ttl, Duration::from_secs(2));
        assert_eq!(config.pull_interval, Duration::from_secs(3));
        assert_eq!(config.ping_interval, Duration::from_secs(25));
        assert!(config.signals.contains("seen"));
    }

    #[test]
    fn unknown_names_are_named_and_the_right_one_suggested() {
        assert_eq!(
            error("histroy_size = 1", &[], &[]),
            "gateway.toml: unknown setting `histroy_size`; did you mean `history_size`?"
        );
        assert_eq!(
            error("", &[("GATEWAY_LISTN", "x")], &[]),
            "environment: unknown setting `GATEWAY_LISTN`; did you mean `GATEWAY_LISTEN`?"
        );
        assert_eq!(error("zzzzzzzz = 1", &[], &[]), "gateway.toml: unknown setting `zzzzzzzz`");
    }

    #[test]
    fn impossible_values_are_named_with_what_would_be_right() {
        for (file, name, hint) in [
            ("listen = \"nowhere\"", "listen", "address:port"),
            ("history_size = -1", "history_size", "whole number"),
            ("history_size = 0", "history_size", "at least 1"),
            ("ping_interval = \"soon\"", "ping_interval", "seconds"),
            ("ping_interval = 0", "ping_interval", "at least 1"),
            ("pocketbase_url = \"ftp://x\"", "pocketbase_url", "http://"),
            ("pocketbase_url = \"https://\"", "pocketbase_url", "https://"),
            ("pocketbase_ca_file = \"/does/not/exist\"", "pocketbase_ca_file", "/does/not/exist"),
            ("redis_ca_file = \"/\"", "redis_ca_file", "may read"),
            ("redis_cert_file = \"/dev/zero\"", "redis_cert_file", "more than"),
            ("redis_key_file = \"/dev/null\"", "redis_key_file", "PRIVATE KEY"),
            ("redis_url = \"redis-sentinel://a:1\"", "redis_url", "sentinel monitor"),
            ("listen = \"unix://here\"", "listen", "unix:///run/gateway.sock"),
            ("listen = \"unix:///a\"\nadmin_listen = \"unix:///a\"", "admin_listen", "differ"),
            ("pocketbase_url = \"http://x/#y\"", "pocketbase_url", "http://"),
            ("pocketbase_url = \"http://\"", "pocketbase_url", "http://"),
            ("history_size = \"9223372036854775808\"", "history_size", "whole number"),
            ("threads = 1025", "threads", "at most 1024"),
            ("redis_url = \"localhost\"", "redis_url", "redis://"),
            ("redis_url = \"redis-cluster://\"", "redis_url", "redis-cluster://"),
            ("redis_url = \"redis-cluster://a:1,\"", "redis_url", "redis-cluster://"),
            ("redis_url = \"redis-cluster://a:1/3\"", "redis_url", "redis-cluster://"),
            ("log_level = \"verbose\"", "log_level", "error, warn, info, debug, trace"),
            ("base_path = \"realtime\"", "base_path", "/realtime"),
            ("secret_second = \"short\"", "secret_second", "32"),
            ("log_format = \"xml\"", "log_format", "text"),
            ("signals = [1]", "signals", "array of strings"),
            ("listen = { port = 1 }", "listen", "string"),
            ("pong_timeout = 30", "pong_timeout", "ping_interval"),
            ("max_total_queue_size = 1000000", "max_total_queue_size", "max_queue_size"),
            ("drain_delay = -1", "drain_delay", "seconds"),
            ("shutdown_spread = 10", "shutdown_spread", "shutdown_timeout"),
            ("max_connections_per_ip = -1", "max_connections_per_ip", "0 stands for no limit"),
            ("max_connections = 0", "max_connections", "at least 1"),
            ("max_head_size = 8000", "max_head_size", "8192"),
            ("trusted_proxies = [\"proxy\"]", "trusted_proxies", "10.0.0.0/8"),
            ("allowed_origins = \"example.org\"", "allowed_origins", "https://"),
            ("secret = \"short\"", "secret", "32"),
        ] {
            let environment: &[(&str, &str)] = if name == "secret" { &[("GATEWAY_SECRET", "short")] } else { &[] };
            let error = error(file, environment, &[]);
            assert!(error.contains(&format!("`{name}`")) && error.contains(hint), "{file}: {error}");
        }
        assert!(error("\na = ", &[], &[]).starts_with("gateway.toml: line 2: "));
        assert!(!error(&format!("secret = \"{SECRET}"), &[], &[]).contains(SECRET));
    }

    #[test]
    fn a_stop_may_be_without_delay_and_spread() {
        let config = load("drain_delay = 0\nshutdown_spread = 0", &[], &[]).unwrap();
        assert_eq!((config.drain_delay.0, config.shutdown_spread.0), (Duration::ZERO, Duration::ZERO));
    }

    #[test]
    fn a_password_for_pocketbase_is_refused_and_not_repeated() {
        for url in ["http://user:hunter2@a:1", "http://user:hunter2@a:1/#x", "ftp://user:hunter2@a", "http://hunter2@a"]
        {
            let told = error(&format!("pocketbase_url = \"{url}\""), &[], &[]);
            assert!(told.contains("`pocketbase_url`") && !told.contains("hunter2"), "{told}");
        }
        assert!(error("pocketbase_url = \"http://u:p@a\"", &[], &[]).contains("signs its requests"));
    }

    #[test]
    fn secrets_do_not_print() {
        for url in ["redis://user:hunter2@127.0.0.1:6379", "redis-cluster://:hunter2@a:1,b:2"] {
            let config = load(&format!("redis_url = \"{url}\""), &[], &[]).unwrap();
            for text in [config.effective(), format!("{config:?}")] {
                assert!(!text.contains(SECRET) && !text.contains("hunter2"), "{text}");
            }
        }
    }

    #[test]
    fn what_check_config_prints_can_be_read_back() {
        let text = load("", &[], &[]).unwrap().effective();
        let without_secret: String =
            text.lines().filter(|l| !l.starts_with("secret =")).map(|l| format!("{l}\n")).collect();
        assert_eq!(load(&without_secret, &[], &[]).unwrap().effective(), text);
    }

    #[test]
    fn the_documentation_lists_every_setting_with_its_default() {
        let documentation = include_str!("../deploy/configuration.md");
        for Setting { name, takes, default, .. } in SETTINGS {
            let default = if default.is_empty() { "–".to_owned() } else { format!("`{default}`") };
            let row = format!("| `{name}` | {default} | {} |", takes.replace('|', "\\|"));
            assert!(documentation.contains(&row), "deploy/configuration.md lacks: {row}");
        }
    }
}
