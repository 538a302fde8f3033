//! Hash slots of a Redis Cluster: the slot of a key, and the owners of the slots. Without a cluster, a single node owns
//! all slots.

use redis::{Arg, Cmd, Value};
use std::collections::BTreeSet;

pub const SLOTS: usize = 16_384;
const NOBODY: u16 = u16::MAX;

/// The slot of a key, computed as in Redis: from the hash tag alone, if the key has a hash tag.
pub fn of_key(key: &[u8]) -> u16 {
    let hashed = tag(key).unwrap_or(key);
    crc16::State::<crc16::XMODEM>::calculate(hashed) % SLOTS as u16
}

/// The slot of a command: the slot of the first key, which the command's other keys share.
pub fn of_command(command: &Cmd) -> u16 {
    let argument = |n| match command.args_iter().nth(n) {
        Some(Arg::Simple(argument)) => argument,
        _ => &[][..],
    };
    of_key(if argument(0) == b"EVALSHA" { argument(3) } else { argument(1) })
}

fn tag(key: &[u8]) -> Option<&[u8]> {
    let begin = key.iter().position(|&b| b == b'{')? + 1;
    let length = key[begin..].iter().position(|&b| b == b'}')?;
    (length > 0).then(|| &key[begin..begin + length])
}

/// The owners of all slots at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct SlotMap {
    /// For each slot, an index into `addresses`, or [`NOBODY`].
    owners: Vec<u16>,
    /// Addresses of the owners, `host:port`.
    addresses: Vec<String>,
    /// Owners with a live replica.
    replicated: BTreeSet<String>,
}

impl SlotMap {
    pub fn unknown() -> Self {
        Self { owners: vec![NOBODY; SLOTS], addresses: Vec::new(), replicated: BTreeSet::new() }
    }

    pub fn all_of(address: String) -> Self {
        Self { owners: vec![0; SLOTS], addresses: vec![address], replicated: BTreeSet::new() }
    }

    /// As [`SlotMap::all_of`], for a master with or without a live replica.
    pub fn all_of_master(address: String, has_replica: bool) -> Self {
        let replicated = has_replica.then(|| address.clone()).into_iter().collect();
        Self { replicated, ..Self::all_of(address) }
    }

    /// Parses the answer of `CLUSTER SLOTS`. An empty host, or `?`, stands for the host that was asked.
    pub fn read(answer: &Value, asked: &str) -> Option<Self> {
        let mut map = Self::unknown();
        for range in array(answer)? {
            let [first, last, owner, replicas @ ..] = array(range)? else { return None };
            let [host, port, ..] = array(owner)? else { return None };
            let host = match host {
                Value::BulkString(host) if !matches!(host.as_slice(), b"" | b"?") => std::str::from_utf8(host).ok()?,
                _ => asked,
            };
            let address = format!("{host}:{}", integer(port)?);
            if !replicas.is_empty() {
                map.replicated.insert(address.clone());
            }
            let owner = map.number(address)?;
            map.owners.get_mut(integer(first)?..=integer(last)?)?.fill(owner);
        }
        Some(map)
    }

    pub fn owner(&self, slot: u16) -> Option<&str> {
        let owner = *self.owners.get(usize::from(slot))?;
        self.addresses.get(usize::from(owner)).map(String::as_str)
    }

    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    pub fn is_replicated(&self, address: &str) -> bool {
        self.replicated.contains(address)
    }

    /// Number of owners with a live replica.
    pub fn replicas(&self) -> usize {
        self.replicated.len()
    }

    /// Whether the same nodes own the same slots.
    pub fn same_owners(&self, other: &Self) -> bool {
        (&self.owners, &self.addresses) == (&other.owners, &other.addresses)
    }

    /// Whether every slot has an owner.
    pub fn is_complete(&self) -> bool {
        !self.owners.contains(&NOBODY)
    }

    fn number(&mut self, address: String) -> Option<u16> {
        let found = self.addresses.iter().position(|known| *known == address);
        let number = found.unwrap_or_else(|| {
            self.addresses.push(address);
            self.addresses.len() - 1
        });
        u16::try_from(number).ok().filter(|&number| number != NOBODY)
    }
}

fn array(value: &Value) -> Option<&[Value]> {
    match value {
        Value::Array(values) => Some(values),
        _ => None,
    }
}

fn integer(value: &Value) -> Option<usize> {
    match value {
        Value::Int(number) => usize::try_from(*number).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first three expected slots are answers of Redis's `CLUSTER KEYSLOT`.
    #[test]
    fn slots_are_redis_own() {
        for (key, slot) in [("foo", 12182), ("", 0), ("123456789", 12739), ("{foo}bar", 12182), ("a{foo}{b}", 12182)] {
            assert_eq!(of_key(key.as_bytes()), slot, "{key}");
        }
        assert_ne!(of_key(b"{}foo"), of_key(b"{}bar"));
        assert_eq!(of_key(b"open{foo"), crc16::State::<crc16::XMODEM>::calculate(b"open{foo") % 16_384);
    }

    #[test]
    fn a_command_lies_where_its_keys_do() {
        let mut plain = redis::cmd("PEXPIRE");
        plain.arg("{foo}1").arg(1);
        let mut script = redis::cmd("EVALSHA");
        script.arg("hash").arg(2).arg("{foo}2").arg("{foo}3");
        assert_eq!([of_command(&plain), of_command(&script)], [12182; 2]);
        of_command(&redis::cmd("PING"));
    }

    #[test]
    fn a_map_is_read() {
        let text = |text: &str| Value::BulkString(text.into());
        let range = |first, last, host: &str, port| {
            Value::Array(vec![
                Value::Int(first),
                Value::Int(last),
                Value::Array(vec![text(host), Value::Int(port), text("id")]),
                Value::Array(vec![text("a replica"), Value::Int(9), text("id")]),
            ])
        };
        let part = Value::Array(vec![range(0, 99, "a", 1), range(200, 16_383, "", 2), range(150, 160, "a", 1)]);
        let map = SlotMap::read(&part, "asked").unwrap();
        let owners = [0, 99, 100, 155, 200, 16_383].map(|slot| map.owner(slot));
        let (a, b) = (Some("a:1"), Some("asked:2"));
        assert_eq!(owners, [a, a, None, a, b, b]);
        assert_eq!(map.addresses().len(), 2);
        assert!(map.is_replicated("a:1") && !map.is_replicated("x"));
        assert!(!map.is_complete() && SlotMap::all_of("x".into()).is_complete());
        for wrong in [range(0, 16_384, "a", 1), range(-1, 3, "a", 1), range(7, 3, "a", 1), Value::Nil] {
            assert_eq!(SlotMap::read(&Value::Array(vec![wrong]), "asked"), None);
        }
    }
}
