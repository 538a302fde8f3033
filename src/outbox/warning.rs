//! A warning about a lasting state, logged once a minute at most.

use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Least time between two lines.
const PAUSE: Duration = Duration::from_secs(60);

/// Time of the last line. Clones share the time.
#[derive(Clone, Default)]
pub struct Warning(Arc<Mutex<Option<Instant>>>);

impl Warning {
    /// Whether a line may be logged now.
    pub fn is_due(&self) -> bool {
        let mut last = self.0.lock();
        let is_due = last.is_none_or(|at| at.elapsed() >= PAUSE);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_line_a_minute() {
        let warning = Warning::default();
        let mut logged = 0;
        for _ in 0..=120 {
            logged += u32::from(warning.clone().is_due());
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(logged, 3);
    }
}
