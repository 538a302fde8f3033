//! The load generator: the gateway beside raw writes and other realtime servers.
//!
//! `cargo bench --bench load -- --help` describes the usage. A [`workload`] starts each [`target`] afresh, connects a
//! [`swarm`] of clients speaking the target's [`dialect`], publishes at a rate ([`publish`]), and records the
//! arriving messages ([`mark`], [`tally`]) and their cost ([`usage`]). A [`step`] is one run at one rate. The bench
//! measures; the tests assert.

mod dialect;
#[path = "../../tests/harness/mod.rs"]
mod harness;
mod mark;
mod options;
mod publish;
mod raw_server;
mod report;
mod self_test;
mod step;
mod swarm;
mod tally;
mod target;
mod usage;
mod workload;

use options::{Options, Workload};
use report::Log;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use target::Target;
use workload::{fanout, idle, relay, rooms, storm};

fn main() {
    // Tens of thousands of sockets, here and in the servers, which inherit the limit.
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("the limit can be raised to its maximum");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "serve-raw") {
        return raw_server::serve(&arguments[1..]);
    }
    let options = Options::read();
    usage::pin(&options.cores.client);
    if options.self_test {
        return self_test::run(&options);
    }
    options.targets.iter().for_each(Target::prepare);
    let mut log = Log::create();
    println!("{}", report::circumstances());
    for workload in &options.workloads {
        match workload {
            Workload::Idle => idle::run(&options, &mut log),
            Workload::Fanout => fanout::run(&options, &mut log),
            Workload::Rooms => rooms::run(&options, &mut log),
            Workload::Storm => storm::run(&options, &mut log),
            Workload::Relay => relay::run(&options, &mut log),
        }
    }
}
