//! Free ports for the listeners.

use anyhow::{Context, anyhow};
use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener};

/// Ports for option 0: below the range from which systems choose ports for outgoing connections, which could take a port
/// before its server does.
const FREE: std::ops::Range<u16> = 10_000..32_000;
/// Attempts to find a free port.
const ATTEMPTS: usize = 100;

/// The ports of all listeners.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub gateway: u16,
    pub admin: u16,
    pub pocketbase: u16,
}

impl Ports {
    /// # Errors
    /// If a port is in use; the error names the option that chooses another.
    pub fn choose(host: IpAddr, gateway: u16, pocketbase: u16) -> anyhow::Result<Self> {
        let admin = if gateway == 0 { 0 } else { gateway.checked_add(1).context("--port-gateway: at most 65534")? };
        // All are held until the last is chosen, so that no two are the same.
        let held = [
            hold(host, gateway, "the gateway", "--port-gateway")?,
            hold(
                Ipv4Addr::LOCALHOST.into(),
                admin,
                "the gateway's admin listener",
                "--port-gateway (the admin port is the next one)",
            )?,
            hold(host, pocketbase, "PocketBase", "--port-pocketbase")?,
        ];
        let [gateway, admin, pocketbase] = held.map(|listener| listener.local_addr().map(|address| address.port()));
        Ok(Self { gateway: gateway?, admin: admin?, pocketbase: pocketbase? })
    }
}

fn hold(host: IpAddr, port: u16, server: &str, option: &str) -> anyhow::Result<TcpListener> {
    if port == 0 {
        return hold_any(host).with_context(|| format!("no free port for {server} at {host}"));
    }
    TcpListener::bind((host, port)).map_err(|error| {
        anyhow!(
            "port {port} for {server} cannot be used ({error}); \
             stop the program on this port, or choose another port with {option}"
        )
    })
}

fn hold_any(host: IpAddr) -> io::Result<TcpListener> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..ATTEMPTS {
        let random = u16::from_str_radix(&crate::random::token::<2>(), 16).unwrap_or_default();
        match TcpListener::bind((host, FREE.start + random % (FREE.end - FREE.start))) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}
