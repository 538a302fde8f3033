//! The command line.

use crate::target::{Cores, Target};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use std::path::PathBuf;

const ABOUT: &str = "\
Measures the gateway beside raw writes and other realtime servers, on this machine, one after the other.

Each server is pinned to some cores, the clients and publishers to others. Messages of 256 bytes are published in an
open loop; every client checks that it gets each of its messages once and in order. See benches/README.md for what the
columns mean. Tables go to standard output, one JSON line per run to target/load/, progress to standard error.";

const EXAMPLES: &str = "\
Examples:
  cargo bench --bench load -- --quick                              a look at the gateway and the ceiling, few minutes
  cargo bench --bench load -- --workload fanout --target gateway,raw
  cargo bench --bench load -- --workload fanout --target none \\
    --gateway before=/tmp/gateway-1 --gateway after=/tmp/gateway-2   two builds, by turns
  cargo bench --bench load -- --target all                         everything; hours";

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Workload {
    Idle,
    Fanout,
    Rooms,
    Storm,
    Relay,
}

const WORKLOADS: [(&str, Workload); 5] = [
    ("idle", Workload::Idle),
    ("fanout", Workload::Fanout),
    ("rooms", Workload::Rooms),
    ("storm", Workload::Storm),
    ("relay", Workload::Relay),
];
const TARGETS: [&str; 8] =
    ["gateway", "gateway-redis", "raw", "raw-coalesce", "nchan", "sockudo", "socketio", "pocketbase"];

#[derive(Clone, Debug)]
pub struct Options {
    pub workloads: Vec<Workload>,
    pub targets: Vec<Target>,
    /// Instead of anything else.
    pub self_test: bool,
    pub runs: usize,
    /// How often a disturbed run is repeated.
    pub repeats: usize,
    pub seconds: f64,
    /// Messages per second in a room of a thousand at which CPU is compared.
    pub at_rate: f64,
    pub idle: Vec<usize>,
    pub hold: f64,
    /// Sizes of the one room whose capacity is looked for.
    pub fanout: Vec<usize>,
    /// Sizes of the one room in which CPU per delivery is compared.
    pub flat: Vec<usize>,
    /// How many rooms, and how many subscribers in each.
    pub rooms: usize,
    pub room_size: usize,
    pub storm: usize,
    /// Subscribers of the room into which messages are created through PocketBase.
    pub relay: Vec<usize>,
    pub rates: Option<Vec<f64>>,
    pub threads: usize,
    pub in_flight: usize,
    pub cores: Cores,
}

impl Options {
    /// From this process's arguments; ends the process where they make no sense.
    pub fn read() -> Self {
        Self::from(&command().get_matches())
    }

    fn from(matches: &ArgMatches) -> Self {
        let quick = matches.get_flag("quick");
        let workloads = list::<String>(matches, "workload").unwrap_or_else(|| vec!["all".to_owned()]);
        let workloads = WORKLOADS.iter().filter(|(name, _)| workloads.iter().any(|one| one == name || one == "all"));
        let or = |name: &str, full: &[usize], short: &[usize]| {
            list(matches, name).unwrap_or_else(|| if quick { short } else { full }.to_vec())
        };
        let count = |name: &str, usual: usize| matches.get_one::<usize>(name).copied().unwrap_or(usual);
        let number = |name: &str, full: f64, short: f64| {
            matches.get_one(name).copied().unwrap_or(if quick { short } else { full })
        };
        Self {
            workloads: workloads.map(|&(_, workload)| workload).collect(),
            targets: targets(matches),
            self_test: matches.get_flag("self-test"),
            runs: count("runs", if quick { 1 } else { 3 }),
            repeats: count("repeats", if quick { 0 } else { 3 }),
            seconds: number("seconds", 3.0, 2.0),
            at_rate: number("at-rate", 100.0, 100.0),
            idle: or("idle", &[5000, 15_000], &[5000]),
            hold: number("hold", 10.0, 3.0),
            fanout: or("fanout", &[1000, 5000], &[1000]),
            flat: or("flat", &[100, 1000, 5000, 10_000], &[]),
            rooms: count("rooms", 500),
            room_size: count("room-size", 20),
            storm: count("storm", 5000),
            relay: or("relay", &[1, 1000], &[1, 100]),
            rates: list(matches, "rates"),
            threads: count("threads", 2),
            in_flight: count("in-flight", 500),
            cores: Cores {
                server: cores(matches, "server-cores", &[0, 1]),
                client: cores(matches, "client-cores", &[2, 3]),
            },
        }
    }
}

