//! Random names: client ids and epochs.

use std::fmt::Write;

/// `N` random bytes in hexadecimal.
///
/// # Panics
/// If the operating system provides no randomness: without randomness, identifiers could be guessed.
pub fn token<const N: usize>() -> String {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the operating system provides randomness");
    bytes.iter().fold(String::with_capacity(2 * N), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}
