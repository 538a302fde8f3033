//! The first frame of a client: `connect` and every subscribe in one frame, as SDKs send it at the start of a page and
//! after the restart of a gateway. Also: access granted right after a refusal.

use crate::harness::World;
use crate::harness::client::{Client, Place};
use crate::harness::pocketbase::User;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// The default of `max_subscriptions`.
const ROOMS: usize = 256;
/// More than ten times the usual duration. One call to PocketBase per room, 50 ms apart, took more than 13 s.
const AT_MOST: Duration = Duration::from_secs(6);

const ASKED: &str = "gateway_access_checks_total{outcome=\"asked\"}";
const CALLS: &str = "gateway_pocketbase_seconds_count{route=\"authorize\"}";

/// An SDK's first frame: `connect` with id 1, then the subscribes with ids from 2.
fn first_frame(token: &str, subscribes: &[Value]) -> String {
    let connect = json!({"id": 1, "connect": {"token": token}}).to_string();
    let subscribes = (2..).zip(subscribes).map(|(id, subscribe)| json!({"id": id, "subscribe": subscribe}).to_string());
    std::iter::once(connect).chain(subscribes).collect::<Vec<_>>().join("\n")
}

/// The next replies, in the order of the commands. Pushes between replies are dropped.
async fn replies(client: &mut Client, ids: std::ops::Range<u64>) -> Vec<Value> {
    let mut replies = Vec::new();
    for id in ids {
        let reply = loop {
            let frame = client.push().await;
            if frame["id"].is_u64() {
                break frame;
            }
        };
        assert_eq!(reply["id"], id, "{reply}");
        replies.push(reply);
    }
    replies
}

async fn rooms(world: &World, owner: &User, count: usize) -> Vec<String> {
    let mut rooms = Vec::new();
    for _ in 0..count {
        rooms.push(world.pocketbase.room(owner).await);
    }
    rooms
}

async fn all_rooms_at_once(with_redis: bool) {
    let world = World::start(1, with_redis, &[]).await;
    let alice = world.pocketbase.user("alice").await;
    let rooms = rooms(&world, &alice, ROOMS).await;
    let subscribes: Vec<Value> = rooms.iter().map(|room| json!({"channel": format!("room:{room}")})).collect();
    let before = world.gateway().metric(CALLS).await;

    let mut client = Client::open(&world.gateway().websocket()).await;
    let begin = Instant::now();
    client.send(&first_frame(&alice.token, &subscribes)).await;
    let replies = replies(&mut client, 1..ROOMS as u64 + 2).await;
    let took = begin.elapsed();
    let calls = world.gateway().metric(CALLS).await - before;
    println!("{ROOMS} rooms in one frame, Redis {with_redis}: {took:?}, {calls} calls to PocketBase");
    assert!(replies[0]["connect"].is_object(), "{}", replies[0]);
    replies[1..].iter().for_each(|reply| assert!(reply["subscribe"].is_object(), "{reply}"));
    assert!(calls <= 2.0, "{calls} calls to PocketBase");
    assert!(took < AT_MOST, "{took:?}");

    // Real subscriptions, with presence.
    let stats = client.call("presence_stats", json!({"channel": format!("room:{}", rooms[ROOMS - 1])})).await;
    assert_eq!(stats["presence_stats"]["num_clients"], 1, "{stats}");
    world.pocketbase.write(&rooms[0], &alice, "hello").await;
    assert_eq!(client.message().await, "hello");
}

#[tokio::test]
async fn all_rooms_in_the_first_frame_cost_one_call() {
    all_rooms_at_once(false).await;
}

#[tokio::test]
async fn all_rooms_in_the_first_frame_cost_one_call_with_redis() {
    all_rooms_at_once(true).await;
}

/// The rooms' missed publications together are several times larger than `max_queue_size`.
#[tokio::test]
async fn recoveries_in_one_frame_may_exceed_the_queue() {
    const MISSED: usize = 6;
    for with_redis in [false, true] {
        let world = World::start(1, with_redis, &[("GATEWAY_MAX_QUEUE_SIZE", "262144")]).await;
        let alice = world.pocketbase.user("alice").await;
        let rooms = rooms(&world, &alice, 24).await;
        let mut client = Client::connect(world.gateway(), &alice.token).await;
        let mut places: Vec<Place> = Vec::new();
        for room in &rooms {
            places.push(client.subscribe(&format!("room:{room}")).await);
        }
        client.cut();
        let long = "x".repeat(15_000);
        for room in &rooms {
            for _ in 0..MISSED {
                world.pocketbase.write(room, &alice, &long).await;
            }
        }
        let last = rooms.len() - 1;
        published(&world, &alice, &rooms[last], places[last].offset + MISSED as u64).await;

        let subscribes: Vec<Value> = rooms.iter().zip(&places).map(|(room, place)| recover(room, place)).collect();
        let mut client = Client::open_narrow(world.gateway()).await;
        client.send(&first_frame(&alice.token, &subscribes)).await;
        recovers(&mut client, rooms.len(), rooms.len() * MISSED).await;
    }
}

