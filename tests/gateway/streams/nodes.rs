//! Commands of a stream's client that arrive at another gateway.

use crate::harness::World;
use crate::harness::cluster::Cluster;
use crate::harness::stream_client::{StreamClient, TRANSPORTS, Transport};
use crate::harness::until;
use serde_json::json;

/// Uses streams of the first gateway, with commands sent to the second.
async fn through_the_other(world: &World) {
    let (room, users) = world.room(&["alice", "bob", "eve"]).await;
    for transport in TRANSPORTS {
        let mut bob = StreamClient::connect(&world.gateways[0], transport, &users[1].token).await;
        bob.emulation = world.gateways[1].url("/emulation");
        bob.subscribe(&format!("room:{room}")).await;
        let content = format!("over {transport:?}");
        world.pocketbase.write(&room, &users[0], &content).await;
        assert_eq!(bob.content().await, content);
        // Requests of a single connection arrive in order.
        for id in 100..130 {
            bob.send(&[json!({"id": id, "rpc": {"method": "unknown"}})]).await;
        }
        for id in 100..130 {
            assert_eq!(bob.next_reply().await, id, "{transport:?}");
        }
        let large = json!({"id": 200, "rpc": {"method": "unknown", "data": "x".repeat(60_000)}});
        bob.send(&[large]).await;
        assert_eq!(bob.reply(200).await["error"]["code"], 104);
    }
    let forwarded = world.gateways[1].metric(r#"gateway_emulation_requests_total{outcome="forwarded"}"#).await;
    assert!(forwarded >= 96.0, "{forwarded}");
    assert_eq!(world.gateways[0].metric_sum("gateway_emulation_requests_total").await, 0.0);
}

#[tokio::test]
async fn commands_reach_the_stream_from_another_gateway() {
    let mut world = World::start(2, true, &[]).await;
    through_the_other(&world).await;

    // Redis loses its subscriptions, and the gateways subscribe again.
    let (_, users) = world.room(&["carol", "dave", "erin"]).await;
    let mut dave = StreamClient::connect(&world.gateways[0], Transport::HttpStream, &users[1].token).await;
    dave.emulation = world.gateways[1].url("/emulation");
    let redis = world.redis.as_ref().expect("a Redis");
    let _: i64 = redis::cmd("CLIENT").arg(&["KILL", "TYPE", "pubsub"]).query(&mut redis.client()).expect("killed");
    let command = json!({"id": 2, "rpc": {"method": "unknown"}}).to_string();
    until("the way to the other gateway", async || {
        let response = dave.post(command.as_bytes()).await;
        assert!(matches!(response.status, 204 | 404), "{} {}", response.status, response.text);
        (response.status == 204).then_some(())
    })
    .await;
    assert_eq!(dave.reply(2).await["error"]["code"], 104);

    // An unknown session of a known node is known to be unknown on that node alone: the request is dropped there.
    let session = std::mem::replace(&mut dave.session, "0".repeat(32));
    assert_eq!(dave.post(command.as_bytes()).await.status, 204);
    dave.session = session;
    world.gateways[0].process.kill();
    until("a node that is gone", async || {
        let response = dave.post(command.as_bytes()).await;
        (response.status == 404 && response.json()["error"]["code"] == "unknown_session").then_some(())
    })
    .await;
}

/// Past the room of the inbox, the connection ends, since the other gateway has accepted the commands.
#[tokio::test]
async fn commands_that_find_no_room_on_the_other_gateway_end_the_connection() {
    let world = World::start(2, true, &[]).await;
    let (room, users) = world.room(&["alice", "bob", "eve"]).await;
    let mut bob = StreamClient::connect(&world.gateways[0], Transport::HttpStream, &users[1].token).await;
    bob.emulation = world.gateways[1].url("/emulation");
    world.pocketbase.process.signal("STOP");
    bob.send(&[json!({"id": 2, "subscribe": {"channel": format!("room:{room}")}})]).await;
    let frame = json!({"id": 3, "rpc": {"method": "unknown", "data": "x".repeat(8000)}});
    for _ in 0..8 {
        bob.send(std::slice::from_ref(&frame)).await;
    }
    assert_eq!(bob.closed().await, 3013);
    world.pocketbase.process.signal("CONT");
}

#[tokio::test]
async fn commands_reach_the_stream_in_a_redis_cluster() {
    let cluster = Cluster::start();
    let url = cluster.url();
    let world = World::start_beside(2, &[("GATEWAY_REDIS_URL", &url)]).await;
    through_the_other(&world).await;
}
