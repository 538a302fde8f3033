//! Child processes: started, watched, restarted and stopped.

use super::{say, stopped};
use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// Longest time from the start of a server until ready.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Time for a server to stop, before a kill.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// Maximum number of restarts within [`RESTART_SPAN`]; one more is a failure.
const RESTARTS: usize = 5;
const RESTART_SPAN: Duration = Duration::from_secs(60);
const RESTART_PAUSE: Duration = Duration::from_secs(1);
const CHECK: Duration = Duration::from_millis(50);
/// Lines of a log in an error.
const TAIL: usize = 20;

/// A program with its arguments, environment and log.
pub struct Recipe {
    pub name: &'static str,
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
    pub environment: Vec<(&'static str, String)>,
    pub log: PathBuf,
    /// Whether a server that has been ready is restarted after an end.
    pub restarts: bool,
}

struct RunningServer {
    recipe: Recipe,
    child: Child,
    restarted: VecDeque<Instant>,
}

/// The running servers. The last server started is stopped first.
pub struct Servers {
    servers: Vec<RunningServer>,
    signals: watch::Receiver<u32>,
}

impl Servers {
    pub fn new(signals: watch::Receiver<u32>) -> Self {
        Self { servers: Vec::new(), signals }
    }

    pub fn start(&mut self, recipe: Recipe) -> anyhow::Result<()> {
        let log = File::create(&recipe.log).with_context(|| format!("cannot write {}", recipe.log.display()))?;
        let child = recipe.start(log)?;
        self.servers.push(RunningServer { recipe, child, restarted: VecDeque::new() });
        Ok(())
    }

    /// Returns once `path` on `address` answers 200.
    pub async fn wait_for(&mut self, name: &str, address: SocketAddr, path: &str) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let answer = get(address, path).await;
            if answer.as_deref().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
                return Ok(());
            }
            for server in &mut self.servers {
                if let Some(status) = server.child.try_wait()? {
                    bail!("{} ended ({status}). {}", server.recipe.name, tail(&server.recipe.log));
                }
            }
            if begun.elapsed() > READY_WITHIN {
                let answer = answer.unwrap_or_else(|error| error.to_string());
                let logs: Vec<String> = self.servers.iter().map(|server| tail(&server.recipe.log)).collect();
                let seconds = READY_WITHIN.as_secs();
                bail!(
                    "{name} is not ready after {seconds} s; http://{address}{path} answers: {answer}\n{}",
                    logs.join("\n")
                );
            }
            sleep(CHECK).await;
        }
    }

    /// Restarts ended servers. An error is the end of a server without a restart.
    pub async fn watch(&mut self) -> anyhow::Result<()> {
        loop {
            sleep(CHECK).await;
            for server in &mut self.servers {
                if let Some(status) = server.child.try_wait()? {
                    server.restart(&status.to_string()).await?;
                }
            }
        }
    }

    /// Stops the servers. After [`STOP_WITHIN`] or a second signal, kills them.
    pub async fn stop(&mut self) {
        for RunningServer { recipe, child, .. } in self.servers.iter_mut().rev() {
            if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
                let _ = kill_process(pid, Signal::TERM);
            }
            let ended = tokio::select! {
                ended = timeout(STOP_WITHIN, child.wait()) => ended.is_ok(),
                () = stopped(self.signals.clone(), 2) => false,
            };
            if !ended {
                say(format_args!("{} has not stopped; killing the process", recipe.name));
                let _ = child.kill().await;
            }
        }
    }
}

impl Recipe {
    fn start(&self, log: File) -> anyhow::Result<Child> {
        Command::new(&self.program)
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A process group of its own: Ctrl-C in the terminal reaches this process alone, which stops the servers in
            // order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {} ({})", self.name, self.program.display()))
    }
}

impl RunningServer {
    async fn restart(&mut self, status: &str) -> anyhow::Result<()> {
        let recipe = &self.recipe;
        let now = Instant::now();
        self.restarted.retain(|at| now - *at < RESTART_SPAN);
        if !recipe.restarts || self.restarted.len() >= RESTARTS {
            bail!("{} ended ({status}). {}", recipe.name, tail(&recipe.log));
        }
        self.restarted.push_back(now);
        say(format_args!("{} ended ({status}); starting it again in {} s", recipe.name, RESTART_PAUSE.as_secs()));
        sleep(RESTART_PAUSE).await;
        let log = File::options().append(true).open(&recipe.log)?;
        self.child = recipe.start(log)?;
        Ok(())
    }
}

/// The complete answer, with status line and headers.
async fn get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())
            .await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        anyhow::Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    timeout(Duration::from_secs(2), exchange).await?
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(TAIL)..];
    format!(
        "The end of {}:\n  {}",
        log.display(),
        if last.is_empty() { "(empty)".to_owned() } else { last.join("\n  ") }
    )
}
