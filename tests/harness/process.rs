//! A server process of a test's own, ended by its pid; what it printed is shown when the test fails.

use std::fs::File;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
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

    /// Bytes of memory that it holds now.
    pub fn resident(&self) -> usize {
        resident(self.pid())
    }

    /// How it ended, if it has by itself; `None` for the code after a signal.
    pub fn ended(&mut self) -> Option<Option<i32>> {
        Some(self.child.as_mut()?.try_wait().ok()??.code())
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

/// A port that nobody has been given before, below those that the system gives to outgoing connections: between
/// its choice and its use somebody else could be given any other.
pub fn free_port() -> u16 {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        // Test binaries that run side by side begin at different places.
        let offset = std::process::id().wrapping_mul(101).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = (FIRST + offset % COUNT) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Bytes of memory that a process holds now.
pub fn resident(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line of VmRSS");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
}
