//! `redis_url`: one Redis, a cluster, or the sentinels that watch over a master.
//!
//! | begins with | is |
//! |---|---|
//! | `redis://[user][:password@]host[:port][/database]` | one Redis |
//! | `unix:///path[?user=…&pass=…&db=…]` | one Redis, over its Unix socket |
//! | `redis-cluster://[user][:password@]host[:port][,host[:port] …]` | some nodes of a cluster |
//! | `redis-sentinel://[user][:password@]host[:port][,host[:port] …]/service[/database][?sentinel_user=…&sentinel_pass=…]` | sentinels, and the name of the watched service |
//!
//! `rediss` in place of `redis` means TLS. User and password before the hosts log in to Redis, not to the sentinels.
//! The `redis` crate parses the parts, percent escapes (`%40`) included.

use super::value::{Value, quote};
use redis::{ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo};
use secrecy::{ExposeSecret, SecretString};
use std::path::PathBuf;

const MASK: &str = "********";
/// Default port of sentinels.
const SENTINEL_PORT: u16 = 26379;

/// A Redis URL. Printing masks passwords.
#[derive(Clone)]
pub struct RedisUrl {
    text: SecretString,
    pub topology: Topology,
    pub tls: bool,
    /// Addresses of Redis, of cluster nodes or of sentinels; at least one.
    pub places: Vec<NodePlace>,
    /// Login to Redis, the same on every node.
    pub login: RedisConnectionInfo,
}

#[derive(Clone)]
pub enum Topology {
    Single,
    Cluster,
    /// Name of the watched service, and the login to the sentinels.
    Sentinel {
        service: String,
        login: RedisConnectionInfo,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub enum NodePlace {
    Tcp(String, u16),
    Unix(PathBuf),
}

/// Parts of a URL, still escaped.
struct Parts<'a> {
    scheme: &'a str,
    credentials: &'a str,
    hosts: &'a str,
    path: &'a str,
    query: &'a str,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        if rest.contains('#') {
            return None;
        }
        let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = before.split_at(before.find('/').unwrap_or(before.len()));
        let (credentials, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        Some(Self { scheme, credentials, hosts, path, query })
    }

    fn masked(&self) -> String {
        let Self { scheme, credentials, hosts, path, query } = self;
        let credentials = if credentials.is_empty() { String::new() } else { format!("{MASK}@") };
        let query: Vec<String> = query
            .split('&')
            .map(|pair| match pair.split_once('=') {
                Some((name, _)) if name.ends_with("pass") => format!("{name}={MASK}"),
                _ => pair.to_owned(),
            })
            .collect();
        let mark = if self.query.is_empty() { "" } else { "?" };
        format!("{scheme}://{credentials}{hosts}{path}{mark}{}", query.join("&"))
    }
}

impl RedisUrl {
    /// Parses a URL. Errors do not quote the URL, which may hold a password.
    pub fn read(text: &str) -> Result<Self, String> {
        let parts = Parts::of(text).ok_or_else(|| example("it has no scheme, or a fragment (#)"))?;
        let text = SecretString::from(text);
        let (kind, tls) = match parts.scheme.split_once('-').unwrap_or((parts.scheme, "")) {
            ("redis", kind) => (kind, false),
            ("rediss", kind) => (kind, true),
            ("unix", "") => return Self::unix(text),
            _ => return Err(example("it begins with none of these")),
        };
        let default_port = if kind == "sentinel" { Some(SENTINEL_PORT) } else { None };
        let places: Result<Vec<_>, _> = parts.hosts.split(',').map(|host| place(host, default_port)).collect();
        let places = places?;
        let of_one = |path: &str| login(&format!("redis://{}@host{path}", parts.credentials));
        let (topology, login) = match kind {
            "" if places.len() == 1 => (Topology::Single, of_one(parts.path)?),
            "" => return Err(example("several hosts need redis-cluster:// or redis-sentinel://")),
            "cluster" if parts.path.is_empty() => (Topology::Cluster, of_one("")?),
            "cluster" => return Err(example("a cluster has no numbered databases")),
            "sentinel" => {
                let (service, database) = service(parts.path)?;
                (Topology::Sentinel { service, login: sentinel_login(parts.query)? }, of_one(database)?)
            }
            _ => return Err(example("it begins with none of these")),
        };
        if kind != "sentinel" && !parts.query.is_empty() {
            return Err(example("this kind of URL has no question mark"));
        }
        Ok(Self { text, topology, tls, places, login })
    }

