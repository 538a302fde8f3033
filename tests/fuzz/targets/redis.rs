#![no_main]

#[path = "../properties/redis.rs"]
mod redis;

libfuzzer_sys::fuzz_target!(|input: &[u8]| redis::check(input));
