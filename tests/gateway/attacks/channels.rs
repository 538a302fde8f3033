//! Other users' channels, and invalid or foreign recovery positions.

use super::arena::{Arena, outcome};
use crate::harness::client::Client;
use serde_json::{Value, json};

pub async fn run(arena: &mut Arena) {
    arena.begin("channels");
    names(arena).await;
    without_a_subscription(arena).await;
    positions(arena).await;
}

async fn names(arena: &mut Arena) {
    let (_, other, _) = arena.member().await;
    let direct = json!({"name": "Direct", "type": "direct", "owner": arena.alice.id});
    let direct = arena.world.pocketbase.create("rooms", &arena.alice, &direct).await;
    let message = arena.world.pocketbase.write(&arena.room, &arena.alice, "a message").await;
    let id = |record: &Value| record["id"].as_str().expect("an id").to_owned();
    // Alice's message is not part of the attack.
    arena.expect_message("a message").await;
    let (room, alice) = (arena.room.clone(), arena.alice.id.clone());
    let mut client = Client::connect(arena.gateway(), &arena.eve.token).await;
    for (name, channel, expected) in [
        ("a private room", format!("room:{room}"), "error 103"),
        ("another private room", format!("room:{other}"), "error 103"),
        ("a direct room", format!("room:{}", id(&direct)), "error 103"),
        ("a room that does not exist", "room:doesnotexist".to_owned(), "error 103"),
        ("id of another collection", format!("room:{}", id(&message)), "error 103"),
        ("id of a user", format!("room:{alice}"), "error 103"),
        ("another user's channel", format!("user:{alice}"), "error 103"),
        ("another user's channel, as an internal one", format!("$user:{alice}"), "error 102"),
        ("the gateways' own channel", "$access".to_owned(), "error 102"),
        ("the gateways' own channel, as a room", "room:$access".to_owned(), "error 103"),
        ("$ alone", "$".to_owned(), "error 102"),
        ("empty", String::new(), "error 107"),
        ("no id", "room:".to_owned(), "error 103"),
        ("no colon", "room".to_owned(), "error 102"),
        ("colon alone", ":".to_owned(), "error 102"),
        ("no namespace", format!(":{room}"), "error 102"),
        ("two colons", format!("room::{room}"), "error 103"),
        ("a colon behind", format!("room:{room}:"), "error 103"),
        ("namespace twice", format!("room:room:{room}"), "error 103"),
        ("the collection's name", format!("rooms:{room}"), "error 102"),
        ("ROOM", format!("ROOM:{room}"), "error 102"),
        ("id in capitals", format!("room:{}", room.to_uppercase()), "error 103"),
        ("Cyrillic о in room", format!("r\u{43e}om:{room}"), "error 102"),
        ("full-width colon", format!("room\u{ff1a}{room}"), "error 102"),
        ("a combining mark behind", format!("room:{room}\u{301}"), "error 103"),
        ("a zero-width space behind", format!("room:{room}\u{200b}"), "error 103"),
        ("full-width letters", format!("room:{}", wide(&room)), "error 103"),
        ("right-to-left mark before", format!("\u{200f}room:{room}"), "error 102"),
        ("a no-break space behind", format!("room:{room}\u{a0}"), "error 102"),
        ("a line separator behind", format!("room:{room}\u{2028}"), "error 102"),
        ("percent-encoded colon", format!("room%3A{room}"), "error 102"),
        ("percent-encoded id", format!("room:%{:02x}{}", room.as_bytes()[0], &room[1..]), "error 103"),
        ("a space behind", format!("room:{room} "), "error 102"),
        ("a space before", format!(" room:{room}"), "error 102"),
        ("NUL behind", format!("room:{room}\0"), "error 102"),
        ("a line feed behind", format!("room:{room}\n"), "error 102"),
        ("DEL behind", format!("room:{room}\x7f"), "error 102"),
        ("10,000 characters", format!("room:{}", "x".repeat(10_000)), "error 102"),
        ("1,020 characters of id", format!("room:{}", "x".repeat(1020)), "error 102"),
        ("1,019 characters of id", format!("room:{}", "x".repeat(1019)), "error 103"),
        ("510 letters of two bytes", format!("room:{}", "ü".repeat(510)), "error 102"),
        ("SQL", "room:'/**/OR/**/1=1--".to_owned(), "error 103"),
        ("SQL with an end", "room:x');DROP/**/TABLE/**/rooms;--".to_owned(), "error 103"),
        ("a filter", "room:'||true||'".to_owned(), "error 103"),
        ("a filter in double quotes", "room:\"||id!=\"".to_owned(), "error 103"),
        ("a filter with spaces", "room:' || true || '".to_owned(), "error 102"),
        ("a placeholder of PocketBase's", "room:{:id}".to_owned(), "error 103"),
        ("a request's field", "room:@request.auth.id".to_owned(), "error 103"),
        ("wildcard", "room:*".to_owned(), "error 103"),
        ("SQL wildcard", "room:%".to_owned(), "error 103"),
        ("SQL wildcards of 15 characters", format!("room:{}", "_".repeat(15)), "error 103"),
        ("a glob of Redis", "room:[a-z]*".to_owned(), "error 103"),
        ("everything as a glob", "*".to_owned(), "error 102"),
        ("a hash tag", format!("room:{{{room}}}"), "error 103"),
        ("the end of a hash tag", format!("room:x}}:live:{{room:{room}"), "error 103"),
        ("a path", format!("room:../rooms/{room}"), "error 103"),
        ("a key of JavaScript's objects", "__proto__:x".to_owned(), "error 102"),
        ("another key of JavaScript's objects", "constructor:name".to_owned(), "error 102"),
        ("that key as an id", "room:__proto__".to_owned(), "error 103"),
    ] {
        let seen = arena.command(&mut client, "subscribe", &json!({"channel": channel})).await;
        arena.score(name, expected, &seen).await;
    }
    for (name, channel) in [
        ("a list of channels", json!([format!("room:{room}")])),
        ("a number", json!(7)),
        ("null", Value::Null),
        ("an object", json!({"room": room})),
    ] {
        let mut client = Client::connect(arena.gateway(), &arena.eve.token).await;
        let seen = arena.command(&mut client, "subscribe", &json!({"channel": channel})).await;
        arena.score(name, "error 107", &seen).await;
    }
}

