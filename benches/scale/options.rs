//! The command line.

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

const ABOUT: &str = "\
Measures how the work of an installation grows with the number of gateways.

`gateways` runs many whole gateways in this process over a simulated Redis, beside a real PocketBase, and measures the
cost of each kind of event; `outbox` writes into PocketBase meanwhile; `redis` and `pocketbase` measure the cost of
single commands and calls with a real Redis and a real PocketBase. benches/README.md (\"Growth\") has the results. Tables
go to standard output.";

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Part {
    Gateways,
    Outbox,
    Redis,
    PocketBase,
}

const PARTS: [(&str, Part); 4] =
    [("gateways", Part::Gateways), ("outbox", Part::Outbox), ("redis", Part::Redis), ("pocketbase", Part::PocketBase)];

pub struct Options {
    pub parts: Vec<Part>,
    /// Numbers of gateways.
    pub nodes: Vec<usize>,
    /// Users on each gateway.
    pub users: usize,
    /// Events per second.
    pub rate: f64,
    /// Seconds of events of a kind.
    pub seconds: f64,
    /// Seconds without events.
    pub idle: f64,
}

impl Options {
    /// Parses the process's arguments; ends the process if an argument is invalid.
    pub fn read() -> Self {
        let matches = command().get_matches();
        let list = |name: &str| matches.get_many::<usize>(name).map(|values| values.copied().collect());
        let number = |name: &str, usual: f64| matches.get_one::<f64>(name).copied().unwrap_or(usual);
        Self {
            parts: parts(&matches),
            nodes: list("nodes").unwrap_or_else(|| vec![1, 10, 50]),
            users: matches.get_one::<usize>("users").copied().unwrap_or(4),
            rate: number("rate", 200.0),
            seconds: number("seconds", 1.5),
            idle: number("idle", 8.0),
        }
    }
}

fn parts(matches: &ArgMatches) -> Vec<Part> {
    let names: Option<Vec<&String>> = matches.get_many("part").map(Iterator::collect);
    let is_wanted = |name: &str| names.as_ref().is_none_or(|names| names.iter().any(|one| *one == name));
    PARTS.iter().filter(|(name, _)| is_wanted(name)).map(|&(_, part)| part).collect()
}

fn command() -> Command {
    let argument = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let number = value_parser!(f64);
    Command::new("scale")
        .about(ABOUT)
        .arg(
            argument("part", "NAME,…", "gateways, outbox, redis, pocketbase; default: all")
                .value_delimiter(',')
                .value_parser(PARTS.map(|(name, _)| name)),
        )
        .arg(
            argument("nodes", "COUNT,…", "Numbers of gateways; default: 1,10,50")
                .value_delimiter(',')
                .value_parser(count),
        )
        .arg(argument("users", "COUNT", "Users on each gateway; default: 4").value_parser(count))
        .arg(argument("rate", "RATE", "Events per second; default: 200").value_parser(number))
        .arg(
            argument("seconds", "SECONDS", "How long events of a kind go on; default: 1.5")
                .value_parser(value_parser!(f64)),
        )
        .arg(
            argument("idle", "SECONDS", "How long the idle installation is watched; default: 8")
                .value_parser(value_parser!(f64)),
        )
        // Passed by `cargo bench`.
        .arg(Arg::new("bench").long("bench").action(ArgAction::SetTrue).hide(true))
}

fn count(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| "a number above 0 is required".to_owned())
}
