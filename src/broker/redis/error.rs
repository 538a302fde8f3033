//! Failures of the links to Redis: of connections, commands, sentinels, and the search for the owners of the slots.
//! Callers outside of this folder get a [`BrokerError`] with the text.

use crate::broker::BrokerError;
use redis::{ErrorKind, RedisError, ServerError};

/// Failure of a connection, or of a command over a connection.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LinkError {
    #[error("not connected yet")]
    NotConnected,
    /// The connection failed or ended: the reason, and the remedy where known.
    #[error("{0}")]
    Connection(String),
    /// Redis refused the login, or the login lacks a permission.
    #[error("{0}")]
    Login(String),
    /// Any other error reply.
    #[error("{0}")]
    Refused(String),
    #[error("no answer in time")]
    ConnectTimeout,
    #[error("Redis did not answer in time")]
    Silent,
    #[error("no answer to two PINGs in a row")]
    LostPings,
    #[error("a command failed")]
    CommandFailed,
    /// The caller allows only earlier connections.
    #[error("the connection has been replaced")]
    Replaced,
    #[error("a slot has moved")]
    SlotMoved,
    #[error("the broker is stopping")]
    Stopping,
}

impl LinkError {
    pub fn of_reply(reply: &ServerError) -> Self {
        if is_about_login(reply.code()) { Self::Login(reply.to_string()) } else { Self::Refused(reply.to_string()) }
    }
}

/// Whether the code of an error reply says that the login was refused or lacks a permission.
pub fn is_about_login(code: &str) -> bool {
    matches!(code, "NOAUTH" | "WRONGPASS" | "NOPERM")
}

impl From<RedisError> for LinkError {
    fn from(error: RedisError) -> Self {
        if error.kind() == ErrorKind::AuthenticationFailed || error.code().is_some_and(is_about_login) {
            Self::Login(error.to_string())
        } else if error.code().is_some() {
            Self::Refused(error.to_string())
        } else {
            Self::Connection(error.to_string())
        }
    }
}

impl From<LinkError> for BrokerError {
    fn from(error: LinkError) -> Self {
        BrokerError::Unavailable(error.to_string())
    }
}

/// Why no sentinel named the master.
#[derive(Debug, thiserror::Error)]
pub enum SentinelError {
    #[error("no sentinel was named")]
    NoSentinels,
    /// The failure of the last sentinel.
    #[error("sentinel {name}: {cause}")]
    Failed { name: String, cause: SentinelFailure },
    #[error("a sentinel names a master without a port")]
    NoPort,
}

/// Failure of one sentinel.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum SentinelFailure {
    #[error("{0}; see sentinel_user and sentinel_pass in `redis_url`")]
    Login(String),
    #[error(transparent)]
    Link(LinkError),
    #[error("no answer in time")]
    Silent,
    #[error("this is Redis itself and no sentinel; sentinels listen on port 26379 by default")]
    NotASentinel,
    #[error("{reply}; `redis_url` names the service {service:?}")]
    Refused { reply: String, service: String },
    #[error("unreadable answer")]
    Unreadable,
}

impl From<LinkError> for SentinelFailure {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Login(why) => Self::Login(why),
            other => Self::Link(other),
        }
    }
}

/// Why the owners of the slots are not known.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    #[error("no node has answered yet")]
    NotAsked,
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("this Redis is no cluster: `redis_url` must begin with redis://")]
    NotACluster,
    #[error("the cluster is incomplete or down")]
    Incomplete,
    #[error(transparent)]
    Sentinels(#[from] SentinelError),
    #[error("the sentinels name {name} as the master: {cause}")]
    Master { name: String, cause: MasterError },
}

/// Why the node that the sentinels name does not serve as the master.
#[derive(Debug, thiserror::Error)]
pub enum MasterError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("this node did not answer in time")]
    Silent,
    #[error("this node says that it is not a master")]
    NotAMaster,
    #[error("unexpected answer to ROLE")]
    Unexpected,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_login_is_told_from_other_failures() {
        let reply = |text: &str| match redis::parse_redis_value(format!("-{text}\r\n").as_bytes()) {
            Ok(redis::Value::ServerError(error)) => error,
            other => panic!("{other:?}"),
        };
        let is_login = |error: &LinkError| matches!(error, LinkError::Login(_));
        for (text, login) in [("NOAUTH Authentication required.", true), ("LOADING loading the dataset", false)] {
            let of_reply = LinkError::of_reply(&reply(text));
            let of_error = LinkError::from(RedisError::from(reply(text)));
            assert_eq!([is_login(&of_reply), is_login(&of_error)], [login; 2], "{of_reply:?} {of_error:?}");
        }
        let refused = RedisError::from((ErrorKind::AuthenticationFailed, "Password authentication failed"));
        assert!(is_login(&refused.into()));
        let ended = RedisError::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert!(matches!(ended.into(), LinkError::Connection(_)));
    }
}