/// The letters and digits of an id in full-width form, which some software treats as equal.
fn wide(id: &str) -> String {
    id.chars().map(|c| char::from_u32(u32::from(c) + 0xfee0).unwrap_or(c)).collect()
}

async fn without_a_subscription(arena: &mut Arena) {
    let channel = arena.channel();
    let mut client = Client::connect(arena.gateway(), &arena.eve.token).await;
    for (command, request, expected) in [
        ("publish", json!({"channel": channel, "data": {"type": "typing"}}), "error 103"),
        ("history", json!({"channel": channel, "limit": -1}), "error 103"),
        ("presence", json!({"channel": channel}), "error 103"),
        ("presence_stats", json!({"channel": channel}), "error 103"),
        ("sub_refresh", json!({"channel": channel, "token": arena.alice.token}), "error 108"),
        ("rpc", json!({"method": "subscribe", "data": {"channel": channel}}), "error 104"),
        ("unsubscribe", json!({"channel": channel, "user": arena.bob.id}), "ok"),
    ] {
        let seen = arena.command(&mut client, command, &request).await;
        let name =
            format!("{command}{} without a subscription", if expected == "ok" { ", which does nothing," } else { "" });
        arena.score(&name, expected, &seen).await;
    }
    for (command, request) in [
        ("publish", json!({"channel": "$access", "data": {"type": "typing"}})),
        ("history", json!({"channel": "$access", "limit": -1})),
        ("presence", json!({"channel": "$access"})),
    ] {
        let seen = arena.command(&mut client, command, &request).await;
        arena.score(&format!("{command} of the gateways' own channel"), "error 103", &seen).await;
    }
    // The gateway ignores a subscription's token and other claims of the client.
    let request =
        json!({"channel": channel, "token": arena.alice.token, "user": arena.alice.id, "info": {"user": "x"}});
    let seen = arena.command(&mut client, "subscribe", &request).await;
    arena.score("subscribe with another user's token", "error 103", &seen).await;
    let place = json!({"channel": channel, "recover": true, "offset": 0, "epoch": ""});
    let seen = arena.command(&mut client, "subscribe", &place).await;
    arena.score("recovery of a room that one is not in", "error 103", &seen).await;
    let subscribes: Vec<String> =
        (1..=300).map(|id| json!({"id": id, "subscribe": {"channel": channel}}).to_string()).collect();
    client.send(&subscribes.join("\n")).await;
    let seen = outcome(&mut client, 300).await;
    arena.score("300 subscribes in one frame", "error 103", &seen).await;
}

