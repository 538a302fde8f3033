//! A whole gateway on a separate thread, so that the kernel counts the CPU time of every gateway.

use crate::cpu;
use crate::harness::SECRET;
use crate::harness::http::Http;
use crate::simulated_redis::NodeBroker;
use konvert_gateway::broker::Broker;
use konvert_gateway::config::{Config, ListenAddress, Sources};
use konvert_gateway::server::{Inherited, Server};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

pub struct Gateway {
    address: SocketAddr,
    admin: SocketAddr,
    /// The kernel's number of the thread.
    thread: i32,
    end: CancellationToken,
    running: Option<JoinHandle<()>>,
}

impl Gateway {
    /// Starts a gateway with these settings on `port`; 0: any port.
    pub async fn start(port: u16, pocketbase: &str, settings: &[(&str, &str)], broker: Arc<NodeBroker>) -> Self {
        let config = config(port, pocketbase, settings);
        let (ready, started) = oneshot::channel();
        let end = CancellationToken::new();
        let ended = end.clone();
        let running = std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let broker = broker as Arc<dyn Broker>;
                let server = Server::bind_to(config, Inherited::default(), Some(broker)).await.expect("a gateway");
                let addresses = (server.public_address(), server.admin_address());
                let addresses = (tcp(addresses.0.expect("bound")), tcp(addresses.1.expect("bound")));
                let _ = ready.send((addresses, cpu::this_thread()));
                tokio::select! {
                    () = server.run(CancellationToken::new()) => {}
                    () = ended.cancelled() => {}
                }
            });
            runtime.shutdown_background();
        });
        let ((address, admin), thread) = started.await.expect("the gateway starts");
        Self { address, admin, thread, end, running: Some(running) }
    }

    pub fn websocket(&self) -> String {
        format!("ws://{}/connection/websocket", self.address)
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn cpu(&self) -> Duration {
        cpu::of_thread(self.thread)
    }

    /// Sum of the metric over its labels that begin with `labels`, such as `{route="events"`.
    pub async fn metric(&self, http: &Http, name: &str, labels: &str) -> f64 {
        let text = http.get(&format!("http://{}/metrics", self.admin)).await.expect("the admin listener answers").text;
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let is_meant = if labels.is_empty() { rest.starts_with(['{', ' ']) } else { rest.starts_with(labels) };
            if is_meant { rest.rsplit(' ').next()?.parse::<f64>().ok() } else { None }
        });
        values.sum()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.end.cancel();
        let _ = self.running.take().map(JoinHandle::join);
    }
}

fn tcp(address: ListenAddress) -> SocketAddr {
    let ListenAddress::Tcp(address) = address else { panic!("a TCP port was asked for") };
    address
}

fn config(port: u16, pocketbase: &str, settings: &[(&str, &str)]) -> Config {
    let listen = format!("127.0.0.1:{port}");
    let own = [
        ("GATEWAY_SECRET", SECRET),
        ("GATEWAY_LISTEN", listen.as_str()),
        ("GATEWAY_ADMIN_LISTEN", "127.0.0.1:0"),
        ("GATEWAY_POCKETBASE_URL", pocketbase),
        // No server: a gateway with the URL of a Redis is a member of a group of gateways.
        ("GATEWAY_REDIS_URL", "redis://127.0.0.1:1"),
        // The gateways share the process's descriptors, and the clients have the same address.
        ("GATEWAY_MAX_CONNECTIONS", "300"),
        ("GATEWAY_MAX_PENDING", "50"),
        ("GATEWAY_MAX_CONNECTIONS_PER_IP", "0"),
        ("GATEWAY_MAX_COMMANDS_PER_SECOND", "0"),
    ];
    let environment = own.iter().chain(settings).map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    Config::load(&Sources { environment, ..Sources::default() }).expect("a configuration")
}
