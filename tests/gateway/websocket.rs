//! WebSocket conformance, byte by byte: the requirements of RFC 6455 for servers, in the order of Autobahn's test
//! suite. Each case prints the expected and the actual outcome; an honest client beside the cases is not affected.

mod frames;
mod handshakes;
mod raw;

use crate::harness::World;
use crate::harness::client::Client;
use crate::harness::pocketbase::User;
use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;
use raw::{FIN, Length, PING, Raw, TEXT, frame, head};

/// Id of the ping command at the end of a case, whose reply shows that the connection still works.
const LAST: u64 = 99;

/// A gateway with an honest client, which must not be affected, and the results.
struct Arena {
    world: World,
    room: String,
    users: Vec<User>,
    honest: Client,
    rows: Vec<(String, String, String)>,
}

impl Arena {
    async fn new() -> Self {
        // One user makes hundreds of cases, and the honest client signals after each.
        let unlimited = [
            ("GATEWAY_MAX_CONNECTIONS_PER_USER", "0"),
            ("GATEWAY_MAX_SIGNALS_PER_SECOND", "0"),
            ("GATEWAY_MAX_COMMANDS_PER_SECOND", "0"),
        ];
        let world = World::start(1, false, &unlimited).await;
        let (room, users) = world.room(&["alice", "bob", "eve"]).await;
        let honest = world.subscriber(0, &users[1], &room).await;
        Self { world, room, users, honest, rows: Vec::new() }
    }

    /// A connection after the handshake and `connect`.
    async fn connected(&self) -> Raw {
        let mut raw = Raw::connect(self.world.gateway().port).await;
        raw.send(handshakes::right().as_bytes()).await;
        assert_eq!(raw.answer().await.status, 101);
        let connect = json!({"id": 1, "connect": {"token": self.users[0].token}}).to_string();
        raw.send(&frame(FIN | TEXT, connect)).await;
        assert_eq!(raw.seen_until(1).await, "goes on");
        raw
    }

    /// Records a result, and checks that the honest client is still served.
    async fn note(&mut self, name: &str, expected: &str, seen: String) {
        self.rows.push((name.to_owned(), expected.to_owned(), seen));
        let signal = json!({"channel": format!("room:{}", self.room), "data": {"type": "typing"}});
        let reply = self.honest.call("publish", signal).await;
        assert!(reply["publish"].is_object(), "{name}: the honest client got {reply}");
        self.honest.signal().await;
    }

    /// Prints the results, and fails if one differs from the expected result.
    async fn end(mut self) {
        println!("| case | expected | seen |\n|---|---|---|");
        for (name, expected, seen) in &self.rows {
            println!("| {name} | {expected} | {} |", if seen == expected { "the same" } else { seen });
        }
        let wrong: Vec<_> = self.rows.iter().filter(|(_, expected, seen)| expected != seen).collect();
        assert!(wrong.is_empty(), "of {} cases: {wrong:#?}", self.rows.len());
        self.world.pocketbase.write(&self.room, &self.users[0], "still here").await;
        assert_eq!(self.honest.message().await, "still here");
        assert_eq!(self.world.gateway().metric("gateway_session_panics_total").await, 0.0);
    }
}