    fn unix(text: SecretString) -> Result<Self, String> {
        let parts = Parts::of(text.expose_secret()).filter(|parts| parts.hosts.is_empty() && parts.path.len() > 1);
        let query = parts.ok_or_else(|| example("a socket's path must be absolute"))?.query;
        known(query, &["user", "pass", "db"])?;
        let info = text.expose_secret().into_connection_info().map_err(|error| example(&error.to_string()))?;
        let ConnectionAddr::Unix(path) = info.addr() else { return Err(example("the socket's path is missing")) };
        let (places, login) = (vec![NodePlace::Unix(path.clone())], checked(info.redis_settings())?);
        Ok(Self { topology: Topology::Single, tls: false, places, login, text })
    }

    /// The full URL, passwords included.
    pub fn expose(&self) -> &str {
        self.text.expose_secret()
    }

    fn masked(&self) -> String {
        Parts::of(self.expose()).map_or_else(|| MASK.to_owned(), |parts| parts.masked())
    }
}

/// Splits a path into the service's name and the database (empty, or with a leading slash).
fn service(path: &str) -> Result<(String, &str), String> {
    let path = path.strip_prefix('/').unwrap_or_default();
    let (service, database) = path.split_at(path.find('/').unwrap_or(path.len()));
    // The characters allowed by `sentinel monitor`.
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if service.is_empty() || !service.chars().all(is_name) {
        return Err(example("a service's name, as in the line `sentinel monitor NAME …`, must follow the hosts"));
    }
    Ok((service.to_owned(), database))
}

fn sentinel_login(query: &str) -> Result<RedisConnectionInfo, String> {
    known(query, &["sentinel_user", "sentinel_pass"])?;
    let url = redis::parse_redis_url(&format!("redis://host?{query}")).ok_or_else(|| example("unreadable query"))?;
    let mut login = RedisConnectionInfo::default();
    for (name, value) in url.query_pairs() {
        login = if name == "sentinel_user" { login.set_username(&value) } else { login.set_password(&value) };
    }
    if login.username().is_some() && login.password().is_none() {
        return Err(example("sentinel_user needs sentinel_pass"));
    }
    checked(&login)
}

/// Refuses unknown and repeated names in a query.
fn known(query: &str, names: &[&str]) -> Result<(), String> {
    let mut seen: Vec<&str> = Vec::new();
    for pair in query.split('&').filter(|_| !query.is_empty()) {
        let name = pair.split_once('=').map_or(pair, |(name, _)| name);
        if !names.contains(&name) || seen.contains(&name) {
            return Err(example(&format!("only {} may follow the question mark, each once", names.join(", "))));
        }
        seen.push(name);
    }
    Ok(())
}

fn place(host: &str, default_port: Option<u16>) -> Result<NodePlace, String> {
    let url = format!("redis://{host}");
    let info = url.as_str().into_connection_info().map_err(|error| example(&error.to_string()))?;
    let has_port = redis::parse_redis_url(&url).is_some_and(|url| url.port().is_some());
    match info.addr() {
        ConnectionAddr::Tcp(host, port) => {
            Ok(NodePlace::Tcp(host.clone(), default_port.filter(|_| !has_port).unwrap_or(*port)))
        }
        _ => Err(example("a host is missing")),
    }
}

fn login(url: &str) -> Result<RedisConnectionInfo, String> {
    let info = url.into_connection_info().map_err(|error| example(&error.to_string()))?;
    checked(info.redis_settings())
}

fn checked(login: &RedisConnectionInfo) -> Result<RedisConnectionInfo, String> {
    if u8::try_from(login.db()).is_err() {
        return Err(example("the number of the database is out of range"));
    }
    Ok(login.clone().set_protocol(ProtocolVersion::RESP2))
}

fn example(why: &str) -> String {
    format!(
        "not a URL such as redis://127.0.0.1:6379/0, rediss://user:password@host:6379, unix:///run/redis.sock, \
         redis-cluster://host:6379,other:6379 or redis-sentinel://host:26379,other:26379/service: {why}"
    )
}

impl std::fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.masked())
    }
}

