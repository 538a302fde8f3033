//! Socket.IO in a single Node.js process.

use super::peer::{Post, install, local};
use super::{Audience, Cores, Server, lanes, peer};
use crate::dialect::Ticket;
use crate::dialect::socketio::SocketIo;
use crate::harness::process::free_port;
use crate::harness::{SECRET, tokens};
use crate::publish::Http;
use crate::usage::Watched;
use jsonwebtoken::Algorithm;
use std::process::Command;
use std::sync::Arc;

pub fn start(audience: Audience, cores: &Cores) -> Server {
    let port = free_port();
    let mut command = Command::new("node");
    command.arg(install("socketio")).args([&port.to_string(), SECRET]).env("NODE_ENV", "production");
    let process = peer::start("Socket.IO", &mut command, local(port), cores);
    let tickets = audience.tickets(|client, room| {
        let token = tokens::sign(Algorithm::HS256, &tokens::claims(&format!("user{client}"), "users"), SECRET);
        Ticket { room, channel: format!("room{room}"), token, ..Ticket::default() }
    });
    Server {
        watched: Watched::alone(process.pid()),
        address: local(port),
        dialect: Arc::new(SocketIo),
        tickets,
        lanes: lanes(|| Post { server: "Socket.IO", http: Http::new(local(port)) }),
        calls: None,
        _running: Box::new(process),
    }
}
