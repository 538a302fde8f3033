//! The snippets for Caddy of deploy/README.md, in a real Caddy, without its certificates.

use crate::harness::World;
use crate::harness::client::{Client, Refused};
use crate::harness::http::Http;
use crate::harness::process::{Process, free_port, program};
use crate::harness::until;
use std::net::Ipv4Addr;
use std::process::Command;
use tempfile::TempDir;

const ENGLISH: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/README.md"));
const RUSSIAN: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/README.ru.md"));

/// The block of code that begins with `begin`, which is the same in both languages.
fn snippet(begin: &str) -> &'static str {
    let block = |text: &'static str| {
        let from = text.find(&format!("```\n{begin}")).expect("the snippet") + 4;
        &text[from..from + text[from..].find("```").expect("its end")]
    };
    assert_eq!(block(ENGLISH), block(RUSSIAN));
    block(ENGLISH)
}

/// Caddy in a folder of its own, with this Caddyfile.
fn caddy(folder: &TempDir, caddyfile: &str, arguments: &[&str]) -> Command {
    std::fs::write(folder.path().join("Caddyfile"), caddyfile).expect("the Caddyfile can be written");
    let mut command = Command::new(program("caddy", "usr/bin/caddy"));
    command.current_dir(folder.path()).args(arguments).args(["--config", "Caddyfile", "--adapter", "caddyfile"]);
    command.env("XDG_DATA_HOME", folder.path()).env("XDG_CONFIG_HOME", folder.path()).env("HOME", folder.path());
    command
}

#[tokio::test]
async fn the_site_forwards_messages_and_addresses_and_hides_private_paths() {
    let settings = [("GATEWAY_TRUSTED_PROXIES", "127.0.0.1"), ("GATEWAY_MAX_CONNECTIONS_PER_IP", "2")];
    let world = World::start(1, false, &settings).await;
    let (room, users) = world.room(&["alice", "bob", "eve"]).await;
    let (folder, port) = (TempDir::new().expect("a folder"), free_port());
    std::fs::write(folder.path().join("index.html"), "the chat").expect("the page can be written");
    let mut site = snippet("chat.example.org {").to_owned();
    for (from, to) in [
        ("chat.example.org {", format!("http://127.0.0.1:{port} {{")),
        ("127.0.0.1:8000", format!("127.0.0.1:{}", world.gateway().port)),
        ("127.0.0.1:8090", world.pocketbase.url.trim_start_matches("http://").to_owned()),
        ("/usr/local/lib/konvert/chat", folder.path().display().to_string()),
    ] {
        assert!(site.contains(from), "{from} is not in {site}");
        site = site.replace(from, &to);
    }
    let caddyfile = format!("{{\n    admin off\n}}\n{site}");
    let mut process = Process::start("caddy", &mut caddy(&folder, &caddyfile, &["run"]));
    until("Caddy to listen", async || {
        assert!(!process.has_ended(), "{}", process.log());
        std::net::TcpStream::connect(("127.0.0.1", port)).ok()
    })
    .await;

    let websocket = format!("ws://127.0.0.1:{port}/connection/websocket");
    let (one, other) = (Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3));
    let mut held = Vec::new();
    for from in [one, one, other, other] {
        held.push(Client::open_at(&websocket, from, &[]).await.expect("each address has two places"));
    }
    let made_up = [("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=192.0.2.1")];
    for headers in [vec![], made_up.to_vec()] {
        let third = Client::open_at(&websocket, one, &headers).await.map(drop);
        assert_eq!(third, Err(Refused { status: 429, retry_after: true }), "{headers:?}");
    }
    let mut bob = held.pop().expect("a client");
    bob.log_in(&users[1].token).await;
    bob.subscribe(&format!("room:{room}")).await;
    world.pocketbase.write(&room, &users[0], "through Caddy").await;
    assert_eq!(bob.message().await, "through Caddy");

    held.clear();
    until("free places", async || (world.gateway().metric("gateway_connections").await <= 1.0).then_some(())).await;
    super::stream_through(port, &world, &room, &users).await;

    let http = Http::new();
    for (path, status, text) in [
        ("/", 200, "the chat"),
        ("/rooms/1", 200, "the chat"),
        ("/api/health", 200, "API is healthy"),
        ("/api/gateway/keys", 404, ""),
        ("/hooks/pocketbase", 404, ""),
        ("/metrics", 404, ""),
        ("/connection/websocket", 426, ""),
        ("/connection/sse", 400, ""),
        ("/emulation", 405, ""),
    ] {
        let answer = http.get(&format!("http://127.0.0.1:{port}{path}")).await.expect("Caddy answers");
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
        assert!(answer.text.contains(text), "{path}: {}", answer.text);
    }
    assert_eq!(world.gateway().metric_sum("gateway_hooks_refused_total").await, 0.0);
}

#[test]
fn caddy_accepts_the_load_balancer() {
    let folder = TempDir::new().expect("a folder");
    let balancer = snippet("reverse_proxy 10.0.0.11:8000");
    let output = caddy(&folder, &format!(":8080 {{\n{balancer}}}\n"), &["adapt"]).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("least_conn"), "{output:?}");
}
