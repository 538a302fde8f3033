//! Steps of a graceful stop.
//!
//! 1. *Asked*: readiness fails, and everything else goes on for `drain_delay`, so that load balancers notice.
//! 2. *Intake closed*: new clients are refused, and hooks are told to retry later; events received before are still
//!    published.
//! 3. *Farewell*: each client gets its queued frames and is told to reconnect, at a different time within
//!    `shutdown_spread`, so that the next node does not get all clients at once. Until then the client is served.

use crate::connection::ConnectionId;
use futures_util::FutureExt;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Progress of the stop. Clones share the progress.
#[derive(Clone)]
pub struct Shutdown {
    asked: CancellationToken,
    intake_closed: CancellationToken,
    farewell: CancellationToken,
    spread: Duration,
}

impl Shutdown {
    /// The stop begins when `asked` is cancelled.
    pub fn new(asked: CancellationToken, spread: Duration) -> Self {
        Self { asked, intake_closed: CancellationToken::new(), farewell: CancellationToken::new(), spread }
    }

    pub async fn asked(&self) {
        self.asked.cancelled().await;
    }

    pub fn is_asked(&self) -> bool {
        self.asked.is_cancelled()
    }

    pub fn close_intake(&self) {
        self.intake_closed.cancel();
    }

    pub fn is_intake_closed(&self) -> bool {
        self.intake_closed.is_cancelled()
    }

    pub fn say_farewell(&self) {
        self.farewell.cancel();
    }

    /// Completes when the connection's turn to leave has come. Every connection awaits this future for its whole life,
    /// so the timer is created only once the farewell has begun.
    pub fn farewell(&self, connection: ConnectionId) -> impl Future<Output = ()> {
        let turn = turn(connection, self.spread);
        self.farewell.cancelled().then(move |()| Box::pin(tokio::time::sleep(turn)))
    }
}

/// Delay of a connection's end after the farewell has begun. The fractional parts of multiples of the golden ratio
/// fill an interval evenly for any number of connections: more evenly than random delays, and without a counter.
fn turn(connection: ConnectionId, spread: Duration) -> Duration {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15; // 2^64 divided by the golden ratio
    let fraction = connection.wrapping_mul(GOLDEN) as f64 / 2f64.powi(64);
    spread.mul_f64(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_even_whichever_connections_are_left() {
        let spread = Duration::from_secs(10);
        for (first, step, count) in [(1, 1, 50), (1_000_000, 1, 500), (7, 3, 100), (u64::MAX / 2, 1, 20)] {
            let mut slices = [0; 10];
            for i in 0..count {
                let at = turn(first + i * step, spread);
                assert!(at <= spread);
                slices[(at.as_secs_f64() as usize).min(9)] += 1;
            }
            let fair = count / 10;
            assert!(slices.iter().all(|&n| fair / 2 <= n && n <= fair * 2), "{first} {step} {count}: {slices:?}");
        }
        assert_eq!(turn(12345, Duration::ZERO), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_leaves_before_the_farewell() {
        let shutdown = Shutdown::new(CancellationToken::new(), Duration::from_secs(5));
        let leaving = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { shutdown.farewell(1).await }
        });
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!leaving.is_finished());
        shutdown.say_farewell();
        tokio::time::timeout(Duration::from_secs(5), leaving).await.expect("within the spread").unwrap();
    }
}
