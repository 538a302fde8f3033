//! Publishing by members: only signals, under the member's own name, and harmless to readers.

use super::arena::{Arena, outcome};
use crate::harness::client::Client;
use crate::harness::{World, until};
use serde_json::json;
use std::time::Duration;
use tokio::time::timeout;

pub async fn run(arena: &mut Arena) {
    arena.begin("signals");
    contents(arena).await;
    senders(arena).await;
}

/// The honest clients in the room get none of these messages.
async fn contents(arena: &mut Arena) {
    let channel = arena.channel();
    let mut client = arena.world.subscriber(0, &arena.alice, &arena.room).await;
    let typing = |rest: &str| format!(r#"{{"type":"typing",{rest}}}"#);
    let nested = |levels: usize| format!(r#""x":{}1{}"#, "[".repeat(levels), "]".repeat(levels));
    for (name, data, expected) in [
        ("a type that is not configured", r#"{"type":"evil"}"#.to_owned(), "error 103"),
        ("a type in capitals", r#"{"type":"TYPING"}"#.to_owned(), "error 103"),
        ("a type that begins well", r#"{"type":"typing\u0000"}"#.to_owned(), "error 103"),
        ("an empty type", r#"{"type":""}"#.to_owned(), "error 103"),
        ("no type", "{}".to_owned(), "error 107"),
        ("a type that is a number", r#"{"type":1}"#.to_owned(), "error 107"),
        ("a type that is a list", r#"{"type":["typing"]}"#.to_owned(), "error 107"),
        ("two types", r#"{"type":"evil","type":"typing"}"#.to_owned(), "error 107"),
        ("two types, the first one good", typing(r#""type":"evil""#), "error 107"),
        ("two types, one in escapes", typing(r#""\u0074ype":"evil""#), "error 107"),
        ("null", "null".to_owned(), "error 107"),
        ("a string", r#""typing""#.to_owned(), "error 107"),
        ("a list", r#"["typing"]"#.to_owned(), "error 107"),
        ("a list in place of an object, and more", r#"["typing",1]"#.to_owned(), "error 107"),
        ("nested 2,000 deep, past what other parsers take", typing(&nested(2000)), "error 107"),
        ("nested 10,000 deep", typing(&nested(10_000)), "error 106"),
        ("half of a surrogate pair", typing(r#""x":"\ud800""#), "error 107"),
        ("a number that is no double", typing(r#""x":1e999"#), "error 107"),
        ("5,000 bytes", typing(&format!(r#""x":"{}""#, "x".repeat(5000))), "error 106"),
        ("a megabyte", typing(&format!(r#""x":"{}""#, "x".repeat(1 << 20))), "1009"),
    ] {
        if expected == "1009" {
            client = arena.world.subscriber(0, &arena.alice, &arena.room).await;
        }
        client.send(&format!(r#"{{"id":77,"publish":{{"channel":"{channel}","data":{data}}}}}"#)).await;
        let seen = outcome(&mut client, 77).await;
        arena.score(name, expected, &seen).await;
    }
    for (name, expected, command) in [
        ("no data", "error 107", format!(r#"{{"id":77,"publish":{{"channel":"{channel}"}}}}"#)),
        (
            "data twice",
            "error 107",
            format!(r#"{{"id":77,"publish":{{"channel":"{channel}","data":{{}},"data":{{"type":"typing"}}}}}}"#),
        ),
        (
            "channel twice",
            "error 107",
            format!(r#"{{"id":77,"publish":{{"channel":"room:x","channel":"{channel}","data":{{"type":"typing"}}}}}}"#),
        ),
        (
            "a second frame hidden in it",
            "3501",
            format!(
                "{{\"id\":77,\"publish\":{{\"channel\":\"{channel}\",\"data\":{{\"type\":\"typing\",\"x\":\"\n{{}}\"}}}}}}"
            ),
        ),
    ] {
        let mut client = arena.world.subscriber(0, &arena.alice, &arena.room).await;
        client.send(&command).await;
        let seen = outcome(&mut client, 77).await;
        arena.score(name, expected, &seen).await;
    }
}

async fn senders(arena: &mut Arena) {
    let (mallory, room, _) = arena.member().await;
    let (carol, channel) = (arena.somebody().await, format!("room:{room}"));
    arena.world.pocketbase.join(&room, &carol).await;
    let mut reader = arena.world.subscriber(1, &carol, &room).await;
    let mut client = arena.world.subscriber(0, &mallory, &room).await;
    // The membership change is settled by then. Until then, signals to Carol would be dropped.
    arena.world.pocketbase.write(&room, &carol, "ready").await;
    assert_eq!(reader.message().await, "ready");
    let forged = json!({"user": arena.bob.id, "client": "x"});
    for (name, command) in [
        ("another sender in the payload", json!({"channel": channel, "data": {"type": "typing", "info": forged}})),
        ("another sender beside the payload", json!({"channel": channel, "data": {"type": "typing"}, "info": forged})),
        (
            "an offset and tags beside it",
            json!({"channel": channel, "data": {"type": "typing"}, "offset": 7, "tags": {}}),
        ),
    ] {
        assert_eq!(arena.command(&mut client, "publish", &command).await, "ok");
        let signal = reader.signal().await;
        let seen = if signal["info"]["user"] == *mallory.id && signal["offset"].is_null() && signal["tags"].is_null() {
            "the true sender is named".to_owned()
        } else {
            signal.to_string()
        };
        arena.score(name, "the true sender is named", &seen).await;
    }
    let line_feed = format!(
        "{{\"id\":5,\"publish\":{{\"channel\":\"{channel}\",\"data\":{{\"type\":\n\"typing\",\r\n\"x\":1}}}}}}"
    );
    client.send(&line_feed).await;
    assert_eq!(outcome(&mut client, 5).await, "ok");
    let text = loop {
        let text = reader.text().await.expect("connected");
        if text.contains("typing") {
            break text;
        }
    };
    let seen = if text.contains(['\n', '\r']) { text.to_string() } else { "one line".to_owned() };
    arena.score("line feeds that would end the reader's frame", "one line", &seen).await;

    let path = format!("collections/users/records/{}", carol.id);
    arena.world.pocketbase.done("PATCH", &path, &carol.token, &json!({"blocked": [mallory.id]})).await;
    blocked(arena, &channel, (&mut client, &mut reader)).await;

    let path = format!("collections/users/records/{}", mallory.id);
    arena.as_superuser("PATCH", &path, &json!({"muted_until": "2099-01-01 00:00:00.000Z"})).await;
    let typing = json!({"channel": channel, "data": {"type": "typing"}});
    until("the mute", async || (arena.command(&mut client, "publish", &typing).await == "error 400").then_some(()))
        .await;
    let mut again = World::subscriber(&arena.world, 1, &mallory, &room).await;
    for (name, client) in [("of a muted user", &mut client), ("of a muted user, from a new connection", &mut again)] {
        let seen = arena.command(client, "publish", &typing).await;
        arena.score(name, "error 400", &seen).await;
    }
}

/// Mallory and Alice signal in turn, until Carol gets Alice's signals only.
async fn blocked(arena: &mut Arena, channel: &str, (mallory, carol): (&mut Client, &mut Client)) {
    let room = channel.split_once(':').expect("a room").1.to_owned();
    let mut alice = arena.world.subscriber(0, &arena.alice, &room).await;
    let signal = |n: u64| json!({"channel": channel, "data": {"type": "typing", "n": n}});
    let mut n = 10;
    let seen = until("the block", async || {
        n += 2;
        arena.command(mallory, "publish", &signal(n)).await;
        arena.command(&mut alice, "publish", &signal(n + 1)).await;
        let mut heard: Vec<u64> = Vec::new();
        while heard.last() != Some(&(n + 1)) {
            // Signals are dropped while the change of Carol's account is being settled; the next pair decides.
            let Ok(signal) = timeout(Duration::from_secs(1), carol.signal()).await else { return None };
            heard.extend(signal["data"]["n"].as_u64().filter(|number| *number >= n));
        }
        (heard == [n + 1]).then(|| "not delivered".to_owned())
    })
    .await;
    arena.score("of a blocked user", "not delivered", &seen).await;
}
