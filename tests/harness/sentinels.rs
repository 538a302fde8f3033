//! Three Redis sentinels with a master and replicas, for one test.

use super::process::{Process, free_port};
use super::redis::Redis;
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
}

pub struct Sentinel {
    pub process: Process,
    pub port: u16,
    _directory: TempDir,
}

impl Sentinels {
    /// Starts a master with `replicas` replicas, with passwords everywhere.
    pub fn start(replicas: usize) -> Self {
        let mut nodes = vec![Redis::start_with(&arguments())];
        let master = nodes[0].port().to_string();
        for _ in 0..replicas {
            let mut arguments = arguments();
            arguments.extend(["--replicaof", "127.0.0.1", &master]);
            nodes.push(Redis::start_with(&arguments));
        }
        let sentinels = (0..3).map(|_| Sentinel::start(nodes[0].port())).collect();
        let it = Self { nodes, sentinels };
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
        format!("redis-sentinel://:{password}@{}/{SERVICE}/2?sentinel_pass={of_sentinels}", hosts.join(","))
    }

    /// Index of the master, by majority of the running sentinels.
    pub fn master(&self) -> Option<usize> {
        let ports: Vec<String> = self.sentinels.iter().filter_map(|it| Some(it.master()?.remove("port")?)).collect();
        let agreed = |port: &String| 2 * ports.iter().filter(|it| *it == port).count() > ports.len();
        let port = ports.iter().find(|port| agreed(port))?;
        self.nodes.iter().position(|node| node.port().to_string() == **port)
    }

    pub fn wait(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !condition(self) {
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn arguments() -> Vec<&'static str> {
    let mut arguments = vec!["--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"];
    arguments.extend(["--requirepass", PASSWORD, "--masterauth", PASSWORD]);
    arguments
}

fn escaped(text: &str) -> String {
    text.replace(' ', "%20").replace('\'', "%27")
}

impl Sentinel {
    fn start(master: u16) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let port = free_port();
        let path = directory.path().join("sentinel.conf");
        let config = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nrequirepass \"{SENTINEL_PASSWORD}\"\n\
             sentinel sentinel-pass \"{SENTINEL_PASSWORD}\"\nsentinel monitor {SERVICE} 127.0.0.1 {master} 2\n\
             sentinel auth-pass {SERVICE} \"{PASSWORD}\"\nsentinel down-after-milliseconds {SERVICE} 1000\n\
             sentinel failover-timeout {SERVICE} 6000\n",
            directory.path().display()
        );
        std::fs::write(&path, config).expect("it can be written");
        let program = std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into());
        let process = Process::start("a sentinel", Command::new(program).arg(&path).arg("--sentinel"));
        Self { process, port, _directory: directory }
    }

    /// Fields of `SENTINEL MASTER`; `None` without an answer.
    pub fn master(&self) -> Option<HashMap<String, String>> {
        redis::cmd("SENTINEL").arg("MASTER").arg(SERVICE).query(&mut self.client()?).ok()
    }

    /// Number of replicas in sync with the master.
    pub fn followers(&self) -> usize {
        let asked = self.client().map(|mut client| {
            redis::cmd("SENTINEL").arg("REPLICAS").arg(SERVICE).query::<Vec<HashMap<String, String>>>(&mut client)
        });
        let replicas = asked.and_then(Result::ok).unwrap_or_default();
        let follows = |it: &&HashMap<String, String>| it["flags"] == "slave" && it["master-link-status"] == "ok";
        replicas.iter().filter(follows).count()
    }

    fn client(&self) -> Option<redis::Connection> {
        let url = format!("redis://:{}@127.0.0.1:{}", escaped(SENTINEL_PASSWORD), self.port);
        redis::Client::open(url).ok()?.get_connection_with_timeout(Duration::from_secs(2)).ok()
    }
}
