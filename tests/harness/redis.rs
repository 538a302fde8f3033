//! A Redis for one test, on a free port, without persistence unless asked for; ended when its handle is dropped.

use super::process::free_port;
use std::ffi::OsString;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Time limit of every wait for Redis.
const DEADLINE: Duration = Duration::from_secs(10);

pub struct Redis {
    process: Option<Child>,
    port: u16,
    arguments: Vec<String>,
    directory: TempDir,
}

impl Redis {
    /// # Panics
    /// If there is no `redis-server`, at `$REDIS_SERVER` or on `PATH`, or if the server does not start.
    pub fn start() -> Self {
        Self::start_with(&["--save", "", "--appendonly", "no"])
    }

    pub fn start_with(arguments: &[&str]) -> Self {
        Self::start_on(free_port, arguments)
    }

    /// Starts on the caller's port. `port` is called again if the port is taken.
    pub fn start_on(port: impl Fn() -> u16, arguments: &[&str]) -> Self {
        Self::start_with_ports(|| (port(), arguments.iter().map(|&argument| argument.to_owned()).collect()))
    }

    /// Starts with arguments that name further ports. `choose` is called again if a port is taken.
    pub fn start_with_ports(choose: impl Fn() -> (u16, Vec<String>)) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let (port, arguments) = choose();
        let mut redis = Self { process: None, port, arguments, directory };
        // Another program may take the port between its choice and its use.
        for _ in 0..5 {
            if redis.try_launch() {
                return redis;
            }
            (redis.port, redis.arguments) = choose();
        }
        panic!("redis-server does not start; its output is above");
    }

    /// Starts again on the same port, after [`Redis::kill`].
    pub fn restart(&mut self) {
        let deadline = Instant::now() + DEADLINE;
        while !self.try_launch() {
            assert!(Instant::now() < deadline, "redis-server does not start again on port {}", self.port);
        }
    }

    /// Kills the process, like a crash.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Deletes the persisted data, after [`Redis::kill`].
    pub fn forget(&self) {
        for entry in std::fs::read_dir(self.directory.path()).expect("its directory can be read").flatten() {
            let path = entry.path();
            let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            removed.expect("its files can be deleted");
        }
    }

    /// Whether the process has ended without [`Redis::kill`].
    pub fn has_ended(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| !matches!(process.try_wait(), Ok(None)))
    }

    /// True after [`Redis::kill`], until the next start.
    pub fn is_killed(&self) -> bool {
        self.process.is_none()
    }

    /// Number of calls of `command`, including calls by scripts.
    pub fn calls(&self, command: &str) -> u64 {
        let query = redis::cmd("INFO").arg("commandstats").query(&mut self.client());
        let stats: String = query.expect("it answers");
        let prefix = format!("cmdstat_{command}:calls=");
        let count = stats.lines().find_map(|line| line.strip_prefix(prefix.as_str())?.split(',').next()?.parse().ok());
        count.unwrap_or(0)
    }

    /// Stops the process: connections stay open without answers.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    pub fn resume(&self) {
        self.signal("-CONT");
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("Redis is running").id()
    }

    /// A new connection for the test.
    pub fn client(&self) -> redis::Connection {
        let client = redis::Client::open(self.url()).expect("a URL of ours");
        client.get_connection_with_timeout(DEADLINE).expect("Redis takes connections")
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.pid().to_string()]).status();
        assert!(status.expect("the command kill").success());
    }

    fn try_launch(&mut self) -> bool {
        let program = std::env::var_os("REDIS_SERVER").unwrap_or_else(|| OsString::from("redis-server"));
        let process = Command::new(&program)
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--loglevel", "warning", "--dir"])
            .arg(self.directory.path())
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        self.process = Some(process.unwrap_or_else(|error| {
            panic!("cannot run {program:?}: {error}. Install redis-server, or set REDIS_SERVER to its path.")
        }));
        let running = self.wait_until_it_answers();
        if !running {
            self.kill();
        }
        running
    }

    /// Waits for the first answer. Returns false if the process has ended, for instance because the port is taken.
    fn wait_until_it_answers(&mut self) -> bool {
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            if !matches!(self.process.as_mut().map(Child::try_wait), Some(Ok(None))) {
                return false;
            }
            if self.answers() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }

    /// Whether this very process answers on the port, and not another server. An error that asks for a password
    /// counts.
    fn answers(&self) -> bool {
        let Ok(client) = redis::Client::open(self.url()) else { return false };
        let Ok(mut connection) = client.get_connection_with_timeout(Duration::from_millis(200)) else { return false };
        let info: Result<String, redis::RedisError> = redis::cmd("INFO").arg("server").query(&mut connection);
        match info {
            Ok(info) => info.contains(&format!("process_id:{}\r", self.pid())),
            Err(error) => error.to_string().contains("Authentication"),
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
