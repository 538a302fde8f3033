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
mod settings;
mod value;

pub use base_path::BasePath;
pub use environment::unknown_variables;
pub use listen::ListenAddress;
pub use log_level::LogLevel;
pub use networks::Networks;
pub use origins::Origins;
pub use pem::{Authorities, Certificates, ClientCertificate, PrivateKey};
pub use redis_url::{NodePlace, RedisUrl, Topology};
use secrecy::ExposeSecret;
pub use settings::{Config, SETTINGS, Setting};
pub use value::{Delay, HeadSize, HttpUrl, Limit, LogFormat, Milliseconds, Threads};

/// Minimum length of a secret, in characters.
pub const SECRET_MIN: usize = 32;

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
        (setting.set)(self, text).map_err(|why| ConfigError::bad(source, name, &why))?;
        self.origins.insert(setting.name, source.to_owned());
        Ok(())
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

    /// [`Config::effective`] for people: in groups, with the source of each value. `computed`: values that the gateway
    /// computes for settings that are not set, by name.
    pub fn explained(&self, computed: &[(&str, String)]) -> String {
        let mut text = String::new();
        let mut group = "";
        for setting in SETTINGS {
            if setting.group != group {
                group = setting.group;
                text.push_str(&format!("{}# {group}\n", if text.is_empty() { "" } else { "\n" }));
            }
            let value = (setting.show)(self);
            let computed = computed.iter().find(|(name, _)| *name == setting.name).filter(|_| value == "\"\"");
            let line = match (computed, value.as_str()) {
                (Some((_, computed)), _) => format!("# {} = {computed}", setting.name),
                (None, "\"\"") => format!("# {} is not set", setting.name),
                (None, value) => format!("{} = {value}", setting.name),
            };
            let source = self.origins.get(setting.name).map_or("default", String::as_str);
            text.push_str(&format!("{line:<46} # {source}\n"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::time::Duration;

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
            ("ping_interval = 0", "ping_interval", "at least 1s"),
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
    fn durations_have_units() {
        let config = load(
            "ping_interval = \"1m\"\nhistory_ttl = \"2h\"\nlast_seen_ttl = \"90d\"\nwrite_hold = 7",
            &[("GATEWAY_KEY_TTL", "2000ms"), ("GATEWAY_DRAIN_DELAY", "0")],
            &[],
        )
        .unwrap();
        let seconds =
            [config.ping_interval, config.history_ttl, config.last_seen_ttl, config.key_ttl].map(|it| it.as_secs());
        assert_eq!(seconds, [60, 7200, 7_776_000, 2]);
        assert_eq!(config.write_hold.0, Duration::from_millis(7));
        for (bad, hint) in [("1500ms", "whole number of seconds"), ("1y", "ms, s, m, h or d"), ("-1s", "25s")] {
            assert!(error(&format!("key_ttl = \"{bad}\""), &[], &[]).contains(hint), "{bad}");
        }
        assert!(config.effective().contains("\nlast_seen_ttl = \"90d\"\n"));
    }

    #[test]
    fn check_config_names_the_source_of_each_value() {
        let config = load("history_size = 7", &[("GATEWAY_KEY_TTL", "5s")], &[("threads", "3")]).unwrap();
        let text = config.explained(&[("threads", "9".into()), ("max_connections", "100".into())]);
        let line = |name: &str| {
            text.lines().find(|line| line.contains(name)).unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(line("history_size ="), "history_size = 7 # gateway.toml");
        assert_eq!(line("key_ttl ="), "key_ttl = \"5s\" # environment");
        assert_eq!(line("threads ="), "threads = 3 # flags");
        assert_eq!(line("max_connections ="), "# max_connections = 100 # default");
        assert_eq!(line("redis_url "), "# redis_url is not set # default");
        assert_eq!(line("secret ="), "secret = \"********\" # environment");
        assert!(text.contains("\n# Redis\n") && !text.contains(SECRET));
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
        let mut tables = String::new();
        let mut last = "";
        for Setting { name, group, takes, default, help, .. } in SETTINGS {
            if *group != last {
                last = group;
                tables.push_str(&format!(
                    "\n### {group}\n\n| setting | default | takes | meaning |\n|---|---|---|---|\n"
                ));
            }
            let default = if default.is_empty() { "–".to_owned() } else { format!("`{default}`") };
            tables.push_str(&format!("| `{name}` | {default} | {} | {help} |\n", takes.replace('|', "\\|")));
        }
        assert!(documentation.contains(&tables), "deploy/configuration.md must have these tables:\n{tables}");
    }
}