/// The replies to the commands of a frame leave together. Two recoveries, each below the limit for one, may exceed the
/// queue: the second waits for the first, and does not end the connection.
#[tokio::test]
async fn two_recoveries_in_one_frame_may_exceed_the_queue() {
    const QUEUE: usize = 262_144;
    for with_redis in [false, true] {
        let settings = [("GATEWAY_MAX_QUEUE_SIZE", &*QUEUE.to_string()), ("GATEWAY_MAX_READS_PER_SECOND", "0")];
        let world = World::start(1, with_redis, &settings).await;
        let alice = world.pocketbase.user("alice").await;
        let rooms = rooms(&world, &alice, 2).await;
        let mut client = Client::connect(world.gateway(), &alice.token).await;
        let mut places = Vec::new();
        for room in &rooms {
            places.push(client.subscribe(&format!("room:{room}")).await);
        }
        let write = async |room: usize| world.pocketbase.write(&rooms[room], &alice, &"x".repeat(700)).await;
        write(0).await;
        let size = client.message_publication().await["data"].to_string().len();
        // The most that a recovery may bring: half of the queue.
        let most = (QUEUE / 2 / size) as u64;
        for _ in 0..most {
            write(0).await;
            write(1).await;
        }
        client.cut();
        published(&world, &alice, &rooms[1], places[1].offset + most).await;
        // Near half of the queue for the first recovery, and less.
        for missed in (most / 2..=most).step_by(2) {
            let start = Place { offset: places[0].offset + 1 + most - missed, ..places[0].clone() };
            let subscribes = [recover(&rooms[0], &start), recover(&rooms[1], &places[1])];
            let mut client = Client::open(&world.gateway().websocket()).await;
            client.send(&first_frame(&alice.token, &subscribes)).await;
            recovers(&mut client, 2, (missed + most) as usize).await;
        }
    }
}

fn recover(room: &str, Place { offset, epoch }: &Place) -> Value {
    json!({"channel": format!("room:{room}"), "recover": true, "offset": offset, "epoch": epoch})
}

/// Waits until the room's publications up to `offset` are published. The relay publishes in order: all earlier
/// publications are published as well.
async fn published(world: &World, member: &User, room: &str, offset: u64) {
    let channel = format!("room:{room}");
    let mut witness = Client::connect(world.gateway(), &member.token).await;
    witness.subscribe(&channel).await;
    crate::harness::until("the last message to be published", async || {
        (witness.history_position(&channel).await.offset >= offset).then_some(())
    })
    .await;
}

/// Reads until `channels` recoveries have brought `missed` publications. Publications beyond a reply's share follow as
/// pushes.
async fn recovers(client: &mut Client, channels: usize, missed: usize) {
    let (mut recovered, mut count) = (0, 0);
    while recovered < channels || count < missed {
        let frame = client.push().await;
        assert!(frame["error"].is_null(), "{frame}");
        if frame["subscribe"].is_object() {
            assert_eq!(frame["subscribe"]["recovered"], true);
            recovered += 1;
            count += frame["subscribe"]["publications"].as_array().map_or(0, Vec::len);
        }
        count += usize::from(frame["push"]["pub"].is_object());
    }
    assert_eq!((recovered, count), (channels, missed));
}

