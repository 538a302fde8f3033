//! Addresses of Redis nodes, and connections over TCP, TLS or a Unix socket.
//!
//! The `redis` crate offers TLS too, but reloads the system's authorities for every connection and does not expose the
//! socket, which the subscription link needs. Both links therefore connect through this module.

use super::error::LinkError;
use crate::broker::BrokerError;
use crate::config::{NodePlace, RedisUrl, Topology};
use crate::tls::{self, Tls};
use futures_util::future::select_ok;
use redis::RedisConnectionInfo;
use rustls::pki_types::ServerName;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, split};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Limit for the TLS handshake; shorter than the timeout of the whole connect, to give a better error.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_millis(1500);

/// Address and login of one node.
#[derive(Clone)]
pub struct Endpoint {
    place: NodePlace,
    tls: Option<Tls>,
    pub login: RedisConnectionInfo,
}

/// Contents of a Redis URL.
pub struct Address {
    pub topology: Topology,
    /// Redis, cluster nodes or sentinels, with their login; at least one.
    pub seeds: Vec<Endpoint>,
    /// Login to nodes discovered through the seeds.
    pub login: RedisConnectionInfo,
}

impl Address {
    /// `tls` is required by `rediss` URLs and otherwise ignored.
    pub fn of(url: RedisUrl, tls: Option<Tls>) -> Result<Self, BrokerError> {
        let RedisUrl { topology, tls: wants_tls, places, login, .. } = url;
        let tls = tls.filter(|_| wants_tls);
        if wants_tls && tls.is_none() {
            return Err(BrokerError::Unavailable("`redis_url` requires TLS, which is not set up".into()));
        }
        let seed_login = match &topology {
            Topology::Sentinel { login, .. } => login.clone(),
            _ => login.clone(),
        };
        let seeds = places.into_iter().map(|place| Endpoint { place, tls: tls.clone(), login: seed_login.clone() });
        Ok(Self { seeds: seeds.collect(), topology, login })
    }
}

impl Endpoint {
    /// Name of the node: `host:port` or a path.
    pub fn name(&self) -> String {
        match &self.place {
            NodePlace::Tcp(host, port) => format!("{host}:{port}"),
            NodePlace::Unix(path) => path.display().to_string(),
        }
    }

    /// Endpoint of another node with the same TLS settings, from a `host:port`.
    pub fn at(&self, name: &str, login: &RedisConnectionInfo) -> Option<Self> {
        let (host, port) = name.rsplit_once(':')?;
        let place = NodePlace::Tcp(host.to_owned(), port.parse().ok()?);
        Some(Self { place, tls: self.tls.clone(), login: login.clone() })
    }

    /// Connects, without a timeout for TCP. The error gives the reason and a remedy.
    pub async fn connect(&self) -> Result<Socket, LinkError> {
        let failed = |error: io::Error| LinkError::Connection(tls::reason(&error, "redis"));
        match (&self.place, &self.tls) {
            (NodePlace::Unix(path), _) => UnixStream::connect(path).await.map(Socket::Unix).map_err(failed),
            (NodePlace::Tcp(host, port), None) => connect_tcp(host, *port).await.map(Socket::Tcp).map_err(failed),
            (NodePlace::Tcp(host, port), Some(tls)) => {
                let name = ServerName::try_from(host.clone())
                    .map_err(|_| LinkError::Connection(format!("TLS: {host} is not a host name")))?;
                let stream = connect_tcp(host, *port).await.map_err(failed)?;
                let connected =
                    timeout(HANDSHAKE_TIMEOUT, TlsConnector::from(tls.config()).connect(name, stream)).await;
                // A Redis without TLS stays silent: to Redis the handshake is an unfinished line.
                let silent = "no answer to the TLS handshake: the server speaks no TLS, or is silent";
                let connected = connected.map_err(|_| LinkError::Connection(silent.to_owned()))?;
                connected.map(|stream| Socket::Tls(Explained(Box::new(stream)))).map_err(failed)
            }
        }
    }
}

/// Connects to all addresses of a host at once; the first success wins.
async fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let addresses = tokio::net::lookup_host((host, port)).await?;
    let attempts: Vec<_> = addresses.map(|address| Box::pin(TcpStream::connect(address))).collect();
    if attempts.is_empty() {
        return Err(io::Error::other("the host has no address"));
    }
    let (stream, _) = select_ok(attempts).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

pub enum Socket {
    Tcp(TcpStream),
    Tls(Explained),
    Unix(UnixStream),
}

/// A TLS stream with explained errors. A missing client certificate, for example, fails after the handshake, inside the
/// `redis` crate, where the cause is lost.
pub struct Explained(Box<TlsStream<TcpStream>>);

impl Explained {
    fn explain<T>(polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        polled.map_err(|error| match (error.kind(), tls::problem(&error, "redis")) {
            (kind, Some(problem)) => io::Error::new(kind, problem),
            // A killed Redis sends no close_notify. Truncation is harmless here: RESP values carry their length.
            (io::ErrorKind::UnexpectedEof, _) => io::ErrorKind::UnexpectedEof.into(),
            _ => error,
        })
    }
}

impl AsyncRead for Explained {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Self::explain(Pin::new(&mut self.0).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Explained {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Self::explain(Pin::new(&mut self.0).poll_write(cx, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::explain(Pin::new(&mut self.0).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::explain(Pin::new(&mut self.0).poll_shutdown(cx))
    }
}

pub type SocketReader = Box<dyn AsyncRead + Send + Unpin>;
pub type SocketWriter = Box<dyn AsyncWrite + Send + Sync + Unpin>;

/// Reader and writer in one object.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

impl Socket {
    pub fn whole(self) -> Box<dyn Duplex> {
        match self {
            Self::Tcp(stream) => Box::new(stream),
            Self::Tls(stream) => Box::new(stream),
            Self::Unix(stream) => Box::new(stream),
        }
    }

    pub fn split(self) -> (SocketReader, SocketWriter) {
        match self {
            Self::Tcp(stream) => {
                let (reader, writer) = stream.into_split();
                (Box::new(reader), Box::new(writer))
            }
            Self::Unix(stream) => {
                let (reader, writer) = stream.into_split();
                (Box::new(reader), Box::new(writer))
            }
            Self::Tls(stream) => {
                let (reader, writer) = split(stream);
                (Box::new(reader), Box::new(writer))
            }
        }
    }
}
