//! The integration tests of the gateway, as one program: the test harness compiles and links once.
//!
//! A module covers a feature or a party. `cargo test --release --test gateway chat::` runs the module `chat`.

// Tests may unwrap. Clippy's own exception covers only #[test] functions, not the functions they call.
#![allow(clippy::unwrap_used)]

#[path = "../harness/mod.rs"]
mod harness;

mod accounts;
mod activation;
mod attacks;
mod backlog;
mod bad_input;
mod broker;
mod chat;
mod cli;
mod cluster;
mod encodings;
mod first_load;
mod fuzz_corpus;
mod graceful_stop;
mod limits;
mod operators;
mod questions;
mod redis;
mod restore;
mod revocation;
mod sentinel;
mod server_api;
mod slow_readers;
mod status;
mod streams;
mod tls;
mod updates;
mod websocket;