impl Value for Option<RedisUrl> {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Ok(None) } else { RedisUrl::read(text).map(Some) }
    }
    fn show(&self) -> String {
        quote(&self.as_ref().map(RedisUrl::masked).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> NodePlace {
        NodePlace::Tcp(host.to_owned(), port)
    }

    #[test]
    fn every_kind_of_url_is_read() {
        for (text, tls, places, database) in [
            ("redis://a", false, vec![tcp("a", 6379)], 0),
            ("redis://:p%40@a:1/3", false, vec![tcp("a", 1)], 3),
            ("rediss://u:p%40@[::1]:7/", true, vec![tcp("::1", 7)], 0),
            ("redis-cluster://:p%40@a:1,b", false, vec![tcp("a", 1), tcp("b", 6379)], 0),
            ("rediss-cluster://a:1", true, vec![tcp("a", 1)], 0),
            ("redis-sentinel://a,b:6379/m.1-x_y", false, vec![tcp("a", 26379), tcp("b", 6379)], 0),
            ("rediss-sentinel://:p%40@a:5/main/4", true, vec![tcp("a", 5)], 4),
            ("unix:///run/redis.sock?db=2&pass=p%40", false, vec![NodePlace::Unix("/run/redis.sock".into())], 2),
        ] {
            let url = RedisUrl::read(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((url.tls, url.places.as_slice(), url.login.db()), (tls, places.as_slice(), database), "{text}");
            assert_eq!(url.login.password(), text.contains("p%40").then_some("p@"), "{text}");
        }
        let sentinel = RedisUrl::read("redis-sentinel://u:p@a/main?sentinel_user=s&sentinel_pass=x%26y").unwrap();
        let Topology::Sentinel { service, login } = &sentinel.topology else { panic!("no sentinel") };
        assert_eq!((service.as_str(), login.username(), login.password()), ("main", Some("s"), Some("x&y")));
        assert_eq!((sentinel.login.username(), sentinel.login.password()), (Some("u"), Some("p")));
    }

    #[test]
    fn what_cannot_work_is_refused_without_repeating_it() {
        for text in [
            "hunter2",
            "redis://",
            "redis://:hunter2@a:x",
            "redis://:hunter2@a/x",
            "redis://:hunter2@a/256",
            "redis://:hunter2@a,b",
            "redis://:hunter2@a?hunter2",
            "rediss://:hunter2@a#insecure",
            "redis-other://:hunter2@a",
            "redis-cluster://",
            "redis-cluster://:hunter2@a,",
            "redis-cluster://:hunter2@a/1",
            "redis-sentinel://:hunter2@a",
            "redis-sentinel://:hunter2@a/",
            "redis-sentinel://:hunter2@a/ma%20in",
            "redis-sentinel://:hunter2@a/main/x",
            "redis-sentinel://a/main?password=hunter2",
            "redis-sentinel://a/main?sentinel_pass=hunter2&sentinel_pass=hunter2",
            "redis-sentinel://a/main?sentinel_user=hunter2",
            "rediss-unix:///hunter2",
            "unix://hunter2",
            "unix:///",
            "unix:///a?password=hunter2",
            "unix:///a?db=hunter2",
            "http://:hunter2@a",
        ] {
            let error = RedisUrl::read(text).expect_err(text);
            assert!(error.contains("redis://127.0.0.1:6379/0") && !error.contains("hunter2"), "{text}: {error}");
        }
    }

    #[test]
    fn passwords_are_masked_wherever_they_stand() {
        for (text, masked) in [
            ("redis://a:1/2", "redis://a:1/2"),
            ("redis://u:hunter2@a:1/2", "redis://********@a:1/2"),
            ("rediss://u:hunter%40@a", "rediss://********@a"),
            ("redis-cluster://:hunter2@a,b", "redis-cluster://********@a,b"),
            ("unix:///a?user=u&pass=hunter2&db=1", "unix:///a?user=u&pass=********&db=1"),
            (
                "redis-sentinel://:hunter2@a/main?sentinel_user=u&sentinel_pass=hunt@er2",
                "redis-sentinel://********@a/main?sentinel_user=u&sentinel_pass=********",
            ),
        ] {
            let url = RedisUrl::read(text).unwrap();
            assert_eq!((url.masked(), format!("{url:?}"), url.expose()), (masked.into(), masked.into(), text));
        }
    }
}
