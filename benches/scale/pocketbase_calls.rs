//! Cost of the gateway's calls of PocketBase: CPU time of PocketBase for each call and question.

use crate::cpu;
use crate::harness::SECRET;
use crate::stage::{Site, UPDATES};
use konvert_gateway::config::{Config, Sources};
use konvert_gateway::metrics::Metrics;
use konvert_gateway::pocketbase::{Check, PocketBase, Verdict, View};
use serde_json::{Value, json};
use std::sync::Arc;

/// Calls of a measurement.
const CALLS: usize = 60;
/// Questions in a full call.
const FULL: usize = 256;

pub async fn run(site: &Site) {
    let environment = vec![
        ("GATEWAY_SECRET".to_owned(), SECRET.to_owned()),
        ("GATEWAY_POCKETBASE_URL".to_owned(), site.pocketbase.url.clone()),
    ];
    let config = Config::load(&Sources { environment, ..Sources::default() }).expect("a configuration");
    let client = PocketBase::new(&config, Metrics::new().expect("metrics")).expect("no TLS");
    let checks = checks(site);
    let classes = client.visible(UPDATES, &checks[0].user, "", 4000).await.expect("PocketBase answers").page;
    let class: Arc<str> =
        format!("~{}", classes.and_then(|page| page.class).expect("the chat's rule has classes")).into();
    let rooms: Vec<Arc<str>> = site.crowd.rooms.iter().map(|room| room.as_str().into()).collect();
    let (_, last) = site.pocketbase.outbox().await;
    println!("\n### Calls of a real PocketBase\n");
    println!("{} users with a private room each, {} rooms.\n", site.crowd.users.len(), rooms.len() + 1);
    println!("| call | PocketBase, µs |\n|---|---:|");
    let row = |name: &str, micros: f64| println!("| {name} | {micros:.0} |");
    let full: Vec<Check> = checks.iter().cycle().take(FULL).cloned().collect();
    let asked = async |questions: &[Check]| {
        let verdicts = client.authorize(questions).await.expect("PocketBase answers");
        assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Allowed));
    };
    row(
        "may a user subscribe to a room: one question in a call",
        each(site, CALLS, async |i| asked(&checks[i % checks.len()..][..1]).await).await,
    );
    row("… 16 questions in a call, each", each(site, CALLS, async |_| asked(&full[..16]).await).await / 16.0);
    row("… 256 questions in a call, each", each(site, CALLS / 4, async |_| asked(&full).await).await / FULL as f64);
    let view = async |who: &Arc<str>, i: usize| {
        let views = [View { user: Arc::clone(who), record: Arc::clone(&rooms[i % rooms.len()]) }];
        client.view(UPDATES, &views).await.expect("PocketBase answers");
    };
    row("may a class view a record", each(site, CALLS, async |i| view(&class, i).await).await);
    row("may a user view a record", each(site, CALLS, async |i| view(&checks[i % checks.len()].user, i).await).await);
    let visible =
        async |who: &Arc<str>| drop(client.visible(UPDATES, who, "", 4000).await.expect("PocketBase answers"));
    row(
        "all visible records of a user, beyond the class's",
        each(site, CALLS, async |i| visible(&checks[i % checks.len()].user).await).await,
    );
    row("all visible records of a class", each(site, CALLS, async |_| visible(&class).await).await);
    let read = async || drop(client.events(last.saturating_sub(1), 1000).await.expect("PocketBase answers"));
    row("a read of the outbox without news", each(site, CALLS, async |_| read().await).await);
    let confirm = async |_: usize| _ = client.confirm(last).await.expect("PocketBase answers");
    row("a confirmation of outbox rows", each(site, CALLS, confirm).await);
    let write = async |_: usize| drop(site.pocketbase.write(&site.hot, &site.author, "a message").await);
    row("create of a message through REST, with the hooks", each(site, CALLS, write).await);
    let id = site.crowd.rooms[0].clone();
    let path = format!("collections/rooms/records/{id}");
    let rename = async |i: usize| {
        drop(site.pocketbase.as_superuser("PATCH", &path, &json!({"name": format!("Room {i}")})).await);
    };
    row("update of a room through REST, with the hooks", each(site, CALLS, rename).await);
    let member = async |i: usize| {
        let user = &site.crowd.users[site.crowd.users.len() - 1 - i % site.crowd.users.len()];
        let made: Value = site.pocketbase.join(&id, user).await;
        let id = made["id"].as_str().expect("an id");
        site.pocketbase.as_superuser("DELETE", &format!("collections/room_members/records/{id}"), &Value::Null).await;
    };
    row("a membership made and removed, each", each(site, CALLS / 2, member).await / 2.0);
}

/// Every user with the user's room.
fn checks(site: &Site) -> Vec<Check> {
    let each = site.crowd.users.len() / site.crowd.rooms.len();
    let check = |(number, user): (usize, &crate::harness::pocketbase::User)| Check {
        user: user.id.as_str().into(),
        channel: format!("room:{}", site.crowd.rooms[number / each]).into(),
    };
    site.crowd.users.iter().enumerate().map(check).collect()
}

/// Microseconds of PocketBase for each of `count` calls, one after the other.
async fn each(site: &Site, count: usize, call: impl AsyncFn(usize)) -> f64 {
    let pid = site.pocketbase.process.pid();
    // The first calls fill caches.
    for number in 0..3 {
        call(number).await;
    }
    let before = cpu::of_process(pid);
    for number in 0..count {
        call(number).await;
    }
    cpu::of_process(pid).saturating_sub(before).as_secs_f64() * 1e6 / count as f64
}
