//! Ids of PocketBase's records, derived from the old ids. The same old id always yields the same new id, so that a
//! repeated import finds its records.

use aws_lc_rs::digest::{Context, SHA256, digest};
use konvert_gateway::hex;

/// The id of a record: a UUID loses its dashes, which can be put back. Other ids that fit PocketBase stay. All others
/// are replaced by a hash, whose first letter no UUID has; the original is listed in `ids.jsonl`.
pub fn target(original: &str) -> String {
    if let Some(uuid) = uuid(original) {
        return uuid;
    }
    if fits(original) {
        return original.to_owned();
    }
    format!("x{}", &sha256_hex(original.as_bytes())[..31])
}

/// Whether [`target`] replaces this id by a hash.
pub fn is_replaced(original: &str) -> bool {
    uuid(original).is_none() && !fits(original)
}

/// Ids that PocketBase takes: 15 to 32 characters of a-z and 0-9.
fn fits(id: &str) -> bool {
    (15..=32).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
}

/// A UUID in lower case without dashes.
fn uuid(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let is_uuid = bytes.len() == 36
        && bytes.iter().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => *b == b'-',
            _ => b.is_ascii_hexdigit(),
        });
    is_uuid.then(|| text.replace('-', "").to_ascii_lowercase())
}

/// The inverse of [`target`] for UUIDs: an id with dashes. Ids of a different form stay unchanged.
pub fn dashed(id: &str) -> String {
    if id.len() != 32 || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
        return id.to_owned();
    }
    [&id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]].join("-")
}

/// The id of a record that has none in the old chat, such as a reaction: a hash of its kind and its parts.
pub fn derived(kind: &str, parts: &[&str]) -> String {
    let mut context = Context::new(&SHA256);
    context.update(kind.as_bytes());
    for part in parts {
        context.update(&[0]);
        context.update(part.as_bytes());
    }
    hex::encode(&context.finish().as_ref()[..15])
}

/// A compact form of an id for sets: equal for equal ids.
pub fn compact(id: &str) -> u128 {
    if id.len() == 32
        && let Ok(number) = u128::from_str_radix(id, 16)
    {
        return number;
    }
    let hash = digest(&SHA256, id.as_bytes());
    hash.as_ref()[..16].iter().fold(0, |number, byte| number << 8 | u128::from(*byte))
}

pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(digest(&SHA256, bytes).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_lose_their_dashes_and_others_are_hashed_unless_they_fit() {
        assert_eq!(target("0F8FAD5B-D9CB-469F-A165-70867728950E"), "0f8fad5bd9cb469fa16570867728950e");
        assert_eq!(dashed("0f8fad5bd9cb469fa16570867728950e"), "0f8fad5b-d9cb-469f-a165-70867728950e");
        assert_eq!(target("abcdefghij12345"), "abcdefghij12345");
        assert_eq!(dashed("abcdefghij12345"), "abcdefghij12345");
        let hashed = target("a/b:c");
        assert!(hashed.starts_with('x') && fits(&hashed) && is_replaced("a/b:c"));
        assert_ne!(hashed, target("a/b:d"));
    }

    #[test]
    fn derived_ids_depend_on_the_borders_of_their_parts() {
        assert_ne!(derived("k", &["ab", "c"]), derived("k", &["a", "bc"]));
        assert!(fits(&derived("k", &["a"])));
    }

    #[test]
    fn compact_ids_tell_ids_apart() {
        assert_ne!(compact("abcdefghij12345"), compact("abcdefghij12346"));
        assert_eq!(compact("0f8fad5bd9cb469fa16570867728950e"), 0x0f8f_ad5b_d9cb_469f_a165_7086_7728_950e);
    }
}
