//! A gateway that was down for a day: a hundred thousand rows wait in the outbox.

use crate::harness::client::Client;
use crate::harness::{DEADLINE, World, until_within};
use serde_json::json;
use std::process::Command;
use std::time::{Duration, Instant};

const ROWS: u64 = 100_000;

/// Writes rows into the outbox of a stopped PocketBase, every hundredth row for `room`.
fn write_rows(database: &std::path::Path, room: &str) {
    let script = r#"
import json, sqlite3, sys, time
database, room, rows = sys.argv[1], sys.argv[2], int(sys.argv[3])
def event(i):
    channel = room if i % 100 == 0 else f"room:elsewhere{i % 1000}"
    record = {"id": f"m{i}", "content": "x" * 256, "room": channel[5:]}
    return json.dumps({"channels": [channel], "data": {"action": "create", "collection": "messages", "record": record}})
connection = sqlite3.connect(database)
now = int(time.time() * 1000)
connection.executemany("INSERT INTO _gateway_outbox (created, event) VALUES (?, ?)", ((now, event(i)) for i in range(rows)))
connection.commit()
"#;
    let arguments = ["-c", script, &database.to_string_lossy(), room, &ROWS.to_string()];
    assert!(Command::new("python3").args(arguments).status().expect("python3 runs").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_days_backlog_is_caught_up_while_clients_are_served() {
    let mut world = World::start(1, true, &[("GATEWAY_HISTORY_SIZE", "5000")]).await;
    let (room, users) = world.room(&["alice", "bob", "eve"]).await;
    let channel = format!("room:{room}");
    let mut bob = world.subscriber(0, &users[1], &room).await;
    let place = bob.history_position(&channel).await;
    drop(bob);
    world.gateways[0].process.kill();
    world.pocketbase.process.kill();
    write_rows(&world.pocketbase.database(), &channel);
    world.pocketbase.restart().await;

    let start = Instant::now();
    world.gateways[0].restart_slowly().await;
    let mut bob = Client::connect(world.gateway(), &users[1].token).await;
    let recovered = bob.recover(&channel, &place).await;
    assert_eq!(recovered["recovered"], true, "{recovered}");
    // The gateway serves clients meanwhile.
    let mut slowest = Duration::ZERO;
    until_within(DEADLINE * 6, "the end of the backlog", async || {
        let asked = Instant::now();
        bob.call("ping", json!({})).await;
        slowest = slowest.max(asked.elapsed());
        (world.gateway().metric("gateway_relay_cursor").await >= ROWS as f64).then_some(())
    })
    .await;
    let took = start.elapsed();
    println!(
        "{ROWS} rows in {took:.1?}: {:.0} rows/s; the slowest ping meanwhile: {slowest:.1?}",
        ROWS as f64 / took.as_secs_f64()
    );
    assert!(slowest < Duration::from_secs(2));

    world.pocketbase.write(&room, &users[0], "live again").await;
    let missed = recovered["publications"].as_array().map_or(0, Vec::len);
    let mut offset = place.offset + missed as u64;
    loop {
        let publication = bob.publication().await;
        offset += 1;
        assert_eq!(publication["offset"], offset, "in order and without a hole");
        if publication["data"]["record"]["content"] == "live again" {
            break;
        }
    }
    assert!(offset > place.offset + ROWS / 100, "all of this room's came");
}