fn targets(matches: &ArgMatches) -> Vec<Target> {
    let names = list::<String>(matches, "target").unwrap_or_else(|| vec!["gateway".into(), "raw".into()]);
    let names: Vec<&str> = match names.iter().any(|name| name == "all") {
        true => TARGETS.to_vec(),
        false => names.iter().map(String::as_str).collect(),
    };
    let own = ("gateway".to_owned(), PathBuf::from(env!("CARGO_BIN_EXE_konvert-gateway")));
    let mut targets = Vec::new();
    let without_redis = names.contains(&"gateway") || !names.contains(&"gateway-redis");
    for (name, redis) in [("gateway", false), ("gateway-redis", true)] {
        let others = matches.get_many::<(String, PathBuf)>("gateway").into_iter().flatten().cloned();
        let others = others.filter(|_| if redis { names.contains(&name) } else { without_redis });
        let own = names.contains(&name).then(|| own.clone());
        targets.extend(own.into_iter().chain(others).map(|(label, program)| Target::Gateway { label, program, redis }));
    }
    for name in names {
        match name {
            "raw" => targets.push(Target::Raw { coalesce: false }),
            "raw-coalesce" => targets.push(Target::Raw { coalesce: true }),
            "nchan" => targets.push(Target::Nchan),
            "sockudo" => targets.push(Target::Sockudo),
            "socketio" => targets.push(Target::SocketIo),
            "pocketbase" => targets.push(Target::PocketBase),
            _ => {}
        }
    }
    targets
}

fn list<T: Clone + Send + Sync + 'static>(matches: &ArgMatches, name: &str) -> Option<Vec<T>> {
    Some(matches.get_many(name)?.cloned().collect())
}

fn cores(matches: &ArgMatches, name: &str, default: &[usize]) -> Vec<usize> {
    list(matches, name).unwrap_or_else(|| default.to_vec())
}

fn command() -> Command {
    let many = |name: &'static str, value: &'static str, help: String| {
        Arg::new(name).long(name).value_name(value).value_delimiter(',').action(ArgAction::Append).help(help)
    };
    let one = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let workloads = WORKLOADS.map(|(name, _)| name);
    let sizes = |name, help: &str| many(name, "COUNT,…", help.to_owned()).value_parser(value_parser!(usize));
    Command::new("load")
        .about(ABOUT)
        .after_help(EXAMPLES)
        .arg(many("workload", "NAME,…", format!("{}; default: all", workloads.join(", "))).value_parser(with(&workloads, &["all"])))
        .arg(many("target", "NAME,…", format!("{}, all, none; default: gateway,raw", TARGETS.join(", "))).value_parser(with(&TARGETS, &["all", "none"])))
        .arg(
            one("gateway", "[NAME=]PATH", "Another build of the gateway to measure too; may be repeated; with Redis where the target gateway-redis is")
                .action(ArgAction::Append)
                .value_parser(named_program),
        )
        .arg(one("runs", "COUNT", "Rounds in which everything is measured; default: 3").value_parser(value_parser!(usize)))
        .arg(one("repeats", "COUNT", "How often a run is repeated that something else on the machine disturbs; default: 3").value_parser(value_parser!(usize)))
        .arg(Arg::new("quick").long("quick").action(ArgAction::SetTrue).help("One round, short runs, fewer sizes"))
        .arg(one("seconds", "SECONDS", "How long each rate is held; default: 3").value_parser(value_parser!(f64)))
        .arg(one("at-rate", "RATE", "Messages per second in a room of 1000 at which CPU is compared; default: 100").value_parser(value_parser!(f64)))
        .arg(many("rates", "RATE,…", "These rates alone, instead of looking for the capacity".to_owned()).value_parser(value_parser!(f64)))
        .arg(sizes("idle", "Connections of the workload idle; default: 5000,15000"))
        .arg(one("hold", "SECONDS", "How long idle connections are left alone before memory is read; default: 10").value_parser(value_parser!(f64)))
        .arg(sizes("fanout", "Subscribers of the one room whose capacity is looked for; default: 1000,5000"))
        .arg(sizes("flat", "Subscribers of the one room in which CPU per delivery is compared; default: 100,1000,5000,10000"))
        .arg(one("rooms", "COUNT", "Rooms of the workload rooms; default: 500").value_parser(value_parser!(usize)))
        .arg(one("room-size", "COUNT", "Subscribers of each of them; default: 20").value_parser(value_parser!(usize)))
        .arg(one("storm", "COUNT", "Clients that are dropped at once; default: 5000").value_parser(value_parser!(usize)))
        .arg(sizes("relay", "Subscribers of the room into which messages are created through PocketBase; default: 1,1000"))
        .arg(one("threads", "COUNT", "Threads of clients; default: 2").value_parser(value_parser!(usize)))
        .arg(one("in-flight", "COUNT", "Set-ups under way at the same time; default: 500").value_parser(value_parser!(usize)))
        .arg(sizes("server-cores", "Cores of the server; default: 0,1"))
        .arg(sizes("client-cores", "Cores of clients, publishers and PocketBase; default: 2,3"))
        .arg(Arg::new("self-test").long("self-test").action(ArgAction::SetTrue).help("Only show that clients notice what is lost, doubled and reordered"))
        // What cargo passes to every bench.
        .arg(Arg::new("bench").long("bench").action(ArgAction::SetTrue).hide(true))
}

fn with(names: &[&'static str], more: &[&'static str]) -> Vec<&'static str> {
    [names, more].concat()
}

fn named_program(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').unwrap_or((text.rsplit('/').next().unwrap_or(text), text));
    let path = PathBuf::from(path);
    if !path.is_file() {
        return Err(format!("{} is no file", path.display()));
    }
    Ok((name.to_owned(), path))
}
