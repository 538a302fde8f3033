//! The snippet for nginx of deploy/operations.md, in a real nginx.

use crate::harness::World;
use crate::harness::client::{Client, Refused};
use crate::harness::http::Http;
use crate::harness::process::{Process, free_port, program};
use crate::harness::until;
use serde_json::json;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::timeout;

const OPERATIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/operations.md");

/// A running nginx that serves the snippet for one gateway.
struct Nginx {
    port: u16,
    process: Process,
    _folder: TempDir,
}

impl Nginx {
    async fn start(gateway: u16, read_timeout: &str) -> Self {
        let (folder, port) = (TempDir::new().expect("a folder"), free_port());
        let operations = std::fs::read_to_string(OPERATIONS).expect("deploy/operations.md");
        let snippet =
            operations.split("```nginx\n").nth(1).and_then(|rest| rest.split("```").next()).expect("the snippet");
        let mut server = snippet.to_owned();
        for (from, to) in [("127.0.0.1:8000", format!("127.0.0.1:{gateway}")), ("60s", read_timeout.to_owned())] {
            assert!(server.contains(from), "{from} is not in {server}");
            server = server.replace(from, &to);
        }
        let config = format!(
            "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n\
             client_body_temp_path body;\nproxy_temp_path proxy;\nfastcgi_temp_path fastcgi;\nuwsgi_temp_path uwsgi;\n\
             scgi_temp_path scgi;\nserver {{\nlisten 127.0.0.1:{port};\n{server}\n}}\n}}\n"
        );
        std::fs::write(folder.path().join("nginx.conf"), config).expect("the configuration can be written");
        let mut command = Command::new(program("nginx", "usr/sbin/nginx"));
        command.arg("-p").arg(folder.path()).args(["-e", "stderr", "-c", "nginx.conf"]);
        let mut process = Process::start("nginx", &mut command);
        until("nginx to listen", async || {
            assert!(!process.has_ended(), "{}", process.log());
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        })
        .await;
        Self { port, process, _folder: folder }
    }

    fn websocket(&self) -> String {
        format!("ws://127.0.0.1:{}/connection/websocket", self.port)
    }
}

#[tokio::test]
async fn the_snippet_forwards_addresses_and_messages_and_hides_private_paths() {
    let settings = [("GATEWAY_TRUSTED_PROXIES", "127.0.0.1"), ("GATEWAY_MAX_CONNECTIONS_PER_IP", "2")];
    let world = World::start(1, false, &settings).await;
    let (room, users) = world.room(&["alice", "bob", "eve"]).await;
    let nginx = Nginx::start(world.gateway().port, "60s").await;
    let (one, other) = (Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3));

    let mut held = Vec::new();
    for from in [one, one, other, other] {
        held.push(Client::open_at(&nginx.websocket(), from, &[]).await.expect("each address has two places"));
    }
    let made_up = [("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=192.0.2.1")];
    for headers in [vec![], vec![made_up[0]], vec![made_up[1]], made_up.to_vec()] {
        let third = Client::open_at(&nginx.websocket(), one, &headers).await.map(drop);
        assert_eq!(third, Err(Refused { status: 429, retry_after: true }), "{headers:?}");
    }
    let mut bob = held.pop().expect("a client");
    bob.log_in(&users[1].token).await;
    bob.subscribe(&format!("room:{room}")).await;
    world.pocketbase.write(&room, &users[0], "through nginx").await;
    assert_eq!(bob.message().await, "through nginx");

    // Each address has its places already.
    held.clear();
    until("free places", async || (world.gateway().metric("gateway_connections").await <= 1.0).then_some(())).await;
    super::stream_through(nginx.port, &world, &room, &users).await;

    let http = Http::new();
    for (path, status) in [
        ("/connection/websocket", 426),
        ("/connection/websocket/", 426),
        ("/connection/http_stream", 405),
        ("/connection/sse/", 400),
        ("/emulation", 405),
        ("/connection/websocket/more", 404),
        ("/hooks/pocketbase", 404),
        ("/api/presence", 404),
        ("/connection/websocket/../../api/presence", 404),
        ("//api/presence", 404),
        ("/metrics", 404),
    ] {
        let answer = http.get(&format!("http://127.0.0.1:{}{path}", nginx.port)).await.expect("nginx answers");
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
    }
    assert_eq!(world.gateway().metric_sum("gateway_hooks_refused_total").await, 0.0);
    let log = world.gateway().process.log();
    assert!(!log.contains("sends neither Forwarded nor X-Forwarded-For"), "{log}");
}

/// The proxy's read time-out, here 5 seconds, is longer than the gateway's `ping_interval`, here 2.
#[tokio::test]
async fn an_idle_client_outlives_the_proxy_s_read_timeout() {
    let pings = [("GATEWAY_PING_INTERVAL", "2"), ("GATEWAY_PONG_TIMEOUT", "1")];
    let settings = [("GATEWAY_TRUSTED_PROXIES", "127.0.0.1"), pings[0], pings[1]];
    let world = World::start(1, false, &settings).await;
    let (_, users) = world.room(&["alice", "bob", "eve"]).await;
    let nginx = Nginx::start(world.gateway().port, "5s").await;
    let mut bob = Client::open_at(&nginx.websocket(), Ipv4Addr::LOCALHOST, &[]).await.expect("nginx lets it in");
    bob.log_in(&users[1].token).await;
    // The client answers pings meanwhile.
    let ended = timeout(Duration::from_secs(8), bob.text()).await;
    assert!(ended.is_err(), "{ended:?} {}", nginx.process.log());
    assert!(bob.call("presence", json!({"channel": "room:x"})).await["error"].is_object(), "it still answers");
}
