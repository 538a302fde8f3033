//! Accepts a listener's sockets, and serves HTTP on each until the end or the upgrade.

use super::admission::{Admission, Caller};
use super::listener::Listener;
use super::respond::Outcome;
use crate::limits::pending::Wait;
use crate::log_lines::limited;
use crate::stream::ClientStream;
use crate::tasks;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Maximum number of lines in a request's head; more are answered with 431.
const HEADERS_MAX: usize = 100;
/// Pause after a failed accept, as when file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The error that ends hyper's part in a connection; see [`Outcome::TakeOver`].
#[derive(Debug, thiserror::Error)]
#[error("the socket was taken over")]
struct TakenOver;

/// Limits on reading requests.
#[derive(Clone, Copy)]
pub struct Reading {
    /// Maximum size of a request's head, in bytes.
    pub head: usize,
    /// Maximum time to wait for a head.
    pub timeout: Duration,
}

/// Accepts connections and answers requests until `end`, with a task per connection.
pub async fn accept<F, A>(listener: Listener, admission: Admission, reading: Reading, end: CancellationToken, answer: F)
where
    F: Fn(Request<Incoming>, Arc<Caller>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output: Into<Outcome> + Send> + Send + 'static,
{
    let admission = Arc::new(admission);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = end.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => match admission.admit(peer) {
                Some((caller, wait, made_room)) => {
                    let (admission, end, answer) = (Arc::clone(&admission), end.clone(), answer.clone());
                    tokio::spawn(tasks::contained(async move {
                        let answer = |request| answer(request, Arc::clone(&caller));
                        serve_http(stream, reading, &admission, wait, end, answer).await;
                    }));
                    if made_room {
                        // Lets the displaced socket close first, so that sockets never add up.
                        tokio::task::yield_now().await;
                    }
                }
                None => admission.reject(stream, peer),
            },
            Err(error) => {
                limited!(
                    warn,
                    "failed accepts",
                    %error,
                    "accepting a connection failed, retrying in {} ms",
                    ACCEPT_PAUSE.as_millis()
                );
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves HTTP on a connection. Returns when the connection is over, or has become a WebSocket or a stream.
async fn serve_http<F, A>(
    stream: ClientStream,
    reading: Reading,
    admission: &Admission,
    wait: Wait<Notify>,
    end: CancellationToken,
    answer: F,
) where
    F: Fn(Request<Incoming>) -> A,
    A: Future<Output: Into<Outcome>>,
{
    let has_asked = AtomicBool::new(false);
    let taker = Mutex::new(None);
    let service = service_fn(|request| {
        wait.renew();
        has_asked.store(true, Ordering::Relaxed);
        let answered = answer(request);
        async {
            match answered.await.into() {
                Outcome::Answer(answer) => Ok(answer),
                Outcome::TakeOver(take_over) => {
                    *taker.lock() = Some(take_over);
                    // After an error of the service, hyper neither writes nor shuts down the socket.
                    Err(TakenOver)
                }
            }
        }
    });
    // The timeout for a head also limits how long a connection may idle before its next request.
    let mut serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(reading.timeout)
        .max_buf_size(reading.head)
        .max_header_size(reading.head)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let result = tokio::select! {
        // First, so that a finished answer is also written.
        biased;
        result = &mut serving => result,
        () = end.cancelled() => {
            // Answers the current request and takes no further request.
            std::pin::Pin::new(&mut serving).graceful_shutdown();
            (&mut serving).await
        }
        () = wait.displaced() => return,
    };
    if let Some(take_over) = taker.lock().take() {
        // Without the buffers of hyper. Bytes that hyper has read after the request are dropped: the response promises
        // the end of the connection.
        if let Some(parts) = serving.into_parts() {
            take_over(parts.io.into_inner());
        }
    } else if let Err(error) = result {
        let reason = if error.is_timeout() {
            "request_timeout"
        } else if error.is_parse_too_large() {
            "too_large"
        } else if error.is_parse() {
            "malformed"
        } else {
            "broken"
        };
        // After a request, the end is the normal idle end of a connection kept open for more requests.
        if !has_asked.load(Ordering::Relaxed) || matches!(reason, "too_large" | "malformed") {
            admission.count(reason);
        }
        tracing::debug!(%error, "an HTTP connection ended with an error");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Networks;
    use crate::limits::addresses::Addresses;
    use crate::metrics::Metrics;
    use crate::refusals::Refusals;
    use crate::server::admission::Peer;
    use http_body_util::BodyExt;
    use std::net::Ipv4Addr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::mpsc;

    /// A request whose socket is taken over: hyper reads the body, and then neither writes, nor reads, nor closes.
    #[tokio::test]
    async fn a_socket_that_is_taken_over_belongs_to_the_taker_alone() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let stream = listener.accept().await.unwrap().0.into();
        let noted = (Arc::<Refusals>::default(), Metrics::new().unwrap().sockets_refused);
        let admission = Admission::new(1, Addresses::new(0), Networks::default(), noted);
        let (_caller, wait, _) = admission.admit(Peer::Ip(Ipv4Addr::LOCALHOST.into())).unwrap();
        let (sender, mut taken) = mpsc::channel(1);
        let answer = |request: Request<Incoming>| {
            let sender = sender.clone();
            async move {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                Outcome::TakeOver(Box::new(move |stream| sender.try_send((stream, body)).ok().unwrap()))
            }
        };
        client.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbodymore").await.unwrap();
        let reading = Reading { head: 8192, timeout: Duration::from_secs(20) };
        serve_http(stream, reading, &admission, wait, CancellationToken::new(), answer).await;
        let (mut stream, body): (ClientStream, _) = taken.recv().await.unwrap();
        assert_eq!(body, "body");
        // The first bytes that the client gets are the taker's.
        stream.write_all(b"first").await.unwrap();
        client.write_all(b"later").await.unwrap();
        let (mut from_taker, mut from_client) = ([0; 5], [0; 5]);
        client.read_exact(&mut from_taker).await.unwrap();
        stream.read_exact(&mut from_client).await.unwrap();
        assert_eq!((&from_taker, &from_client), (b"first", b"later"));
        drop(stream);
        assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
    }
}
