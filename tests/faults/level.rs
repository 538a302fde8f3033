//! Whether the clients have what PocketBase has. With all healed and nobody writing they must, soon: a client that
//! gets a message only once another one follows has been stuck until then. So has one that was removed and does not
//! know it.

use super::subscription::{Access, Shared, State};
use super::topology::{Topology, lock};
use super::truth::Truths;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// For whoever is there: a silent gateway is noticed after 8 s at most, then come backoff and reconnection.
const BETWEEN: Duration = Duration::from_secs(30);
/// And at the end, for everybody.
const END: Duration = Duration::from_secs(60);

/// The clients that are not away on purpose become level.
pub async fn in_between(topology: &Topology, clients: &[Shared], truths: &mut Truths) {
    truths.read_on(&topology.world).await;
    reach(topology, clients, truths, BETWEEN, true).await;
}

/// All clients become level; and so they do once more, with one more message in each room.
pub async fn at_the_end(topology: &Topology, clients: &[Shared], truths: &mut Truths) {
    for gateway in &topology.gateways {
        gateway.lock().await.ready().await;
    }
    truths.read_on(&topology.world).await;
    reach(topology, clients, truths, END, false).await;
    let world = &topology.world;
    {
        let pocketbase = topology.pocketbase.lock().await;
        for room in &world.rooms {
            pocketbase.write(&room.id, &world.users[0], "the last words").await;
        }
    }
    truths.read_on(world).await;
    reach(topology, clients, truths, END, false).await;
}

async fn reach(topology: &Topology, clients: &[Shared], truths: &Truths, within: Duration, some_away: bool) {
    let began = Instant::now();
    while clients.iter().any(|client| !behind(client, truths, some_away).is_empty()) {
        if began.elapsed() > within {
            let behind: Vec<String> = clients.iter().flat_map(|client| behind(client, truths, some_away)).collect();
            let (count, seconds, first) = (behind.len(), within.as_secs(), behind[..behind.len().min(5)].join("; "));
            topology.world.violation(format!("after {seconds} quiet seconds {count} subscriptions lag: {first}"));
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    println!("  level after {:.1} s", began.elapsed().as_secs_f64());
}

fn behind(client: &Shared, truths: &Truths, some_away: bool) -> Vec<String> {
    let mut out = Vec::new();
    for subscription in lock(client).iter() {
        let truth = &truths.channels[&subscription.log.channel];
        let excused = some_away && subscription.state == State::Away;
        if !excused && !subscription.is_level(truth.seqs.last().copied().unwrap_or(0), truth.last_key) {
            let (log, at) = (&subscription.log, &subscription.position);
            let state = subscription.state.name();
            let gone = if subscription.access == Access::Withdrawn { ", without access," } else { "" };
            out.push(format!("client {} {} is {state}{gone} at {at:?}", log.client, log.channel));
        }
    }
    out
}
