//! The measured servers. Each is started afresh, alone on its cores.

mod centrifugo;
mod crowd;
pub mod gateway;
mod nchan;
pub mod peer;
mod pocketbase;
pub mod raw;
mod socketio;
mod sockudo;

use crate::dialect::centrifuge::Encodings;
use crate::dialect::{Dialect, Ticket};
use crate::harness::pocketbase::program;
use crate::publish::Lane;
use crate::usage::{Watched, pin};
use std::any::Any;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// Publishing connections for servers that take one message per call.
const LANES: usize = 4;

#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// `batch`: largest number of messages in one publish call, here and for Centrifugo.
    Gateway {
        label: String,
        program: PathBuf,
        redis: bool,
        encodings: Encodings,
        batch: usize,
    },
    Centrifugo {
        redis: bool,
        batch: usize,
    },
    Raw {
        coalesce: bool,
    },
    Nchan,
    Sockudo,
    SocketIo,
    PocketBase,
}

/// The source of the messages.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Source {
    /// From a back end, through the server's own publishing interface.
    Direct,
    /// PocketBase's REST API; only for the gateway and PocketBase itself.
    Rest,
}

/// Makes [`LANES`] lanes.
fn lanes<L: Lane + 'static>(lane: impl Fn() -> L) -> Vec<Box<dyn Lane>> {
    (0..LANES).map(|_| Box::new(lane()) as Box<dyn Lane>).collect()
}

/// The clients that are going to connect. Client `i` is in room `i / (clients / rooms)`.
#[derive(Clone, Copy, Debug)]
pub struct Audience {
    pub clients: usize,
    pub rooms: u32,
}

#[derive(Clone, Debug)]
pub struct Cores {
    pub server: Vec<usize>,
    /// Cores of the clients, of the publishers, and of PocketBase beside the gateway.
    pub client: Vec<usize>,
}

/// A running server, and how to use the server, which ends on drop.
pub struct Server {
    pub watched: Watched,
    pub address: SocketAddr,
    pub dialect: Arc<dyn Dialect>,
    pub tickets: Vec<Ticket>,
    pub lanes: Vec<Box<dyn Lane>>,
    /// Reads the number of calls that PocketBase has answered to the server.
    pub calls: Option<Box<dyn Fn() -> f64>>,
    /// Handles that have to live as long as the server.
    pub _running: Box<dyn Any>,
}

impl Target {
    pub fn label(&self) -> String {
        match self {
            Target::Gateway { label, redis, encodings, .. } => {
                let encodings = match encodings {
                    Encodings::Json => "",
                    Encodings::Protobuf => "-protobuf",
                    Encodings::Mixed => "-mixed",
                };
                format!("{label}{}{encodings}", if *redis { "-redis" } else { "" })
            }
            Target::Raw { coalesce: false } => "raw".to_owned(),
            Target::Raw { coalesce: true } => "raw-coalesce".to_owned(),
            Target::Centrifugo { redis: false, .. } => "centrifugo".to_owned(),
            Target::Centrifugo { redis: true, .. } => "centrifugo-redis".to_owned(),
            Target::Nchan => "nchan".to_owned(),
            Target::Sockudo => "sockudo".to_owned(),
            Target::SocketIo => "socketio".to_owned(),
            Target::PocketBase => "pocketbase".to_owned(),
        }
    }

    /// Whether returning clients get missed messages.
    pub fn recovers(&self) -> bool {
        matches!(self, Target::Gateway { .. } | Target::Centrifugo { .. })
    }

    /// Installs the server's program ahead of time, so that the installation does not fall between two measurements.
    pub fn prepare(&self) {
        match self {
            Target::Gateway { .. } | Target::PocketBase => drop(program()),
            Target::Raw { .. } => {}
            Target::Centrifugo { .. } => drop(peer::install("centrifugo")),
            Target::Nchan | Target::Sockudo | Target::SocketIo => drop(peer::install(&self.label())),
        }
    }

    pub fn has(&self, source: Source) -> bool {
        source == Source::Direct || matches!(self, Target::Gateway { .. } | Target::PocketBase)
    }

    /// # Panics
    /// If the target does not support the source.
    pub fn start(&self, audience: Audience, source: Source, cores: &Cores) -> Server {
        assert!(self.has(source));
        let server = match self {
            Target::Gateway { program, redis, encodings, batch, .. } => {
                let variant = gateway::Variant { with_redis: *redis, encodings: *encodings, batch: *batch };
                gateway::start(program, variant, audience, source, cores)
            }
            Target::Centrifugo { redis, batch } => centrifugo::start(*redis, *batch, audience, cores),
            Target::Raw { coalesce } => raw::start(if *coalesce { &["--coalesce"] } else { &[] }, audience, cores),
            Target::Nchan => nchan::start(audience, cores),
            Target::Sockudo => sockudo::start(audience, cores),
            Target::SocketIo => socketio::start(audience, cores),
            Target::PocketBase if source == Source::Rest => pocketbase::start_with_rules(audience, cores),
            Target::PocketBase => pocketbase::start(audience, cores),
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
