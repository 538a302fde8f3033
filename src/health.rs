//! `konvert-gateway health`: one request to the admin listener of a running gateway, or to a URL, for health checks of
//! containers, whose images have neither a shell nor curl.

use crate::config::ListenAddress;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Timeout of the connection, and of each read and write. The gateway's own check of Redis takes a second at most.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum size of the answer, in bytes.
const MAX_ANSWER: u64 = 65_536;
const READY: &str = "/readyz";

#[derive(Debug, thiserror::Error)]
pub enum Unhealthy {
    #[error("no answer from the admin listener {address} ({cause}); is the gateway running, with the same settings?")]
    Silent { address: ListenAddress, cause: io::Error },
    #[error("not ready: {0}")]
    NotReady(String),
    #[error("no answer from {url}: {cause}")]
    SilentUrl { url: String, cause: io::Error },
    #[error("{0:?} is not a URL such as http://127.0.0.1:8090/api/health")]
    BadUrl(String),
    #[error("{url} answered: {answer}")]
    Refused { url: String, answer: String },
}

/// Asks the gateway's `/readyz`.
///
/// # Errors
/// If the gateway does not answer, or names a problem.
pub fn check(admin_listener: &ListenAddress) -> Result<(), Unhealthy> {
    let silent = |cause| Unhealthy::Silent { address: admin_listener.clone(), cause };
    let answer = ask(admin_listener).map_err(silent)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| silent(io::ErrorKind::UnexpectedEof.into()))?;
    if is_200(head) { Ok(()) } else { Err(Unhealthy::NotReady(problems(body))) }
}

/// Asks an `http://` URL of another server.
///
/// # Errors
/// If the server does not answer 200.
pub fn check_url(url: &str) -> Result<(), Unhealthy> {
    let silent = |cause| Unhealthy::SilentUrl { url: url.to_owned(), cause };
    let rest = url.strip_prefix("http://").ok_or_else(|| Unhealthy::BadUrl(url.to_owned()))?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if authority.is_empty() || url.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(Unhealthy::BadUrl(url.to_owned()));
    }
    let has_port = authority.rsplit(']').next().is_some_and(|end| end.contains(':'));
    let place = if has_port { authority.to_owned() } else { format!("{authority}:80") };
    let address = place.to_socket_addrs().map_err(silent)?.next();
    let address = address.ok_or_else(|| silent(io::ErrorKind::NotFound.into()))?;
    let answer = ask_tcp(address, authority, if path.is_empty() { "/" } else { path }).map_err(silent)?;
    let head = answer.lines().next().unwrap_or_default().to_owned();
    if is_200(&head) { Ok(()) } else { Err(Unhealthy::Refused { url: url.to_owned(), answer: head }) }
}

fn is_200(head: &str) -> bool {
    head.split(' ').nth(1) == Some("200")
}

/// The `problems` of the answer, or the whole answer if it has another form.
fn problems(body: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Answer {
        problems: Vec<String>,
    }
    serde_json::from_str::<Answer>(body).map_or_else(|_| body.to_owned(), |answer| answer.problems.join("; "))
}

fn ask(listener: &ListenAddress) -> io::Result<String> {
    match listener {
        ListenAddress::Tcp(address) => ask_tcp(reachable(*address), "localhost", READY),
        ListenAddress::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.set_write_timeout(Some(TIMEOUT))?;
            exchange(stream, "localhost", READY)
        }
    }
}

fn ask_tcp(address: SocketAddr, host: &str, path: &str) -> io::Result<String> {
    let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    exchange(stream, host, path)
}

/// The address for a client: a listener on all addresses is reached over loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn exchange(mut stream: impl Read + Write, host: &str, path: &str) -> io::Result<String> {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
