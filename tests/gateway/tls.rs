//! TLS and Unix sockets with real servers: Redis and a cluster with TLS, PocketBase behind nginx with a certificate, a
//! gateway on Unix sockets behind nginx.

use crate::harness::certificates::Certificates;
use crate::harness::client::Client;
use crate::harness::cluster::Cluster;
use crate::harness::gateway::Gateway;
use crate::harness::nginx::{self, Nginx};
use crate::harness::pocketbase::PocketBase;
use crate::harness::process::free_port;
use crate::harness::redis::Redis;
use crate::harness::{SECRET, World, until};
use std::cell::Cell;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

const PASSWORD: &str = "not-to-be-seen";

/// A Redis with a password, and the number of its TLS port.
fn tls_redis(certificates: &Certificates, certificate: &str, auth_clients: &str) -> (Redis, u16) {
    let port = Cell::new(0);
    let redis = Redis::start_with_ports(|| {
        port.set(free_port());
        let mut arguments = certificates.redis_arguments_with(certificate, port.get());
        arguments.extend(["--save", "", "--requirepass", PASSWORD].map(str::to_owned));
        arguments.extend(["--tls-auth-clients", auth_clients].map(str::to_owned));
        (free_port(), arguments)
    });
    (redis, port.get())
}

/// Writes messages and checks that both clients get every message once and in order.
async fn chat(world: &World, round: usize) {
    let names = ["alice", "bob", "carol", "eve"].map(|name| format!("{name}{round}"));
    let (room, users) = world.room(&names.each_ref().map(String::as_str)).await;
    let last = world.gateways.len() - 1;
    let mut clients = [world.subscriber(0, &users[1], &room).await, world.subscriber(last, &users[2], &room).await];
    for i in 0..20 {
        world.pocketbase.write(&room, &users[0], &i.to_string()).await;
    }
    for client in &mut clients {
        for i in 0..20 {
            assert_eq!(client.message().await, i.to_string());
        }
    }
}

fn doctor(settings: &[(&str, &str)]) -> String {
    let output = run("doctor", settings);
    String::from_utf8(output.stdout).expect("text") + &String::from_utf8(output.stderr).expect("text")
}

