//! Log lines that clients cause, at most so many per period; the rest is counted and told in one line.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Lines about one kind of failure per [`FAILURES_PERIOD`].
const FAILURES: u32 = 10;
const FAILURES_PERIOD: Duration = Duration::from_secs(10);

/// Logs a line that clients, or a PocketBase or Redis that does not answer, could repeat without end: at most [`FAILURES`]
/// lines per [`FAILURES_PERIOD`] from this place in the code. `$what` is the subject of the line that sums up the rest.
macro_rules! limited {
    ($level:ident, $what:literal, $($line:tt)+) => {{
        static LINES: std::sync::LazyLock<$crate::limits::lines::Lines> =
            std::sync::LazyLock::new(|| $crate::limits::lines::Lines::of_failures($what));
        if LINES.passes() {
            tracing::$level!($($line)+);
        }
    }};
}
pub(crate) use limited;

/// Cheap to clone; all clones share their count.
#[derive(Clone)]
pub struct Lines {
    /// The subject of the line that sums up, in the plural.
    what: &'static str,
    most: u32,
    period: Duration,
    /// Whether the line that sums up is a warning.
    warns: bool,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    began: Option<Instant>,
    written: u32,
    left_out: u64,
}

impl Lines {
    /// `most`: lines per period.
    pub fn new(what: &'static str, most: u32, period: Duration) -> Self {
        Self { what, most, period, warns: false, state: Arc::default() }
    }

    /// Of warnings and errors, for [`limited`].
    pub fn of_failures(what: &'static str) -> Self {
        Self { warns: true, ..Self::new(what, FAILURES, FAILURES_PERIOD) }
    }

    /// Whether a line may be written now. If not, it is counted, and the count is logged when the period ends.
    pub fn passes(&self) -> bool {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let began = match state.began {
            Some(began) if now - began < self.period => began,
            _ => {
                state.written = 0;
                *state.began.insert(now)
            }
        };
        if state.written < self.most {
            state.written += 1;
            return true;
        }
        state.left_out += 1;
        if state.left_out == 1 {
            let (lines, end) = (self.clone(), began + self.period);
            tokio::spawn(async move {
                tokio::time::sleep_until(end).await;
                let count = lines.take_left_out();
                if lines.warns {
                    tracing::warn!(count, "more {} than are logged one by one", lines.what);
                } else {
                    tracing::info!(count, "more {} than are logged one by one", lines.what);
                }
            });
        }
        false
    }

    fn take_left_out(&self) -> u64 {
        std::mem::take(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner).left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn so_many_per_period_and_the_rest_is_counted() {
        let lines = Lines::new("tests", 2, Duration::from_secs(1));
        assert_eq!([(); 5].map(|()| lines.passes()), [true, true, false, false, false]);
        assert_eq!(lines.take_left_out(), 3);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!([(); 3].map(|()| lines.passes()), [true, true, false]);
        // The task of the period before has nothing to add to what this one counts.
        assert!(lines.take_left_out() <= 1);
    }
}
