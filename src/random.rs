//! Random names: client ids, epochs, sessions.

use crate::hex;

/// `N` random bytes.
///
/// # Panics
/// If the operating system provides no randomness: without randomness, identifiers could be guessed.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the operating system provides randomness");
    bytes
}

/// `N` random bytes in hexadecimal. Panics as [`bytes`] does.
pub fn token<const N: usize>() -> String {
    hex::encode(&bytes::<N>())
}
