//! Memory of idle connections.

use crate::harness::World;
use crate::harness::client::Client;
use crate::harness::gateway::Gateway;
use crate::harness::stream_client::{StreamClient, TRANSPORTS};
use std::any::Any;

/// Connections before the first measurement, and connections measured.
const BEFORE: usize = 200;
const MEASURED: usize = 1000;

/// Growth of the gateway's resident memory per idle connection, in bytes.
async fn cost(gateway: &Gateway, connect: impl AsyncFn() -> Box<dyn Any>) -> f64 {
    let mut held = Vec::new();
    for _ in 0..BEFORE {
        held.push(connect().await);
    }
    let before = gateway.process.resident() as f64;
    for _ in 0..MEASURED {
        held.push(connect().await);
    }
    (gateway.process.resident() as f64 - before) / MEASURED as f64
}

#[tokio::test]
async fn an_idle_stream_costs_at_most_twice_a_websocket() {
    // A gateway for each transport, since freed memory of one would serve the next.
    let settings = [("GATEWAY_MAX_CONNECTIONS_PER_IP", "0"), ("GATEWAY_MAX_CONNECTIONS_PER_USER", "0")];
    let world = World::start_beside(1 + TRANSPORTS.len(), &settings).await;
    let token = world.pocketbase.user("alice").await.token;
    let gateway = world.gateway();
    let websocket = cost(gateway, async || Box::new(Client::connect(gateway, &token).await) as Box<dyn Any>).await;
    println!("an idle WebSocket takes {websocket:.0} bytes");
    for (gateway, transport) in world.gateways[1..].iter().zip(TRANSPORTS) {
        let stream =
            cost(gateway, async || Box::new(StreamClient::connect(gateway, transport, &token).await) as Box<dyn Any>)
                .await;
        println!("an idle stream over {transport:?} takes {stream:.0} bytes");
        assert!(stream <= 2.0 * websocket, "{transport:?}: {stream} bytes, and {websocket} for a WebSocket");
    }
}
