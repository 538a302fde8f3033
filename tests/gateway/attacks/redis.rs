//! A process with write access to Redis is trusted, since it could publish anything. Garbage written by mistake harms
//! no gateway process, invents no message, and has no effect after its removal.

use super::arena::Arena;
use crate::harness::client::Place;
use crate::harness::redis::Redis;
use crate::harness::until;
use serde_json::json;

pub async fn run(arena: &mut Arena) {
    arena.begin("Redis");
    live(arena).await;
    kept(arena).await;
}

fn connection(arena: &Arena) -> redis::Connection {
    arena.world.redis.as_ref().map(Redis::client).expect("the gateways share a Redis")
}

/// Garbage published into a room's channel and into the gateways' own channels.
async fn live(arena: &mut Arena) {
    let Place { offset, epoch } = arena.position().await;
    let forged = r#"{"action":"create","collection":"messages","record":{"content":"forged"}}"#;
    for (name, message) in [
        ("garbage", b"garbage".to_vec()),
        ("nothing", Vec::new()),
        ("bytes", vec![0xff; 1000]),
        ("a megabyte", vec![b'p'; 1 << 20]),
        ("a publication far ahead", format!("p{}:{epoch}:0:{forged}", offset + 1000).into_bytes()),
        ("a publication with number 2^64 - 1", format!("p{}:{epoch}:0:{forged}", u64::MAX).into_bytes()),
        ("a publication with number 2^70", format!("p1180591620717411303424:{epoch}:0:{forged}").into_bytes()),
        ("a publication with number 0", format!("p0:{epoch}:0:{forged}").into_bytes()),
        ("a publication with a negative number", format!("p-1:{epoch}:0:{forged}").into_bytes()),
        ("a publication of the past", format!("p1:{epoch}:0:{forged}").into_bytes()),
        ("a publication of another epoch", format!("p{}:another:0:{forged}", offset + 1).into_bytes()),
        ("a publication of no epoch", format!("p{}::0:{forged}", offset + 1).into_bytes()),
        ("a publication of two lines", format!("p{}:{epoch}:0:{{\n}}", offset + 1).into_bytes()),
        ("a publication that is not UTF-8", [format!("p{}:{epoch}:0:", offset + 1).as_bytes(), &[0xff]].concat()),
        ("a signal longer than it is", b"s999:{}".to_vec()),
        ("a signal of length 2^64 - 1", b"s18446744073709551615:{}".to_vec()),
        ("a signal of nobody", b"s2:{}{\"type\":\"typing\"}".to_vec()),
        ("a signal without content", br#"s28:{"user":"u","client":"c12345"}"#.to_vec()),
    ] {
        let live = format!("konvert:live:{{{}}}", arena.channel());
        let heard: i64 =
            redis::cmd("PUBLISH").arg(live).arg(message).query(&mut connection(arena)).expect("Redis answers");
        let seen = if heard == 2 { "not delivered".to_owned() } else { format!("{heard} gateways listen") };
        arena.score(&format!("live: {name}"), "not delivered", &seen).await;
    }
    for (name, message) in [
        ("garbage", "garbage"),
        ("a signal", r#"s25:{"user":"u","client":"c"}[]"#),
        ("a signal that is no change", r#"s25:{"user":"u","client":"c"}7"#),
        ("a change far ahead", r#"p999999:x:[{"cause":"rules"}]"#),
    ] {
        let heard: i64 = redis::cmd("PUBLISH")
            .arg("konvert:live:{$access}")
            .arg(message)
            .query(&mut connection(arena))
            .expect("Redis answers");
        let seen = if heard == 2 { "nobody is shut out".to_owned() } else { format!("{heard} gateways listen") };
        arena.score(&format!("the gateways' own channel: {name}"), "nobody is shut out", &seen).await;
    }
}

/// Garbage in the gateways' keys. After its removal, nothing has been lost.
async fn kept(arena: &mut Arena) {
    let room = arena.channel();
    let key = |kind: &str| format!("konvert:{kind}:{{{room}}}");
    let mut redis = connection(arena);
    // Presence: invalid entries make the query fail until removed, without other effects.
    let _: () =
        redis::cmd("HSET").arg(key("presence")).arg("ghost").arg("garbage").query(&mut redis).expect("Redis answers");
    let mut client = arena.world.subscriber(0, &arena.bob, &arena.room).await;
    let seen = arena.command(&mut client, "presence", &json!({"channel": room})).await;
    arena.score("garbage in the presence", "error 100", &seen).await;
    let _: () = redis::cmd("HDEL").arg(key("presence")).arg("ghost").query(&mut redis).expect("Redis answers");
    let seen = arena.command(&mut client, "presence", &json!({"channel": room})).await;
    arena.score("garbage in the presence, taken back", "ok", &seen).await;

    for (name, kept, garbage) in [
        ("text in place of the position", key("position"), "garbage"),
        ("text in place of the history", key("stream"), "garbage"),
        ("garbage in the mark", "konvert:mark".to_owned(), "garbage"),
        ("numbers beyond 64 bits in the mark", "konvert:mark".to_owned(), "99999999999999999999 1 1 1"),
    ] {
        let saved = format!("saved:{kept}");
        let _: () = redis::cmd("RENAME").arg(&kept).arg(&saved).query(&mut redis).expect("Redis answers");
        let _: () = redis::cmd("SET").arg(&kept).arg(garbage).query(&mut redis).expect("Redis answers");
        arena.world.pocketbase.write(&arena.room, &arena.alice, name).await;
        let url = arena.gateway().admin("readyz");
        until("a gateway that says what is wrong", async || {
            let ready = arena.http.get(&url).await.expect("it answers");
            (ready.status == 503 && ready.text.contains("relay")).then_some(())
        })
        .await;
        let _: () = redis::cmd("RENAME").arg(&saved).arg(&kept).query(&mut redis).expect("Redis answers");
        until("a gateway that is ready", async || {
            (arena.http.get(&url).await.expect("it answers").status == 200).then_some(())
        })
        .await;
        arena.expect_message(name).await;
        arena.score(name, "/readyz 503, until taken back", "/readyz 503, until taken back").await;
    }
}
