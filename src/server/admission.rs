//! Admission of sockets to a listener, before their first request.

use crate::config::Networks;
use crate::limits::addresses::{AddressPlace, Addresses};
use crate::limits::pending::{Pending, Wait};
use crate::log_lines::Seldom;
use crate::refusals::{Code, Refusal, Refusals};
use crate::stream::ClientStream;
use crate::tasks;
use prometheus::IntCounterVec;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;

/// Maximum number of concurrent 429 answers; further refused sockets are closed without an answer.
const REPLIES_MAX: usize = 64;
/// Maximum time for sending the answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// The answer to an address with too many sockets, sent without reading the request.
const TOO_MANY: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\n\
content-type: application/json\r\n\
content-length: 94\r\n\
connection: close\r\n\
retry-after: 10\r\n\r\n\
{\"error\":{\"code\":\"max_connections_per_ip\",\"message\":\"too many connections from this address\"}}";

pub struct Admission {
    pending: Arc<Pending<Notify>>,
    addresses: Arc<Addresses>,
    trusted: Networks,
    /// Limits concurrent answers.
    replies: Arc<Semaphore>,
    log: Seldom,
    refusals: Arc<Refusals>,
    refused: IntCounterVec,
}

/// The other end of a socket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Peer {
    Ip(IpAddr),
    /// A process on this machine with access to the listener's socket file: a proxy.
    Unix,
}

/// An accepted socket, for as long as it is open.
pub struct Caller {
    /// The other end of the socket: the client, or a proxy; 127.0.0.1 for a proxy on a Unix socket.
    pub peer: IpAddr,
    /// True for a trusted proxy: its forwarding header is believed, and the proxy itself does not count per address.
    pub is_trusted_proxy: bool,
    _place: Option<AddressPlace>,
}

impl Admission {
    pub fn new(
        pending: usize,
        addresses: Arc<Addresses>,
        trusted: Networks,
        (refusals, refused): (Arc<Refusals>, IntCounterVec),
    ) -> Self {
        let replies = Arc::new(Semaphore::new(REPLIES_MAX));
        Self { pending: Pending::new(pending), addresses, trusted, replies, log: Seldom::default(), refusals, refused }
    }

    /// `None` for a socket past the limit of its address, to be passed to [`Admission::reject`]. The bool says whether
    /// another socket was displaced.
    pub fn admit(&self, peer: Peer) -> Option<(Arc<Caller>, Wait<Notify>, bool)> {
        let (peer, is_trusted_proxy) = match peer {
            Peer::Ip(address) => (address, self.trusted.contain(address)),
            Peer::Unix => (Ipv4Addr::LOCALHOST.into(), true),
        };
        let place = if is_trusted_proxy { None } else { Some(self.addresses.take(peer)?) };
        let (wait, made_room) = self.pending.enter(Notify::new());
        if made_room {
            self.count("pending");
        }
        Some((Arc::new(Caller { peer, is_trusted_proxy, _place: place }), wait, made_room))
    }

    /// Answers 429 in the background.
    pub fn reject(&self, stream: ClientStream, peer: Peer) {
        self.count("max_connections_per_ip");
        self.note(peer);
        self.log(peer);
        let Ok(permit) = Arc::clone(&self.replies).try_acquire_owned() else { return };
        tokio::spawn(tasks::contained(async move {
            let _permit = permit;
            let _ = timeout(PATIENCE, send_too_many(stream)).await;
        }));
    }

    pub fn count(&self, reason: &str) {
        self.refused.with_label_values(&[reason]).inc();
    }

    fn note(&self, peer: Peer) {
        let Peer::Ip(address) = peer else { return };
        self.refusals.note(&Refusal {
            action: "socket",
            channel: None,
            user: "",
            address: Some(address),
            code: Code::Word("max_connections_per_ip"),
            cause: "too many sockets from this address; a proxy belongs into trusted_proxies",
        });
    }

    /// Logged so that operators find a missing setting.
    fn log(&self, peer: Peer) {
        if let Peer::Ip(peer) = peer
            && self.log.passes()
        {
            tracing::warn!(%peer, "an address has reached max_connections_per_ip, further sockets get 429; if the address is your proxy, add it to trusted_proxies");
        }
    }
}

async fn send_too_many(mut stream: ClientStream) -> std::io::Result<()> {
    stream.write_all(TOO_MANY).await?;
    stream.shutdown().await?;
    // Unread input would turn the end into a reset, which can overtake the answer.
    let mut unread = [0; 512];
    while stream.read(&mut unread).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_as_long_as_it_says() {
        let answer = std::str::from_utf8(TOO_MANY).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
    }
}
