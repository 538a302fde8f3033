//! Common parts of the other projects' servers: the installation into a folder under target/, the configuration from
//! `benches/load/peers`, and the end with SIGTERM, since some servers have child processes.

use super::Cores;
use crate::harness::process::Process;
use crate::publish::{Http, Lane, Message};
use crate::usage::pin;
use std::io::Error;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Time limits for a server to start listening and to end.
const STARTING: Duration = Duration::from_secs(20);
const ENDING: Duration = Duration::from_secs(10);

/// A server process. On drop, the process gets SIGTERM, and is killed after a time limit.
pub struct Gentle(pub Process);

impl Drop for Gentle {
    fn drop(&mut self) {
        self.0.signal("TERM");
        let deadline = Instant::now() + ENDING;
        while !self.0.has_ended() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Cargo's target directory, which also holds the load generator: `target/release/deps/load-…`.
pub fn target_directory() -> PathBuf {
    let program = std::env::current_exe().expect("this program has a path");
    program.ancestors().nth(3).map_or_else(|| PathBuf::from("target"), Path::to_owned)
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/load/peers")
}

/// A file or folder of `benches/load/peers`.
pub fn file(name: &str) -> PathBuf {
    folder().join(name)
}

/// Installs a server unless already installed; returns its path.
pub fn install(name: &str) -> PathBuf {
    let mut command = Command::new(file("install.sh"));
    command.arg(name).arg(target_directory().join("load/peers")).stderr(Stdio::inherit());
    let output = command.output().expect("install.sh runs");
    assert!(output.status.success(), "{name} cannot be installed; what went wrong is above");
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}

/// A configuration file with its `{name}` placeholders filled in.
pub fn configuration(name: &str, values: &[(&str, &str)]) -> String {
    let template = std::fs::read_to_string(file(name)).expect("the configuration is part of the repository");
    values.iter().fold(template, |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
}

pub fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Starts a server on its cores; returns when the server listens.
pub fn start(name: &str, command: &mut Command, address: SocketAddr, cores: &Cores) -> Process {
    pin(&cores.server);
    let mut process = Process::start(name, command);
    let deadline = Instant::now() + STARTING;
    while TcpStream::connect(address).is_err() {
        assert!(!process.has_ended(), "the server ended:\n{}", process.log());
        assert!(Instant::now() < deadline, "nothing listens on {address}:\n{}", process.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    process
}

/// Posts each message unchanged to `/publish/room…`.
pub struct Post {
    pub server: &'static str,
    pub http: Http,
}

impl Lane for Post {
    fn publish(&mut self, messages: &[Message]) -> std::io::Result<()> {
        for message in messages {
            let mut body = Vec::new();
            message.json(&mut body);
            match self.http.post(&format!("/publish/room{}", message.room), "", &body)? {
                // nchan answers 202 if the channel has no subscriber.
                200..300 => {}
                status => return Err(Error::other(format!("{} answered {status}", self.server))),
            }
        }
        Ok(())
    }
}
