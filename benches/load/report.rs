//! Output: tables for readers, one line of JSON per run for programs.

use crate::target::peer::target_directory;
use serde_json::Value;
use std::fs::{File, create_dir_all, read_to_string};
use std::io::Write;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// The file of results, one JSON object per line.
pub struct Log {
    file: File,
}

impl Log {
    pub fn create() -> Self {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let path = target_directory().join("load").join(format!("{seconds}.jsonl"));
        create_dir_all(path.parent().expect("it has a folder")).expect("a folder for results");
        eprintln!("runs are written to {}", path.display());
        Self { file: File::create(path).expect("a file for results") }
    }

    pub fn write(&mut self, workload: &str, target: &str, size: usize, round: usize, mut run: Value) {
        run["workload"] = workload.into();
        run["target"] = target.into();
        run["size"] = size.into();
        run["round"] = round.into();
        writeln!(self.file, "{run}").expect("results can be written");
    }
}

/// The date, machine and arguments of the measurement.
pub fn circumstances() -> String {
    let line = |path: &str, begin: &str| {
        let text = read_to_string(path).unwrap_or_default();
        let line = text.lines().find_map(|line| Some(line.strip_prefix(begin)?.trim_start_matches([' ', '\t', ':'])));
        line.unwrap_or_default().trim().to_owned()
    };
    let date = Command::new("date").args(["-u", "+%F %R UTC"]).output().map(|output| output.stdout).unwrap_or_default();
    let cores = read_to_string("/proc/stat").unwrap_or_default().lines().filter(|line| line.starts_with("cpu")).count();
    format!(
        "{}; {} cores, {}, Linux {}; arguments: {}",
        String::from_utf8_lossy(&date).trim(),
        cores.saturating_sub(1),
        line("/proc/cpuinfo", "model name"),
        line("/proc/sys/kernel/osrelease", ""),
        std::env::args().skip(1).collect::<Vec<String>>().join(" ")
    )
}

pub struct Table {
    heads: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(heads: &[&str]) -> Self {
        Self { heads: heads.iter().map(|&head| head.to_owned()).collect(), rows: Vec::new() }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.heads.len());
        self.rows.push(cells);
    }

    pub fn print(&self, title: &str) {
        println!("\n### {title}\n\n| {} |", self.heads.join(" | "));
        println!("|---|{}", "---:|".repeat(self.heads.len() - 1));
        for row in &self.rows {
            println!("| {} |", row.join(" | "));
        }
    }
}

pub fn median(values: &[f64]) -> f64 {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
    }
}

/// Formats a value with three significant digits; from 100 on, without decimals.
pub fn short(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => "–".to_owned(),
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// The median, with the least and the greatest value if there are several.
pub fn spread(values: &[f64]) -> String {
    let median = short(median(values));
    if values.len() < 2 {
        return median;
    }
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{median} ({}–{})", short(least), short(greatest))
}

/// `a` as a multiple of `b`.
pub fn ratio(a: f64, b: Option<f64>) -> String {
    b.map_or_else(|| "–".to_owned(), |b| if b > 0.0 { format!("{:.2}", a / b) } else { "–".to_owned() })
}
