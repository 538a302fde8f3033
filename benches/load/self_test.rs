//! Checks that clients detect faults: the raw server spoils some messages on purpose, in a known way.

use crate::options::Options;
use crate::raw_server::{EVERY, SPOILS};
use crate::step::{Load, measure};
use crate::swarm::Swarm;
use crate::target::{Audience, raw};
use crate::usage::pin;

const CLIENTS: usize = 100;
/// 400 messages.
const LOAD: Load = Load { rate: 200.0, seconds: 2.0, rooms: 1 };

/// # Panics
/// If a counter differs from the number of faults made.
pub fn run(options: &Options) {
    for spoil in SPOILS {
        let audience = Audience { clients: CLIENTS, rooms: 1 };
        let mut server = raw::start(&["--spoil", spoil], audience, &options.cores);
        pin(&options.cores.client);
        let swarm = Swarm::new(server.address, &server.dialect, &server.tickets, options.threads);
        assert_eq!(swarm.connect(options.in_flight).failed, 0);
        let run = measure(&swarm, &mut server.lanes, &server.watched, LOAD, 0);
        let spoilt = (LOAD.rate * LOAD.seconds) as u64 / u64::from(EVERY) * CLIENTS as u64;
        let [lost, doubled, reordered] = ["lose", "double", "swap"].map(|one| if one == spoil { spoilt } else { 0 });
        let seen = &run.summary;
        assert_eq!((seen.lost, seen.doubled, seen.reordered, seen.stray), (lost, doubled, reordered, 0), "{spoil}");
        assert_eq!(run.copes(), spoil == "none", "{spoil}: {}", run.line());
        println!("{spoil}: {lost} lost, {doubled} doubled, {reordered} reordered, as it was done");
    }
}
