//! Specific sequences of events, rarely found by random faults.

use super::topology::Topology;
use crate::harness::client::Client;
use crate::harness::proxy::Weather;
use crate::harness::{DEADLINE, until};
use serde_json::json;
use std::path::Path;
use std::time::Duration;
use tokio::time::{sleep, timeout};

async fn topology(name: &str) -> Topology {
    Topology::start(1, 2, false, &Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)).await
}

/// Redis loses its data. A client subscribes to the new, empty history and reloads, and a message is written. A gateway
/// then starts without finding a mark, before another gateway has restored the mark.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_starting_with_an_empty_redis_skips_no_message() {
    let topology = topology("empty-redis").await;
    let (world, links) = (&topology.world, &topology.links);
    let (room, user) = (&world.rooms[0], &world.users[1]);
    for number in [1, 2] {
        topology.gateways[number].lock().await.process.kill();
    }
    links.hooks.set(Weather::Cut);
    for round in 0..3 {
        // Long enough for the relay's retry interval to reach its maximum.
        links.redis[0].set(Weather::Cut);
        {
            let mut store = topology.redis.lock().await;
            let redis = store.single();
            redis.kill();
            redis.forget();
            tokio::task::block_in_place(|| redis.restart());
        }
        sleep(Duration::from_secs(8)).await;
        links.redis[0].set(Weather::Clear);
        let mut client = Client::connect(&*topology.gateways[0].lock().await, &user.token).await;
        until("a subscription", async || {
            let reply = client.call("subscribe", json!({"channel": &*room.channel})).await;
            reply["subscribe"].is_object().then_some(())
        })
        .await;
        let content = format!("round {round}");
        topology.pocketbase.lock().await.write(&room.id, user, &content).await;
        topology.gateways[1].lock().await.launch();
        // Older messages may come as well, since they precede the client's reload after its subscribe.
        let heard = async { while client.message().await != content {} };
        assert!(timeout(DEADLINE, heard).await.is_ok(), "in round {round} the message never came");
        topology.gateways[1].lock().await.process.kill();
    }
}
