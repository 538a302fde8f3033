//! The command line.

use crate::dialect::centrifuge::Encodings;
use crate::target::{Cores, Target};
use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use std::path::PathBuf;

const ABOUT: &str = "\
Measures the gateway beside raw writes and other realtime servers, on this machine, one after the other.

Each server is pinned to some cores, the clients and publishers to others. Messages of 256 bytes are published in an
open loop; every client checks that it gets each of its messages once and in order. See benches/README.md for what the
columns mean. Tables go to standard output, one JSON line per run to target/load/, progress to standard error.";

const EXAMPLES: &str = "\
Examples:
  A look at the gateway and the ceiling, a few minutes:
    cargo bench --bench load -- --quick
  Two builds by turns:
    cargo bench --bench load -- --workload fanout --target none --gateway old=/tmp/a --gateway new=/tmp/b
  Everything, hours:
    cargo bench --bench load -- --target all";

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
const TARGETS: [&str; 12] = [
    "gateway",
    "gateway-redis",
    "gateway-protobuf",
    "gateway-mixed",
    "raw",
    "raw-coalesce",
    "centrifugo",
    "centrifugo-redis",
    "nchan",
    "sockudo",
    "socketio",
    "pocketbase",
];
/// Number of changes that PocketBase's hooks post at once; see `gateway.config.js`.
const BATCH: usize = 100;

#[derive(Clone, Debug)]
pub struct Options {
    pub workloads: Vec<Workload>,
    pub targets: Vec<Target>,
    /// Run only the self-test.
    pub self_test: bool,
    pub runs: usize,
    /// Number of times a disturbed run is repeated.
    pub repeats: usize,
    pub seconds: f64,
    /// Messages per second in a room of 1000, for the comparison of CPU.
    pub at_rate: f64,
    pub idle: Vec<usize>,
    pub hold: f64,
    /// Sizes of the room in the capacity measurement, which has one room.
    pub fanout: Vec<usize>,
    /// Sizes of the room in the comparison of CPU per delivery, which has one room.
    pub flat: Vec<usize>,
    /// Number of rooms, and of subscribers in each.
    pub rooms: usize,
    pub room_size: usize,
    pub storm: usize,
    /// Subscribers of the room with messages created through PocketBase.
    pub relay: Vec<usize>,
    pub rates: Option<Vec<f64>>,
    pub threads: usize,
    pub in_flight: usize,
    pub cores: Cores,
}

