//! Clients beyond a limit are refused with the limit's code and counted, and an honest client beside them is not
//! affected.

use crate::harness::client::{Client, Refused};
use crate::harness::gateway::Gateway;
use crate::harness::http::Http;
use crate::harness::pocketbase::User;
use crate::harness::{SECRET, World, connect_from, until};
use konvert_gateway::signature::{SIGNATURE, Signer, TIMESTAMP};
use serde_json::json;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

/// Address of the attackers; honest clients use 127.0.0.1.
const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const PANICS: &str = "gateway_session_panics_total";

/// A gateway with an honest client, which must not be affected.
struct Arena {
    world: World,
    room: String,
    users: Vec<User>,
    honest: Client,
}

impl Arena {
    async fn new(settings: &[(&str, &str)]) -> Self {
        Self::with(World::start(1, false, settings).await).await
    }

    async fn with(world: World) -> Self {
        let (room, users) = world.room(&["alice", "bob", "eve"]).await;
        let honest = world.subscriber(0, &users[1], &room).await;
        Self { world, room, users, honest }
    }

    fn gateway(&self) -> &Gateway {
        self.world.gateway()
    }

    fn channel(&self) -> String {
        format!("room:{}", self.room)
    }

    /// Connects and subscribes another honest client; returns the duration.
    async fn newcomer(&self) -> Duration {
        let begun = Instant::now();
        let mut client = Client::connect(self.gateway(), &self.users[0].token).await;
        client.subscribe(&self.channel()).await;
        begun.elapsed()
    }

    /// Checks that the honest client, on its first connection, still gets a message through the hooks.
    async fn is_served(&mut self) {
        self.world.pocketbase.write(&self.room, &self.users[0], "still here").await;
        assert_eq!(self.honest.message().await, "still here");
    }

    async fn end_undisturbed(mut self) {
        self.is_served().await;
        self.newcomer().await;
        assert_eq!(self.gateway().metric(PANICS).await, 0.0);
    }
}

/// Sends a handwritten request and reads the answer to its end.
async fn raw(from: Ipv4Addr, port: u16, request: &[u8]) -> String {
    let mut stream = connect_from(from, port).await.expect("the gateway accepts");
    stream.write_all(request).await.expect("the request leaves");
    read_to_end(&mut stream).await
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let read = timeout(crate::harness::DEADLINE, stream.read_to_end(&mut answer)).await.expect("it ends in time");
    // A reset is an end too.
    let _ = read;
    String::from_utf8(answer).expect("text")
}

