//! Access that ends, is taken back, or belonged to another user: no client sees data without access.

use super::arena::Arena;
use crate::harness::client::{Client, Place};
use crate::harness::{message, until};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// Longest time until the end of access takes effect.
const AT_MOST: Duration = Duration::from_secs(1);

pub async fn run(arena: &mut Arena) {
    arena.begin("membership");
    in_the_instant_of_the_removal(arena).await;
    everywhere_after_the_removal(arena).await;
    without_reading(arena).await;
    while_messages_fly(arena).await;
    in_one_transaction(arena).await;
    while_suspended(arena).await;
    back_at_once(arena).await;
    in_another_room_s_name(arena).await;
    as_a_ghost(arena).await;
}

async fn remove(arena: &Arena, membership: &str) {
    arena.as_superuser("DELETE", &format!("collections/room_members/records/{membership}"), &Value::Null).await;
}

/// The room's messages that a client has received so far.
async fn contents(client: &mut Client) -> Vec<String> {
    let mut contents = Vec::new();
    while let Ok(Ok(text)) = timeout(Duration::from_millis(150), client.text()).await {
        let frame: Value = serde_json::from_str(&text).expect("a frame is JSON");
        let reply = frame["subscribe"]["publications"].as_array().cloned().unwrap_or_default();
        for publication in reply.iter().chain([&frame["push"]["pub"]]) {
            contents.extend(publication["data"]["record"]["content"].as_str().map(str::to_owned));
        }
    }
    contents
}

async fn in_the_instant_of_the_removal(arena: &mut Arena) {
    let (user, room, membership) = arena.member().await;
    let channel = format!("room:{room}");
    let mut asking = Vec::new();
    for number in 0..4 {
        let mut client = Client::connect(&arena.world.gateways[number % 2], &user.token).await;
        let channel = channel.clone();
        asking.push(tokio::spawn(async move {
            let end = Instant::now() + Duration::from_millis(400);
            while Instant::now() < end {
                client.call("subscribe", json!({"channel": channel})).await;
                client.call("unsubscribe", json!({"channel": channel})).await;
            }
            client.call("subscribe", json!({"channel": channel})).await;
            client
        }));
    }
    sleep(Duration::from_millis(100)).await;
    remove(arena, &membership).await;
    arena.world.pocketbase.write(&room, &arena.alice, "secret").await;
    for task in asking {
        let mut client = task.await.expect("it does not panic");
        arena.world.pocketbase.write(&room, &arena.alice, "secret").await;
        client.call("ping", json!({})).await;
        let mut told = Vec::new();
        while let Some(push) = client.waiting() {
            told.extend(push["push"]["pub"]["data"]["record"]["content"].as_str().map(str::to_owned));
        }
        assert_eq!(told, Vec::<String>::new());
        let seen = arena.command(&mut client, "subscribe", &json!({"channel": channel})).await;
        arena.score("subscribe in a loop while being removed", "error 103", &seen).await;
    }
}

/// Three connections of a removed user on two gateways, and attempts afterwards on either gateway.
async fn everywhere_after_the_removal(arena: &mut Arena) {
    let (user, room, membership) = arena.member().await;
    let channel = format!("room:{room}");
    let mut clients = Vec::new();
    for gateway in [0, 0, 1] {
        clients.push(arena.world.subscriber(gateway, &user, &room).await);
    }
    let Place { offset, epoch } = clients[0].history_position(&channel).await;
    remove(arena, &membership).await;
    for (name, client) in ["one", "the other", "one on the other gateway"].iter().zip(&mut clients) {
        let seen = arena.unsubscribed_within_a_second(client).await;
        arena.score(&format!("{name} of several connections of who is removed"), "2100", &seen).await;
    }
    let place = json!({"channel": channel, "recover": true, "offset": offset, "epoch": epoch});
    for (name, client) in ["same", "same", "other"].iter().zip(&mut clients).skip(1) {
        for (what, command, request) in [
            ("recovery", "subscribe", place.clone()),
            ("history", "history", json!({"channel": channel, "limit": -1})),
            ("presence", "presence", json!({"channel": channel})),
            ("a signal", "publish", json!({"channel": channel, "data": {"type": "typing"}})),
        ] {
            let seen = arena.command(client, command, &request).await;
            arena.score(&format!("{what} after the removal, on the {name} gateway"), "error 103", &seen).await;
        }
    }
}

