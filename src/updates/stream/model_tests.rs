//! Model test of a stream: random changes in a small world, relayed to the stream in batches of random size. After all
//! changes are processed, the list built from a client's publications equals PocketBase's list for the user.

mod stage;
mod world;

use super::inputs::SUBSCRIBES;
use super::{StreamInput, SubscribeRequest};
use crate::auth::Account;
use crate::connection::Connection;
use crate::outbox::Outbox;
use crate::protocol::frame::Frame;
use stage::Stage;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

const CHANNEL: &str = "note-updates";
const USERS: [&str; 4] = ["ann", "bob", "cat", "dan"];
const RECORDS: usize = 8;
const GROUPS: usize = 3;

async fn run(seed: u64, shares: bool, per_reader: bool) {
    println!("seed {seed}, shares {shares}, per reader {per_reader}");
    let mut stage = Stage::new(seed, shares, per_reader);
    for _ in 0..12 {
        for _ in 0..1 + stage.dice.roll(40) {
            match stage.dice.roll(20) {
                0 | 1 => stage.join(),
                2 => stage.leave(),
                3 => stage.stream.push(|| StreamInput::Recheck),
                4 if stage.dice.roll(10) == 0 => stage.stream.push(|| StreamInput::Lost),
                5..=8 => (0..stage.dice.roll(6)).for_each(|_| stage.relay()),
                9..=11 => tokio::time::sleep(Duration::from_millis(stage.dice.roll(60) as u64)).await,
                12 => stage.read().await,
                _ => stage.step(),
            }
        }
        stage.rest().await;
    }
}

async fn run_all(shares: bool, per_reader: bool) {
    let first = std::env::var("SEED").ok().map(|seed| seed.parse().unwrap());
    let count = std::env::var("SEEDS").map_or(150, |count| count.parse().unwrap());
    let first = first.unwrap_or_else(|| u64::from(rand_seed()));
    for seed in first..first + count {
        run(seed, shares, per_reader).await;
    }
}

fn rand_seed() -> u32 {
    crate::random::token::<4>().bytes().fold(0, |seed, byte| seed.wrapping_mul(31).wrapping_add(u32::from(byte)))
}

#[tokio::test(start_paused = true)]
async fn clients_have_what_pocketbase_lists_where_users_share() {
    run_all(true, false).await;
}

#[tokio::test(start_paused = true)]
async fn clients_have_what_pocketbase_lists_where_users_share_nothing() {
    run_all(false, false).await;
}

#[tokio::test(start_paused = true)]
async fn clients_get_records_as_their_own_reader_does() {
    run_all(true, true).await;
}

#[tokio::test(start_paused = true)]
async fn waiting_subscribes_are_bounded() {
    let stage = Stage::new(1, true, false);
    let connection = Connection::new(1, "ann", "client", &Outbox::alone(1 << 20), Account::blocking(&[]));
    // Nothing is processed before the first await.
    let mut answers: Vec<_> = (0..SUBSCRIBES + 2)
        .map(|_| {
            let (accepted, answer) = oneshot::channel();
            let reply = Frame::from_static(b"\x81\x02{}");
            stage.stream.subscribe(SubscribeRequest {
                connection: Arc::clone(&connection),
                reply,
                accepted,
                at: Instant::now(),
            });
            answer
        })
        .collect();
    let refused = |answer: &mut oneshot::Receiver<()>| answer.try_recv() == Err(oneshot::error::TryRecvError::Closed);
    let refused: Vec<bool> = answers.iter_mut().map(refused).collect();
    assert_eq!(refused.iter().filter(|refused| **refused).count(), 2);
    assert!(refused.ends_with(&[true, true]));
}
