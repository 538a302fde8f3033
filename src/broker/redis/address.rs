//! `redis_url`: one Redis, or some nodes of a cluster.

use crate::broker::BrokerError;
use redis::io::tcp::TcpSettings;
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion};

/// How to reach Redis, with the credentials, which are the same for all nodes of a cluster.
pub struct Address {
    pub clustered: bool,
    /// At least one; of a cluster any of its nodes, by which the others are found.
    pub nodes: Vec<ConnectionInfo>,
}

impl Address {
    /// Reads `redis://[user][:password@]host[:port][/database]` or
    /// `redis-cluster://[user][:password@]host[:port][,host[:port] …]`.
    pub fn read(url: &str) -> Result<Self, BrokerError> {
        let Some(rest) = url.strip_prefix("redis-cluster://") else {
            return Ok(Self { clustered: false, nodes: vec![node(url)?] });
        };
        let (credentials, hosts) = rest.rsplit_once('@').map_or(("", rest), |(before, hosts)| (before, hosts));
        let at = if credentials.is_empty() { "" } else { "@" };
        let nodes = hosts.split(',').map(|host| node(&format!("redis://{credentials}{at}{host}")));
        let nodes = nodes.collect::<Result<Vec<_>, _>>()?;
        if nodes.iter().any(|node| node.redis_settings().db() != 0) {
            return Err(unusable("a cluster has no numbered databases"));
        }
        Ok(Self { clustered: true, nodes })
    }
}

fn node(url: &str) -> Result<ConnectionInfo, BrokerError> {
    // Its error does not repeat the URL, which may hold a password.
    let info = url.into_connection_info().map_err(|error| unusable(&error.to_string()))?;
    if !matches!(info.addr(), ConnectionAddr::Tcp(..)) {
        return Err(unusable("Redis is reached by redis://host:port only"));
    }
    if u8::try_from(info.redis_settings().db()).is_err() {
        return Err(unusable("the number of the database is out of range"));
    }
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP2);
    Ok(info.set_redis_settings(settings).set_tcp_settings(TcpSettings::default().set_nodelay(true)))
}

fn unusable(reason: &str) -> BrokerError {
    BrokerError::Unavailable(format!("its URL is not usable: {reason}"))
}

/// `host:port`, by which a node is known here.
pub fn name(info: &ConnectionInfo) -> String {
    match info.addr() {
        ConnectionAddr::Tcp(host, port) => format!("{host}:{port}"),
        other => other.to_string(),
    }
}

/// The same credentials for another node.
pub fn at(info: &ConnectionInfo, name: &str) -> Option<ConnectionInfo> {
    let (host, port) = name.rsplit_once(':')?;
    Some(info.clone().set_addr(ConnectionAddr::Tcp(host.to_owned(), port.parse().ok()?)))
}