fn pings(ids: std::ops::Range<u32>) -> String {
    ids.map(|id| json!({"id": id, "ping": {}}).to_string()).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn commands_beyond_the_rate() {
    let arena = Arena::new(&[]).await;
    // An SDK's subscribes after a reconnect stay within the default limits.
    let mut many = Client::connect(arena.gateway(), &arena.users[0].token).await;
    for i in 100..400 {
        many.send(&json!({"id": i, "subscribe": {"channel": format!("room:none{i}")}}).to_string()).await;
    }
    for i in 100..400 {
        assert_eq!(many.reply(i).await["error"]["code"], 103);
    }

    let mut hasty = Client::connect(arena.gateway(), &arena.users[0].token).await;
    hasty.send(&pings(10_000..10_600)).await;
    let mut refused = 0;
    for id in 10_000..10_600 {
        let reply = hasty.reply(id).await;
        if reply["error"]["code"] == 111 {
            assert_eq!(reply["error"]["temporary"], true, "{reply}");
            refused += 1;
        } else {
            assert_eq!(reply["ping"], json!({}), "{reply}");
        }
    }
    // A burst of 500, of which the connect used one; a few more were granted while the frame was processed.
    assert!((60..=101).contains(&refused), "{refused}");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(hasty.call("ping", json!({})).await["ping"], json!({}), "who slows down is served again");
    arena.gateway().metric_reaches(r#"gateway_rate_limited_total{limit="commands"}"#, f64::from(refused)).await;
    arena.gateway().metric_reaches(r#"gateway_command_errors_total{code="111"}"#, f64::from(refused)).await;

    let mut flood = Client::connect(arena.gateway(), &arena.users[0].token).await;
    flood.send(&pings(1..2000)).await;
    assert_eq!(flood.closed().await, (3013, "too many requests".into()));
    // Frames that are no commands count as well.
    for frame in [Message::Ping("x".into()), Message::Pong("x".into()), Message::text("")] {
        let mut flood = Client::connect(arena.gateway(), &arena.users[0].token).await;
        for _ in 0..3000 {
            flood.send_raw(frame.clone()).await;
        }
        assert_eq!(flood.closed().await.0, 3013, "{frame:?}");
    }
    arena.gateway().metric_reaches(r#"gateway_disconnects_total{code="3013"}"#, 4.0).await;
    arena.end_undisturbed().await;
}

#[tokio::test]
async fn signals_beyond_the_rate() {
    let mut arena = Arena::new(&[]).await;
    let (channel, typing) = (arena.channel(), json!({"type": "typing"}));
    let mut tabs = [
        arena.world.subscriber(0, &arena.users[0], &arena.room).await,
        arena.world.subscriber(0, &arena.users[0], &arena.room).await,
    ];
    let mut codes = Vec::new();
    for i in 0..40 {
        let reply = tabs[i % 2].call("publish", json!({"channel": channel, "data": typing})).await;
        codes.push(reply["error"]["code"].as_u64());
    }
    assert!(codes[..20].iter().all(Option::is_none), "a burst passes: {codes:?}");
    assert!(codes[20..].contains(&Some(111)) && codes.iter().flatten().all(|code| *code == 111), "{codes:?}");
    let reply = arena.honest.call("publish", json!({"channel": channel, "data": typing})).await;
    assert!(reply["publish"].is_object(), "another user of the same room: {reply}");
    tokio::time::sleep(Duration::from_millis(150)).await;
    let reply = tabs[0].call("publish", json!({"channel": channel, "data": typing})).await;
    assert!(reply["publish"].is_object(), "who slows down is served again: {reply}");
    arena.gateway().metric_reaches(r#"gateway_rate_limited_total{limit="signals"}"#, 1.0).await;
    arena.end_undisturbed().await;
}

#[tokio::test]
async fn connections_of_one_user_on_two_gateways() {
    let settings = [("GATEWAY_MAX_CONNECTIONS_PER_USER", "3"), ("GATEWAY_PRESENCE_TTL", "2")];
    let mut arena = Arena::with(World::start(2, true, &settings).await).await;
    let eve = arena.users[2].clone();
    let urls: Vec<String> = arena.world.gateways.iter().map(Gateway::websocket).collect();
    let connect = async |gateway: usize| {
        let mut client = Client::open(&urls[gateway]).await;
        client.send(&json!({"id": 1, "connect": {"token": eve.token}}).to_string()).await;
        client
    };
    let mut held = Vec::new();
    for gateway in [0, 0, 1] {
        let mut client = connect(gateway).await;
        assert!(client.reply(1).await["connect"].is_object());
        held.push(client);
    }
    for gateway in [0, 1] {
        assert_eq!(connect(gateway).await.closed().await, (3504, "connection limit".into()));
        arena.world.gateways[gateway].metric_reaches(r#"gateway_disconnects_total{code="3504"}"#, 1.0).await;
    }
    // Longer than a lease: open connections still count.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(connect(1).await.closed().await.0, 3504);

    let in_again = async |gateway: usize| {
        until("room for one more", async || {
            let mut client = connect(gateway).await;
            match tokio::time::timeout(Duration::from_secs(5), client.text()).await.expect("an answer") {
                Ok(reply) => {
                    assert!(reply.contains("\"connect\""), "{reply}");
                    Some(client)
                }
                Err(_) => None,
            }
        })
        .await
    };
    held.pop().expect("one").cut();
    held.push(in_again(0).await);
    arena.is_served().await;
    assert_eq!(arena.gateway().metric(PANICS).await, 0.0);
    // Connections of a killed gateway stop counting when their leases expire.
    arena.world.gateways[0].process.kill();
    for _ in 0..3 {
        held.push(in_again(1).await);
    }
    assert_eq!(connect(1).await.closed().await.0, 3504);
}

#[tokio::test]
async fn connections_of_one_user_without_redis_and_without_a_limit() {
    let arena = Arena::new(&[("GATEWAY_MAX_CONNECTIONS_PER_USER", "2")]).await;
    let _held = [
        Client::connect(arena.gateway(), &arena.users[2].token).await,
        Client::connect(arena.gateway(), &arena.users[2].token).await,
    ];
    let mut third = Client::open(&arena.gateway().websocket()).await;
    third.send(&json!({"id": 1, "connect": {"token": arena.users[2].token}}).to_string()).await;
    assert_eq!(third.closed().await.0, 3504);
    arena.end_undisturbed().await;

    let arena = Arena::new(&[("GATEWAY_MAX_CONNECTIONS_PER_USER", "0")]).await;
    let mut held = Vec::new();
    for _ in 0..60 {
        held.push(Client::connect(arena.gateway(), &arena.users[2].token).await);
    }
    arena.end_undisturbed().await;
}

#[tokio::test]
async fn sockets_of_one_address() {
    let arena = Arena::new(&[("GATEWAY_MAX_CONNECTIONS_PER_IP", "10")]).await;
    let (gateway, refused) = (arena.gateway(), Err(Refused { status: 429, retry_after: true }));
    // Half of the sockets are silent, half are WebSockets.
    let (mut silent, mut open) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        silent.push(connect_from(ATTACKER, gateway.port).await.unwrap());
        open.push(Client::open_from(gateway, ATTACKER, &[]).await.unwrap());
    }
    assert_eq!(Client::open_from(gateway, ATTACKER, &[]).await.map(drop), refused);
    // The same answer to other requests, and to incomplete ones.
    let answer = raw(ATTACKER, gateway.port, b"POST /hooks/pocketbase HTTP/1.1\r\n").await;
    assert!(
        answer.starts_with("HTTP/1.1 429 ")
            && answer.contains("retry-after: ")
            && answer.contains("max_connections_per_ip"),
        "{answer}"
    );
    // Without a trusted proxy, a client's forwarding header is ignored.
    assert_eq!(Client::open_from(gateway, ATTACKER, &[("x-forwarded-for", "192.0.2.1")]).await.map(drop), refused);
    gateway.metric_reaches(r#"gateway_sockets_refused_total{reason="max_connections_per_ip"}"#, 3.0).await;
    assert!(gateway.process.log().contains("trusted_proxies"), "{}", gateway.process.log());
    arena.newcomer().await;
    drop((silent, open));
    until("the address to have room again", async || Client::open_from(gateway, ATTACKER, &[]).await.ok()).await;
    arena.end_undisturbed().await;
}

#[tokio::test]
async fn sockets_of_one_address_behind_a_proxy() {
    let settings = [("GATEWAY_MAX_CONNECTIONS_PER_IP", "3"), ("GATEWAY_TRUSTED_PROXIES", "127.0.0.8/31, 10.0.0.0/8")];
    let arena = Arena::new(&settings).await;
    let gateway = arena.gateway();
    let proxy = Ipv4Addr::new(127, 0, 0, 9);
    let mut held = Vec::new();
    let mut open = async |headers: &[(&str, &str)]| match Client::open_from(gateway, proxy, headers).await {
        Ok(client) => {
            held.push(client);
            101
        }
        Err(refused) => refused.status,
    };
    for (headers, status) in [
        // The proxy's own entry is the rightmost; entries to the left are forged.
        (vec![("x-forwarded-for", "192.0.2.1")], 101),
        (vec![("x-forwarded-for", "203.0.113.1, 192.0.2.1")], 101),
        (vec![("x-forwarded-for", "203.0.113.2"), ("x-forwarded-for", "192.0.2.1, 10.1.1.1")], 101),
        (vec![("x-forwarded-for", "203.0.113.3, 192.0.2.1")], 429),
        (vec![("forwarded", "for=\"192.0.2.1:4711\";proto=https")], 429),
        (vec![("x-forwarded-for", "192.0.2.2")], 101),
        (vec![("forwarded", "for=203.0.113.4, for=\"[2001:db8:1:2::1]\"")], 101),
        (vec![("forwarded", "for=\"[2001:db8:1:2::2]\"")], 101),
        (vec![("forwarded", "for=\"[2001:db8:1:2:3::3]\"")], 101),
        (vec![("forwarded", "for=\"[2001:db8:1:2:3::4]\"")], 429),
        // No usable address: the proxy itself is counted.
        (vec![("x-forwarded-for", "nonsense")], 101),
        (vec![("forwarded", "for=unknown")], 101),
        (vec![], 101),
        (vec![("forwarded", "for=192.0.2.7"), ("x-forwarded-for", "192.0.2.8")], 429),
    ] {
        assert_eq!(open(&headers).await, status, "{headers:?}");
    }
    gateway.metric_reaches(r#"gateway_handshakes_refused_total{reason="max_connections_per_ip"}"#, 4.0).await;
    // These clients connect and are served like others.
    held[0].log_in(&arena.users[0].token).await;
    held[0].subscribe(&arena.channel()).await;
    arena.end_undisturbed().await;
}

#[tokio::test]
async fn connections_of_one_gateway() {
    let mut arena = Arena::new(&[("GATEWAY_MAX_CONNECTIONS", "5")]).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(Client::open_from(arena.gateway(), ATTACKER, &[]).await.unwrap());
    }
    for _ in 0..3 {
        let refused = Client::open_from(arena.gateway(), Ipv4Addr::LOCALHOST, &[]).await.map(drop);
        assert_eq!(refused, Err(Refused { status: 503, retry_after: true }));
    }
    arena.gateway().metric_reaches(r#"gateway_handshakes_refused_total{reason="max_connections"}"#, 3.0).await;
    assert_eq!(arena.gateway().metric("gateway_connections").await, 5.0);
    // PocketBase's hooks have a separate share of connections.
    let hook = r#"gateway_hooks_refused_total{reason="busy"}"#;
    let answer = Http::new().post_events(arena.gateway(), r#"{"events":[]}"#.into()).await.unwrap();
    assert_eq!((answer.status, arena.gateway().metric(hook).await), (202, 0.0));
    arena.is_served().await;
    drop(held);
    until("room again", async || Client::try_open(&arena.gateway().websocket()).await).await;
    arena.end_undisturbed().await;
}

#[tokio::test]
async fn thousands_of_silent_sockets() {
    const SOCKETS: usize = 4000;
    for (per_ip, pending, reason) in
        [("500", "1000000", "max_connections_per_ip"), ("0", "300", "pending"), ("1000", "300", "pending")]
    {
        let settings = [("GATEWAY_MAX_CONNECTIONS_PER_IP", per_ip), ("GATEWAY_MAX_PENDING", pending)];
        let mut arena = Arena::new(&settings).await;
        let (mut sockets, mut longest) = (Vec::new(), Duration::ZERO);
        for i in 0..SOCKETS {
            // As fast as the system accepts them, with a partial request or none.
            let mut stream = connect_from(ATTACKER, arena.gateway().port).await.expect("the system takes it");
            if i % 2 == 0 {
                let _ = stream.write_all(b"GET /connection/websocket HTTP/1.1\r\nHost: x\r\n").await;
            }
            sockets.push(stream);
            if i % 500 == 499 {
                longest = longest.max(arena.newcomer().await);
                arena.is_served().await;
            }
        }
        let open = std::fs::read_dir(format!("/proc/{}/fd", arena.gateway().process.pid())).unwrap().count();
        println!("{SOCKETS} sockets with {settings:?}: a newcomer took {longest:.2?} at most; {open} descriptors");
        assert!(longest < Duration::from_secs(2), "{longest:?}");
        assert!(open < 1200, "{open}");
        arena.gateway().metric_reaches(&format!("gateway_sockets_refused_total{{reason=\"{reason}\"}}"), 2000.0).await;
        arena.end_undisturbed().await;
    }
}

#[tokio::test]
async fn connections_without_a_token() {
    let arena = Arena::new(&[("GATEWAY_MAX_UNAUTHENTICATED", "5"), ("GATEWAY_CONNECT_TIMEOUT", "2")]).await;
    let gauge = "gateway_unauthenticated_connections";
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(Client::open_from(arena.gateway(), ATTACKER, &[]).await.unwrap());
    }
    assert_eq!(arena.gateway().metric(gauge).await, 5.0);
    // An honest client gets in, and displaces the oldest.
    Client::connect(arena.gateway(), &arena.users[0].token).await;
    assert_eq!(silent.remove(0).closed().await, (4003, "displaced".into()));
    arena.gateway().metric_reaches(r#"gateway_disconnects_total{code="4003"}"#, 1.0).await;
    for client in &mut silent {
        assert_eq!(client.closed().await.0, 3502);
    }
    // Connections with a token do not count.
    let mut held = Vec::new();
    for _ in 0..10 {
        held.push(Client::connect(arena.gateway(), &arena.users[0].token).await);
    }
    assert_eq!(arena.gateway().metric(gauge).await, 0.0);
    arena.end_undisturbed().await;
}

#[tokio::test]
async fn pages_from_other_origins() {
    let listed = "https://chat.example.org, https://*.example.com, capacitor://localhost, file://";
    let arena = Arena::new(&[("GATEWAY_ALLOWED_ORIGINS", listed)]).await;
    for (origins, allowed) in [
        (vec![], true),
        (vec!["https://chat.example.org"], true),
        (vec!["https://a.example.com"], true),
        (vec!["capacitor://localhost"], true),
        (vec!["file://"], true),
        (vec!["capacitor://evil.example"], false),
        (vec!["https://evil.example"], false),
        (vec!["null"], false),
        (vec!["https://chat.example.org", "https://evil.example"], false),
        (vec!["https://chat.example.org, https://evil.example"], false),
    ] {
        let headers: Vec<_> = origins.iter().map(|origin| ("origin", *origin)).collect();
        let opened = Client::open_from(arena.gateway(), ATTACKER, &headers).await.map(drop);
        let expected = if allowed { Ok(()) } else { Err(Refused { status: 403, retry_after: false }) };
        assert_eq!(opened, expected, "{origins:?}");
    }
    arena.gateway().metric_reaches(r#"gateway_handshakes_refused_total{reason="origin"}"#, 5.0).await;
    arena.end_undisturbed().await;

    let arena = Arena::new(&[("GATEWAY_ALLOWED_ORIGINS", "null")]).await;
    assert!(Client::open_from(arena.gateway(), ATTACKER, &[("origin", "null")]).await.is_ok());
    assert!(Client::open_from(arena.gateway(), ATTACKER, &[("origin", "file://")]).await.is_err());
    arena.end_undisturbed().await;

    let arena = Arena::new(&[]).await;
    assert!(Client::open_from(arena.gateway(), ATTACKER, &[("origin", "https://anywhere.example")]).await.is_ok());
    arena.end_undisturbed().await;
}

#[tokio::test]
async fn heads_above_the_size_limit() {
    let arena = Arena::new(&[]).await;
    let gateway = arena.gateway();
    let lines = |count: usize| (0..count).map(|i| format!("X-{i}: x\r\n")).collect::<String>();
    for port in [gateway.port, gateway.admin_port] {
        for (name, request, status) in [
            ("a long header", format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(20_000)), 431),
            ("a long header without an end", format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}", "x".repeat(20_000)), 431),
            ("a long first line", format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(20_000)), 431),
            ("101 headers", format!("GET / HTTP/1.1\r\n{}\r\n", lines(101)), 431),
            ("100 headers", format!("GET /nothing HTTP/1.1\r\n{}Connection: close\r\n\r\n", lines(99)), 404),
            ("no HTTP", "nonsense\r\n\r\n".to_owned(), 400),
        ] {
            let answer = raw(ATTACKER, port, request.as_bytes()).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {answer}");
        }
    }
    let long = format!("GET /connection/websocket?{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(3000));
    let answer = raw(ATTACKER, gateway.port, long.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 414 ") && answer.contains("uri_too_long"), "{answer}");
    gateway.metric_reaches(r#"gateway_sockets_refused_total{reason="too_large"}"#, 8.0).await;
    gateway.metric_reaches(r#"gateway_sockets_refused_total{reason="malformed"}"#, 2.0).await;
    arena.end_undisturbed().await;
}

#[tokio::test]
async fn slow_requests() {
    let arena = Arena::new(&[("GATEWAY_REQUEST_TIMEOUT", "1")]).await;
    let gateway = arena.gateway();
    let patience = Duration::from_secs(1)..Duration::from_secs(4);
    for port in [gateway.port, gateway.admin_port] {
        // No bytes; a head that arrives byte by byte; no bytes after a first request.
        for (first, drip) in
            [("", false), ("GET /livez HTTP/1.1\r\nX: ", true), ("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", false)]
        {
            let begun = Instant::now();
            let mut stream = connect_from(ATTACKER, port).await.unwrap();
            stream.write_all(first.as_bytes()).await.unwrap();
            let (mut reader, mut writer) = stream.split();
            let dripping = async {
                while drip && writer.write_all(b"x").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                std::future::pending::<()>().await;
            };
            let mut answer = Vec::new();
            tokio::select! {
                () = dripping => {}
                _ = timeout(crate::harness::DEADLINE, reader.read_to_end(&mut answer)) => {}
            }
            let answered_at_once = port == gateway.port && first.ends_with("\r\n\r\n");
            assert!(answered_at_once || patience.contains(&begun.elapsed()), "{first:?} {:?}", begun.elapsed());
        }
    }
    gateway.metric_reaches(r#"gateway_sockets_refused_total{reason="request_timeout"}"#, 4.0).await;

    let head = b"POST /hooks/pocketbase HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{";
    let begun = Instant::now();
    let answer = raw(ATTACKER, gateway.port, head).await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("request_timeout"), "{answer}");
    assert!(patience.contains(&begun.elapsed()), "{:?}", begun.elapsed());
    gateway.metric_reaches(r#"gateway_hooks_refused_total{reason="request_timeout"}"#, 1.0).await;
    arena.end_undisturbed().await;
}

#[tokio::test]
async fn bodies_above_the_memory_limit() {
    let arena = Arena::new(&[("GATEWAY_MAX_HOOK_SIZE", "200000")]).await;
    let gateway = arena.gateway();
    let head =
        |length: usize| format!("POST /hooks/pocketbase HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{{");
    assert!(raw(ATTACKER, gateway.port, head(200_001).as_bytes()).await.starts_with("HTTP/1.1 413 "));
    // Announced bodies that are never sent reserve memory until request_timeout; a small body fits beside them.
    let mut held = Vec::new();
    for _ in 0..5 {
        let mut stream = connect_from(ATTACKER, gateway.port).await.unwrap();
        stream.write_all(head(200_000).as_bytes()).await.unwrap();
        held.push(stream);
    }
    gateway.metric_reaches(r#"gateway_hooks_refused_total{reason="busy"}"#, 1.0).await;
    assert_eq!(Http::new().post_events(gateway, r#"{"events":[]}"#.into()).await.unwrap().status, 202);
    let answer = raw(ATTACKER, gateway.port, head(200_000).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: "), "{answer}");
    assert_eq!(gateway.metric(r#"gateway_hooks_refused_total{reason="busy"}"#).await, 2.0);
    drop(held);
    arena.end_undisturbed().await;
}

#[tokio::test]
async fn hooks_that_post_too_many_events_or_twice() {
    let mut arena = Arena::new(&[("GATEWAY_MAX_HOOK_EVENTS", "10")]).await;
    let (http, url) = (Http::new(), arena.gateway().url("/hooks/pocketbase"));
    let post = async |body: &str, at: SystemTime| {
        let (timestamp, signature) = Signer::new(&SECRET.into()).sign(at, "POST", "/hooks/pocketbase", body.as_bytes());
        let headers = [(TIMESTAMP, timestamp.as_str()), (SIGNATURE, signature.as_str())];
        let answer = http.send("POST", &url, &headers, body.to_owned()).await.unwrap();
        (answer.status, answer.json()["error"]["code"].as_str().map(str::to_owned))
    };
    let now = SystemTime::now();
    let second = Duration::from_secs(1);
    let events = |count: u64| {
        let events: Vec<_> =
            (1..=count).map(|seq| json!({"seq": 1_000_000 + seq, "channels": [], "data": 1})).collect();
        json!({"events": events}).to_string()
    };
    assert_eq!(post(&events(11), now).await, (400, Some("too_many_events".into())));
    assert_eq!(post(&events(10), now).await.0, 202);
    assert_eq!(post(&events(10), now).await, (409, Some("replayed".into())));
    assert_eq!(post(&events(10), now - second).await.0, 202, "signed anew");
    assert_eq!(post(&events(10), now - second).await.0, 409);
    assert_eq!(post(&events(9), now).await.0, 202, "another body of the same second");
    for (reason, count) in [("too_many_events", 1.0), ("replayed", 2.0)] {
        arena.gateway().metric_reaches(&format!("gateway_hooks_refused_total{{reason=\"{reason}\"}}"), count).await;
    }
    // The hooks never send a post twice.
    for _ in 0..20 {
        arena.is_served().await;
    }
    assert_eq!(arena.gateway().metric(r#"gateway_hooks_refused_total{reason="replayed"}"#).await, 2.0);
    arena.end_undisturbed().await;
}
