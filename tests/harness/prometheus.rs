//! A real Prometheus that scrapes gateways each second, and promtool.

use super::http::Http;
use super::process::{self, Process, free_port};
use super::until;
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

pub struct Prometheus {
    url: String,
    process: Process,
    _folder: TempDir,
}

impl Prometheus {
    /// `targets`: addresses of admin listeners; `rules`: text of a rule file.
    ///
    /// # Panics
    /// Without Prometheus, see [`program`].
    pub async fn start(targets: &[String], rules: &str) -> Self {
        let (folder, port) = (TempDir::new().expect("a folder"), free_port());
        let config = format!(
            "global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}\nrule_files: [alerts.yml]\n\
             scrape_configs:\n  - job_name: konvert-gateway\n    static_configs: [{{ targets: {targets:?} }}]\n"
        );
        std::fs::write(folder.path().join("alerts.yml"), rules).expect("the rules can be written");
        std::fs::write(folder.path().join("prometheus.yml"), config).expect("the configuration can be written");
        let mut command = Command::new(program("prometheus"));
        command.current_dir(folder.path()).args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"]);
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let (process, url) = (Process::start("prometheus", &mut command), format!("http://127.0.0.1:{port}"));
        let mut prometheus = Self { url, process, _folder: folder };
        until("Prometheus to be ready", async || {
            assert!(!prometheus.process.has_ended(), "it ended:\n{}", prometheus.process.log());
            let ready = Http::new().get(&format!("{}/-/ready", prometheus.url)).await.ok()?;
            (ready.status == 200).then_some(())
        })
        .await;
        prometheus
    }

    /// The time series of an expression, with their current values.
    pub async fn query(&self, expression: &str) -> Vec<Value> {
        let encoded: String = expression.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let answer = Http::new().get(&format!("{}/api/v1/query?query={encoded}", self.url)).await;
        let answer = answer.expect("Prometheus answers");
        assert_eq!(answer.status, 200, "{expression}: {}", answer.text);
        answer.json()["data"]["result"].as_array().cloned().expect("a vector")
    }

    /// Waits until an expression has a value.
    pub async fn has(&self, expression: &str) {
        until(expression, async || (!self.query(expression).await.is_empty()).then_some(())).await;
    }
}

/// Path of `prometheus` or `promtool`.
pub fn program(name: &str) -> PathBuf {
    process::program("prometheus", &format!("usr/bin/{name}"))
}
