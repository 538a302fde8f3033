//! Channel names, the prefix of Redis keys, and names parsed from keys. Input: `prefix \0 name \0 another name`.

use konvert_gateway::broker::redis::keys::Keys;
use konvert_gateway::channel::{NAME_MAX, is_well_formed};
use konvert_gateway::protocol::codes;
use konvert_gateway::protocol::encode::{self, Push};
use konvert_gateway::protocol::format::Format;
use serde_json::Value;

pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let mut parts = text.splitn(3, '\0');
    let mut part = || parts.next().unwrap_or_default();
    let (prefix, one, other) = (part(), part(), part());
    let keys = Keys::new(prefix);
    // The input as a channel name, and as a Redis channel into which a stranger publishes.
    let _ = keys.channel(one);
    for name in [one, other] {
        if is_well_formed(name) {
            assert!(
                (1..=NAME_MAX).contains(&name.len()) && !name.contains(|c: char| c.is_control() || c.is_whitespace())
            );
        }
        belong_together(&keys, name);
        let clustered = Keys::clustered(prefix);
        assert_eq!(clustered.channel(&clustered.live(name)).as_deref(), Some(name));
        let push = encode::push(Format::WebSocketJson, name, &Push::Unsubscribe(codes::INSUFFICIENT_STATE));
        assert!(!push.text().contains(&b'\n'), "a frame is one line");
        let value: Value = serde_json::from_slice(push.text()).expect("a frame is JSON");
        assert_eq!(value["push"]["channel"], *name);
    }
    assert_eq!(one == other, keys.stream(one) == keys.stream(other), "channels share keys");
    assert_eq!(one == other, keys.live(one) == keys.live(other));
    let clustered = Keys::clustered(prefix);
    assert_eq!(one == other, clustered.live(one) == clustered.live(other));
}

/// Keys of a channel lie in one slot of a cluster, differ from each other, and lead back to the channel.
fn belong_together(keys: &Keys, name: &str) {
    let live = keys.live(name);
    assert_eq!(keys.channel(&live).as_deref(), Some(name));
    let all = [live, keys.position(name), keys.stream(name), keys.presence(name), keys.leases(name), keys.mark()];
    for (i, key) in all.iter().enumerate() {
        assert!(all[..i].iter().all(|before| before != key), "two keys are one: {key}");
        assert!(key == &keys.mark() || tag(key).is_some() && tag(key) == tag(&all[0]), "{key}");
    }
}

/// The part that Redis hashes: between the first `{` and the next `}`, unless empty.
fn tag(key: &str) -> Option<&str> {
    let (_, rest) = key.split_once('{')?;
    rest.split_once('}').map(|(tag, _)| tag).filter(|tag| !tag.is_empty())
}
