//! Configuration: a TOML file, then `NAME=value` pairs of the environment, separated by NUL. A configuration is
//! refused with a message, or is valid; then the printed form holds no secret and can be read back.

use konvert_gateway::config::{Config, RedisUrl, SETTINGS, Sources};
use std::time::Duration;

const SECRET: &str = "the-secret-that-nobody-prints-0123456789";
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

pub fn check(input: &[u8]) {
    // A log filter may hold a regular expression, whose compilation can take arbitrarily long.
    let Ok(text) = std::str::from_utf8(input) else { return };
    if text.contains("[") && text.to_ascii_lowercase().contains("log_level") {
        return;
    }
    let mut parts = text.split('\0');
    let file = parts.next().unwrap_or_default();
    let mut environment = vec![("GATEWAY_SECRET".to_owned(), SECRET.to_owned())];
    environment.extend(parts.filter_map(|pair| pair.split_once('=')).map(|(n, v)| (n.to_owned(), v.to_owned())));
    let sources = Sources { file: Some(("gateway.toml", file)), environment, ..Sources::default() };
    let config = match Config::load(&sources) {
        Ok(config) => config,
        Err(error) => {
            let error = error.to_string();
            assert!(!error.is_empty() && !error.contains(SECRET), "{error}");
            return;
        }
    };
    is_bounded(&config);
    keeps_secrets(&config);
    comes_back(&config);
}

fn is_bounded(config: &Config) {
    for time in [config.ping_interval, config.history_ttl, config.shutdown_timeout, config.drain_delay.0] {
        assert!(time <= YEAR);
    }
    assert!((1..=4096).contains(&config.threads.count()), "{} threads", config.threads.count());
    assert!(config.max_queue_size / 2 > 0 && config.pong_timeout < config.ping_interval);
    let url = format!("{}/api/gateway/keys", config.pocketbase_url.0);
    let uri: hyper::Uri = url.parse().expect("routes can be put behind PocketBase's URL");
    assert!(uri.path().ends_with("/api/gateway/keys") && uri.host().is_some(), "{url}");
}

fn keeps_secrets(config: &Config) {
    let printed = format!("{}{config:?}", config.effective());
    assert!(!printed.contains(SECRET));
    let Some(url) = config.redis_url.as_ref().map(RedisUrl::expose) else { return };
    let authority = url.split_once("://").map_or("", |(_, rest)| rest.split(['/', '?']).next().unwrap_or_default());
    let credentials = authority.rsplit_once('@').map(|(before, _)| before.split_once(':').unwrap_or((before, "")));
    let (user, password) = credentials.unwrap_or_default();
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let parameters = |end: &'static str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(move |(name, _)| name.ends_with(end)).map(|(_, value)| value)
    };
    // User names are printed, and may contain the text of a password.
    let users: Vec<&str> = parameters("user").chain([user]).filter(|user| !user.is_empty()).collect();
    for password in parameters("pass").chain([password]) {
        let mut elsewhere: String = printed.lines().filter(|line| line.starts_with("redis_url")).collect();
        users.iter().for_each(|user| elsewhere = elsewhere.replace(user, "\n"));
        // A short password may occur by chance in another part.
        assert!(password.len() <= 12 || !elsewhere.contains(password), "{elsewhere}");
    }
}

fn comes_back(config: &Config) {
    let text = config.effective();
    assert_eq!(text.lines().count(), SETTINGS.len(), "one line each: {text}");
    // Certificates for Redis are refused without a TLS URL.
    let left_out = ["secret =", "secret_second =", "redis_url =", "redis_ca_", "redis_cert_", "redis_key_"];
    let masked = |line: &&str| left_out.iter().any(|it| line.starts_with(it));
    let file: String = text.lines().filter(|line| !masked(line)).map(|line| format!("{line}\n")).collect();
    let environment = vec![("GATEWAY_SECRET".to_owned(), SECRET.to_owned())];
    let again = Config::load(&Sources { file: Some(("again.toml", &file)), environment, ..Sources::default() });
    let again = again.unwrap_or_else(|error| panic!("{error}\n{file}"));
    let lines = |config: &Config| -> Vec<String> {
        let all = config.effective();
        all.lines().filter(|line| !left_out.iter().any(|it| line.starts_with(it))).map(str::to_owned).collect()
    };
    assert_eq!(lines(&again), lines(config));
}
