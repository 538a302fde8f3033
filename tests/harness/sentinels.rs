//! Three Redis sentinels with a master and replicas, for one test.

use super::certificates::Certificates;
use super::process::{Process, free_port};
use super::redis::Redis;
use std::cell::Cell;
use std::collections::HashMap;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The service's name.
pub const SERVICE: &str = "chat.main-1";
pub const PASSWORD: &str = "the master's own password";
pub const SENTINEL_PASSWORD: &str = "the sentinels' password";
/// Bound of every wait for the sentinels.
const DEADLINE: Duration = Duration::from_secs(40);

pub struct Sentinels {
    /// The first node begins as the master.
    pub nodes: Vec<Redis>,
    pub sentinels: Vec<Sentinel>,
    /// The nodes' ports for each other and the gateways.
    ports: Vec<u16>,
    scheme: &'static str,
}

pub struct Sentinel {
    pub process: Process,
    /// For gateways.
    pub port: u16,
    /// For the test, without TLS.
    plain_port: u16,
    _directory: TempDir,
}

impl Sentinels {
    /// Starts a master with `replicas` replicas, with passwords everywhere.
    pub fn start(replicas: usize) -> Self {
        Self::start_over(None, replicas)
    }

    /// As `start`, with TLS between all of the processes.
    pub fn start_with_tls(certificates: &Certificates, replicas: usize) -> Self {
        Self::start_over(Some(certificates), replicas)
    }

    fn start_over(certificates: Option<&Certificates>, replicas: usize) -> Self {
        let (mut nodes, mut ports) = (Vec::new(), Vec::new());
        for _ in 0..=replicas {
            let (node, port) = node(certificates, ports.first().copied());
            nodes.push(node);
            ports.push(port);
        }
        let sentinels = (0..3).map(|_| Sentinel::start(certificates, ports[0])).collect();
        let scheme = if certificates.is_some() { "rediss-sentinel" } else { "redis-sentinel" };
        let it = Self { nodes, sentinels, ports, scheme };
        it.wait("all sentinels to know everybody", |it| {
            it.sentinels.iter().all(|sentinel| {
                sentinel.master().is_some_and(|master| master["num-other-sentinels"] == "2")
                    && sentinel.followers() == replicas
            })
        });
        it
    }

    pub fn url(&self) -> String {
        let hosts: Vec<String> = self.sentinels.iter().map(|it| format!("127.0.0.1:{}", it.port)).collect();
        let [password, of_sentinels] = [PASSWORD, SENTINEL_PASSWORD].map(escaped);
        let (scheme, hosts) = (self.scheme, hosts.join(","));
        format!("{scheme}://:{password}@{hosts}/{SERVICE}/2?sentinel_pass={of_sentinels}")
    }

    /// Index of the master, by majority of the running sentinels.
    pub fn master(&self) -> Option<usize> {
        let ports: Vec<String> = self.sentinels.iter().filter_map(|it| it.master()?.remove("port")).collect();
        let agreed = |port: &String| 2 * ports.iter().filter(|it| *it == port).count() > ports.len();
        let port = ports.iter().find(|port| agreed(port))?;
        self.ports.iter().position(|it| it.to_string() == **port)
    }

    /// Changes a setting of a node.
    pub fn set(&self, node: usize, name: &str, value: &str) {
        let url = format!("redis://:{}@127.0.0.1:{}", escaped(PASSWORD), self.ports[node]);
        let mut client = redis::Client::open(url).and_then(|client| client.get_connection()).expect("the node answers");
        redis::cmd("CONFIG").arg("SET").arg(name).arg(value).exec(&mut client).expect("the setting is taken");
    }

    pub fn wait(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !condition(self) {
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A node and the port for the other nodes; a replica of `master`, if given.
fn node(certificates: Option<&Certificates>, master: Option<u16>) -> (Redis, u16) {
    let announced = Cell::new(0);
    let node = Redis::start_with_ports(|| {
        let port = free_port();
        let mut arguments = ["--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"].to_vec();
        arguments.extend(["--requirepass", PASSWORD, "--masterauth", PASSWORD]);
        let mut arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
        announced.set(port);
        if let Some(certificates) = certificates {
            announced.set(free_port());
            arguments.extend(certificates.redis_arguments(announced.get()));
            arguments.extend(["--tls-replication", "yes"].map(str::to_owned));
        }
        if let Some(master) = master {
            arguments.extend(["--replicaof".to_owned(), "127.0.0.1".to_owned(), master.to_string()]);
        }
        (port, arguments)
    });
    (node, announced.get())
}

fn escaped(text: &str) -> String {
    text.replace(' ', "%20").replace('\'', "%27")
}

impl Sentinel {
    fn start(certificates: Option<&Certificates>, master: u16) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let plain_port = free_port();
        let port = certificates.map_or(plain_port, |_| free_port());
        let tls: String = certificates.map_or_else(String::new, |certificates| {
            let arguments = certificates.redis_arguments(port);
            let lines = arguments.chunks(2).map(|pair| format!("{} {}\n", pair[0].trim_start_matches('-'), pair[1]));
            lines.chain(["tls-replication yes\n".to_owned()]).collect()
        });
        let path = directory.path().join("sentinel.conf");
        let config = format!(
            "port {plain_port}\n{tls}bind 127.0.0.1\ndir {}\nrequirepass \"{SENTINEL_PASSWORD}\"\n\
             sentinel sentinel-pass \"{SENTINEL_PASSWORD}\"\nsentinel monitor {SERVICE} 127.0.0.1 {master} 2\n\
             sentinel auth-pass {SERVICE} \"{PASSWORD}\"\nsentinel down-after-milliseconds {SERVICE} 1000\n\
             sentinel failover-timeout {SERVICE} 6000\n",
            directory.path().display()
        );
        std::fs::write(&path, config).expect("it can be written");
        let program = std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into());
        let process = Process::start("a sentinel", Command::new(program).arg(&path).arg("--sentinel"));
        Self { process, port, plain_port, _directory: directory }
    }

    /// Fields of `SENTINEL MASTER`; `None` without an answer.
    pub fn master(&self) -> Option<HashMap<String, String>> {
        redis::cmd("SENTINEL").arg("MASTER").arg(SERVICE).query(&mut self.client()?).ok()
    }

    /// Number of replicas in sync with the master.
    pub fn followers(&self) -> usize {
        let follows = |it: &&HashMap<String, String>| it["flags"] == "slave" && it["master-link-status"] == "ok";
        self.replicas().iter().filter(follows).count()
    }

    /// Fields of `SENTINEL REPLICAS`, for each replica.
    pub fn replicas(&self) -> Vec<HashMap<String, String>> {
        let asked =
            self.client().map(|mut client| redis::cmd("SENTINEL").arg("REPLICAS").arg(SERVICE).query(&mut client));
        asked.and_then(Result::ok).unwrap_or_default()
    }

    fn client(&self) -> Option<redis::Connection> {
        let url = format!("redis://:{}@127.0.0.1:{}", escaped(SENTINEL_PASSWORD), self.plain_port);
        redis::Client::open(url).ok()?.get_connection_with_timeout(Duration::from_secs(2)).ok()
    }
}
