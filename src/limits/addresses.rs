//! Sockets per network address. An IPv6 network of 64 bits counts as one address, since a single subscriber line gets
//! a whole /64.

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

pub struct Addresses {
    /// 0: no limit, and nothing is counted.
    limit: usize,
    /// One entry per address with open sockets.
    open: DashMap<IpAddr, usize, foldhash::fast::RandomState>,
}

impl Addresses {
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, open: DashMap::default() })
    }

    /// `None` if the address holds as many sockets as allowed.
    pub fn take(self: &Arc<Self>, address: IpAddr) -> Option<AddressPlace> {
        if self.limit == 0 {
            return Some(AddressPlace { counted: None });
        }
        let address = counted_as(address);
        let mut open = self.open.entry(address).or_insert(0);
        if *open >= self.limit {
            return None;
        }
        *open += 1;
        Some(AddressPlace { counted: Some((Arc::clone(self), address)) })
    }

    fn give_back(&self, address: IpAddr) {
        if let Entry::Occupied(mut open) = self.open.entry(address) {
            *open.get_mut() -= 1;
            if *open.get() == 0 {
                open.remove();
            }
        }
    }
}

/// The place of an open socket, given back by drop.
pub struct AddressPlace {
    counted: Option<(Arc<Addresses>, IpAddr)>,
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        if let Some((addresses, address)) = &self.counted {
            addresses.give_back(*address);
        }
    }
}

pub fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_address_has_its_own_places_and_none_is_remembered_without_sockets() {
        let addresses = Addresses::new(2);
        let held = [addresses.take(ip("192.0.2.1")), addresses.take(ip("::ffff:192.0.2.1"))];
        assert!(held.iter().all(Option::is_some));
        assert!(addresses.take(ip("192.0.2.1")).is_none());
        assert!(addresses.take(ip("192.0.2.2")).is_some());
        drop(held);
        assert!(addresses.take(ip("192.0.2.1")).is_some());
        assert!(addresses.open.is_empty());
    }

    #[test]
    fn a_line_with_many_ipv6_addresses_is_one() {
        let addresses = Addresses::new(1);
        let _held = addresses.take(ip("2001:db8:1:2::1")).unwrap();
        assert!(addresses.take(ip("2001:db8:1:2:ffff::9")).is_none());
        assert!(addresses.take(ip("2001:db8:1:3::1")).is_some());
    }

    #[test]
    fn without_a_limit_nothing_is_kept() {
        let addresses = Addresses::new(0);
        let held: Vec<_> = (0..100).map(|_| addresses.take(ip("192.0.2.1"))).collect();
        assert!(held.iter().all(Option::is_some) && addresses.open.is_empty());
    }
}