fn run(command: &str, settings: &[(&str, &str)]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_konvert-gateway"));
    program.arg(command).env_clear().env("GATEWAY_SECRET", SECRET).envs(settings.iter().copied());
    program.output().expect("the gateway runs")
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_over_tls_with_a_client_certificate() {
    let certificates = Certificates::make();
    let (mut redis, port) = tls_redis(&certificates, "server", "yes");
    let url = format!("rediss://:{PASSWORD}@127.0.0.1:{port}");
    let [ca, certificate, key] = ["ca.pem", "client.pem", "client.key"].map(|name| certificates.path(name));
    let settings = [
        ("GATEWAY_REDIS_URL", url.as_str()),
        ("GATEWAY_REDIS_CA_FILE", &ca),
        ("GATEWAY_REDIS_CERT_FILE", &certificate),
        ("GATEWAY_REDIS_KEY_FILE", &key),
    ];
    let mut world = World::start_beside(2, &settings).await;
    chat(&world, 0).await;
    redis.kill();
    redis.restart();
    for gateway in &mut world.gateways {
        gateway.ready().await;
    }
    chat(&world, 1).await;
    for gateway in &world.gateways {
        assert!(!gateway.process.log().contains(PASSWORD), "{}", gateway.process.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_errors_of_redis_name_the_reason() {
    let certificates = Certificates::make();
    let (strict, port) = tls_redis(&certificates, "server", "yes");
    let (_elsewhere, other_port) = tls_redis(&certificates, "elsewhere", "no");
    let [ca, other_ca, certificate, key] =
        ["ca.pem", "other-ca.pem", "client.pem", "client.key"].map(|name| certificates.path(name));
    let url = |scheme: &str, port: u16| format!("{scheme}://:{PASSWORD}@127.0.0.1:{port}");
    let authority = ("GATEWAY_REDIS_CA_FILE", ca.as_str());
    let identity = [("GATEWAY_REDIS_CERT_FILE", certificate.as_str()), ("GATEWAY_REDIS_KEY_FILE", key.as_str())];
    let right = [&[authority], &identity[..]].concat();
    for (url, settings, told) in [
        (url("rediss", port), right.as_slice(), vec!["ok    Redis"]),
        (url("rediss", port), &identity, vec!["WRONG Redis", "UnknownIssuer", "`redis_ca_file`"]),
        (
            url("rediss", port),
            &[("GATEWAY_REDIS_CA_FILE", other_ca.as_str()), identity[0], identity[1]],
            vec!["WRONG Redis", "`redis_ca_file`"],
        ),
        (url("rediss", port), &[authority], vec!["WRONG Redis", "CertificateRequired", "`redis_cert_file`"]),
        (url("rediss", other_port), &[authority], vec!["WRONG Redis", "elsewhere.example", "same host"]),
        (url("rediss", strict.port()), &[authority], vec!["WRONG Redis", "speaks no TLS"]),
        (url("redis", port), &[], vec!["WRONG Redis", "rediss instead of redis means TLS"]),
    ] {
        let settings = [&[("GATEWAY_REDIS_URL", url.as_str())], settings].concat();
        let printed = doctor(&settings);
        for word in told {
            assert!(printed.contains(word), "{word} for {settings:?}:\n{printed}");
        }
        assert!(!printed.contains(PASSWORD), "{printed}");
    }
}

#[test]
fn unusable_files_are_refused_before_any_port_is_bound() {
    let certificates = Certificates::make();
    let path = |name: &str| certificates.path(name);
    let (ca, certificate, key, other_key) =
        (path("ca.pem"), path("client.pem"), path("client.key"), path("server.key"));
    let tls = ("GATEWAY_REDIS_URL", "rediss://:hunter2@127.0.0.1");
    let plain = ("GATEWAY_REDIS_URL", "redis://:hunter2@127.0.0.1");
    for (settings, told) in [
        (vec![tls, ("GATEWAY_REDIS_CA_FILE", "/does/not/exist")], ["REDIS_CA_FILE", "/does/not/exist"]),
        (vec![tls, ("GATEWAY_REDIS_CA_FILE", key.as_str())], ["REDIS_CA_FILE", "BEGIN CERTIFICATE"]),
        (vec![tls, ("GATEWAY_REDIS_CERT_FILE", &key)], ["REDIS_CERT_FILE", "BEGIN CERTIFICATE"]),
        (vec![tls, ("GATEWAY_REDIS_KEY_FILE", &ca)], ["REDIS_KEY_FILE", "BEGIN PRIVATE KEY"]),
        (vec![tls, ("GATEWAY_REDIS_KEY_FILE", &key)], ["`redis_cert_file`", "missing"]),
        (vec![tls, ("GATEWAY_REDIS_CERT_FILE", &certificate)], ["`redis_key_file`", "missing"]),
        (
            vec![tls, ("GATEWAY_REDIS_CERT_FILE", &certificate), ("GATEWAY_REDIS_KEY_FILE", &other_key)],
            ["`redis_key_file`", "not the key"],
        ),
        (vec![plain, ("GATEWAY_REDIS_CA_FILE", &ca)], ["`redis_ca_file`", "rediss"]),
        (vec![("GATEWAY_POCKETBASE_CA_FILE", &ca)], ["`pocketbase_ca_file`", "https://"]),
    ] {
        for command in ["check-config", "serve"] {
            let output = run(command, &settings);
            let printed = String::from_utf8(output.stderr).expect("text");
            assert_eq!(output.status.code(), Some(2), "{settings:?}: {printed}");
            assert!(told.iter().all(|word| printed.contains(word)) && !printed.contains("hunter2"), "{printed}");
        }
    }
    let identity = [("GATEWAY_REDIS_CERT_FILE", certificate.as_str()), ("GATEWAY_REDIS_KEY_FILE", key.as_str())];
    let output = run("check-config", &[tls, identity[0], identity[1], ("GATEWAY_REDIS_CA_FILE", &ca)]);
    let printed = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success() && printed.contains(&format!("redis_key_file = \"{key}\"")), "{printed}");
    assert!(printed.contains("rediss://********@127.0.0.1") && !printed.contains("PRIVATE KEY"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_over_tls() {
    let certificates = Certificates::make();
    let cluster = Cluster::start_with_tls(&certificates);
    let url = format!("rediss-cluster://127.0.0.1:{}", cluster.tls_ports[0]);
    let settings = [("GATEWAY_REDIS_URL", url.as_str()), ("GATEWAY_REDIS_CA_FILE", &certificates.path("ca.pem"))];
    let world = World::start_beside(2, &settings).await;
    for round in 0..4 {
        chat(&world, round).await;
    }
    // Rooms and users' leases are spread over the slots.
    let used = cluster.nodes.iter().filter(|node| node.calls("spublish") > 0).count();
    assert!(used >= 2, "{used} nodes were published on");
}

#[tokio::test(flavor = "multi_thread")]
async fn pocketbase_over_https() {
    let certificates = Certificates::make();
    let (gateway_port, front) = (free_port(), free_port());
    let pocketbase = PocketBase::start(&format!("http://127.0.0.1:{gateway_port}")).await;
    let certificate = |name: &str| {
        let [certificate, key] = [".pem", ".key"].map(|end| certificates.path(&format!("{name}{end}")));
        format!("ssl_certificate {certificate}; ssl_certificate_key {key};")
    };
    let to = format!("127.0.0.1:{}", pocketbase.port);
    let server = |name, port| nginx::server(&format!("127.0.0.1:{port} ssl"), &certificate(name), &to);
    let other_front = free_port();
    let servers = server("server", front) + &server("elsewhere", other_front);
    let _nginx = Nginx::start(&servers, &[front, other_front]).await;
    let ca = certificates.path("ca.pem");
    let (url, other_url) = (format!("https://127.0.0.1:{front}"), format!("https://127.0.0.1:{other_front}"));
    let gateway = Gateway::start(gateway_port, &url, &[("GATEWAY_POCKETBASE_CA_FILE", &ca)]).await;
    let world = World { gateways: vec![gateway], pocketbase, redis: None };
    chat(&world, 0).await;

    let plain_to_tls = format!("http://127.0.0.1:{front}");
    let tls_to_plain = world.pocketbase.url.replace("http", "https");
    let authority = ("GATEWAY_POCKETBASE_CA_FILE", ca.as_str());
    for (url, authority, told) in [
        (&url, Some(authority), "ok    PocketBase at https://"),
        (&url, None, "`pocketbase_ca_file`"),
        (&other_url, Some(authority), "elsewhere.example"),
        (&tls_to_plain, Some(authority), "speaks no TLS"),
        (&plain_to_tls, None, "WRONG PocketBase"),
    ] {
        let settings: Vec<_> = authority.into_iter().chain([("GATEWAY_POCKETBASE_URL", url.as_str())]).collect();
        let printed = doctor(&settings);
        assert!(printed.contains(told), "{told} for {settings:?}:\n{printed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_and_both_listeners_on_unix_sockets() {
    let directory = TempDir::new().expect("a temporary directory");
    let path = |name: &str| directory.path().join(name).to_str().expect("a path in UTF-8").to_owned();
    let (public, admin, of_redis) = (path("public.sock"), path("admin.sock"), path("redis.sock"));
    let _redis = Redis::start_with(&["--save", "", "--unixsocket", &of_redis, "--requirepass", PASSWORD]);
    let ports = (free_port(), free_port());
    let server = |port, path| nginx::server(&format!("127.0.0.1:{port}"), "", &format!("unix:{path}:"));
    let servers = server(ports.0, &public) + &server(ports.1, &admin);
    let _nginx = Nginx::start(&servers, &[ports.0, ports.1]).await;
    let pocketbase = PocketBase::start(&format!("http://127.0.0.1:{}", ports.0)).await;
    let url = format!("unix://{of_redis}?db=3&pass={PASSWORD}");
    let (listen, admin_listen) = (format!("unix://{public}"), format!("unix://{admin}"));
    let settings = [
        ("GATEWAY_REDIS_URL", url.as_str()),
        ("GATEWAY_LISTEN", &listen),
        ("GATEWAY_ADMIN_LISTEN", &admin_listen),
        ("GATEWAY_MAX_CONNECTIONS_PER_IP", "3"),
    ];
    let program = Path::new(env!("CARGO_BIN_EXE_konvert-gateway"));
    let gateway = Gateway::start_on(program, ports, &pocketbase.url, &settings).await;
    let mut world = World { gateways: vec![gateway], pocketbase, redis: None };
    chat(&world, 0).await;
    assert!(!world.gateway().process.log().contains(PASSWORD));

    // Limits count the forwarded addresses, not the proxy.
    let user = world.pocketbase.user("dave").await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(Client::connect(world.gateway(), &user.token).await);
    }
    assert!(Client::try_open(&world.gateway().websocket()).await.is_none(), "one too many of 127.0.0.1");
    let response = crate::harness::http::Http::new().get(&world.gateway().admin("livez")).await.expect("the admin listener");
    assert_eq!(response.status, 200);
    drop(clients);

    // A second gateway leaves sockets in use alone; a restart replaces the files of a killed gateway.
    let second = run("serve", &[("GATEWAY_LISTEN", &listen)]);
    let printed = String::from_utf8(second.stderr).expect("text");
    assert!(second.status.code() == Some(2) && printed.contains(&listen) && printed.contains("another"), "{printed}");
    world.gateways[0].process.kill();
    assert!(Path::new(&public).exists());
    world.gateways[0].restart().await;
    chat(&world, 1).await;
    world.gateways[0].process.signal("TERM");
    until("the end", async || world.gateways[0].process.has_ended().then_some(())).await;
    assert!(!Path::new(&public).exists() && !Path::new(&admin).exists());
}
