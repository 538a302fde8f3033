//! PocketBase comes back with other data than it had: restored from a backup.

mod harness;

use harness::client::Client;
use harness::{World, until};
use serde_json::json;

/// Two gateways, a member on each; a backup is taken, more is written, the backup is restored and written to.
#[tokio::test]
async fn a_restored_pocketbase_is_noticed_and_clients_are_told_to_reload() {
    let mut world = World::start(2, true, &[("GATEWAY_PULL_INTERVAL", "1")]).await;
    let (room, users) = world.room(&["alice", "bob", "carol", "eve"]).await;
    let channel = format!("room:{room}");
    world.pocketbase.write(&room, &users[0], "in the backup").await;
    let backup = world.pocketbase.back_up().await;

    let mut bob = Client::connect(&world.gateways[0], &users[1].token).await;
    let mut carol = Client::connect(&world.gateways[1], &users[2].token).await;
    let places = [bob.subscribe(&channel).await, carol.subscribe(&channel).await];
    for content in ["undone 1", "undone 2", "undone 3"] {
        world.pocketbase.write(&room, &users[0], content).await;
    }
    for client in [&mut bob, &mut carol] {
        while client.message().await != "undone 3" {}
    }

    world.pocketbase.restore(&backup).await;
    // The same numbers again, for other events, and more of them than were undone.
    for content in ["new 1", "new 2", "new 3", "new 4", "new 5"] {
        world.pocketbase.write(&room, &users[0], content).await;
    }
    for (client, place) in [(&mut bob, &places[0]), (&mut carol, &places[1])] {
        let told = client.unsubscribed().await;
        assert_eq!(told["code"], 2500, "{told}");
        let result = client.recover(&channel, place).await;
        assert_eq!((&result["recovered"], &result["was_recovering"]), (&json!(false), &json!(true)), "{result}");
    }
    for gateway in &world.gateways {
        until("the restart to be counted once", async || {
            let mut counted = 0.0;
            for gateway in &world.gateways {
                counted += gateway.metric("gateway_relay_restarts_total").await;
            }
            (counted >= 1.0).then_some(())
        })
        .await;
        assert_eq!(gateway.metric("gateway_session_panics_total").await, 0.0);
    }
    // From here on everything arrives as before.
    let contents: Vec<String> = (0..20).map(|i| format!("afterwards {i}")).collect();
    for content in &contents {
        world.pocketbase.write(&room, &users[0], content).await;
    }
    for client in [&mut bob, &mut carol] {
        let mut arrived = Vec::new();
        while arrived.len() < contents.len() {
            let message = client.message().await;
            assert!(!message.starts_with("undone"), "{message}");
            if message.starts_with("afterwards") {
                arrived.push(message);
            }
        }
        assert_eq!(arrived, contents);
    }
}
