//! What bounds clients and hook callers: pure counting, without sockets and without the protocol.
//!
//! [`bucket`] is how often, [`places`] how many at once, [`addresses`] how many from one network address;
//! [`signals`] and [`replays`] are tables of bounded size; [`descriptors`] is what the system allows.
//! [`crate::server`] and [`crate::session`] ask them and answer with the codes.

pub mod addresses;
pub mod bucket;
pub mod descriptors;
pub mod places;
pub mod replays;
pub mod signals;

use crate::config::Config;
use bucket::Rate;
use signals::SignalRates;
use std::sync::Arc;

/// What all sessions ask.
pub struct Limits {
    /// Of each connection's commands; `None`: no limit.
    pub commands: Option<Rate>,
    pub signals: Arc<SignalRates>,
}

impl Limits {
    pub fn new(config: &Config) -> Self {
        Self {
            commands: Rate::new(config.max_commands_per_second.0, config.max_commands_burst),
            signals: Arc::new(SignalRates::new(config.max_signals_per_second.0, config.max_signals_burst)),
        }
    }
}
