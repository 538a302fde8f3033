//! CPU time and memory from /proc, and the CPU affinity of processes.

use rustix::thread::{CpuSet, sched_setaffinity};
use std::fs::read_to_string;
use std::time::Instant;

/// Clock ticks per second in /proc; the same on every Linux that Rust's std supports.
const TICKS: f64 = 100.0;

/// Seconds of CPU time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cpu {
    pub user: f64,
    pub system: f64,
}

impl Cpu {
    pub fn total(self) -> f64 {
        self.user + self.system
    }

    fn add(self, other: Self) -> Self {
        Self { user: self.user + other.user, system: self.system + other.system }
    }

    fn since(self, before: Self) -> Self {
        Self { user: self.user - before.user, system: self.system - before.system }
    }
}

/// The processes whose usage is measured.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    /// The server's processes; children are found.
    pub server: Vec<u32>,
    /// Processes needed by the server, such as PocketBase; reported separately.
    pub beside: Vec<u32>,
}

impl Watched {
    /// A server process and its children.
    pub fn alone(server: u32) -> Self {
        Self { server: vec![server], beside: Vec::new() }
    }
}

/// Usage up to this moment.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot {
    at: Instant,
    server: Cpu,
    beside: Cpu,
    client: Cpu,
    machine: Machine,
}

/// Usage between two moments.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Time between the two moments.
    pub seconds: f64,
    pub server: Cpu,
    pub beside: Cpu,
    pub client: Cpu,
    /// CPU time of all unmeasured processes of the machine, in seconds, including time stolen by the hypervisor.
    pub others: f64,
}

impl Snapshot {
    pub fn of(watched: &Watched) -> Self {
        let [server, beside] = [&watched.server, &watched.beside].map(|pids| cpu_of_all(pids));
        let client = cpu(std::process::id()).unwrap_or_default();
        Self { at: Instant::now(), server, beside, client, machine: Machine::now() }
    }

    pub fn until_now(&self, watched: &Watched) -> Usage {
        let now = Self::of(watched);
        let seconds = (now.at - self.at).as_secs_f64();
        let [server, beside, client] =
            [(now.server, self.server), (now.beside, self.beside), (now.client, self.client)]
                .map(|(now, before)| now.since(before));
        let idle = now.machine.idle - self.machine.idle;
        let others = seconds * now.machine.cores - idle - server.total() - beside.total() - client.total();
        Usage { seconds, server, beside, client, others }
    }
}

fn cpu_of_all(pids: &[u32]) -> Cpu {
    family(pids).into_iter().filter_map(cpu).fold(Cpu::default(), Cpu::add)
}

/// The processes with their descendants.
fn family(pids: &[u32]) -> Vec<u32> {
    let mut all = pids.to_vec();
    let mut next = 0;
    while let Some(pid) = all.get(next) {
        let children = read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        all.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        next += 1;
    }
    all
}

fn cpu(pid: u32) -> Option<Cpu> {
    let stat = read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit(')').next()?.split_whitespace().skip(11);
    let mut seconds = || fields.next()?.parse::<f64>().ok().map(|ticks| ticks / TICKS);
    Some(Cpu { user: seconds()?, system: seconds()? })
}

/// Number of cores, and total idle time in seconds. The idle time in /proc/stat is exact; working times are sampled and
/// miss work between two ticks.
#[derive(Clone, Copy, Debug)]
struct Machine {
    cores: f64,
    idle: f64,
}

impl Machine {
    fn now() -> Self {
        let stat = read_to_string("/proc/stat").unwrap_or_default();
        let cores = stat.lines().filter(|line| line.starts_with("cpu")).count().saturating_sub(1) as f64;
        let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
        // The fourth field is idle time, the fifth is idle time while waiting for a disk.
        let idle = fields.skip(3).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS;
        Self { cores, idle }
    }
}

/// Resident bytes of the processes and their descendants: RSS, and PSS, which divides each shared page among the
/// processes with access to the page.
pub fn resident(pids: &[u32]) -> (u64, u64) {
    let of = |pid: u32| {
        let rollup = read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let line = |name: &str| {
            let value = rollup.lines().find_map(|line| line.strip_prefix(name))?;
            value.trim().trim_end_matches(" kB").parse::<u64>().ok()
        };
        (line("Rss:").unwrap_or(0) * 1024, line("Pss:").unwrap_or(0) * 1024)
    };
    family(pids).into_iter().map(of).fold((0, 0), |(rss, pss), (more_rss, more_pss)| (rss + more_rss, pss + more_pss))
}

/// Pins the current thread, and its future threads and processes, to `cores`.
pub fn pin(cores: &[usize]) {
    let mut set = CpuSet::new();
    cores.iter().for_each(|&core| set.set(core));
    sched_setaffinity(None, &set).expect("the cores are there");
}
