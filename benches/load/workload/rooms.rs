//! Many small rooms: the highest total rate.

use super::ladder::{self, Course, print_capacity, print_rates};
use crate::options::Options;
use crate::report::Log;
use crate::target::Audience;

/// The first rate to try, in messages per second.
const FIRST: f64 = 1000.0;

pub fn run(options: &Options, log: &mut Log) {
    let Options { rooms, room_size, .. } = *options;
    let audience = Audience { clients: rooms * room_size, rooms: rooms as u32 };
    let all = ladder::run(options, log, Course { name: "rooms", audience, first: FIRST, climb: true });
    print_capacity(options, &format!("rooms: {rooms} rooms of {room_size}"), &all, FIRST);
    print_rates(&format!("rooms: {rooms} rooms of {room_size}, all rates"), &all);
}
