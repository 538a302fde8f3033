//! The test's topology: three gateways on one Redis, a proxy in front of each, and one fault per gateway.

use super::device::{How, Life};
use crate::harness::World;
use crate::harness::proxy::Proxy;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

pub const GATEWAYS: usize = 3;
pub const PING: u64 = 2000;
pub const PONG: u64 = 1000;
pub const LEASE: u64 = 6000;
pub const GRACE: u64 = 2000;
pub const SETTINGS: &[(&str, &str)] = &[
    ("GATEWAY_PING_INTERVAL", "2"),
    ("GATEWAY_PONG_TIMEOUT", "1"),
    ("GATEWAY_PRESENCE_TTL", "6"),
    ("GATEWAY_STATUS_GRACE", "2"),
    ("GATEWAY_MAX_CONNECTIONS_PER_IP", "0"),
];

pub struct Stage {
    pub proxies: Vec<Proxy>,
    pub ports: Vec<u16>,
    state: Mutex<[Gate; GATEWAYS]>,
}

#[derive(Clone, Copy, Default)]
struct Gate {
    /// True if clients should avoid the gateway.
    shut: bool,
    /// The gateway's fault and its time.
    fault: Option<(How, u64)>,
}

impl Stage {
    pub async fn before(world: &World) -> Self {
        let ports: Vec<u16> = world.gateways.iter().map(|gateway| gateway.port).collect();
        let mut proxies = Vec::new();
        for port in &ports {
            proxies.push(Proxy::start(*port).await);
        }
        Self { proxies, ports, state: Mutex::default() }
    }

    pub fn url(&self, gateway: usize) -> String {
        format!("ws://127.0.0.1:{}/connection/websocket", self.proxies[gateway].port)
    }

    /// URL without the proxy.
    pub fn direct_url(&self, gateway: usize) -> String {
        format!("ws://127.0.0.1:{}/connection/websocket", self.ports[gateway])
    }

    pub fn open_gates(&self) -> Vec<usize> {
        let state = self.state.lock().unwrap();
        (0..GATEWAYS).filter(|&gateway| !state[gateway].shut).collect()
    }

    pub fn shut(&self, gateway: usize, shut: bool) {
        self.state.lock().unwrap()[gateway].shut = shut;
    }

    /// Records a fault, which ends the earlier connections.
    pub fn strike(&self, gateway: usize, how: How) {
        let mut state = self.state.lock().unwrap();
        state[gateway].shut = true;
        state[gateway].fault = Some((how, now()));
    }

    /// Corrects the end of a life, which may be earlier than its client noticed.
    pub fn over(&self, mut life: Life) -> Life {
        if let (Some((_, end)), Some((how, at))) = (life.end, self.state.lock().unwrap()[life.gateway].fault)
            && (life.asked..=end).contains(&at)
        {
            life.end = Some((how, at));
        }
        life
    }
}

/// Unix milliseconds on the servers' clock, since client and servers share a machine.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap()
}
