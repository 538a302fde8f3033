//! PocketBase comes back with other data, restored from a backup.

use crate::harness::client::Client;
use crate::harness::{World, until};
use serde_json::json;

/// Two gateways with a member on each. A backup is taken, more is written, the backup is restored, and more is
/// written.
#[tokio::test]
async fn clients_are_told_to_reload_after_a_restore_of_pocketbase() {
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
    // The same sequence numbers for other events, and more events than were undone.
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
    // From here on, messages arrive as before.
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

const UPDATES: &str = "room-updates";

/// A client of an updates channel on each gateway, with its own list of rooms.
struct Listeners {
    clients: Vec<Client>,
}

impl Listeners {
    async fn subscribe(world: &World, token: &str) -> Self {
        let mut clients = Vec::new();
        for gateway in &world.gateways {
            let mut client = Client::connect(gateway, token).await;
            client.subscribe(UPDATES).await;
            clients.push(client);
        }
        Self { clients }
    }

    /// Every client is told to reload, subscribes again, and continues.
    async fn reload(&mut self, world: &World) {
        for client in &mut self.clients {
            let told = client.unsubscribed().await;
            assert_eq!((&told["code"], &told["reason"]), (&json!(2500), &json!("insufficient state")), "{told}");
            client.subscribe(UPDATES).await;
        }
        self.hear(world, "after it").await;
    }

    async fn hear(&mut self, world: &World, name: &str) {
        let room = json!({"name": name, "type": "public"});
        world.pocketbase.as_superuser("POST", "collections/rooms/records", &room).await;
        for client in &mut self.clients {
            while client.publication().await["data"]["record"]["name"] != name {}
        }
    }
}

async fn listeners_of_updates_reload_after_a_restore(mut world: World) {
    let user = world.pocketbase.user("ann").await;
    let mut listeners = Listeners::subscribe(&world, &user.token).await;
    listeners.hear(&world, "in the backup").await;
    let backup = world.pocketbase.back_up().await;
    listeners.hear(&world, "undone").await;
    world.pocketbase.restore(&backup).await;
    listeners.reload(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_of_updates_reload_after_a_restore_with_redis() {
    listeners_of_updates_reload_after_a_restore(World::start(2, true, &[("GATEWAY_PULL_INTERVAL", "1")]).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_of_updates_reload_after_a_restore_without_redis() {
    listeners_of_updates_reload_after_a_restore(World::start(1, false, &[("GATEWAY_PULL_INTERVAL", "1")]).await).await;
}

/// Redis comes back empty, or is emptied while running.
#[tokio::test(flavor = "multi_thread")]
async fn listeners_of_updates_reload_when_redis_has_lost_its_data() {
    let mut world = World::start(2, true, &[("GATEWAY_PULL_INTERVAL", "1")]).await;
    let user = world.pocketbase.user("ann").await;
    let mut listeners = Listeners::subscribe(&world, &user.token).await;
    listeners.hear(&world, "before").await;
    let redis = world.redis.as_mut().unwrap();
    redis.kill();
    redis.restart();
    listeners.reload(&world).await;
    let mut redis = world.redis.as_ref().unwrap().client();
    let _: () = redis::cmd("FLUSHALL").query(&mut redis).expect("Redis can be emptied");
    // The next event reveals the loss; without an event, detection takes some seconds.
    let room = json!({"name": "lost", "type": "public"});
    world.pocketbase.as_superuser("POST", "collections/rooms/records", &room).await;
    listeners.reload(&world).await;
}
