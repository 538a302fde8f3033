//! The headers of a signed request: `timestamp \n signature \n method \n target \n body`. If the first byte is `+`,
//! the request is signed correctly, whatever its timestamp.

use aws_lc_rs::hmac;
use konvert_gateway::signature::{MAX_SKEW, Refusal, Signer};
use std::time::{Duration, UNIX_EPOCH};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const NOW: u64 = 1_800_000_000;

pub fn check(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    let mut lines = rest.splitn(5, |byte| *byte == b'\n');
    // Header values and request lines are text, already checked by hyper.
    let mut text = || lines.next().and_then(|line| std::str::from_utf8(line).ok()).unwrap_or_default();
    let (timestamp, signature, method, target) = (text(), text(), text(), text());
    let body = lines.next().unwrap_or_default();
    let right = sign(timestamp, method, target, body);
    let signature = if *kind == b'+' { &right } else { signature };

    let signer = Signer::new(&SECRET.into());
    let now = UNIX_EPOCH + Duration::from_secs(NOW);
    let verdict = signer.verify(now, (Some(timestamp), Some(signature)), (method, target, body));
    // Other parsers could differ only in the meaning of `+` before a number.
    let near = timestamp.parse::<u64>().is_ok_and(|sent| sent.abs_diff(NOW) <= MAX_SKEW.as_secs());
    let expected = match (signature.eq_ignore_ascii_case(&right), near) {
        (true, true) => None,
        (true, false) => Some(Refusal::Stale),
        (false, _) => Some(Refusal::Bad),
    };
    assert_eq!(verdict.err(), expected);
    let missing = signer.verify(now, (None, Some(signature)), (method, target, body));
    assert_eq!(missing.err(), Some(Refusal::Missing));

    // A request signed here is accepted during the allowed time, and with no other body.
    let (timestamp, signature) = signer.sign(now, method, target, body);
    let verify =
        |at, body: &[u8]| signer.verify(at, (Some(&timestamp), Some(&signature)), (method, target, body)).err();
    assert_eq!(verify(now + MAX_SKEW, body), None);
    assert_eq!(verify(now + MAX_SKEW + Duration::from_secs(1), body), Some(Refusal::Stale));
    assert_eq!(verify(now, &[body, b"."].concat()), Some(Refusal::Bad));
}

fn sign(timestamp: &str, method: &str, target: &str, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let message = [timestamp.as_bytes(), b"\n", method.as_bytes(), b"\n", target.as_bytes(), b"\n", body].concat();
    hmac::sign(&key, &message).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
