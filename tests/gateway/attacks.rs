//! Named attacks by clients, by processes with access to the listeners or to PocketBase's routes, and by writers to
//! Redis. The gateway refuses each attack with the code in the tables, and honest clients beside it are not affected.
//!
//! `cargo test --release --test gateway attacks:: -- --nocapture` prints the table of `tests/README.md`.

mod arena;
mod channels;
mod frames;
mod hooks;
mod http;
mod membership;
mod redis;
mod routes;
mod signals;
mod tokens;

use arena::Arena;

/// One pair of gateways for the whole list, so that later attacks and the honest clients meet the effects of earlier
/// attacks.
#[tokio::test(flavor = "multi_thread")]
async fn every_attack_is_refused_without_effect_on_other_clients() {
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