/// A client that does not read has a queue. Once the removal has taken effect, nothing more of the queue is written,
/// and only bytes already in the socket still arrive.
async fn without_reading(arena: &mut Arena) {
    let (user, room, membership) = arena.member().await;
    let channel = format!("room:{room}");
    let mut client = Client::open_narrow(arena.gateway()).await;
    client.log_in(&user.token).await;
    client.subscribe(&channel).await;
    // Far more than the kernel's buffers hold, and less than the limit for slow clients.
    let big = "x".repeat(60_000);
    for i in 0..14 {
        arena
            .world
            .pocketbase
            .create("messages", &arena.alice, &message(&room, &arena.alice, &format!("{i} {big}")))
            .await;
    }
    remove(arena, &membership).await;
    arena.world.pocketbase.write(&room, &arena.alice, "secret").await;
    arena.until_refused(0, &user, &channel).await;
    sleep(AT_MOST).await;
    let (mut bytes, mut code, mut secret) = (0, Value::Null, false);
    while let Ok(Ok(text)) = timeout(AT_MOST, client.text()).await {
        let frame: Value = serde_json::from_str(&text).expect("a frame is JSON");
        secret |= text.contains("secret");
        if frame["push"]["unsubscribe"].is_object() {
            code = frame["push"]["unsubscribe"]["code"].clone();
            break;
        }
        bytes += text.len();
    }
    // 128 KiB unsent in the kernel, the buffers of the two ends, one batch of 64 KiB, one frame.
    let limit = 512 * 1024;
    let seen = if bytes <= limit && !secret { code.to_string() } else { format!("{bytes} bytes, {secret}") };
    println!("who did not read got {bytes} bytes of {} after the removal", 14 * 60_000);
    arena.score("removed while not reading: what is queued", "2100", &seen).await;
}

async fn while_messages_fly(arena: &mut Arena) {
    let user = arena.somebody().await;
    let room = json!({"name": "Open", "type": "public", "owner": arena.alice.id});
    let room = arena.world.pocketbase.create("rooms", &arena.alice, &room).await["id"].as_str().expect("id").to_owned();
    let mut client = arena.world.subscriber(1, &user, &room).await;
    for i in 0..10 {
        arena.world.pocketbase.write(&room, &arena.alice, &format!("before {i}")).await;
    }
    arena.as_superuser("PATCH", &format!("collections/rooms/records/{room}"), &json!({"type": "private"})).await;
    for i in 0..10 {
        arena.world.pocketbase.write(&room, &arena.alice, &format!("after {i}")).await;
    }
    let (mut after, mut code) = (0, Value::Null);
    while let Ok(Ok(text)) = timeout(AT_MOST, client.text()).await {
        let frame: Value = serde_json::from_str(&text).expect("a frame is JSON");
        after += usize::from(text.contains("after "));
        if frame["push"]["unsubscribe"].is_object() {
            code = frame["push"]["unsubscribe"]["code"].clone();
        }
    }
    let seen = if after == 0 { code.to_string() } else { format!("{after} messages") };
    arena.score("a public room made private while messages fly", "2101", &seen).await;
}

async fn in_one_transaction(arena: &mut Arena) {
    let (user, room, membership) = arena.member().await;
    let mut client = arena.world.subscriber(1, &user, &room).await;
    let body = |content: &str| message(&room, &arena.alice, content);
    let requests = json!({"requests": [
        {"method": "POST", "url": "/api/collections/messages/records", "body": body("before")},
        {"method": "DELETE", "url": format!("/api/collections/room_members/records/{membership}")},
        {"method": "POST", "url": "/api/collections/messages/records", "body": body("after")},
    ]});
    arena.world.pocketbase.done("POST", "batch", &arena.alice.token, &requests).await;
    let (mut got, mut code) = (Vec::new(), Value::Null);
    while let Ok(Ok(text)) = timeout(AT_MOST, client.text()).await {
        let frame: Value = serde_json::from_str(&text).expect("a frame is JSON");
        got.extend(frame["push"]["pub"]["data"]["record"]["content"].as_str().map(str::to_owned));
        if frame["push"]["unsubscribe"].is_object() {
            code = frame["push"]["unsubscribe"]["code"].clone();
        }
    }
    let seen = if got.iter().any(|content| content == "after") { format!("{got:?}") } else { code.to_string() };
    arena.score("a removal and a message behind it in one transaction", "2100", &seen).await;
}

/// The first change suspends the subscription, and the second one comes before PocketBase has been asked.
async fn while_suspended(arena: &mut Arena) {
    let (user, room, membership) = arena.member().await;
    let mut client = arena.world.subscriber(1, &user, &room).await;
    let body = message(&room, &arena.alice, "after");
    let requests = json!({"requests": [
        {"method": "PATCH", "url": format!("/api/collections/rooms/records/{room}"), "body": {"type": "direct"}},
        {"method": "DELETE", "url": format!("/api/collections/room_members/records/{membership}")},
        {"method": "POST", "url": "/api/collections/messages/records", "body": body},
    ]});
    arena.as_superuser("POST", "batch", &requests).await;
    let (mut after, mut code) = (false, Value::Null);
    while let Ok(Ok(text)) = timeout(AT_MOST, client.text()).await {
        let frame: Value = serde_json::from_str(&text).expect("a frame is JSON");
        after |= text.contains("after");
        if frame["push"]["unsubscribe"].is_object() {
            code = frame["push"]["unsubscribe"]["code"].clone();
        }
    }
    let seen = if after { "a message behind it".to_owned() } else { code.to_string() };
    arena.score("removed while suspended for the room's change", "2101", &seen).await;
}

