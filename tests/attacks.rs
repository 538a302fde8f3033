//! Named attacks by clients, by whoever reaches the listeners or PocketBase's routes, and by whoever may write to
//! Redis. Each is refused with the code that the tables name, and honest clients beside it notice nothing.
//!
//! `cargo test --release --test attacks -- --nocapture` prints the table of `tests/README.md`.

mod harness;

mod attacks {
    pub mod arena;
    pub mod channels;
    pub mod frames;
    pub mod hooks;
    pub mod http;
    pub mod membership;
    pub mod redis;
    pub mod routes;
    pub mod signals;
    pub mod tokens;
}

use attacks::arena::Arena;
use attacks::{channels, frames, hooks, http, membership, redis, routes, signals, tokens};

/// One pair of gateways for all of them: what one attack has left behind, the next ones and the honest clients meet.
#[tokio::test(flavor = "multi_thread")]
async fn every_attack_is_refused_and_nobody_else_notices() {
    let mut arena = Arena::new().await;
    tokens::run(&mut arena).await;
    channels::run(&mut arena).await;
    signals::run(&mut arena).await;
    membership::run(&mut arena).await;
    frames::run(&mut arena).await;
    http::run(&mut arena).await;
    hooks::run(&mut arena).await;
    routes::run(&mut arena).await;
    redis::run(&mut arena).await;
    arena.end().await;
}
