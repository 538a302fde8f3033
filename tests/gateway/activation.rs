//! Sockets passed by the supervisor (`LISTEN_FDS`), and `konvert-gateway health`.

use crate::harness::{DEADLINE, SECRET, World, process::free_port, until};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Output, Stdio};

/// A gateway without PocketBase that receives `socket` as systemd passes it: as file descriptor 3.
fn activated(socket: &TcpListener, listen: &str, admin: &str) -> Child {
    let socket = OwnedFd::from(socket.try_clone().unwrap());
    let mut command = Command::new("sh");
    command.args(["-c", "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\""]);
    command.arg(env!("CARGO_BIN_EXE_konvert-gateway")).env_clear().env("GATEWAY_SECRET", SECRET);
    command.env("GATEWAY_LISTEN", listen).env("GATEWAY_ADMIN_LISTEN", admin);
    command.stdin(Stdio::from(socket)).stderr(Stdio::piped()).spawn().expect("sh runs")
}

fn asked(socket: &TcpListener) -> TcpStream {
    let mut client = TcpStream::connect(socket.local_addr().unwrap()).expect("the socket listens");
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    client
}

fn is_answered(mut client: TcpStream) -> bool {
    let mut answer = [0; 9];
    client.read_exact(&mut answer).is_ok() && &answer == b"HTTP/1.1 "
}

#[test]
fn clients_wait_on_a_passed_socket_while_the_gateway_restarts() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let (listen, admin) = (socket.local_addr().unwrap().to_string(), format!("127.0.0.1:{}", free_port()));
    let mut first = activated(&socket, &listen, &admin);
    assert!(is_answered(asked(&socket)));
    first.kill().unwrap();
    first.wait().unwrap();

    let waiting = asked(&socket);
    let mut second = activated(&socket, &listen, &admin);
    assert!(is_answered(waiting));
    second.kill().unwrap();
    second.wait().unwrap();
}

#[test]
fn a_passed_socket_without_a_setting_is_refused() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let [listen, admin] = [(); 2].map(|()| format!("127.0.0.1:{}", free_port()));
    let output = activated(&socket, &listen, &admin).wait_with_output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains(&socket.local_addr().unwrap().to_string()) && told.contains("`admin_listen`"), "{told}");
}

fn health(admin: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_konvert-gateway"));
    command.arg("health").env_clear().env("GATEWAY_SECRET", SECRET).env("GATEWAY_ADMIN_LISTEN", admin);
    command.output().expect("the gateway runs")
}

#[tokio::test]
async fn health_reports_the_problem_of_the_running_gateway() {
    let mut world = World::start(1, true, &[]).await;
    let port = world.gateways[0].admin_port;
    let output = health(&format!("0.0.0.0:{port}"));
    assert!(output.status.success(), "{output:?}");
    for (path, code) in [("/api/health", 0), ("/api/nothing", 1)] {
        let url = format!("{}{path}", world.pocketbase.url);
        let output = Command::new(env!("CARGO_BIN_EXE_konvert-gateway")).args(["health", &url]).env_clear().output();
        assert_eq!(output.unwrap().status.code(), Some(code), "{url}");
    }

    drop(world.redis.take());
    let told = until("an unhealthy gateway", async || {
        let output = health(&format!("127.0.0.1:{port}"));
        (output.status.code() == Some(1)).then(|| String::from_utf8(output.stderr).unwrap())
    })
    .await;
    assert!(told.contains("not ready: broker"), "{told}");

    world.gateways[0].process.kill();
    let output = health(&format!("127.0.0.1:{port}"));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && told.contains("is the gateway running"), "{told}");
}
