//! What the servers of others have in common: they are installed into a folder under target/, get a configuration of
//! `benches/load/peers`, and have to be ended gently, since some have processes of their own.

use super::Cores;
use crate::harness::process::Process;
use crate::publish::{Http, Lane, Message};
use crate::usage::pin;
use std::io::Error;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take until it listens, and how long to end.
const STARTING: Duration = Duration::from_secs(20);
const ENDING: Duration = Duration::from_secs(10);

/// A server process that is asked to end when this is dropped, and killed where it does not.
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

/// Cargo's target directory, which holds this program as well: `target/release/deps/load-…`.
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

/// Installs a peer unless it is there; returns its path.
pub fn install(name: &str) -> PathBuf {
    let mut command = Command::new(file("install.sh"));
    command.arg(name).arg(target_directory().join("load/peers")).stderr(Stdio::inherit());
    let output = command.output().expect("install.sh runs");
    assert!(output.status.success(), "{name} cannot be installed; what went wrong is above");
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}

/// A configuration with `{name}`s filled in.
pub fn configuration(name: &str, values: &[(&str, &str)]) -> String {
    let template = std::fs::read_to_string(file(name)).expect("the configuration is part of the repository");
    values.iter().fold(template, |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
}

pub fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Starts a server on its cores; returns when it listens.
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

/// Posts each message as it is to `/publish/room…`.
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
                // 202 of nchan: nobody was there.
                200..300 => {}
                status => return Err(Error::other(format!("{} answered {status}", self.server))),
            }
        }
        Ok(())
    }
}
