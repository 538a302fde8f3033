//! Networks of IP addresses, such as trusted proxies.

use super::value::{Value, quote};
use ipnet::IpNet;
use std::net::IpAddr;

/// Addresses and networks in CIDR notation, separated by commas; none by default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// Whether a network contains the address. An IPv4-mapped IPv6 address counts as IPv4.
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

impl Value for Networks {
    fn parse(text: &str) -> Result<Self, String> {
        let network = |word: &str| {
            let single = word.parse::<IpAddr>().map(|address| IpNet::from(address.to_canonical()));
            single
                .or_else(|_| word.parse())
                .map_err(|_| format!("{word:?} is not an address or a network such as 10.0.0.0/8"))
        };
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        Ok(Self(words.map(network).collect::<Result<_, _>>()?))
    }

    fn show(&self) -> String {
        quote(&self.0.iter().map(IpNet::to_string).collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_networks_of_both_kinds() {
        let networks = Networks::parse("127.0.0.1, 10.0.0.0/8,2001:db8::/32,").unwrap();
        for (address, contained) in [
            ("127.0.0.1", true),
            ("127.0.0.2", false),
            ("10.255.0.1", true),
            ("::ffff:10.0.0.1", true),
            ("2001:db8:1::1", true),
            ("2001:db9::1", false),
        ] {
            assert_eq!(networks.contain(address.parse().unwrap()), contained, "{address}");
        }
        assert_eq!(Networks::parse(networks.show().trim_matches('"')).unwrap(), networks);
        assert!(!Networks::default().contain(IpAddr::from([127, 0, 0, 1])));
        assert!(Networks::parse("10.0.0.0/33").unwrap_err().contains("10.0.0.0/33"));
        assert!(Networks::parse("proxy.example.org").is_err());
    }
}
