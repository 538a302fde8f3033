#![no_main]

#[path = "../properties/channels.rs"]
mod channels;

libfuzzer_sys::fuzz_target!(|input: &[u8]| channels::check(input));
