//! A Redis Cluster for one test: masters with a chosen number of replicas, on free ports.
//!
//! The nodes' bus ports are free ports too. The default, port + 10000, may be in use.

use super::certificates::Certificates;
use super::process::free_port;
use super::redis::Redis;
use std::cell::Cell;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Time limit of every wait for the cluster.
const DEADLINE: Duration = Duration::from_secs(30);
/// Milliseconds of silence after which a node counts as dead, unless a test chooses another time.
const NODE_TIMEOUT: u32 = 1000;

pub struct Cluster {
    /// The first nodes begin as masters.
    pub nodes: Vec<Redis>,
    /// The nodes' TLS ports, if the cluster uses TLS.
    pub tls_ports: Vec<u16>,
}

impl Cluster {
    /// Starts three masters.
    pub fn start() -> Self {
        Self::start_with(3, 0)
    }

    pub fn start_with(masters: usize, replicas: usize) -> Self {
        Self::start_with_timeout(masters, replicas, NODE_TIMEOUT)
    }

    /// Starts three masters that keep their role during half a minute of silence.
    pub fn start_patient() -> Self {
        Self::start_with_timeout(3, 0, 30_000)
    }

    pub fn start_with_timeout(masters: usize, replicas: usize, node_timeout: u32) -> Self {
        Self::start_kept(masters, replicas, node_timeout, &[])
    }

    /// Starts a cluster with extra arguments of `redis-server`, such as persistence.
    pub fn start_kept(masters: usize, replicas: usize, node_timeout: u32, more: &[&str]) -> Self {
        let more = || more.iter().map(|&argument| argument.to_owned()).collect();
        let nodes: Vec<Redis> = (0..masters * (1 + replicas)).map(|_| node(node_timeout, more)).collect();
        let ports: Vec<u16> = nodes.iter().map(Redis::port).collect();
        create(&ports, replicas, &[]);
        Self { nodes, tls_ports: Vec::new() }.whole(replicas)
    }

    /// Starts three masters with TLS between each other and to the gateways. The other ports are for the test.
    pub fn start_with_tls(certificates: &Certificates) -> Self {
        let port = Cell::new(0);
        let (nodes, tls_ports): (Vec<Redis>, Vec<u16>) = (0..3)
            .map(|_| {
                let node = node(NODE_TIMEOUT, || {
                    port.set(free_port());
                    let mut arguments = certificates.redis_arguments(port.get());
                    arguments.extend(["--tls-cluster", "yes", "--tls-replication", "yes"].map(str::to_owned));
                    arguments
                });
                (node, port.get())
            })
            .unzip();
        create(&tls_ports, 0, &["--tls".into(), "--cacert".into(), certificates.path("ca.pem")]);
        Self { nodes, tls_ports }.whole(0)
    }

    fn whole(self, replicas: usize) -> Self {
        self.wait_until_whole(replicas);
        self
    }

    /// Waits until the nodes agree, and every master has `replicas` replicas in sync.
    pub fn wait_until_whole(&self, replicas: usize) {
        let all = self.nodes.len();
        self.wait("every node to know all", |cluster| {
            let known = |node: &Redis| {
                let links_up = field(node, "REPLICATION", "master_link_status").is_none_or(|status| status == "up");
                info(node, "cluster_state").as_deref() == Some("ok")
                    && info(node, "cluster_known_nodes") == Some(all.to_string())
                    && links_up
            };
            // Includes the assignment of replicas.
            let ranges = |node: &Redis| -> Vec<Vec<redis::Value>> {
                redis::cmd("CLUSTER").arg("SLOTS").query(&mut node.client()).unwrap_or_default()
            };
            let full = |node: &Redis| {
                let ranges = ranges(node);
                !ranges.is_empty() && ranges.iter().all(|range| range.len() == 3 + replicas)
            };
            cluster.nodes.iter().all(known) && cluster.nodes.iter().all(full)
        });
    }

    /// Makes a replica take over from its master without loss, and waits for the end of the failover.
    pub fn fail_over(&self, master: usize) {
        let replica = &self.nodes[self.replica_of(master)];
        redis::cmd("CLUSTER").arg("FAILOVER").exec(&mut replica.client()).expect("the replica takes over");
        self.wait("the replica to take over", |_| field(replica, "REPLICATION", "role").as_deref() == Some("master"));
    }

    /// URL of a single node, from which the gateway finds the others.
    pub fn url(&self) -> String {
        format!("redis-cluster://127.0.0.1:{}", self.nodes[0].port())
    }

