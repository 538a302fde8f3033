//! A server process of a test's own, ended by its pid; what it printed is shown when the test fails.

use std::fs::File;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use tempfile::NamedTempFile;

pub struct Process {
    name: String,
    child: Option<Child>,
    log: NamedTempFile,
}

impl Process {
    pub fn start(name: &str, command: &mut Command) -> Self {
        let log = NamedTempFile::new().expect("a temporary file");
        let output = || -> Stdio { log.reopen().map(File::into).expect("the log can be opened again") };
        let child = command.stdin(Stdio::null()).stdout(output()).stderr(output()).spawn();
        let child = child.unwrap_or_else(|error| panic!("cannot run {:?}: {error}", command.get_program()));
        Self { name: name.to_owned(), child: Some(child), log }
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| matches!(child.try_wait(), Ok(Some(_))))
    }

    /// Sends a signal, such as `TERM`.
    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([&format!("-{signal}"), &self.pid().to_string()]).status();
        assert!(status.expect("the command kill").success());
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Everything that it has printed.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- {} printed:\n{}---", self.name, self.log());
        }
    }
}

/// Below the ports that the system gives to outgoing connections, so that nobody takes it while a server that is
/// restarted is away; and never the same twice in one process.
pub fn free_port() -> u16 {
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    let start = || AtomicU16::new((std::process::id().wrapping_mul(271) % PORTS) as u16);
    let next = NEXT.get_or_init(start);
    loop {
        let port = 20_000 + next.fetch_add(1, Ordering::Relaxed) % PORTS as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

const PORTS: u32 = 12_000;
