//! A server process of a test, ended by its pid. A failing test prints the process's output.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tempfile::NamedTempFile;

/// Time limit for a process to stop after the signal.
const STOPPING: Duration = Duration::from_secs(10);

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

    /// Resident memory in bytes.
    pub fn resident(&self) -> usize {
        resident(self.pid())
    }

    /// Exit status, if the process has ended without `kill`; the inner value is `None` after a signal.
    pub fn ended(&mut self) -> Option<Option<i32>> {
        Some(self.child.as_mut()?.try_wait().ok()??.code())
    }

    /// Whether the process has ended without `kill`.
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| matches!(child.try_wait(), Ok(Some(_))))
    }

    /// Sends a signal, such as `TERM`. After `STOP`, waits until no thread of the process runs: a thread stops when the
    /// kernel schedules the thread next, which on a busy machine takes milliseconds.
    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([&format!("-{signal}"), &self.pid().to_string()]).status();
        assert!(status.expect("the command kill").success());
        let deadline = Instant::now() + STOPPING;
        while signal == "STOP" && !self.has_stopped() {
            assert!(Instant::now() < deadline, "{} does not stop", self.name);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn has_stopped(&self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid())).expect("the process's threads");
        // The state follows the name in parentheses. A thread that has just ended has no file any more.
        let is_stopped = |stat: String| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" T"));
        threads.flatten().all(|thread| std::fs::read_to_string(thread.path().join("stat")).map_or(true, is_stopped))
    }

    /// Kills the process, like a crash.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// The process's output so far.
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

/// Path of a program that tests start, on `PATH`, or in a package that `tests/run.sh` has unpacked. `program`: the path in
/// the package.
///
/// # Panics
/// Without the program.
pub fn program(package: &str, program: &str) -> PathBuf {
    let name = Path::new(program).file_name().expect("a file");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).map(|folder| folder.join(name));
    let mut found = folders.chain([Path::new("/").join(program), unpacked(package).join(program)]);
    found.find(|program| program.exists()).unwrap_or_else(|| panic!("{package}: `tests/run.sh rust` gets it"))
}

/// Folder of a package that `tests/run.sh` has unpacked: `target/tools/PACKAGE`.
pub fn unpacked(package: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_BIN_EXE_konvert-gateway")).ancestors().nth(2).expect("a folder");
    target.join("tools").join(package)
}

/// A port for one server and its restarts; no other server gets the port while the test process lives. Ports come from
/// a block owned by the test process, below the system's ports for outgoing connections.
pub fn free_port() -> u16 {
    static BLOCK: Mutex<Option<Block>> = Mutex::new(None);
    let mut block = BLOCK.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let ports = &mut block.get_or_insert_with(Block::claim).ports;
        // Other programs, unaware of the blocks, may use some of the ports.
        match ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()) {
            Some(port) => return port,
            None => std::mem::forget(block.take()),
        }
    }
}

/// A block of ports. The first port stays bound, which keeps other test processes off the block.
struct Block {
    _claim: TcpListener,
    ports: std::ops::Range<u16>,
}

impl Block {
    const FIRST: u16 = 10_000;
    const SIZE: u16 = 100;
    const COUNT: u16 = 220;

    fn claim() -> Self {
        let begin = std::process::id() % u32::from(Self::COUNT);
        let claimed = (0..Self::COUNT).find_map(|step| {
            let first = Self::FIRST + (begin as u16 + step) % Self::COUNT * Self::SIZE;
            let claim = TcpListener::bind(("127.0.0.1", first)).ok()?;
            Some(Self { _claim: claim, ports: first + 1..first + Self::SIZE })
        });
        claimed.expect("a block of ports that no other test process has claimed")
    }
}

/// Resident memory of a process in bytes.
pub fn resident(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line of VmRSS");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
}