/// Commands of one frame take effect in order, although the subscribes are prepared first.
#[tokio::test]
async fn commands_of_a_frame_take_effect_in_order() {
    let world = World::start(1, false, &[("GATEWAY_MAX_SUBSCRIPTIONS", "3")]).await;
    let (room, users) = world.room(&["alice", "bob", "eve"]).await;
    let own = rooms(&world, &users[1], 3).await;
    let [a, b, c, d] = [&room, &own[0], &own[1], &own[2]].map(|room| format!("room:{room}"));
    let stats = json!({"channel": a});
    let commands = [
        json!({"connect": {"token": users[1].token}}),
        json!({"subscribe": {"channel": a}}),
        json!({"subscribe": {"channel": b}}),
        json!({"unsubscribe": {"channel": a}}),
        json!({"subscribe": {"channel": "room:nowhere"}}),
        json!({"subscribe": {"channel": a}}),
        json!({"subscribe": {"channel": a}}),
        json!({"subscribe": {"channel": c}}),
        json!({"subscribe": {"channel": d}}),
        json!({"unsubscribe": {"channel": c}}),
        json!({"presence_stats": stats}),
    ];
    let frame: Vec<String> = (1..)
        .zip(commands)
        .map(|(id, mut command)| {
            command["id"] = json!(id);
            command.to_string()
        })
        .collect();
    let mut bob = Client::open(&world.gateway().websocket()).await;
    bob.send(&frame.join("\n")).await;
    let replies = replies(&mut bob, 1..12).await;
    let outcome = |reply: &Value| reply["error"]["code"].as_u64();
    let outcomes: Vec<Option<u64>> = replies.iter().map(outcome).collect();
    let refused = [(4, 103), (6, 105), (8, 106)];
    for (i, outcome) in outcomes.iter().enumerate() {
        let expected = refused.iter().find(|(at, _)| *at == i).map(|(_, code)| *code);
        assert_eq!(*outcome, expected, "command {}: {}", i + 1, replies[i]);
    }
    assert_eq!(replies[10]["presence_stats"]["num_clients"], 1);
    // A prepared subscribe refused by `max_subscriptions` leaves no presence behind.
    let more =
        [(12, &c), (13, &d)].map(|(id, channel)| json!({"id": id, "subscribe": {"channel": channel}}).to_string());
    bob.send(&more.join("\n")).await;
    let replies = self::replies(&mut bob, 12..14).await;
    assert_eq!([&replies[0], &replies[1]].map(outcome), [None, Some(106)]);
    let mut owner = Client::connect(world.gateway(), &users[1].token).await;
    owner.subscribe(&d).await;
    crate::harness::until("nobody else to be present", async || {
        let stats = owner.call("presence_stats", json!({"channel": d})).await;
        (stats["presence_stats"]["num_clients"] == 1).then_some(())
    })
    .await;
}

/// Refused, made a member, and subscribing again at once; with two gateways, on the gateway without the hooks' posts.
async fn granted_right_after_a_refusal(gateways: usize, with_redis: bool) {
    let unlimited = [("GATEWAY_MAX_COMMANDS_PER_SECOND", "0")];
    let world = World::start(gateways, with_redis, &unlimited).await;
    let [alice, bob] = [world.pocketbase.user("alice").await, world.pocketbase.user("bob").await];
    let mut client = Client::connect(&world.gateways[gateways - 1], &bob.token).await;
    let mut refused = 0;
    for room in rooms(&world, &alice, 60).await {
        let channel = json!({"channel": format!("room:{room}")});
        let before = client.call("subscribe", channel.clone()).await;
        assert_eq!(before["error"]["code"], 103, "{before}");
        world.pocketbase.join(&room, &bob).await;
        let after = client.call("subscribe", channel).await;
        refused += usize::from(!after["subscribe"].is_object());
    }
    assert_eq!(refused, 0, "of 60 who had been let in");
}

#[tokio::test]
async fn access_granted_right_after_a_refusal_takes_effect() {
    granted_right_after_a_refusal(1, false).await;
}

#[tokio::test]
async fn access_granted_right_after_a_refusal_takes_effect_with_redis() {
    granted_right_after_a_refusal(2, true).await;
}

/// A refused client in a loop costs PocketBase one question per second, and a few more at the start.
#[tokio::test]
async fn a_refused_client_in_a_loop_is_answered_from_the_cache() {
    let world = World::start(1, false, &[("GATEWAY_MAX_COMMANDS_PER_SECOND", "0")]).await;
    let (room, users) = world.room(&["alice", "bob", "eve"]).await;
    let mut eve = Client::connect(world.gateway(), &users[2].token).await;
    let before = world.gateway().metric(ASKED).await;
    let (begin, mut commands) = (Instant::now(), 0);
    while begin.elapsed() < Duration::from_secs(3) {
        let refused = eve.call("subscribe", json!({"channel": format!("room:{room}")})).await;
        assert_eq!(refused["error"]["code"], 103, "{refused}");
        commands += 1;
    }
    let (asked, seconds) = (world.gateway().metric(ASKED).await - before, begin.elapsed().as_secs_f64());
    println!("{commands} refused subscribes in {seconds:.1} s: {asked} questions to PocketBase");
    assert!(asked <= seconds + 5.0, "{asked} questions in {seconds} s");
    assert!(commands > 50, "{commands} commands");
}
