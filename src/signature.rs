//! Signatures of the requests between PocketBase's hooks and the gateway, with the shared secret.
//!
//! Two headers: [`TIMESTAMP`], in Unix seconds, and [`SIGNATURE`], the lowercase hexadecimal HMAC-SHA256 over
//! `timestamp \n method \n target \n body`, where the target is path and query as the receiver sees them. A timestamp
//! more than [`MAX_SKEW`] away from the receiver's clock is refused, so a recorded request cannot be replayed later.

use aws_lc_rs::hmac;
use secrecy::{ExposeSecret, SecretString};
use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub const TIMESTAMP: &str = "x-gateway-timestamp";
pub const SIGNATURE: &str = "x-gateway-signature";
pub const MAX_SKEW: Duration = Duration::from_secs(300);

/// Signs and verifies with one secret; also verifies with a second secret while the first is being replaced. The keys
/// are never printed.
#[derive(Clone)]
pub struct Signer {
    key: hmac::Key,
    second: Option<hmac::Key>,
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the headers {TIMESTAMP} and {SIGNATURE} are required; requests must be signed with GATEWAY_SECRET")]
    Missing,
    #[error("the timestamp is more than {} s off; compare the clocks of PocketBase and the gateway", MAX_SKEW.as_secs())]
    Stale,
    #[error("the signature does not match; GATEWAY_SECRET must be the same for PocketBase and the gateway")]
    Bad,
}

/// A valid signature, for the detection of replays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// In Unix seconds.
    pub timestamp: u64,
    /// First half of the signature, which identifies the request as well as the whole.
    pub signature: u128,
    /// The oldest timestamp that is still accepted.
    pub oldest: u64,
}

impl Refusal {
    /// Code for error bodies and metrics.
    pub fn code(self) -> &'static str {
        match self {
            Refusal::Missing => "missing_signature",
            Refusal::Stale => "stale_timestamp",
            Refusal::Bad => "bad_signature",
        }
    }
}

impl Signer {
    pub fn new(secret: &SecretString) -> Self {
        Self { key: key_of(secret), second: None }
    }

    /// Also accepts signatures with a second secret; empty: no second secret.
    #[must_use]
    pub fn accepting(self, second: &SecretString) -> Self {
        Self { second: (!second.expose_secret().is_empty()).then(|| key_of(second)), ..self }
    }

    /// The two header values, timestamp and signature, for a request sent at `now`.
    pub fn sign(&self, now: SystemTime, method: &str, target: &str, body: &[u8]) -> (String, String) {
        let timestamp = unix_seconds(now).to_string();
        let tag = hmac::sign(&self.key, &message(&timestamp, method, target, body));
        let signature = tag.as_ref().iter().fold(String::with_capacity(64), |mut out, byte| {
            let _ = write!(out, "{byte:02x}");
            out
        });
        (timestamp, signature)
    }

    /// Checks a received request; the comparison takes constant time.
    pub fn verify(
        &self,
        now: SystemTime,
        (timestamp, signature): (Option<&str>, Option<&str>),
        (method, target, body): (&str, &str, &[u8]),
    ) -> Result<Verified, Refusal> {
        let (timestamp, signature) = timestamp.zip(signature).ok_or(Refusal::Missing)?;
        let signature = from_hex(signature).ok_or(Refusal::Bad)?;
        let message = message(timestamp, method, target, body);
        let holds = |key: &hmac::Key| hmac::verify(key, &message, &signature).is_ok();
        if !holds(&self.key) && !self.second.as_ref().is_some_and(holds) {
            return Err(Refusal::Bad);
        }
        let sent: u64 = timestamp.parse().map_err(|_| Refusal::Stale)?;
        let (now, skew) = (unix_seconds(now), MAX_SKEW.as_secs());
        if sent.abs_diff(now) > skew {
            return Err(Refusal::Stale);
        }
        let signature = u128::from_le_bytes(signature.first_chunk().copied().ok_or(Refusal::Bad)?);
        Ok(Verified { timestamp: sent, signature, oldest: now.saturating_sub(skew) })
    }
}

