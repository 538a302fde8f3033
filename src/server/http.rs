//! Accepts a listener's sockets, and serves HTTP on each until the end or the upgrade.

use super::admission::{Admission, Caller};
use super::listener::Listener;
use super::respond::Outcome;
use crate::limits::lines::limited;
use crate::limits::pending::Wait;
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
