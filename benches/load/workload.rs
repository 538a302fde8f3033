//! The workloads.

pub mod fanout;
pub mod idle;
mod ladder;
pub mod relay;
pub mod rooms;
pub mod storm;

use crate::options::Options;
use crate::swarm::{SetUps, Swarm};
use crate::target::Server;

/// Connects every client. `None`, after printing the reason, if a set-up failed.
fn connect(server: &Server, options: &Options) -> Option<(Swarm, SetUps)> {
    let swarm = Swarm::new(server.address, &server.dialect, &server.tickets, options.threads);
    let set_ups = swarm.connect(options.in_flight);
    if set_ups.failed == 0 {
        return Some((swarm, set_ups));
    }
    eprintln!("  left out: {} of {} set-ups failed: {:?}", set_ups.failed, swarm.size(), swarm.trouble());
    None
}
