//! A chat through a real PocketBase: recipients, order, and no delivery to strangers.

use crate::harness::client::{Client, Place};
use crate::harness::{World, until};
use serde_json::json;
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_message_reaches_the_other_member_and_no_stranger() {
    let world = World::single().await;
    let (room, users) = world.room(&["alice", "bob", "eve"]).await;
    let mut bob = world.subscriber(0, &users[1], &room).await;
    let mut eve = Client::connect(world.gateway(), &users[2].token).await;
    let refused = eve.call("subscribe", json!({"channel": format!("room:{room}")})).await;
    assert_eq!(refused["error"], json!({"code": 103, "message": "permission denied"}));

    let record = world.pocketbase.write(&room, &users[0], "hello").await;
    let publication = bob.message_publication().await;
    assert_eq!(publication["data"]["action"], "create");
    assert_eq!(publication["data"]["collection"], "messages");
    assert_eq!(publication["data"]["record"], record, "exactly what PocketBase answered");
    assert!(publication["offset"].as_u64() > Some(0));
    for command in ["history", "presence", "presence_stats"] {
        let refused = eve.call(command, json!({"channel": format!("room:{room}")})).await;
        assert_eq!(refused["error"]["code"], 103, "{command}");
    }
    let refused = eve.call("publish", json!({"channel": format!("room:{room}"), "data": {"type": "typing"}})).await;
    assert_eq!(refused["error"]["code"], 103);
}

#[tokio::test]
async fn content_is_passed_on_byte_for_byte() {
    let world = World::single().await;
    let (room, users) = world.room(&["alice", "bob", "eve"]).await;
    let mut bob = world.subscriber(0, &users[1], &room).await;
    let long = "€".repeat(20_000);
    for content in ["\u{2028}\u{2029}\u{0}\u{1f} 🦀👩‍👩‍👧 \"\\/\n\t</script>", "'); DROP TABLE messages;--", &long]
    {
        world.pocketbase.write(&room, &users[0], content).await;
        assert_eq!(bob.message().await, content);
    }
}

#[tokio::test]
async fn clients_on_both_gateways_get_every_message_in_order() {
    let world = World::start(2, true, &[]).await;
    let (room, users) = world.room(&["alice", "bob", "carol", "eve"]).await;
    let mut bob = world.subscriber(0, &users[1], &room).await;
    let mut carol = world.subscriber(1, &users[2], &room).await;
    let expected: Vec<String> = (0..50).map(|i| format!("message {i}")).collect();
    for content in &expected {
        world.pocketbase.write(&room, &users[0], content).await;
    }
    for client in [&mut bob, &mut carol] {
        for content in &expected {
            assert_eq!(&client.message().await, content);
        }
    }
    for (gateway, user) in [(0, &users[1]), (1, &users[2])] {
        let mut second = world.subscriber(gateway, user, &room).await;
        let stats = second.call("presence_stats", json!({"channel": format!("room:{room}")})).await;
        assert_eq!(stats["presence_stats"]["num_users"], 2, "{stats}");
    }
}

/// A client is away for ten seconds while a message is written every half second.
async fn away_for_ten_seconds(world: &World, back_at: usize) {
    let (room, users) = world.room(&["alice", "bob", "eve"]).await;
    let channel = format!("room:{room}");
    let mut bob = Client::connect(world.gateway(), &users[1].token).await;
    bob.subscribe(&channel).await;
    world.pocketbase.write(&room, &users[0], "seen").await;
    let seen = bob.message_publication().await;
    let place = Place { offset: seen["offset"].as_u64().unwrap(), ..bob.history_position(&channel).await };
    bob.cut();

    let cut_at = Instant::now();
    let mut missed = Vec::new();
    let mut pace = tokio::time::interval(Duration::from_millis(500));
    while cut_at.elapsed() < Duration::from_secs(10) {
        pace.tick().await;
        missed.push(format!("missed {}", missed.len()));
        world.pocketbase.write(&room, &users[0], missed.last().unwrap()).await;
    }

    let mut bob = Client::connect(&world.gateways[back_at], &users[1].token).await;
    let result = bob.recover(&channel, &place).await;
    assert_eq!((&result["recovered"], &result["offset"]), (&json!(true), &json!(place.offset)), "{result}");
    let contents: Vec<&str> = result["publications"]
        .as_array()
        .unwrap()
        .iter()
        .map(|publication| publication["data"]["record"]["content"].as_str().unwrap())
        .collect();
    assert_eq!(contents, missed);
    world.pocketbase.write(&room, &users[0], "and on").await;
    assert_eq!(bob.message().await, "and on");
}

