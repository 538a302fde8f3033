//! Rate limit for log lines that a flood of clients could repeat: one line a minute.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Time between two lines.
const PAUSE: Duration = Duration::from_secs(60);

#[derive(Default)]
pub struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    /// Whether the line may be written now.
    pub fn passes(&self) -> bool {
        let now = Instant::now();
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
}
