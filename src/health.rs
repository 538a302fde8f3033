//! `konvert-gateway health`: one request to the admin listener of a running gateway, for health checks of containers,
//! whose images have neither a shell nor curl.

use crate::config::ListenAddress;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Timeout of the connection, and of each read and write. The gateway's own check of Redis takes a second at most.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum size of the answer, in bytes.
const MAX_ANSWER: u64 = 65_536;

#[derive(Debug, thiserror::Error)]
pub enum Unhealthy {
    #[error("no answer from the admin listener {address} ({cause}); is the gateway running, with the same settings?")]
    Silent { address: ListenAddress, cause: io::Error },
    #[error("not ready: {0}")]
    NotReady(String),
}

/// Asks the gateway's `/readyz`.
///
/// # Errors
/// If the gateway does not answer, or names a problem.
pub fn check(admin_listener: &ListenAddress) -> Result<(), Unhealthy> {
    let silent = |cause| Unhealthy::Silent { address: admin_listener.clone(), cause };
    let answer = ask(admin_listener).map_err(silent)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| silent(io::ErrorKind::UnexpectedEof.into()))?;
    if head.split(' ').nth(1) == Some("200") { Ok(()) } else { Err(Unhealthy::NotReady(problems(body))) }
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
        ListenAddress::Tcp(address) => {
            let stream = TcpStream::connect_timeout(&reachable(*address), TIMEOUT)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.set_write_timeout(Some(TIMEOUT))?;
            exchange(stream)
        }
        ListenAddress::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.set_write_timeout(Some(TIMEOUT))?;
            exchange(stream)
        }
    }
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

fn exchange(mut stream: impl Read + Write) -> io::Result<String> {
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer)?;
    Ok(answer)
}
