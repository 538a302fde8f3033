//! Growth: the cost of many gateways, in one process over a simulated Redis, and the cost of single commands and calls.
//!
//! `cargo bench --bench scale -- --help` describes the usage. A [`stage`] holds whole [`gateway`]s, each on a thread of
//! its own, with clients. [`work`] posts events and measures CPU time and traffic. The [`simulated_redis`] counts
//! commands and messages; [`redis_commands`] and [`pocketbase_calls`] measure the coefficients that a simulation cannot have, and
//! [`outbox`] the reads of PocketBase's outbox. The bench measures; the tests assert.

mod cpu;
#[path = "../load/target/crowd.rs"]
mod crowd;
mod gateway;
#[path = "../../tests/harness/mod.rs"]
mod harness;
mod options;
mod outbox;
mod pocketbase_calls;
mod redis_commands;
mod simulated_redis;
mod stage;
mod work;

use harness::process::free_port;
use options::{Options, Part};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use simulated_redis::Command;
use stage::{Site, Stage};
use tokio::runtime::Builder;
use work::{Usage, WORK, WORK_WITH_UPDATES};

/// The users and rooms to create: client `i` is in room `i / (clients / rooms)`.
#[derive(Clone, Copy)]
pub struct Audience {
    pub clients: usize,
    pub rooms: u32,
}

fn main() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("the limit can be raised to its maximum");
    let options = Options::read();
    if options.parts.contains(&Part::Redis) {
        // The brokers' connections run on the measured thread.
        Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(redis_commands::run());
    }
    if options.parts.iter().any(|part| *part != Part::Redis) {
        Builder::new_multi_thread().enable_all().build().expect("a runtime").block_on(run(&options));
    }
}

async fn run(options: &Options) {
    let most = options.nodes.iter().copied().max().unwrap_or(1);
    let audience = Audience { clients: most * options.users, rooms: u32::try_from(most).expect("a few gateways") };
    let site = Site::start(free_port(), audience).await;
    if options.parts.contains(&Part::PocketBase) {
        pocketbase_calls::run(&site).await;
    }
    if options.parts.contains(&Part::Gateways) {
        gateways(&site, options).await;
    }
    if options.parts.contains(&Part::Outbox) {
        outbox::run(&site, options).await;
    }
}

async fn gateways(site: &Site, options: &Options) {
    let mut rows: Vec<(&str, Vec<(usize, Usage)>)> = Vec::new();
    let mut idle = Vec::new();
    for &count in &options.nodes {
        eprintln!("{count} gateways");
        // The posted events are not in PocketBase's outbox, so a read of the outbox would break the sequence.
        let mut stage = Stage::start(site, options, count, &[("GATEWAY_PULL_INTERVAL", "3600")]).await;
        let base = work::idle(&stage, options.idle).await;
        idle.push((count, stage.subscriptions(), base));
        let mut client = stage.client(stage.concerned(), &site.author).await;
        let mut measured = vec![(
            "join into the hot room, and leave",
            work::join_and_leave(&mut stage, &mut client, options, &base).await,
        )];
        drop(client);
        for work in WORK {
            measured.push((work.name, work::measure(&mut stage, work, options, &base).await));
        }
        stage.subscribe_to_updates().await;
        for work in WORK_WITH_UPDATES {
            measured.push((work.name, work::measure(&mut stage, work, options, &base).await));
        }
        for (name, usage) in measured {
            match rows.iter_mut().find(|(known, _)| *known == name) {
                Some((_, usages)) => usages.push((count, usage)),
                None => rows.push((name, vec![(count, usage)])),
            }
        }
    }
    print_idle(&idle);
    print_events(&rows);
}

fn print_idle(idle: &[(usize, usize, Usage)]) {
    println!("\n### At rest, per second\n");
    println!(
        "| gateways | clients | Redis commands | of these: presence | status | sweep | history | other | a gateway, ms |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    for (count, subscriptions, usage) in idle {
        let of = |command| usage.traffic.of(command);
        let rest = usage.traffic.all()
            - [Command::Presence, Command::Status, Command::Sweep, Command::History].map(of).iter().sum::<f64>();
        println!(
            "| {count} | {} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {rest:.1} | {:.2} |",
            subscriptions / 2,
            usage.traffic.all(),
            of(Command::Presence),
            of(Command::Status),
            of(Command::Sweep),
            of(Command::History),
            usage.concerned / 1000.0,
        );
    }
}

fn print_events(rows: &[(&str, Vec<(usize, Usage)>)]) {
    println!("\n### For each event\n");
    println!(
        "| event | gateways | messages | bytes | commands | the hooks' gateway, µs | concerned, µs | each other, µs | calls of PocketBase | PocketBase, µs |"
    );
    println!("|---|---:|---:|---:|---|---:|---:|---:|---:|---:|");
    for (name, usages) in rows {
        for (count, usage) in usages {
            let or_none =
                |is_there: bool, micros: f64| if is_there { format!("{micros:.1}") } else { "–".to_owned() };
            println!(
                "| {name} | {count} | {:.1} | {:.0} | {} | {:.0} | {} | {} | {:.2} | {:.0} |",
                usage.traffic.messages,
                usage.traffic.bytes,
                work::commands(&usage.traffic),
                usage.relay,
                or_none(*count > 1, usage.concerned),
                or_none(*count > 2, usage.other),
                usage.calls,
                usage.pocketbase,
            );
        }
    }
}
