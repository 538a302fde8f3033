//! A gateway process: the real binary, with settings in its environment.

use super::http::Http;
use super::process::{Process, free_port};
use super::{DEADLINE, SECRET, until, until_within};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

pub struct Gateway {
    pub process: Process,
    pub port: u16,
    pub admin_port: u16,
    http: Http,
    program: PathBuf,
    pocketbase_url: String,
    settings: Vec<(String, String)>,
}

impl Gateway {
    pub async fn start(port: u16, pocketbase_url: &str, settings: &[(&str, &str)]) -> Self {
        // Another build, for instance a broken gateway that the tests must detect.
        let other = std::env::var_os("KONVERT_GATEWAY");
        let program = other.unwrap_or_else(|| env!("CARGO_BIN_EXE_konvert-gateway").into());
        Self::start_program(Path::new(&program), port, pocketbase_url, settings).await
    }

    /// Starts another build.
    pub async fn start_program(program: &Path, port: u16, pocketbase_url: &str, settings: &[(&str, &str)]) -> Self {
        Self::start_on(program, (port, free_port()), pocketbase_url, settings).await
    }

    /// Starts a gateway on a public and an admin port. With other listeners in the settings, a proxy must use the two
    /// ports.
    pub async fn start_on(
        program: &Path,
        (port, admin_port): (u16, u16),
        pocketbase_url: &str,
        settings: &[(&str, &str)],
    ) -> Self {
        let settings = settings.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let process = launch(program, port, admin_port, pocketbase_url, &settings);
        let (program, pocketbase_url) = (program.to_owned(), pocketbase_url.to_owned());
        let mut it = Self { process, port, admin_port, http: Http::new(), program, pocketbase_url, settings };
        it.ready().await;
        it
    }

    /// Starts the gateway again on the same ports; kills a running process first.
    pub async fn restart(&mut self) {
        self.launch();
        self.ready_within(DEADLINE).await;
    }

    /// As [`Gateway::restart`], with much to catch up with.
    pub async fn restart_slowly(&mut self) {
        self.launch();
        self.ready_within(DEADLINE * 6).await;
    }

    /// Sets an environment variable for the next start.
    pub fn set(&mut self, name: &str, value: &str) {
        self.settings.retain(|(given, _)| given != name);
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    /// Like `restart`, but does not wait for readiness.
    pub fn launch(&mut self) {
        self.process.kill();
        self.process = launch(&self.program, self.port, self.admin_port, &self.pocketbase_url, &self.settings);
    }

    pub async fn ready(&mut self) {
        self.ready_within(DEADLINE).await;
    }

    async fn ready_within(&mut self, limit: Duration) {
        let url = self.admin("readyz");
        let Self { process, http, .. } = self;
        until_within(limit, "a gateway that is ready", async || {
            assert!(!process.has_ended(), "the gateway ended:\n{}", process.log());
            http.get(&url).await.ok().filter(|response| response.status == 200)
        })
        .await;
    }

    pub fn websocket(&self) -> String {
        let base = self.settings.iter().find(|(name, _)| name == "GATEWAY_BASE_PATH").map_or("", |(_, path)| path);
        format!("ws://127.0.0.1:{}{}/connection/websocket", self.port, base.trim_end_matches('/'))
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub fn admin(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.admin_port)
    }

    /// Value of a metric, such as `gateway_disconnects_total{code="3500"}`; 0 if it was never counted.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.http.get(&self.admin("metrics")).await.expect("the admin listener answers").text;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().expect("a number"))
    }

    /// Sum of a metric over its labels.
    pub async fn metric_sum(&self, name: &str) -> f64 {
        let text = self.http.get(&self.admin("metrics")).await.expect("the admin listener answers").text;
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']))?;
            rest.rsplit(' ').next()?.parse::<f64>().ok()
        });
        values.sum()
    }

    /// Waits until a metric has at least this value.
    pub async fn metric_reaches(&self, name: &str, value: f64) {
        until(name, async || (self.metric(name).await >= value).then_some(())).await;
    }
}

fn launch(
    program: &Path,
    port: u16,
    admin_port: u16,
    pocketbase_url: &str,
    settings: &Vec<(String, String)>,
) -> Process {
    let mut command = Command::new(program);
    command
        .arg("serve")
        .env("GATEWAY_SECRET", SECRET)
        .env("GATEWAY_LISTEN", format!("127.0.0.1:{port}"))
        .env("GATEWAY_ADMIN_LISTEN", format!("127.0.0.1:{admin_port}"))
        .env("GATEWAY_POCKETBASE_URL", pocketbase_url);
    for (name, value) in settings {
        command.env(name, value);
    }
    Process::start("gateway", &mut command)
}