#[tokio::test]
async fn frames_are_accepted_and_refused_as_in_the_rfc() {
    let mut arena = Arena::new().await;
    let last = frame(FIN | TEXT, format!(r#"{{"id":{LAST},"ping":{{}}}}"#));
    for case in frames::all() {
        let mut raw = arena.connected().await;
        for part in &case.sends {
            raw.send(part).await;
        }
        raw.send(&last).await;
        let seen = raw.seen_until(LAST).await;
        arena.note(&case.name, &case.expected, seen).await;
    }
    arena.end().await;
}

#[tokio::test]
async fn handshakes_are_accepted_and_refused_as_in_the_rfc() {
    let mut arena = Arena::new().await;
    for case in handshakes::all() {
        let mut raw = Raw::connect(arena.world.gateway().port).await;
        raw.send(case.request.as_bytes()).await;
        let answer = raw.answer().await;
        let mut expected = case.expected.to_string();
        let mut seen = answer.status.to_string();
        if let Some((name, value)) = case.header {
            expected = format!("{expected}, {name}: {}", value.unwrap_or("-"));
            seen = format!("{seen}, {name}: {}", answer.header(name).unwrap_or("-"));
        }
        arena.note(case.name, &expected, seen).await;
    }
    arena.end().await;
}

#[tokio::test]
async fn frames_sent_with_the_handshake_or_in_pieces_are_not_lost() {
    let mut arena = Arena::new().await;
    let connect = json!({"id": 1, "connect": {"token": arena.users[0].token}}).to_string();
    let ping = frame(FIN | TEXT, format!(r#"{{"id":{LAST},"ping":{{}}}}"#));
    let early = [handshakes::right().into_bytes(), frame(FIN | TEXT, &connect), ping].concat();
    for (name, size) in [("one write", early.len()), ("writes of seven bytes", 7), ("byte by byte", 1)] {
        let mut raw = Raw::connect(arena.world.gateway().port).await;
        for part in early.chunks(size) {
            raw.send(part).await;
        }
        assert_eq!(raw.answer().await.status, 101, "{name}");
        let seen = raw.seen_until(LAST).await;
        arena.note(name, "reply 1", seen).await;
    }
    // A client that ends without a close frame is released.
    let mut raw = arena.connected().await;
    raw.finish().await;
    let seen = raw.seen_until(LAST).await;
    arena.note("no close at all", "end", seen).await;
    arena.end().await;
}

#[tokio::test]
async fn announced_or_repeated_frames_take_no_memory() {
    let mut arena = Arena::new().await;
    let process = |arena: &Arena| arena.world.gateway().process.resident();
    let mut open = Vec::new();
    for _ in 0..100 {
        open.push(arena.connected().await);
    }
    let before = process(&arena);
    for raw in &mut open {
        // 1 TiB, which would be refused, and 64 KiB, which may be announced and never arrive.
        raw.send(&frame(FIN | PING, [b'x'; 125]).repeat(1000)).await;
        raw.send(&head(FIN | TEXT, Length::In64Bits, Some([0; 4]), 1 << 40)).await;
    }
    for raw in &mut open {
        let seen = raw.seen_until(LAST).await;
        assert!(seen.ends_with("close 1009, end"), "{}", &seen[seen.len().saturating_sub(200)..]);
    }
    let grown = process(&arena).saturating_sub(before) >> 20;
    let (name, expected) = ("1000 pings and 1 TiB announced, from each of 100", "less than 16 MiB more");
    let seen = if grown < 16 { expected.to_owned() } else { format!("{grown} MiB more") };
    arena.note(name, expected, seen).await;
    arena.end().await;
}

/// A frame of 64 KiB may hold more than thirty thousand commands. While the first command waits for PocketBase, the
/// gateway must not hold the others in a form many times larger.
#[tokio::test]
async fn waiting_commands_take_no_more_memory_than_their_frame() {
    let arena = Arena::new().await;
    let claims = json!({"id": "nobody", "type": "auth", "collectionId": "x", "exp": 4_000_000_000u64});
    let key = EncodingKey::from_secret(b"unknown");
    let token = jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap();
    let connect = json!({"id": 1, "connect": {"token": token}}).to_string();
    let commands = frame(FIN | TEXT, format!("{connect}{}", "{}".repeat(32_000)));
    // The paused PocketBase keeps its connections and answers nothing.
    arena.world.pocketbase.process.signal("STOP");
    let before = arena.world.gateway().process.resident();
    let mut waiting = Vec::new();
    for _ in 0..100 {
        let mut raw = Raw::connect(arena.world.gateway().port).await;
        raw.send(handshakes::right().as_bytes()).await;
        assert_eq!(raw.answer().await.status, 101);
        raw.send(&commands).await;
        waiting.push(raw);
    }
    arena.world.gateway().metric_reaches(r#"gateway_commands_total{command="connect"}"#, 101.0).await;
    let grown = arena.world.gateway().process.resident().saturating_sub(before) >> 20;
    arena.world.pocketbase.process.signal("CONT");
    assert!(grown < 50, "{grown} MiB more for a hundred clients");
    drop(waiting);
    arena.end().await;
}
