//! Tokens. `header \n claims` is signed correctly, whatever the contents; other input is taken as a whole token.

use aws_lc_rs::hmac;
use konvert_gateway::auth::{AuthError, check_with};
use serde::Deserialize;
use serde_json::Value;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const KEY: &str = "tokenKey-of-the-user-and-secret-of-the-collection";
const COLLECTION: &str = "users1";
const NOW: u64 = 1_800_000_000;

pub fn check(input: &[u8]) {
    let now = UNIX_EPOCH + Duration::from_secs(NOW);
    match input.iter().position(|byte| *byte == b'\n') {
        Some(end) => signed(&input[..end], &input[end + 1..], now),
        None => {
            let Ok(token) = std::str::from_utf8(input) else { return };
            let _ = jsonwebtoken::dangerous::insecure_decode_claims::<Value>(token);
            if let Ok(identity) = check_with(KEY, COLLECTION, token, now) {
                let (message, signature) = token.rsplit_once('.').expect("a token has three parts");
                assert_eq!(signature, sign(message), "forged: {identity:?}");
            }
        }
    }
}

fn signed(header: &[u8], claims: &[u8], now: SystemTime) {
    let message = format!("{}.{}", base64url(header), base64url(claims));
    let token = format!("{message}.{}", sign(&message));
    assert!(check_with("", COLLECTION, &token, now).is_err(), "an empty key lets nobody in");
    assert_eq!(check_with("another key of more than 32 characters", COLLECTION, &token, now).ok(), None);
    let checked = check_with(KEY, COLLECTION, &token, now);
    // A second parser for comparison. Ignored fields may hold values that are not strings.
    let claims: Option<Claims> = serde_json::from_slice(claims).ok();
    match checked {
        Ok(identity) => {
            let claims = claims.expect("what is believed can be read");
            let header: Header = serde_json::from_slice(header).expect("and so can its header");
            assert_eq!((header.alg.as_str(), claims.kind.as_str()), ("HS256", "auth"));
            assert_eq!((claims.id.as_str(), claims.collection.as_str()), (&*identity.user, COLLECTION));
            assert!(claims.exp > NOW && identity.expires_at > Some(now));
            let ttl = identity.ttl(now).expect("a token has an end");
            assert!((1..=claims.exp - NOW).contains(&u64::from(ttl)));
        }
        Err(AuthError::Expired) => assert!(claims.is_some_and(|claims| claims.exp <= NOW)),
        Err(error) => assert!(matches!(error, AuthError::Invalid(_)), "{error}"),
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
}

#[derive(Deserialize)]
struct Claims {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(rename = "collectionId")]
    collection: String,
    exp: u64,
}

fn sign(message: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, KEY.as_bytes());
    base64url(hmac::sign(&key, message.as_bytes()).as_ref())
}

fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().zip([16, 8, 0]).fold(0, |word, (byte, shift)| word | u32::from(*byte) << shift);
        for digit in 0..=chunk.len() {
            text.push(char::from(DIGITS[(word >> (18 - 6 * digit)) as usize & 63]));
        }
    }
    text
}
