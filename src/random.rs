//! Random names: client ids and epochs.

use crate::hex;

/// `N` random bytes in hexadecimal.
///
/// # Panics
/// If the operating system provides no randomness: without randomness, identifiers could be guessed.
pub fn token<const N: usize>() -> String {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the operating system provides randomness");
    hex::encode(&bytes)
}