impl Options {
    /// Parses the process's arguments; ends the process if an argument is invalid.
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
    let variants = [
        ("gateway", false, Encodings::Json),
        ("gateway-redis", true, Encodings::Json),
        ("gateway-protobuf", false, Encodings::Protobuf),
        ("gateway-mixed", false, Encodings::Mixed),
    ];
    let has_none = !variants.iter().any(|(name, ..)| names.contains(name));
    let batch = matches.get_one::<usize>("batch").copied().unwrap_or(BATCH);
    for (name, redis, encodings) in variants {
        let others = matches.get_many::<(String, PathBuf)>("gateway").into_iter().flatten().cloned();
        let others = others.filter(|_| names.contains(&name) || name == "gateway" && has_none);
        let own = names.contains(&name).then(|| own.clone());
        let all = own.into_iter().chain(others);
        targets.extend(all.map(|(label, program)| Target::Gateway { label, program, redis, encodings, batch }));
    }
    for name in names {
        match name {
            "raw" => targets.push(Target::Raw { coalesce: false }),
            "raw-coalesce" => targets.push(Target::Raw { coalesce: true }),
            "centrifugo" => targets.push(Target::Centrifugo { redis: false, batch }),
            "centrifugo-redis" => targets.push(Target::Centrifugo { redis: true, batch }),
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

/// The type of an argument's value.
#[derive(Clone, Copy)]
enum Takes {
    Count,
    CountOrZero,
    Number,
    Counts,
    Numbers,
    Cores,
}

/// Name, name of the value in the help, type, help.
const ARGUMENTS: [(&str, &str, Takes, &str); 18] = [
    ("runs", "COUNT", Takes::Count, "Rounds in which everything is measured; default: 3"),
    ("repeats", "COUNT", Takes::CountOrZero, "How often a run is repeated that something else disturbs; default: 3"),
    ("seconds", "SECONDS", Takes::Number, "How long each rate is held; default: 3"),
    ("at-rate", "RATE", Takes::Number, "Messages per second in a room of 1000 at which CPU is compared; default: 100"),
    ("rates", "RATE,…", Takes::Numbers, "These rates alone, instead of looking for the capacity"),
    ("idle", "COUNT,…", Takes::Counts, "Connections of the workload idle; default: 5000,15000"),
    ("hold", "SECONDS", Takes::Number, "How long connections are left alone before memory is read; default: 10"),
    (
        "fanout",
        "COUNT,…",
        Takes::Counts,
        "Subscribers of the one room whose capacity is looked for; default: 1000,5000",
    ),
    ("flat", "COUNT,…", Takes::Counts, "… in which CPU per delivery is compared; default: 100,1000,5000,10000"),
    ("rooms", "COUNT", Takes::Count, "Rooms of the workload rooms; default: 500"),
    ("room-size", "COUNT", Takes::Count, "Subscribers of each of them; default: 20"),
    ("storm", "COUNT", Takes::Count, "Clients that are dropped at once; default: 5000"),
    (
        "relay",
        "COUNT,…",
        Takes::Counts,
        "Subscribers of the room that is written into through PocketBase; default: 1,1000",
    ),
    ("batch", "COUNT", Takes::Count, "Most messages in a post to the gateway and to Centrifugo; default: 100"),
    ("in-flight", "COUNT", Takes::Count, "Set-ups under way at the same time; default: 500"),
    ("threads", "COUNT", Takes::Count, "Threads of clients; default: 2"),
    ("server-cores", "CORE,…", Takes::Cores, "Cores of the server; default: 0,1"),
    ("client-cores", "CORE,…", Takes::Cores, "Cores of clients, publishers and PocketBase; default: 2,3"),
];

fn command() -> Command {
    let many = |name: &'static str, names: &[&'static str], more: &[&'static str], default: &str| {
        let parser = PossibleValuesParser::new([names, more].concat());
        let help = format!("{}; default: {default}", [names, more].concat().join(", "));
        Arg::new(name)
            .long(name)
            .value_name("NAME,…")
            .value_delimiter(',')
            .action(ArgAction::Append)
            .value_parser(parser)
            .hide_possible_values(true)
            .help(help)
    };
    let flag = |name: &'static str, help: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    let other_builds = "Another build to measure too; may be repeated; in each variant of the gateway that is a target";
    Command::new("load")
        .about(ABOUT)
        .after_help(EXAMPLES)
        .arg(many("workload", &WORKLOADS.map(|(name, _)| name), &["all"], "all"))
        .arg(many("target", &TARGETS, &["all", "none"], "gateway,raw"))
        .arg(
            Arg::new("gateway")
                .long("gateway")
                .value_name("[NAME=]PATH")
                .action(ArgAction::Append)
                .value_parser(named_program)
                .help(other_builds),
        )
        .arg(flag("quick", "One round, short runs, fewer sizes, disturbed runs as they come"))
        .args(ARGUMENTS.map(argument))
        .arg(flag("self-test", "Only show that clients notice what is lost, doubled and reordered"))
        // Cargo passes the flag to every bench.
        .arg(flag("bench", "").hide(true))
}

fn argument((name, value, takes, help): (&'static str, &'static str, Takes, &'static str)) -> Arg {
    let one = Arg::new(name).long(name).value_name(value).help(help);
    let list = || one.clone().value_delimiter(',').action(ArgAction::Append);
    match takes {
        Takes::Count => one.value_parser(positive),
        Takes::CountOrZero => one.value_parser(value_parser!(usize)),
        Takes::Number => one.value_parser(above_zero),
        Takes::Counts => list().value_parser(positive),
        Takes::Numbers => list().value_parser(above_zero),
        Takes::Cores => list().value_parser(value_parser!(usize)),
    }
}

fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&number| number > 0).ok_or_else(|| "a whole number above 0 is expected".to_owned())
}

fn above_zero(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|&number| number > 0.0 && number.is_finite());
    number.ok_or_else(|| "a number above 0 is expected".to_owned())
}

fn named_program(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').unwrap_or((text.rsplit('/').next().unwrap_or(text), text));
    let path = PathBuf::from(path);
    if !path.is_file() {
        return Err(format!("{} is no file", path.display()));
    }
    Ok((name.to_owned(), path))
}
