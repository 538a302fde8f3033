//! Limit of guests (connections without a token) per network address, and the count of open guest connections.

use super::addresses::{AddressPlace, Addresses};
use crate::log_lines::Seldom;
use prometheus::IntGauge;
use std::net::IpAddr;
use std::sync::Arc;

pub struct Guests {
    addresses: Arc<Addresses>,
    open: IntGauge,
    log: Seldom,
}

impl Guests {
    /// `per_address`: 0 for no limit. `open` counts nothing else.
    pub fn new(per_address: usize, open: IntGauge) -> Self {
        Self { addresses: Addresses::new(per_address), open, log: Seldom::default() }
    }

    /// A place for a guest from this address; `None` at the limit.
    pub fn take(&self, address: IpAddr) -> Option<GuestPlace> {
        let place = self.addresses.take(address);
        if place.is_none() && self.log.passes() {
            tracing::warn!(%address, "an address has reached max_guests_per_ip, further guests are closed with 4002; if the address is your proxy, add it to trusted_proxies");
        }
        let place = place?;
        self.open.inc();
        Some(GuestPlace { _place: place, open: self.open.clone() })
    }
}

/// A guest's place, given back on drop.
pub struct GuestPlace {
    _place: AddressPlace,
    open: IntGauge,
}

impl Drop for GuestPlace {
    fn drop(&mut self) {
        self.open.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_are_limited_per_address_and_counted_in_all() {
        let open = IntGauge::new("guests", "for a test").unwrap();
        let guests = Guests::new(1, open.clone());
        let (one, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let (first, second) = (guests.take(one), guests.take(other));
        assert!(first.is_some() && second.is_some() && guests.take(one).is_none());
        assert_eq!(open.get(), 2);
        drop(first);
        assert!(guests.take(one).is_some());
        assert_eq!(open.get(), 1);
    }
}
