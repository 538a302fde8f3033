//! Rate limits for log lines that clients or a lasting state cause. [`Lines`]: a maximum per period; further lines are
//! counted and reported in a single line. [`Seldom`]: a line a minute.

use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Lines about one kind of failure per [`FAILURES_PERIOD`].
const FAILURES: u32 = 10;
const FAILURES_PERIOD: Duration = Duration::from_secs(10);

/// Logs a line that clients, or an unreachable PocketBase or Redis, could repeat without end: at most [`FAILURES`]
/// lines per [`FAILURES_PERIOD`] from this call site. `$what` is the subject of the summary line, in the plural.
macro_rules! limited {
    ($level:ident, $what:literal, $($line:tt)+) => {{
        static LINES: std::sync::LazyLock<$crate::log_lines::Lines> =
            std::sync::LazyLock::new(|| $crate::log_lines::Lines::of_failures($what));
        if LINES.passes() {
            tracing::$level!($($line)+);
        }
    }};
}
pub(crate) use limited;

/// Cheap to clone; clones share the count.
#[derive(Clone)]
pub struct Lines {
    /// Subject of the summary line, in the plural.
    what: &'static str,
    most: u32,
    period: Duration,
    /// Whether the summary line is a warning.
    warns: bool,
    state: Arc<Mutex<Period>>,
}

#[derive(Default)]
struct Period {
    began: Option<Instant>,
    written: u32,
    left_out: u64,
}

impl Lines {
    /// `most`: maximum number of lines per period.
    pub fn new(what: &'static str, most: u32, period: Duration) -> Self {
        Self { what, most, period, warns: false, state: Arc::default() }
    }

    /// Lines about warnings and errors, for [`limited`].
    pub fn of_failures(what: &'static str) -> Self {
        Self { warns: true, ..Self::new(what, FAILURES, FAILURES_PERIOD) }
    }

    /// Whether a line may be written now. If not, the line is counted, and the count is logged at the end of the
    /// period.
    pub fn passes(&self) -> bool {
        let now = Instant::now();
        let mut state = self.state.lock();
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
                    tracing::warn!(count, "more {} were left out of the log", lines.what);
                } else {
                    tracing::info!(count, "more {} were left out of the log", lines.what);
                }
            });
        }
        false
    }

    fn take_left_out(&self) -> u64 {
        std::mem::take(&mut self.state.lock().left_out)
    }
}

/// Time between two lines of [`Seldom`].
const PAUSE: Duration = Duration::from_secs(60);

/// A line a minute, without a count.
#[derive(Default)]
pub struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    /// Whether the line may be written now.
    pub fn passes(&self) -> bool {
        let now = Instant::now();
        let mut last = self.0.lock();
        let passes = last.is_none_or(|last| now - last >= PAUSE);
        if passes {
            *last = Some(now);
        }
        passes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_a_minute() {
        let seldom = Seldom::default();
        assert!(seldom.passes() && !seldom.passes());
        tokio::time::advance(PAUSE).await;
        assert!(seldom.passes() && !seldom.passes());
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_per_period_and_the_rest_is_counted() {
        let lines = Lines::new("tests", 2, Duration::from_secs(1));
        assert_eq!([(); 5].map(|()| lines.passes()), [true, true, false, false, false]);
        assert_eq!(lines.take_left_out(), 3);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!([(); 3].map(|()| lines.passes()), [true, true, false]);
        // The task of the first period adds nothing to the count of this period.
        assert!(lines.take_left_out() <= 1);
    }
}
