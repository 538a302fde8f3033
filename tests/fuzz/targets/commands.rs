#![no_main]

#[path = "../properties/commands.rs"]
mod commands;

libfuzzer_sys::fuzz_target!(|input: &[u8]| commands::check(input));
