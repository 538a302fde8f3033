//! sockudo, a Pusher-compatible server in Rust: private channels, a signed POST for each message.

use super::peer::{configuration, install, local};
use super::{Audience, Cores, Server, lanes, peer};
use crate::dialect::Ticket;
use crate::dialect::pusher::{Pusher, hmac_sha256};
use crate::harness::process::free_port;
use crate::publish::{Http, Lane, Message};
use crate::usage::Watched;
use md5::{Digest, Md5};
use serde_json::json;
use std::io::Error;
use std::process::Command;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

/// The same values as in `peers/sockudo.toml`.
const APP: &str = "benchmark";
const KEY: &str = "benchmark-key";
const SECRET: &str = "benchmark-secret";

pub fn start(audience: Audience, cores: &Cores) -> Server {
    let (port, folder) = (free_port(), TempDir::new().expect("a temporary directory"));
    let file = folder.path().join("config.toml");
    let text = configuration("sockudo.toml", &[("port", &port.to_string())]);
    std::fs::write(&file, text).expect("its configuration can be written");
    let mut command = Command::new(install("sockudo"));
    command.arg("--config").arg(&file).current_dir(folder.path()).env("LOG_LEVEL", "warn").env("RUST_LOG", "warn");
    let process = peer::start("sockudo", &mut command, local(port), cores);
    let tickets =
        audience.tickets(|_, room| Ticket { room, channel: format!("private-room{room}"), ..Ticket::default() });
    Server {
        watched: Watched::alone(process.pid()),
        address: local(port),
        dialect: Arc::new(Pusher { key: KEY, secret: SECRET }),
        tickets,
        lanes: lanes(|| SockudoLane(Http::new(local(port)))),
        calls: None,
        _running: Box::new((process, folder)),
    }
}

struct SockudoLane(Http);

impl Lane for SockudoLane {
    fn publish(&mut self, messages: &[Message]) -> std::io::Result<()> {
        for message in messages {
            let mut data = Vec::new();
            message.json(&mut data);
            let channel = format!("private-room{}", message.room);
            let body =
                json!({"name": "message", "channel": channel, "data": String::from_utf8_lossy(&data)}).to_string();
            let target = signed(&body);
            match self.0.post(&target, "", body.as_bytes())? {
                200..300 => {}
                status => return Err(Error::other(format!("sockudo answered {status}"))),
            }
        }
        Ok(())
    }
}

/// The request target for `body`, with Pusher's signature in the query.
fn signed(body: &str) -> String {
    let path = format!("/apps/{APP}/events");
    let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let digest: String = Md5::digest(body).iter().map(|byte| format!("{byte:02x}")).collect();
    let query = format!("auth_key={KEY}&auth_timestamp={time}&auth_version=1.0&body_md5={digest}");
    let signature = hmac_sha256(SECRET, &format!("POST\n{path}\n{query}"));
    format!("{path}?{query}&auth_signature={signature}")
}
