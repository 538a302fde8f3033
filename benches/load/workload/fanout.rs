//! One room: the highest rate that a server copes with, and the cost of a delivery in rooms of different sizes.

use super::ladder::{self, Course, copes, each, print_capacity, print_rates, server_cpu};
use crate::options::Options;
use crate::report::{Log, Table, median, ratio, short, spread};
use crate::target::Audience;

pub fn run(options: &Options, log: &mut Log) {
    for &size in &options.fanout {
        let first = rate_for(options, size);
        let audience = Audience { clients: size, rooms: 1 };
        let all = ladder::run(options, log, Course { name: "fanout", audience, first, climb: true });
        print_capacity(options, &format!("fanout: one room of {size}"), &all, first);
        print_rates(&format!("fanout: one room of {size}, all rates"), &all);
    }
    if !options.flat.is_empty() {
        flat(options, log);
    }
}

/// The rate at which a room of `size` gets as many deliveries per second as the room of 1000.
fn rate_for(options: &Options, size: usize) -> f64 {
    options.at_rate * 1000.0 / size as f64
}

fn flat(options: &Options, log: &mut Log) {
    let heads = ["server", "subscribers", "msg/s", "copes", "CPU s/M", "to the first", "to raw", "p50 ms", "p99 ms"];
    let mut table = Table::new(&heads);
    let mut rows: Vec<Vec<Vec<String>>> = vec![Vec::new(); options.targets.len()];
    let mut firsts: Vec<Option<f64>> = vec![None; options.targets.len()];
    for &size in &options.flat {
        let (audience, first) = (Audience { clients: size, rooms: 1 }, rate_for(options, size));
        let all = ladder::run(options, log, Course { name: "flat", audience, first, climb: false });
        let raw = all.iter().find(|one| one.label == "raw").and_then(|raw| raw.cpu_at(first));
        for ((one, rows), base) in all.iter().zip(&mut rows).zip(&mut firsts) {
            let Some(runs) = one.at(first) else { continue };
            let cpu = each(runs, server_cpu);
            rows.push(vec![
                one.label.clone(),
                size.to_string(),
                short(first),
                copes(runs),
                spread(&cpu),
                ratio(median(&cpu), Some(*base.get_or_insert(median(&cpu)))),
                ratio(median(&cpu), raw),
                spread(&each(runs, |run| run.latency(0.5))),
                spread(&each(runs, |run| run.latency(0.99))),
            ]);
        }
    }
    rows.into_iter().flatten().for_each(|row| table.row(row));
    table.print("fanout: what a delivery costs in rooms of different sizes, at as many deliveries per second");
}