/// A new membership right after the removal: the user is in again, and gets every message from before and after, once
/// and in order.
async fn back_at_once(arena: &mut Arena) {
    let (user, room, membership) = arena.member().await;
    let channel = format!("room:{room}");
    let mut client = arena.world.subscriber(1, &user, &room).await;
    let place = client.history_position(&channel).await;
    arena.world.pocketbase.write(&room, &arena.alice, "1").await;
    remove(arena, &membership).await;
    arena.world.pocketbase.write(&room, &arena.alice, "2").await;
    arena.world.pocketbase.join(&room, &user).await;
    arena.world.pocketbase.write(&room, &arena.alice, "3").await;
    let mut again = Client::connect(&arena.world.gateways[0], &user.token).await;
    let result = until("access again", async || {
        let reply = again.recover(&channel, &place).await;
        reply.is_object().then_some(reply)
    })
    .await;
    let publications = result["publications"].as_array().cloned().unwrap_or_default();
    let mut got: Vec<String> = publications
        .iter()
        .filter(|publication| publication["data"]["collection"] == "messages")
        .filter_map(|publication| publication["data"]["record"]["content"].as_str().map(str::to_owned))
        .collect();
    if got.last().is_none_or(|last| last != "3") {
        got.extend(contents(&mut again).await);
    }
    let seen = if got == ["1", "2", "3"] { "in again, nothing missed".to_owned() } else { format!("{got:?}") };
    arena.score("removed and brought back at once", "in again, nothing missed", &seen).await;
}

/// PocketBase lets a record's creator choose the id. A former member who knows a deleted room's id makes a new room
/// with that id. The new room's owner must not see the old room's messages.
async fn in_another_room_s_name(arena: &mut Arena) {
    let (user, room, membership) = arena.member().await;
    let channel = format!("room:{room}");
    let mut client = arena.world.subscriber(0, &user, &room).await;
    let Place { offset, epoch } = client.history_position(&channel).await;
    remove(arena, &membership).await;
    arena.until_refused(0, &user, &channel).await;
    for i in 0..5 {
        arena.world.pocketbase.write(&room, &arena.alice, &format!("secret {i}")).await;
    }
    let mut reader = arena.world.subscriber(1, &arena.alice, &room).await;
    arena.as_superuser("DELETE", &format!("collections/rooms/records/{room}"), &Value::Null).await;
    assert_eq!(reader.unsubscribed().await["code"], 2102);
    let mine = json!({"id": room, "name": "Mine", "type": "private", "owner": user.id});
    arena.world.pocketbase.create("rooms", &user, &mine).await;
    for (number, (name, request)) in [
        ("recovered", json!({"channel": channel, "recover": true, "offset": offset, "epoch": epoch})),
        ("subscribed to", json!({"channel": channel})),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = Client::connect(&arena.world.gateways[number], &user.token).await;
        let subscribed = until("access to the own room", async || {
            let reply = client.call("subscribe", request.clone()).await;
            reply["subscribe"].is_object().then_some(reply)
        })
        .await;
        let history = client.call("history", json!({"channel": channel, "limit": -1})).await;
        let leaks = format!("{subscribed} {history}").contains("secret");
        let seen = if leaks { "the old room's messages" } else { "nothing of the old room" };
        arena.score(&format!("a deleted room's id, taken anew and {name}"), "nothing of the old room", seen).await;
    }
}

/// A client whose connection is reset during its subscribes is present nowhere afterwards.
async fn as_a_ghost(arena: &mut Arena) {
    let (user, room, _) = arena.member().await;
    let mut rooms = vec![room.clone()];
    for _ in 0..5 {
        let room = arena.world.pocketbase.room(&arena.alice).await;
        arena.world.pocketbase.join(&room, &user).await;
        rooms.push(room);
    }
    let subscribes = |first: u32| {
        let each = rooms.iter().zip(first..);
        each.map(|(room, id)| json!({"id": id, "subscribe": {"channel": format!("room:{room}")}}).to_string() + "\n")
    };
    for _ in 0..30 {
        let mut client = Client::connect(arena.gateway(), &user.token).await;
        client.send(&subscribes(100).collect::<String>()).await;
        // By then, some replies are on their way, with the other subscribes behind.
        client.reply(100).await;
        client.reset();
    }
    // Longer than the lease of a dead gateway's presence.
    sleep(Duration::from_secs(4)).await;
    let mut ghosts = 0;
    for room in &rooms {
        let mut alice = arena.world.subscriber(0, &arena.alice, room).await;
        let reply = alice.call("presence_stats", json!({"channel": format!("room:{room}")})).await;
        ghosts += reply["presence_stats"]["num_clients"].as_u64().expect("a number") - 1;
    }
    let seen = if ghosts == 0 { "not present".to_owned() } else { format!("{ghosts} ghosts") };
    arena.score("cut off in the midst of subscribing, 30 times", "not present", &seen).await;
}