fn key_of(secret: &SecretString) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes())
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn message(timestamp: &str, method: &str, target: &str, body: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(timestamp.len() + method.len() + target.len() + body.len() + 3);
    for part in [timestamp, method, target] {
        message.extend_from_slice(part.as_bytes());
        message.push(b'\n');
    }
    message.extend_from_slice(body);
    message
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| (c as char).to_digit(16).map(|d| d as u8);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer(secret: &str) -> Signer {
        Signer::new(&SecretString::from(secret))
    }

    fn verify(signer: &Signer, now: SystemTime, signed: &(String, String), body: &[u8]) -> Result<(), Refusal> {
        signer.verify(now, (Some(&signed.0), Some(&signed.1)), ("POST", "/hooks/pocketbase", body)).map(|_| ())
    }

    #[test]
    fn a_signature_holds_for_its_request_secret_and_time_only() {
        let now = SystemTime::now();
        let ours = signer("0123456789abcdef0123456789abcdef");
        let signed = ours.sign(now, "POST", "/hooks/pocketbase", b"body");
        assert_eq!(verify(&ours, now, &signed, b"body"), Ok(()));
        assert_eq!(verify(&ours, now, &signed, b"other"), Err(Refusal::Bad));
        assert_eq!(verify(&signer("another secret of 32 characters!"), now, &signed, b"body"), Err(Refusal::Bad));
        let late = now + MAX_SKEW + Duration::from_secs(1);
        assert_eq!(verify(&ours, late, &signed, b"body"), Err(Refusal::Stale));
        let early = now - MAX_SKEW - Duration::from_secs(1);
        assert_eq!(verify(&ours, early, &signed, b"body"), Err(Refusal::Stale));
        let other_target = ours.sign(now, "POST", "/api/gateway/keys", b"body");
        assert_eq!(verify(&ours, now, &other_target, b"body"), Err(Refusal::Bad));
    }

    #[test]
    fn a_second_secret_is_accepted_and_does_not_sign() {
        let now = SystemTime::now();
        let (old, new) = ("0123456789abcdef0123456789abcdef", "another secret of 32 characters!");
        let both = signer(old).accepting(&new.into());
        for secret in [old, new] {
            assert_eq!(verify(&both, now, &signer(secret).sign(now, "POST", "/hooks/pocketbase", b""), b""), Ok(()));
        }
        let signed = both.sign(now, "POST", "/hooks/pocketbase", b"");
        assert_eq!(verify(&signer(new), now, &signed, b""), Err(Refusal::Bad));
        let empty = signer("").sign(now, "POST", "/hooks/pocketbase", b"");
        assert_eq!(verify(&signer(old).accepting(&"".into()), now, &empty, b""), Err(Refusal::Bad));
    }

    #[test]
    fn malformed_headers_are_refused() {
        let ours = signer("0123456789abcdef0123456789abcdef");
        let request = ("POST", "/", &b""[..]);
        let now = SystemTime::now();
        assert_eq!(ours.verify(now, (None, Some("00")), request), Err(Refusal::Missing));
        for signature in ["", "0", "zz", "é0", "00", &"0".repeat(64), &"0".repeat(1000)] {
            assert_eq!(ours.verify(now, (Some("1"), Some(signature)), request), Err(Refusal::Bad), "{signature}");
        }
    }

    #[test]
    fn the_signature_is_the_one_that_the_hooks_compute() {
        // openssl: printf '1700000000\nPOST\n/hooks/pocketbase\n{}' | openssl dgst -sha256 -hmac KEY
        let time = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let (_, signature) = signer("0123456789abcdef0123456789abcdef").sign(time, "POST", "/hooks/pocketbase", b"{}");
        assert_eq!(signature, "d588847c818257b11da04abf7fa2009be02cad012ff6ec91a04e76c0ddc1fc37");
    }
}
