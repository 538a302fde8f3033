//! What bounds clients and hook callers: pure counting, without sockets and without the protocol.
//!
//! [`bucket`] is how often, [`places`] how many at once, [`addresses`] how many from one network address, [`guests`]
//! how many of those without a token;
//! [`signals`] and [`replays`] are tables of bounded size; [`seldom`] spares the log; [`descriptors`] is what the system
//! allows.
//! [`crate::server`] and [`crate::session`] ask them and answer with the codes.

pub mod addresses;
pub mod bucket;
pub mod descriptors;
pub mod guests;
pub mod places;
pub mod replays;
pub mod seldom;
pub mod signals;

use crate::config::Config;
use bucket::Rate;
use guests::Guests;
use prometheus::IntGauge;
use signals::SignalRates;
use std::sync::Arc;

/// What all sessions ask.
pub struct Limits {
    /// Of each connection's commands; `None`: no limit.
    pub commands: Option<Rate>,
    pub signals: Arc<SignalRates>,
    pub guests: Guests,
}

impl Limits {
    /// `guests`: the gauge of guests that are connected.
    pub fn new(config: &Config, guests: IntGauge) -> Self {
        Self {
            commands: Rate::new(config.max_commands_per_second.0, config.max_commands_burst),
            signals: Arc::new(SignalRates::new(config.max_signals_per_second.0, config.max_signals_burst)),
            guests: Guests::new(config.max_guests_per_ip.0, guests),
        }
    }
}
