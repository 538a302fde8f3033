//! Limits on clients and hook callers: pure counting, without sockets and without the protocol.
//!
//! [`bucket`] limits rates, [`places`] the number of things held at once, [`addresses`] the sockets of a network
//! address, and [`guests`] the connections without a token of a network address. [`pending`] and [`newcomers`] hold
//! connections before their first request and before their token; a new connection displaces the oldest. [`questions`]
//! limits questions to PocketBase per user. [`buckets`] and [`replays`] are tables of bounded size; [`descriptors`] is
//! the system's limit on open files.
//!
//! [`crate::server`] and [`crate::session`] consult the limits and answer with the protocol's codes.

pub(crate) mod addresses;
pub(crate) mod bucket;
pub(crate) mod buckets;
pub mod descriptors;
pub(crate) mod guests;
pub(crate) mod newcomers;
pub(crate) mod pending;
pub(crate) mod places;
pub(crate) mod questions;
pub mod replays;

use crate::config::Config;
use crate::log_lines::Lines;
use bucket::Rate;
use buckets::Buckets;
use guests::Guests;
use prometheus::IntGauge;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;

/// The limits shared by all sessions.
pub struct Limits {
    /// Commands per connection; `None`: no limit.
    pub commands: Option<Rate>,
    /// Signals per user and channel.
    pub signals: Arc<Buckets>,
    /// Reads per user; for guests, per network address.
    pub reads: Arc<Buckets>,
    /// Status changes per user.
    pub statuses: Arc<Buckets>,
    pub guests: Guests,
    /// Log lines about refused commands.
    pub refusals: Lines,
}

/// Log lines per second about refused commands.
const REFUSALS: u32 = 20;

impl Limits {
    /// `guests`: gauge of connected guests.
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

    /// Starts the sweeps of the tables.
    pub fn start_sweeps(&self) -> [AbortOnDropHandle<()>; 3] {
        [&self.signals, &self.reads, &self.statuses].map(Buckets::start_sweep)
    }
}
