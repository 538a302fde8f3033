//! Memory and CPU of idle connections, authenticated and subscribed: at rest, pings included. Then memory after one large
//! message to each client.

use super::connect;
use crate::options::Options;
use crate::publish::publish;
use crate::report::{Log, Table, median, ratio, short, spread};
use crate::step::plan;
use crate::target::{Audience, Source};
use crate::usage::{Snapshot, resident};
use serde_json::json;
use std::time::Duration;

/// Bytes of the large message.
const LARGE: usize = 32 * 1024;

#[derive(Clone, Copy)]
struct Rest {
    /// Bytes per connection.
    rss: f64,
    pss: f64,
    /// Bytes per connection a while after the large message.
    after: f64,
    /// Bytes of the whole server: with all clients connected, and after the large message.
    total: f64,
    total_after: f64,
    /// CPU seconds of the server per second at rest.
    cpu: f64,
}

pub fn run(options: &Options, log: &mut Log) {
    for &size in &options.idle {
        let mut all: Vec<Vec<Rest>> = vec![Vec::new(); options.targets.len()];
        for round in 0..options.runs {
            for (target, memories) in options.targets.iter().zip(&mut all) {
                eprintln!("idle {size}, round {}: {}", round + 1, target.label());
                let mut server = target.start(Audience { clients: size, rooms: 1 }, Source::Direct, &options.cores);
                let before = resident(&server.watched.server);
                let Some((swarm, _)) = connect(&server, options) else { continue };
                let rest = Snapshot::of(&server.watched);
                std::thread::sleep(Duration::from_secs_f64(options.hold));
                let rest = rest.until_now(&server.watched);
                let held = resident(&server.watched.server);
                let plan = plan(1, 1);
                swarm.begin(plan);
                let published = publish(plan, 1.0, LARGE, &mut server.lanes);
                swarm.drain(size as u64);
                let summary = swarm.finish(published.sent);
                std::thread::sleep(Duration::from_secs_f64(options.hold));
                let later = resident(&server.watched.server);
                let each = |bytes: u64, before: u64| bytes.saturating_sub(before) as f64 / size as f64;
                let memory = Rest {
                    rss: each(held.0, before.0),
                    pss: each(held.1, before.1),
                    after: each(later.0, before.0),
                    total: held.0 as f64,
                    total_after: later.0 as f64,
                    cpu: rest.server.total() / rest.seconds,
                };
                memories.push(memory);
                let trouble = swarm.trouble().or(published.failure);
                if !summary.is_clean() || trouble.is_some() {
                    eprintln!("  {} lost, {} closed: {trouble:?}", summary.lost, swarm.closed());
                }
                let run = json!({
                    "rss_per_connection": memory.rss, "pss_per_connection": memory.pss,
                    "rss_per_connection_after": memory.after, "before": before.0, "held": held.0, "after": later.0,
                    "cpu_at_rest": memory.cpu,
                    "lost": summary.lost, "closed": swarm.closed(), "trouble": trouble,
                });
                log.write("idle", &target.label(), size, round, run);
            }
        }
        print(options, size, &all);
    }
}

fn print(options: &Options, size: usize, all: &[Vec<Rest>]) {
    let heads = [
        "server",
        "RSS bytes each",
        "PSS bytes each",
        "to nchan",
        "RSS MB",
        "at rest: CPU ms/s",
        "32 KB to each, later: RSS bytes each",
        "RSS MB",
        "grown by",
    ];
    let mut table = Table::new(&heads);
    let each = |memories: &[Rest], of: fn(&Rest) -> f64| memories.iter().map(of).collect::<Vec<f64>>();
    let nchan = options.targets.iter().zip(all).find(|(target, _)| target.label() == "nchan");
    let nchan = nchan.map(|(_, memories)| median(&each(memories, |one| one.rss)));
    for (target, memories) in options.targets.iter().zip(all) {
        let rss = each(memories, |one| one.rss);
        let grown = median(&each(memories, |one| one.total_after / one.total)) - 1.0;
        table.row(vec![
            target.label(),
            spread(&rss),
            spread(&each(memories, |one| one.pss)),
            ratio(median(&rss), nchan),
            short(median(&each(memories, |one| one.total)) / 1e6),
            spread(&each(memories, |one| one.cpu * 1e3)),
            spread(&each(memories, |one| one.after)),
            short(median(&each(memories, |one| one.total_after)) / 1e6),
            format!("{:.0} %", grown * 100.0),
        ]);
    }
    table.print(&format!("idle, {size} connections"));
}
