//! The addresses of the listeners: TCP, or a Unix socket.

use super::value::{Value, quote};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// `address:port`, or `unix:///path` with an absolute path.
#[derive(Clone, Debug, PartialEq)]
pub enum ListenAddress {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl ListenAddress {
    /// True for a conflict between two listeners; port 0 never conflicts.
    pub fn is_same(&self, other: &Self) -> bool {
        let is_any = matches!(self, Self::Tcp(address) if address.port() == 0);
        self == other && !is_any
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

impl Value for ListenAddress {
    fn parse(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix://") {
            Some(path) if path.len() > 1 && path.starts_with('/') && !path.ends_with('/') => {
                Ok(Self::Unix(path.into()))
            }
            Some(_) => {
                Err(format!("{text:?} names no socket file; the path must be absolute, as in unix:///run/gateway.sock"))
            }
            None => text.parse().map(Self::Tcp).map_err(|_| {
                format!(
                    "{text:?} is neither address:port, such as 127.0.0.1:8000, 0.0.0.0:8000 or [::]:8000, nor a Unix \
                     socket, such as unix:///run/gateway.sock"
                )
            }),
        }
    }
    fn show(&self) -> String {
        quote(&self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_come_back_and_nothing_else_does() {
        for text in ["127.0.0.1:8000", "[::]:0", "unix:///run/gateway.sock"] {
            let address = ListenAddress::parse(text).unwrap();
            assert_eq!((address.to_string(), address.show()), (text.into(), format!("{text:?}")));
        }
        for text in ["", "localhost:1", "unix://a", "unix:///", "unix:///run/", "/run/gateway.sock", "unix:/a"] {
            assert!(ListenAddress::parse(text).is_err(), "{text}");
        }
        let [socket, any] = ["unix:///a", "[::]:0"].map(|text| ListenAddress::parse(text).unwrap());
        assert!(socket.is_same(&socket) && !any.is_same(&any));
    }
}
