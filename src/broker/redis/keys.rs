//! Names of keys and pub/sub channels in Redis.
//!
//! `{prefix}:{kind}:{{channel}}`: the inner braces are a hash tag, which puts the keys of a channel into one slot of a
//! cluster, where one script may access them. In Redis the tag ends at the first `}`, and an empty tag is ignored.
//! Hence a `}` in a channel's name is escaped, and also the empty name. Escaping is reversible, so different channels
//! never share a key.

use crate::broker::status_store::bucket;
use crate::channel;
use std::borrow::Cow;

pub struct Keys {
    prefix: String,
    /// True for a cluster, where a script can publish only into the script's own slot.
    clustered: bool,
}

impl Keys {
    /// Keys for a single Redis. Gateways with the same prefix share channels, also across database numbers, which
    /// pub/sub ignores.
    pub fn new(prefix: &str) -> Self {
        // A hash tag in the prefix would put every channel into one slot.
        Self { prefix: prefix.replace('%', "%25").replace('{', "%7B").replace('}', "%7D"), clustered: false }
    }

    /// Keys for a cluster: the same, but with other pub/sub channels for statuses, since scripts publish statuses from
    /// the slots of buckets.
    pub fn clustered(prefix: &str) -> Self {
        Self { clustered: true, ..Self::new(prefix) }
    }

    pub fn position(&self, channel: &str) -> String {
        self.key("position", channel)
    }

    pub fn stream(&self, channel: &str) -> String {
        self.key("stream", channel)
    }

    pub fn presence(&self, channel: &str) -> String {
        self.key("presence", channel)
    }

    pub fn leases(&self, channel: &str) -> String {
        self.key("leases", channel)
    }

    /// Number of clients per user.
    pub fn users(&self, channel: &str) -> String {
        self.key("users", channel)
    }

    /// Keys of the ledger of histories, for a bucket of channels: `sizes`, `ends` and `sum`.
    pub fn ledger(&self, bucket: u16) -> [String; 3] {
        ["sizes", "ends", "sum"].map(|kind| format!("{}:ledger:{{ledger:{bucket}}}:{kind}", self.prefix))
    }

    /// The shared mark. Never equals a key of a channel, since channels' keys end with a brace.
    pub fn mark(&self) -> String {
        format!("{}:mark", self.prefix)
    }

    /// A name reserved by [`crate::broker::Broker::claim`].
    pub fn claim(&self, name: &str) -> String {
        format!("{}:claim:{name}", self.prefix)
    }

    /// Name of the pub/sub channel.
    pub fn live(&self, channel: &str) -> String {
        match channel::user_of_status(channel) {
            Some(user) if self.clustered => format!("{}{}}}", self.status_live(bucket(user)), self.escaped(user)),
            _ => self.key("live", channel),
        }
    }

    /// The channel of a pub/sub channel; `None` for a foreign pub/sub channel.
    pub fn channel<'a>(&self, live: &'a str) -> Option<Cow<'a, str>> {
        let name = live.strip_prefix(&self.prefix)?.strip_prefix(":live:{")?.strip_suffix('}')?;
        Some(match name.split_once("}{") {
            Some((_, user)) => Cow::Owned(channel::status_of(&unescaped(user))),
            None => unescaped(name),
        })
    }

    /// Sorted set with the next check of each user in a bucket. The bucket's other keys have the same prefix, up to the
    /// last colon.
    pub fn status_deadlines(&self, bucket: usize) -> String {
        format!("{}:status:{{status:{bucket}}}:deadlines", self.prefix)
    }

    /// Prefix of the pub/sub channels of a bucket's statuses. The escaped user and a closing brace follow.
    pub fn status_live(&self, bucket: usize) -> String {
        match self.clustered {
            true => format!("{}:live:{{status:{bucket}}}{{", self.prefix),
            false => format!("{}:live:{{{}", self.prefix, channel::status_of("")),
        }
    }

    /// A name in the form used between a key's braces.
    pub fn escaped<'a>(&self, name: &'a str) -> Cow<'a, str> {
        match name {
            "" => Cow::Borrowed(EMPTY),
            name if name.contains(['%', '}']) => Cow::Owned(name.replace('%', "%25").replace('}', "%7D")),
            name => Cow::Borrowed(name),
        }
    }

    fn key(&self, kind: &str, channel: &str) -> String {
        format!("{}:{kind}:{{{}}}", self.prefix, self.escaped(channel))
    }
}

fn unescaped(name: &str) -> Cow<'_, str> {
    match name {
        EMPTY => Cow::Borrowed(""),
        name if name.contains('%') => Cow::Owned(name.replace("%7D", "}").replace("%25", "%")),
        name => Cow::Borrowed(name),
    }
}

/// The escaped form of the empty name. Different from every other escaped name, where two digits follow a `%`.
const EMPTY: &str = "%";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The part of a key that Redis hashes: between the first `{` and the next `}`, unless empty.
    fn tag(key: &str) -> Option<&str> {
        let (_, rest) = key.split_once('{')?;
        rest.split_once('}').map(|(tag, _)| tag).filter(|tag| !tag.is_empty())
    }

    #[test]
    fn a_plain_name_stays_readable() {
        assert_eq!(Keys::new("konvert").position("room:42"), "konvert:position:{room:42}");
    }

    #[test]
    fn a_script_can_name_the_channel_of_a_status() {
        for keys in [Keys::new("konvert"), Keys::clustered("konvert")] {
            for user in ["u1", "a}b%", "7", "}{", "%"] {
                let live = keys.live(&channel::status_of(user));
                assert_eq!(format!("{}{}}}", keys.status_live(bucket(user)), keys.escaped(user)), live);
                assert_eq!(keys.channel(&live).as_deref(), Some(channel::status_of(user).as_str()));
                if keys.clustered {
                    assert_eq!(tag(&live), tag(&keys.status_deadlines(bucket(user))));
                }
            }
        }
        assert_eq!(tag(&Keys::new("konvert").status_deadlines(7)), Some("status:7"));
    }

    proptest! {
        #[test]
        fn names_come_back_and_share_a_slot(prefix in ".{0,8}", name in "([%{}:]|.){0,12}") {
            let keys = Keys::new(&prefix);
            let live = keys.live(&name);
            let back = keys.channel(&live);
            prop_assert_eq!(back.as_deref(), Some(name.as_str()));
            let position = keys.position(&name);
            let expected = tag(&position);
            prop_assert!(expected.is_some());
            for key in [keys.stream(&name), keys.presence(&name), keys.leases(&name), keys.users(&name), keys.live(&name)]
            {
                prop_assert_eq!(tag(&key), expected);
                prop_assert_ne!(&key, &keys.mark());
            }
        }

        #[test]
        fn names_do_not_collide(a in "[%{}:7D25]{0,6}", b in "[%{}:7D25]{0,6}") {
            let keys = Keys::new("p");
            prop_assert_eq!(a == b, keys.stream(&a) == keys.stream(&b));
        }

        #[test]
        fn foreign_names_do_no_harm(name in ".{0,40}") {
            let _ = Keys::new("p").channel(&name);
        }
    }
}
