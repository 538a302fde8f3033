//! Socket.IO in one process of Node.js.

use super::peer::{install, local, wait_for};
use super::{Audience, Cores, LANES, Server};
use crate::dialect::Ticket;
use crate::dialect::socketio::SocketIo;
use crate::harness::process::{Process, free_port};
use crate::harness::{SECRET, tokens};
use crate::publish::{Http, Lane, Message};
use crate::usage::{Watched, pin};
use jsonwebtoken::Algorithm;
use std::io::Error;
use std::process::Command;
use std::sync::Arc;

pub fn start(audience: Audience, cores: &Cores) -> Server {
    let port = free_port();
    let mut command = Command::new("node");
    command.arg(install("socketio")).args([&port.to_string(), SECRET]).env("NODE_ENV", "production");
    pin(&cores.server);
    let mut process = Process::start("Socket.IO", &mut command);
    wait_for(local(port), &mut process);
    let tickets = audience.tickets(|client, room| {
        let token = tokens::sign(Algorithm::HS256, &tokens::claims(&format!("user{client}"), "users"), SECRET);
        Ticket { room, channel: format!("room{room}"), token }
    });
    let lane = || Box::new(SocketIoLane(Http::new(local(port)))) as Box<dyn Lane>;
    Server {
        watched: Watched { server: vec![process.pid()], beside: Vec::new() },
        address: local(port),
        dialect: Arc::new(SocketIo),
        tickets,
        lanes: std::iter::repeat_with(lane).take(LANES).collect(),
        calls: None,
        _running: Box::new(process),
    }
}

struct SocketIoLane(Http);

impl Lane for SocketIoLane {
    fn publish(&mut self, messages: &[Message]) -> std::io::Result<()> {
        for message in messages {
            let mut body = Vec::new();
            message.json(&mut body);
            match self.0.post(&format!("/publish/room{}", message.room), "", &body)? {
                200..300 => {}
                status => return Err(Error::other(format!("Socket.IO answered {status}"))),
            }
        }
        Ok(())
    }
}