    /// Index of the node that owns the key's slot.
    pub fn owner(&self, key: &str) -> usize {
        let slot = self.slot(key);
        let asked = self.nodes.iter().find(|node| !node.is_killed()).expect("one lives");
        let answer = redis::cmd("CLUSTER").arg("SLOTS").query(&mut asked.client()).expect("it answers");
        let redis::Value::Array(ranges) = answer else { panic!("no ranges") };
        let number = |value: &redis::Value| redis::from_redis_value::<u16>(value.clone()).expect("a number");
        let port = ranges.iter().find_map(|range| {
            let redis::Value::Array(parts) = range else { panic!("no range") };
            let redis::Value::Array(master) = &parts[2] else { panic!("no node") };
            (number(&parts[0])..=number(&parts[1])).contains(&slot).then(|| number(&master[1]))
        });
        let port = port.expect("somebody owns it");
        self.nodes.iter().position(|node| node.port() == port).expect("one of ours")
    }

    pub fn replica_of(&self, master: usize) -> usize {
        let port = self.nodes[master].port().to_string();
        let replicates = |node: &Redis| field(node, "REPLICATION", "master_port").as_ref() == Some(&port);
        self.nodes.iter().position(replicates).expect("it has one")
    }

    pub fn slot(&self, key: &str) -> u16 {
        let asked = self.nodes.iter().find(|node| !node.is_killed()).expect("one lives");
        redis::cmd("CLUSTER").arg("KEYSLOT").arg(key).query(&mut asked.client()).expect("it answers")
    }

    /// Moves the key's slot, with its keys, from its owner to another node, as `redis-cli` does in a reshard. Waits
    /// for `pause` between two keys.
    pub fn migrate(&self, key: &str, to: usize, pause: Duration) {
        let (slot, from) = (self.slot(key), self.owner(key));
        assert_ne!(from, to);
        let [source, target] = [&self.nodes[from], &self.nodes[to]];
        let [source_id, target_id] = [source, target].map(id);
        let set = |node: &Redis, what: &str, other: &str| {
            redis::cmd("CLUSTER")
                .arg("SETSLOT")
                .arg(slot)
                .arg(&[what, other])
                .exec(&mut node.client())
                .expect("SETSLOT is carried out");
        };
        set(target, "IMPORTING", &source_id);
        set(source, "MIGRATING", &target_id);
        loop {
            let get = redis::cmd("CLUSTER").arg("GETKEYSINSLOT").arg(slot).arg(1).query(&mut source.client());
            let keys: Vec<String> = get.expect("it answers");
            let Some(key) = keys.first() else { break };
            let port = target.port();
            redis::cmd("MIGRATE")
                .arg("127.0.0.1")
                .arg(port)
                .arg(key)
                .arg(0)
                .arg(5000)
                .exec(&mut source.client())
                .expect("the key moves");
            std::thread::sleep(pause);
        }
        std::thread::sleep(pause);
        for node in [target, source] {
            set(node, "NODE", &target_id);
        }
        for node in &self.nodes {
            if !node.is_killed() && ![from, to].iter().any(|&one| std::ptr::eq(node, &self.nodes[one])) {
                set(node, "NODE", &target_id);
            }
        }
    }

    /// Number of calls of `command` on the running nodes.
    pub fn calls(&self, command: &str) -> u64 {
        self.nodes.iter().filter(|node| !node.is_killed()).map(|node| node.calls(command)).sum()
    }

    pub fn wait(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !condition(self) {
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn create(ports: &[u16], replicas: usize, more: &[String]) {
    let addresses = ports.iter().map(|port| format!("127.0.0.1:{port}"));
    let arguments = ["--cluster", "create"].map(str::to_owned).into_iter().chain(addresses);
    let choices = ["--cluster-replicas", &replicas.to_string(), "--cluster-yes"].map(str::to_owned);
    cli(&more.iter().cloned().chain(arguments).chain(choices).collect::<Vec<_>>());
}

fn node(timeout: u32, more: impl Fn() -> Vec<String>) -> Redis {
    // The bus port is chosen again at every attempt, like the other ports.
    Redis::start_with_ports(|| {
        let bus = free_port().to_string();
        let arguments = ["--save", "", "--appendonly", "no", "--cluster-enabled", "yes", "--cluster-node-timeout"];
        let mut arguments: Vec<String> = arguments.map(str::to_owned).to_vec();
        arguments.push(timeout.to_string());
        arguments.extend(["--cluster-port".into(), bus]);
        arguments.extend(more());
        (free_port(), arguments)
    })
}

fn id(node: &Redis) -> String {
    redis::cmd("CLUSTER").arg("MYID").query(&mut node.client()).expect("it has one")
}

fn info(node: &Redis, name: &str) -> Option<String> {
    let text: String = redis::cmd("CLUSTER").arg("INFO").query(&mut node.client()).ok()?;
    line(&text, name)
}

fn field(node: &Redis, section: &str, name: &str) -> Option<String> {
    let text: String = redis::cmd("INFO").arg(section).query(&mut node.client()).ok()?;
    line(&text, name)
}

fn line(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned()))
}

fn cli(arguments: &[String]) {
    let program = std::env::var_os("REDIS_CLI").unwrap_or_else(|| "redis-cli".into());
    let output = Command::new(&program).args(arguments).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run {program:?}: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
