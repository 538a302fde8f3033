//! CPU time and memory from /proc, and on which cores processes run.

use rustix::thread::{CpuSet, sched_setaffinity};
use std::fs::read_to_string;

/// Clock ticks per second in /proc; the same on every Linux that Rust's std supports.
const TICKS: f64 = 100.0;

/// Seconds of CPU.
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

/// Whose time is measured.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    /// The server's processes; their children are found.
    pub server: Vec<u32>,
    /// What the server needs beside it and is reported apart.
    pub beside: Vec<u32>,
}

/// What everybody has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub server: Cpu,
    pub beside: Cpu,
    pub client: Cpu,
    /// Everything else on the machine, in seconds of CPU.
    pub others: f64,
}

impl Usage {
    pub fn of(watched: &Watched) -> Self {
        let [server, beside] = [&watched.server, &watched.beside].map(|pids| cpu_of_all(pids));
        let client = cpu(std::process::id()).unwrap_or_default();
        let others = busy() - server.total() - beside.total() - client.total();
        Self { server, beside, client, others }
    }

    pub fn since(&self, before: &Self) -> Self {
        Self {
            server: self.server.since(before.server),
            beside: self.beside.since(before.beside),
            client: self.client.since(before.client),
            others: self.others - before.others,
        }
    }
}

fn cpu_of_all(pids: &[u32]) -> Cpu {
    family(pids).into_iter().filter_map(cpu).fold(Cpu::default(), Cpu::add)
}

/// These processes with all their descendants.
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

/// Of the whole machine: everything but idle and waiting; what a hypervisor took as well.
fn busy() -> f64 {
    let stat = read_to_string("/proc/stat").unwrap_or_default();
    let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<f64> = fields.filter_map(|field| field.parse().ok()).collect();
    [0, 1, 2, 5, 6, 7].iter().filter_map(|&i| ticks.get(i)).sum::<f64>() / TICKS
}

/// Resident bytes of these processes and their descendants: all, and with shared pages split among those that share.
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

/// Runs this thread, and what it starts from now on, on these cores alone.
pub fn pin(cores: &[usize]) {
    let mut set = CpuSet::new();
    cores.iter().for_each(|&core| set.set(core));
    sched_setaffinity(None, &set).expect("the cores are there");
}
