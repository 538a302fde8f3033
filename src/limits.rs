//! What bounds clients and hook callers: pure counting, without sockets and without the protocol.
//!
//! [`bucket`] is how often, [`places`] how many at once, [`addresses`] how many from one network address, [`guests`]
//! how many of those without a token;
//! [`pending`] and [`newcomers`] are those who have yet to say what they want, and make room for each other;
//! [`questions`] is how much may be asked of PocketBase for one user; [`buckets`] and [`replays`] are tables of bounded size; [`seldom`] and [`lines`] bound the log; [`descriptors`] is what the system
//! allows.
//! [`crate::server`] and [`crate::session`] ask them and answer with the codes.

pub mod addresses;
pub mod bucket;
pub mod buckets;
pub mod descriptors;
pub mod guests;
pub mod lines;
pub mod newcomers;
pub mod pending;
pub mod places;
pub mod questions;
pub mod replays;
pub mod seldom;

use crate::config::Config;
use bucket::Rate;
use buckets::Buckets;
use guests::Guests;
use lines::Lines;
use prometheus::IntGauge;
use std::sync::Arc;
use std::time::Duration;

/// What all sessions ask.
pub struct Limits {
    /// Of each connection's commands; `None`: no limit.
    pub commands: Option<Rate>,
    /// Signals per user and channel.
    pub signals: Arc<Buckets>,
    /// Reads per user; for guests, per network address.
    pub reads: Arc<Buckets>,
    /// Of changes of a user's status.
    pub statuses: Arc<Buckets>,
    pub guests: Guests,
    /// Of log lines about commands that were refused.
    pub refusals: Lines,
}

/// Log lines per second about refused commands.
const REFUSALS: u32 = 20;

impl Limits {
    /// `guests`: the gauge of guests that are connected.
    pub fn new(config: &Config, guests: IntGauge) -> Self {
        Self {
            commands: Rate::new(config.max_commands_per_second.0, config.max_commands_burst),
            signals: Arc::new(Buckets::new(config.max_signals_per_second.0, config.max_signals_burst)),
            reads: Arc::new(Buckets::new(config.max_reads_per_second.0, config.max_reads_burst)),
            statuses: Arc::new(Buckets::new(config.max_status_changes_per_second.0, config.max_status_changes_burst)),
            guests: Guests::new(config.max_guests_per_ip.0, guests),
            refusals: Lines::new("refused commands", REFUSALS, Duration::from_secs(1)),
        }
    }
}
