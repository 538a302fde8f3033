//! nchan, a module of nginx: a WebSocket for each subscriber, a POST for each message.

use super::peer::{Gentle, Post, configuration, install, local};
use super::{Audience, Cores, Server, lanes, peer};
use crate::dialect::Ticket;
use crate::dialect::websocket::Subscriber;
use crate::harness::process::free_port;
use crate::publish::Http;
use crate::usage::Watched;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use md5::{Digest, Md5};
use std::process::Command;
use std::sync::Arc;
use tempfile::TempDir;

pub fn start(audience: Audience, cores: &Cores) -> Server {
    let (port, folder) = (free_port(), TempDir::new().expect("a temporary directory"));
    let path = folder.path().to_str().expect("a path in UTF-8");
    let workers = cores.server.len().to_string();
    let values = [("port", port.to_string()), ("folder", path.to_owned()), ("workers", workers)];
    let values = values.each_ref().map(|(name, value)| (*name, value.as_str()));
    let file = folder.path().join("nginx.conf");
    std::fs::write(&file, configuration("nchan.conf", &values)).expect("its configuration can be written");
    let mut command = Command::new(install("nchan"));
    command.arg("-p").arg(folder.path()).arg("-c").arg(&file);
    let process = peer::start("nchan", &mut command, local(port), cores);
    let tickets = audience.tickets(|_, room| {
        let proof = URL_SAFE_NO_PAD.encode(Md5::digest(format!("room{room} of the benchmark")));
        Ticket { room, channel: format!("/subscribe/room{room}?proof={proof}"), ..Ticket::default() }
    });
    Server {
        watched: Watched::alone(process.pid()),
        address: local(port),
        dialect: Arc::new(Subscriber),
        tickets,
        lanes: lanes(|| Post { server: "nchan", http: Http::new(local(port)) }),
        calls: None,
        // The process must end before the folder is removed.
        _running: Box::new((Gentle(process), folder)),
    }
}
