//! Progress of a long step on stderr: a bar on a terminal, a plain line every few seconds elsewhere.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const WIDTH: u64 = 24;
const REDRAW: Duration = Duration::from_millis(200);
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Whether nothing is printed, for `--json`.
static QUIET: AtomicBool = AtomicBool::new(false);

pub fn be_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

/// A line about a finished or a special step.
pub fn say(text: &str) {
    if !QUIET.load(Ordering::Relaxed) {
        eprintln!("{text}");
    }
}

pub struct Progress {
    label: String,
    total: u64,
    done: u64,
    started: Instant,
    printed: Instant,
    terminal: bool,
}

impl Progress {
    /// `total` 0: unknown.
    pub fn new(label: &str, total: u64) -> Self {
        let now = Instant::now();
        Self {
            label: label.to_owned(),
            total,
            done: 0,
            started: now,
            printed: now,
            terminal: std::io::stderr().is_terminal(),
        }
    }

    pub fn add(&mut self, count: u64) {
        self.done += count;
        let every = if self.terminal { REDRAW } else { LINE_EVERY };
        if self.printed.elapsed() >= every {
            self.printed = Instant::now();
            self.print(if self.terminal { "\r" } else { "" }, if self.terminal { "" } else { "\n" });
        }
    }

    pub fn finish(self) {
        if self.done > 0 || self.total > 0 {
            self.print(if self.terminal { "\r" } else { "" }, "\n");
        }
    }

    fn print(&self, before: &str, after: &str) {
        if QUIET.load(Ordering::Relaxed) {
            return;
        }
        let text = self.text(self.started.elapsed());
        let clear = if self.terminal { "\x1b[K" } else { "" };
        let mut out = std::io::stderr().lock();
        let _ = write!(out, "{before}{text}{clear}{after}");
        let _ = out.flush();
    }

    fn text(&self, elapsed: Duration) -> String {
        let seconds = elapsed.as_secs_f64().max(0.001);
        let rate = self.done as f64 / seconds;
        let mut text = format!("{:<16}", self.label);
        if self.total > 0 {
            let done = self.done.min(self.total);
            let filled = done * WIDTH / self.total;
            let bar: String = (0..WIDTH).map(|i| if i < filled { '█' } else { '░' }).collect();
            text += &format!(" {bar} {:>3}%  {}/{}", done * 100 / self.total, grouped(self.done), grouped(self.total));
        } else {
            text += &format!(" {}", grouped(self.done));
        }
        text += &format!("  {}/s  {}", grouped(rate as u64), clock(elapsed));
        if self.total > self.done && rate > 0.0 {
            text += &format!(
                "  {} left",
                clock(Duration::from_secs_f64(((self.total - self.done) as f64 / rate).min(1e6)))
            );
        }
        text
    }
}

/// 1234567 as "1,234,567".
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn clock(time: Duration) -> String {
    format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_shows_share_rate_and_time_left() {
        let mut progress = Progress::new("messages", 1_000_000);
        progress.done = 250_000;
        let text = progress.text(Duration::from_secs(10));
        assert!(text.contains(" 25%  250,000/1,000,000  25,000/s  0:10  0:30 left"), "{text}");
    }
}
