//! The servers that are measured, each started afresh, alone on its cores.

pub mod gateway;
pub mod raw;

use crate::dialect::{Dialect, Ticket};
use crate::publish::Lane;
use crate::usage::{Watched, pin};
use std::any::Any;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// Serial publishers of servers that take one message per call.
const LANES: usize = 4;

#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    Gateway { label: String, program: PathBuf, redis: bool },
    Raw { coalesce: bool },
}

/// Who is going to connect: client `i` is in room `i / (clients / rooms)`.
#[derive(Clone, Copy, Debug)]
pub struct Audience {
    pub clients: usize,
    pub rooms: u32,
}

#[derive(Clone, Debug)]
pub struct Cores {
    pub server: Vec<usize>,
    /// Also the publishers' and PocketBase's beside the gateway.
    pub client: Vec<usize>,
}

/// A server that runs, and how to use it. It ends with this.
pub struct Server {
    pub watched: Watched,
    pub address: SocketAddr,
    pub dialect: Arc<dyn Dialect>,
    pub tickets: Vec<Ticket>,
    pub lanes: Vec<Box<dyn Lane>>,
    /// How many calls PocketBase has answered to it.
    pub calls: Option<Box<dyn Fn() -> f64>>,
    /// What has to live as long as it.
    pub running: Box<dyn Any>,
}

impl Target {
    pub fn label(&self) -> String {
        match self {
            Target::Gateway { label, redis: false, .. } => label.clone(),
            Target::Gateway { label, redis: true, .. } => format!("{label}-redis"),
            Target::Raw { coalesce: false } => "raw".to_owned(),
            Target::Raw { coalesce: true } => "raw-coalesce".to_owned(),
        }
    }

    pub fn start(&self, audience: Audience, cores: &Cores) -> Server {
        let server = match self {
            Target::Gateway { program, redis, .. } => gateway::start(program, *redis, audience, cores),
            Target::Raw { coalesce } => raw::start(*coalesce, audience, cores),
        };
        pin(&cores.client);
        server
    }
}

impl Audience {
    pub fn room_of(&self, client: usize) -> u32 {
        (client / (self.clients / self.rooms as usize)) as u32
    }

    fn tickets(&self, ticket: impl Fn(usize, u32) -> Ticket) -> Vec<Ticket> {
        (0..self.clients).map(|client| ticket(client, self.room_of(client))).collect()
    }
}
