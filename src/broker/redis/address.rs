//! Places where Redis answers, and connections to them: over TCP, TLS or a Unix socket.
//!
//! The `redis` crate connects over TLS too, but reads the system's authorities anew for each connection and keeps its
//! sockets to itself, which the subscribing link reads from. So both links share the connections made here.

use crate::broker::BrokerError;
use crate::config::{Place, RedisUrl, Topology};
use crate::tls::{self, Tls};
use futures_util::future::select_ok;
use redis::RedisConnectionInfo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, split};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How to reach one node, and how to log in to it.
#[derive(Clone)]
pub struct Endpoint {
    place: Place,
    tls: Option<Tls>,
    pub login: RedisConnectionInfo,
}

/// All that a URL names.
pub struct Address {
    pub topology: Topology,
    /// At least one: Redis itself, nodes of a cluster, or sentinels, each with its own login.
    pub seeds: Vec<Endpoint>,
    /// How to log in to nodes that are found by asking the seeds.
    pub login: RedisConnectionInfo,
}

impl Address {
    /// `tls`: for URLs that want it.
    pub fn of(url: RedisUrl, tls: Option<Tls>) -> Result<Self, BrokerError> {
        let RedisUrl { topology, tls: wants_tls, places, login, .. } = url;
        let tls = tls.filter(|_| wants_tls);
        if wants_tls && tls.is_none() {
            return Err(BrokerError::Unavailable("its URL wants TLS, which is not set up".into()));
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
    /// `host:port` or a path, by which a node is known here.
    pub fn name(&self) -> String {
        match &self.place {
            Place::Tcp(host, port) => format!("{host}:{port}"),
            Place::Unix(path) => path.display().to_string(),
        }
    }

    /// Another node, by its `host:port`, reached in the same way.
    pub fn at(&self, name: &str, login: &RedisConnectionInfo) -> Option<Self> {
        let (host, port) = name.rsplit_once(':')?;
        let place = Place::Tcp(host.to_owned(), port.parse().ok()?);
        Some(Self { place, tls: self.tls.clone(), login: login.clone() })
    }

    /// Takes as long as the network likes. The error says why, and what to do about it.
    pub async fn connect(&self) -> Result<Socket, String> {
        let failed = |error: std::io::Error| tls::reason(&error, "redis");
        match (&self.place, &self.tls) {
            (Place::Unix(path), _) => UnixStream::connect(path).await.map(Socket::Unix).map_err(failed),
            (Place::Tcp(host, port), None) => connect_tcp(host, *port).await.map(Socket::Tcp).map_err(failed),
            (Place::Tcp(host, port), Some(tls)) => {
                let name = ServerName::try_from(host.clone()).map_err(|_| format!("TLS: {host} is no host name"))?;
                let stream = connect_tcp(host, *port).await.map_err(failed)?;
                let connected = TlsConnector::from(tls.config()).connect(name, stream).await;
                connected.map(|stream| Socket::Tls(Box::new(stream))).map_err(failed)
            }
        }
    }
}

/// To the first of the host's addresses that answers.
async fn connect_tcp(host: &str, port: u16) -> std::io::Result<TcpStream> {
    let addresses = tokio::net::lookup_host((host, port)).await?;
    let attempts: Vec<_> = addresses.map(|address| Box::pin(TcpStream::connect(address))).collect();
    if attempts.is_empty() {
        return Err(std::io::Error::other("the host has no address"));
    }
    let (stream, _) = select_ok(attempts).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

pub enum Socket {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

pub type Reader = Box<dyn AsyncRead + Send + Unpin>;
pub type Writer = Box<dyn AsyncWrite + Send + Sync + Unpin>;

/// Both directions in one.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

impl Socket {
    pub fn whole(self) -> Box<dyn Duplex> {
        match self {
            Self::Tcp(stream) => Box::new(stream),
            Self::Tls(stream) => stream,
            Self::Unix(stream) => Box::new(stream),
        }
    }

    pub fn split(self) -> (Reader, Writer) {
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
                let (reader, writer) = split(*stream);
                (Box::new(reader), Box::new(writer))
            }
        }
    }
}
