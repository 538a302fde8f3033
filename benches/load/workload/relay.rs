//! From a create through PocketBase's REST API to the receipt: the latency for a member, and the cost of the audience
//! for the writer. PocketBase's own realtime is measured with the same rules and no gateway.

use super::connect;
use super::ladder::each;
use crate::options::Options;
use crate::report::{Log, Table, median, short, spread};
use crate::step::{Load, Outcome, measure, warm_up};
use crate::target::{Audience, Source};

/// Creates per second, and the duration in seconds.
const RATE: f64 = 10.0;
const SECONDS: f64 = 10.0;

pub fn run(options: &Options, log: &mut Log) {
    for &size in &options.relay {
        let targets: Vec<_> = options.targets.iter().filter(|target| target.has(Source::Rest)).collect();
        let mut all: Vec<Vec<Outcome>> = targets.iter().map(|_| Vec::new()).collect();
        for round in 0..options.runs {
            for (target, runs) in targets.iter().zip(&mut all) {
                eprintln!("relay {size}, round {}: {}", round + 1, target.label());
                let mut server = target.start(Audience { clients: size, rooms: 1 }, Source::Rest, &options.cores);
                let Some((swarm, _)) = connect(&server, options) else { continue };
                warm_up(&swarm, &mut server.lanes, 1);
                let load = Load { rate: RATE, seconds: SECONDS.min(options.seconds * 3.0), rooms: 1 };
                let run = measure(&swarm, &mut server.lanes, &server.watched, load, options.repeats);
                eprintln!("  {}", run.line());
                log.write("relay", &target.label(), size, round, run.json());
                runs.push(run);
            }
        }
        let heads = [
            "server",
            "create p50 ms",
            "p99 ms",
            "create to receipt p50 ms",
            "p99 ms",
            "max ms",
            "achieved",
            "lost/doubled/reordered",
            "server CPU ms per create",
            "PocketBase's beside it",
        ];
        let mut table = Table::new(&heads);
        for (target, runs) in targets.iter().zip(&all).filter(|(_, runs)| !runs.is_empty()) {
            let at = |of: &dyn Fn(&Outcome) -> f64| spread(&each(runs, of));
            let wrong = |of: fn(&Outcome) -> u64| runs.iter().map(of).sum::<u64>();
            let per_create = |run: &Outcome, seconds: f64| seconds * 1e3 / (run.load.rate * run.load.seconds);
            table.row(vec![
                target.label(),
                at(&|run| run.calls[0]),
                at(&|run| run.calls[1]),
                at(&|run| run.latency(0.5)),
                at(&|run| run.latency(0.99)),
                at(&|run| run.latency(1.0)),
                short(median(&each(runs, |run| run.achieved))),
                format!(
                    "{}/{}/{}",
                    wrong(|run| run.summary.lost),
                    wrong(|run| run.summary.doubled),
                    wrong(|run| run.summary.reordered)
                ),
                at(&|run| per_create(run, run.usage.server.total())),
                at(&|run| per_create(run, run.usage.beside.total())),
            ]);
        }
        table.print(&format!("relay: {} creates per second through REST into a room of {size}", short(RATE)));
    }
}
