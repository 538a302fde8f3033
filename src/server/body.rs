//! Request bodies, read within limits of size and time.

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use std::time::Duration;
use tokio::time::timeout;

/// Limits on reading a refused body: bytes and time.
const DISCARDED: usize = 32 * 1024 * 1024;
const DISCARDING: Duration = Duration::from_secs(1);

/// Why a body was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    TooLarge,
    /// The connection ended before the body.
    Incomplete,
    TimedOut,
}

impl Unreadable {
    /// Code for error bodies and metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Incomplete => "incomplete",
            Self::TimedOut => "request_timeout",
        }
    }
}

/// Reads a body of at most `max` bytes within the time.
pub async fn read(mut body: Incoming, max: usize, time: Duration) -> Result<Bytes, Unreadable> {
    match timeout(time, Limited::new(&mut body, max).collect()).await {
        Ok(Ok(read)) => Ok(read.to_bytes()),
        Ok(Err(cause)) if cause.is::<LengthLimitError>() => {
            discard(body).await;
            Err(Unreadable::TooLarge)
        }
        Ok(Err(_)) => Err(Unreadable::Incomplete),
        Err(_) => Err(Unreadable::TimedOut),
    }
}

/// Reads the rest of a refused body, within limits: closing the connection while the caller is still writing would
/// reset it and lose the answer.
pub async fn discard(mut body: Incoming) {
    let reading = async {
        let mut left = DISCARDED;
        while let Some(Ok(frame)) = body.frame().await {
            let size = frame.data_ref().map_or(0, Bytes::len);
            if size > left {
                return;
            }
            left -= size;
        }
    };
    // A caller that is too slow may miss the answer.
    let _ = timeout(DISCARDING, reading).await;
}
