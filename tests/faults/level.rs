//! Checks whether the clients' state equals PocketBase's. With every fault healed and no writes, the clients must
//! catch up soon. A client that gets a message only when another message follows was stuck until then. A removed
//! client that does not know of its removal was stuck too.

use super::subscription::{Access, Shared, State};
use super::topology::{Topology, lock};
use super::truth::Truths;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Time limit for clients that are not away: a silent gateway is noticed after at most 8 s, then come backoff and
/// reconnection.
const BETWEEN: Duration = Duration::from_secs(30);
/// Time limit at the end, for every client.
const END: Duration = Duration::from_secs(60);

/// Waits until the clients that are not away on purpose have caught up.
pub async fn in_between(topology: &Topology, clients: &[Shared], truths: &mut Truths) {
    truths.read_on(&topology.world).await;
    reach(topology, clients, truths, BETWEEN, true).await;
}

/// Waits until every client has caught up, and again after one more message in each room.
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
