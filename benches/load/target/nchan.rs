//! nchan, a module of nginx: a WebSocket for each subscriber, a POST for each message.

use super::peer::{Gentle, configuration, install, local, wait_for};
use super::{Audience, Cores, LANES, Server};
use crate::dialect::Ticket;
use crate::dialect::websocket::Subscriber;
use crate::harness::process::{Process, free_port};
use crate::publish::{Http, Lane, Message};
use crate::usage::{Watched, pin};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use md5::{Digest, Md5};
use std::io::Error;
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
    pin(&cores.server);
    let mut process = Process::start("nchan", &mut command);
    wait_for(local(port), &mut process);
    let tickets = audience.tickets(|_, room| {
        let proof = URL_SAFE_NO_PAD.encode(Md5::digest(format!("room{room} of the benchmark")));
        Ticket { room, channel: format!("/subscribe/room{room}?proof={proof}"), ..Ticket::default() }
    });
    let lane = || Box::new(NchanLane(Http::new(local(port)))) as Box<dyn Lane>;
    Server {
        watched: Watched { server: vec![process.pid()], beside: Vec::new() },
        address: local(port),
        dialect: Arc::new(Subscriber),
        tickets,
        lanes: std::iter::repeat_with(lane).take(LANES).collect(),
        calls: None,
        // The process ends before its folder.
        _running: Box::new((Gentle(process), folder)),
    }
}

struct NchanLane(Http);

impl Lane for NchanLane {
    fn publish(&mut self, messages: &[Message]) -> std::io::Result<()> {
        for message in messages {
            let mut body = Vec::new();
            message.json(&mut body);
            match self.0.post(&format!("/publish/room{}", message.room), "", &body)? {
                // 202: nobody was there.
                200..300 => {}
                status => return Err(Error::other(format!("nchan answered {status}"))),
            }
        }
        Ok(())
    }
}