/// Positions sent by a member with access to the room: no request may harm other clients.
async fn positions(arena: &mut Arena) {
    let channel = arena.channel();
    let at = arena.position().await;
    for (name, place) in [
        ("another epoch", json!({"offset": at.offset, "epoch": "foreign"})),
        ("an epoch of 50,000 characters", json!({"offset": 0, "epoch": "x".repeat(50_000)})),
        ("an offset of 2^64 - 1", json!({"offset": u64::MAX, "epoch": at.epoch})),
        ("an offset in the future", json!({"offset": at.offset + 1_000_000, "epoch": at.epoch})),
    ] {
        let mut client = Client::connect(arena.gateway(), &arena.bob.token).await;
        let mut request = json!({"channel": channel, "recover": true});
        (request["offset"], request["epoch"]) = (place["offset"].clone(), place["epoch"].clone());
        let reply = client.call("subscribe", request.clone()).await;
        let seen = match (&reply["subscribe"]["recovered"], &reply["subscribe"]["publications"]) {
            (Value::Bool(recovered), Value::Null) => format!("recovered: {recovered}"),
            _ => reply.to_string(),
        };
        arena.score(&format!("recovery from {name}"), "recovered: false", &seen).await;
        request["flag"] = json!(2);
        let mut client = Client::connect(arena.gateway(), &arena.bob.token).await;
        let seen = arena.command(&mut client, "subscribe", &request).await;
        arena.score(&format!("recovery from {name}, flag 2"), "error 112", &seen).await;
    }
    for (name, offset) in
        [("negative", "-1"), ("a float", "1.5"), ("2^64", "18446744073709551616"), ("a string", "\"1\"")]
    {
        let mut client = Client::connect(arena.gateway(), &arena.bob.token).await;
        let subscribe = format!(r#"{{"id":9,"subscribe":{{"channel":"{channel}","recover":true,"offset":{offset}}}}}"#);
        client.send(&subscribe).await;
        let seen = outcome(&mut client, 9).await;
        arena.score(&format!("an offset that is {name}"), "error 107", &seen).await;
    }
    let mut client = arena.world.subscriber(0, &arena.bob, &arena.room).await;
    let history = |since: Value| json!({"channel": channel, "limit": -1, "since": since});
    for (name, command, request, expected) in [
        ("subscribe twice", "subscribe", json!({"channel": channel}), "error 105"),
        ("history of another epoch", "history", history(json!({"offset": 0, "epoch": "foreign"})), "error 112"),
        (
            "history after 2^64 - 1, which is empty,",
            "history",
            history(json!({"offset": u64::MAX, "epoch": at.epoch})),
            "ok",
        ),
        ("history of -2^31 entries, which are all,", "history", json!({"channel": channel, "limit": i32::MIN}), "ok"),
        ("history of 2^31 entries", "history", json!({"channel": channel, "limit": 2_147_483_648_u64}), "error 107"),
    ] {
        let seen = arena.command(&mut client, command, &request).await;
        arena.score(name, expected, &seen).await;
    }
}