#[tokio::test]
async fn a_client_away_for_ten_seconds_recovers_exactly_the_missed_messages() {
    away_for_ten_seconds(&World::single().await, 0).await;
}

#[tokio::test]
async fn a_client_away_for_ten_seconds_recovers_on_the_other_gateway() {
    away_for_ten_seconds(&World::start(2, true, &[]).await, 1).await;
}

/// SDKs store the reply's position and hand out its publications afterwards. A client interrupted in between recovers
/// from the stored position.
#[tokio::test]
async fn an_interrupted_recovery_is_repeated_by_the_next_one() {
    let world = World::single().await;
    let (room, users) = world.room(&["alice", "bob", "eve"]).await;
    let channel = format!("room:{room}");
    let mut watcher = world.subscriber(0, &users[0], &room).await;
    let mut bob = Client::connect(world.gateway(), &users[1].token).await;
    world.pocketbase.write(&room, &users[0], "seen").await;
    assert_eq!(watcher.message().await, "seen");
    let mut place = bob.subscribe(&channel).await;
    bob.cut();
    // More than the hub's cache holds (32), so that the broker's history is read as well.
    for count in [3, 40] {
        for i in 0..count {
            world.pocketbase.write(&room, &users[0], &i.to_string()).await;
            watcher.message().await;
        }
        let mut missed = Vec::new();
        for epoch in [place.epoch.clone(), place.epoch.clone(), String::new()] {
            let mut bob = Client::connect(world.gateway(), &users[1].token).await;
            let result = bob.recover(&channel, &Place { epoch, ..place }).await;
            assert_eq!(result["recovered"], true, "{result}");
            assert_eq!((&result["offset"], &result["epoch"]), (&json!(place.offset), &json!(place.epoch)), "{result}");
            place = Place::of(&result);
            missed.push(result["publications"].as_array().unwrap().clone());
            bob.cut();
        }
        assert!(missed.iter().all(|again| *again == missed[0] && again.len() == count), "{missed:?}");
        place.offset += count as u64;
    }
}

#[tokio::test]
async fn a_position_without_an_epoch_is_valid_in_any_epoch() {
    let world = World::start(1, false, &[("GATEWAY_HISTORY_SIZE", "5")]).await;
    let (room, users) = world.room(&["alice", "bob", "eve"]).await;
    let channel = format!("room:{room}");
    let mut watcher = world.subscriber(0, &users[0], &room).await;
    for i in 0..40 {
        world.pocketbase.write(&room, &users[0], &i.to_string()).await;
        assert_eq!(watcher.message().await, i.to_string());
    }
    let mut bob = Client::connect(world.gateway(), &users[1].token).await;
    let top = bob.subscribe(&channel).await.offset;
    let mut history = async |since: u64, reverse: bool| {
        let request = json!({"channel": channel, "limit": -1, "since": {"offset": since}, "reverse": reverse});
        bob.call("history", request).await["history"]["publications"].as_array().map(Vec::len)
    };
    assert_eq!(history(top, true).await, Some(4), "before the newest");
    assert_eq!(history(top + 1, true).await, Some(0), "nothing lies before what was never there");
    assert_eq!(history(u64::MAX, true).await, Some(0));
    assert_eq!(history(top - 2, false).await, Some(2));
    bob.call("unsubscribe", json!({"channel": channel})).await;
    // The hub's cache holds no more publications than the history.
    for (offset, recovered) in [(top - 5, true), (top, true), (top - 6, false), (top + 1, false)] {
        let result = bob.recover(&channel, &Place { offset, epoch: String::new() }).await;
        assert_eq!(result["recovered"], json!(recovered), "from {offset} of {top}: {result}");
        bob.call("unsubscribe", json!({"channel": channel})).await;
    }
}

#[tokio::test]
async fn a_recovery_beyond_the_history_says_so() {
    let world = World::start(1, false, &[("GATEWAY_HISTORY_SIZE", "5")]).await;
    let (room, users) = world.room(&["alice", "bob", "eve"]).await;
    let channel = format!("room:{room}");
    let mut bob = Client::connect(world.gateway(), &users[1].token).await;
    let place = bob.subscribe(&channel).await;
    bob.cut();
    for i in 0..40 {
        world.pocketbase.write(&room, &users[0], &i.to_string()).await;
    }
    let mut bob = Client::connect(world.gateway(), &users[1].token).await;
    until("the last message to be published", async || {
        let history = bob.recover(&channel, &place).await;
        bob.call("unsubscribe", json!({"channel": channel})).await;
        (history["offset"].as_u64() >= Some(place.offset + 40)).then_some(history)
    })
    .await;
    let result = bob.recover(&channel, &place).await;
    assert_eq!((&result["recovered"], &result["was_recovering"]), (&json!(false), &json!(true)), "{result}");
    assert!(result["publications"].is_null());
    bob.call("unsubscribe", json!({"channel": channel})).await;
    let request = json!({"channel": channel, "recover": true, "offset": place.offset, "epoch": place.epoch, "flag": 2});
    let refused = bob.call("subscribe", request).await;
    assert_eq!(refused["error"]["code"], 112, "{refused}");
}

#[tokio::test]
async fn members_may_publish_only_allowed_signals() {
    let world = World::single().await;
    let (room, users) = world.room(&["alice", "bob", "eve"]).await;
    let channel = format!("room:{room}");
    let mut alice = world.subscriber(0, &users[0], &room).await;
    let mut bob = world.subscriber(0, &users[1], &room).await;
    let reply = alice.call("publish", json!({"channel": channel, "data": {"type": "typing"}})).await;
    assert_eq!(reply["publish"], json!({}));
    let signal = bob.signal().await;
    assert_eq!(signal["data"], json!({"type": "typing"}));
    assert_eq!(signal["info"]["user"], users[0].id.as_str());
    assert!(signal["offset"].is_null(), "signals are not in the history");
    for (data, code) in [
        (json!({"type": "message", "content": "past PocketBase"}), 103),
        (json!("typing"), 107),
        (json!({"type": "typing", "padding": "x".repeat(5000)}), 106),
    ] {
        let refused = alice.call("publish", json!({"channel": channel, "data": data})).await;
        assert_eq!(refused["error"]["code"], code, "{data}");
    }
}

#[tokio::test]
async fn a_batch_arrives_whole_and_a_rolled_back_batch_does_not_arrive() {
    let world = World::single().await;
    let (room, users) = world.room(&["alice", "bob", "eve"]).await;
    let mut bob = world.subscriber(0, &users[1], &room).await;
    let request = |content: &str, room: &str| {
        let body = crate::harness::message(room, &users[0], content);
        json!({"method": "POST", "url": "/api/collections/messages/records", "body": body})
    };
    let rolled_back = json!({"requests": [request("never", &room), request("fails", "no-such-room")]});
    let failed = world.pocketbase.call("POST", "batch", &users[0].token, &rolled_back).await.unwrap();
    assert_eq!(failed.status, 400, "{}", failed.text);
    let contents: Vec<String> = (0..40).map(|i| format!("batched {i}")).collect();
    let batch: Vec<_> = contents.iter().map(|content| request(content, &room)).collect();
    world.pocketbase.done("POST", "batch", &users[0].token, &json!({"requests": batch})).await;
    for content in &contents {
        assert_eq!(&bob.message().await, content);
    }
}

#[tokio::test]
async fn messages_written_while_the_gateway_is_down_arrive_after_its_restart() {
    let mut world = World::start(1, true, &[]).await;
    let (room, users) = world.room(&["alice", "bob", "eve"]).await;
    let channel = format!("room:{room}");
    let mut bob = Client::connect(world.gateway(), &users[1].token).await;
    let place = bob.subscribe(&channel).await;
    world.gateways[0].process.kill();
    let contents: Vec<String> = (0..20).map(|i| format!("unheard {i}")).collect();
    for content in &contents {
        world.pocketbase.write(&room, &users[0], content).await;
    }
    world.gateways[0].restart().await;
    let mut bob = Client::connect(world.gateway(), &users[1].token).await;
    let result = bob.recover(&channel, &place).await;
    assert_eq!(result["recovered"], true, "{result}");
    let mut arrived: Vec<String> = result["publications"]
        .as_array()
        .into_iter()
        .flatten()
        // Bob's membership may have been published after Bob's subscribe.
        .filter(|publication| publication["data"]["collection"] == "messages")
        .map(|publication| publication["data"]["record"]["content"].as_str().unwrap().to_owned())
        .collect();
    while arrived.len() < contents.len() {
        arrived.push(bob.message().await);
    }
    assert_eq!(arrived, contents);
}

#[tokio::test]
async fn a_stopping_gateway_closes_connections_with_3001() {
    let mut world = World::single().await;
    let (room, users) = world.room(&["alice", "bob", "eve"]).await;
    let mut bob = world.subscriber(0, &users[1], &room).await;
    world.gateways[0].process.signal("TERM");
    assert_eq!(bob.closed().await, (3001, "shutdown".to_owned()));
    drop(bob);
    let process = &mut world.gateways[0].process;
    until("the gateway's end", async || process.has_ended().then_some(())).await;
}
