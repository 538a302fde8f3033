//! User status as seen by observers: across tabs, devices, gateways, and the death of a gateway.
//!
//! `cargo test --release --test gateway status:: -- --nocapture` prints the times of `tests/README.md`.

mod checker;
mod device;
mod observer;
mod stage;

use crate::harness::client::Client;
use crate::harness::pocketbase::User;
use crate::harness::proxy::Weather;
use crate::harness::rng::Rng;
use crate::harness::{World, until};
use device::{Device, How, Life};
use konvert_gateway::broker::status_store::{Status, UserStatus};
use observer::{Chain, Observer, channel, state};
use serde_json::{Value, json};
use stage::{GATEWAYS, GRACE, LEASE, SETTINGS, Stage, now};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout};

const USERS: usize = 300;
/// Subscriptions of one observer.
const WATCHED: usize = 150;
const STORM: Duration = Duration::from_secs(26);
/// Seed of the random decisions; `STATUS_SEED` names another.
const SEED: u64 = 5;
/// For clients that pause reading.
const PATIENT: &[(&str, &str)] = &[("GATEWAY_PRESENCE_TTL", "6"), ("GATEWAY_STATUS_GRACE", "1")];

/// Connects and disconnects at random, with up to three devices. In the end, every device leaves or one stays.
async fn live(stage: Arc<Stage>, user: User, mut rng: Rng, end: Instant) -> (Vec<Life>, Option<Device>) {
    let (mut lives, mut devices) = (Vec::new(), Vec::<Device>::new());
    loop {
        sleep(rng.millis(300..3000)).await;
        let mut shocked = false;
        for i in (0..devices.len()).rev() {
            if devices[i].is_over() {
                let life = devices.swap_remove(i).result().await;
                shocked |= life.end.is_some_and(|(how, _)| how == How::Killed);
                lives.push(life);
            }
        }
        if shocked && rng.chance(50) {
            for device in devices.drain(..) {
                lives.push(device.close(true).await);
            }
            sleep(Duration::from_millis(LEASE + GRACE + 1000)).await;
        }
        if Instant::now() >= end {
            break;
        }
        let gates = stage.open_gates();
        if devices.len() < 3 && (devices.is_empty() || rng.chance(50)) && !gates.is_empty() {
            match Device::open(&stage, *rng.pick(&gates), &user.token).await {
                Ok(device) => devices.push(device),
                Err(life) => lives.push(life),
            }
        } else if !devices.is_empty() {
            let device = devices.swap_remove(rng.below(devices.len()));
            lives.push(device.close(rng.chance(50)).await);
        }
    }
    let stays = if rng.chance(50) { devices.pop() } else { None };
    for device in devices {
        lives.push(device.close(true).await);
    }
    (lives, stays)
}

/// Each gateway has one fault. The faults overlap, except for a moment without a fault.
async fn faults(stage: Arc<Stage>, world: &mut World) -> [u64; GATEWAYS] {
    sleep(Duration::from_secs(6)).await;
    stage.strike(2, How::Killed);
    let killed = now();
    world.gateways[2].process.kill();

    sleep(Duration::from_secs(3)).await;
    // The gateway's connections are closed, and come back elsewhere. A client may notice later than the gateway.
    stage.strike(0, How::Closed);
    stage.proxies[0].set(Weather::Cut);
    sleep(Duration::from_secs(1)).await;
    stage.proxies[0].set(Weather::Clear);
    stage.shut(0, false);

    sleep(Duration::from_secs(3)).await;
    world.gateways[2].restart().await;
    stage.shut(2, false);

    sleep(Duration::from_secs(2)).await;
    stage.strike(1, How::Dark);
    stage.proxies[1].set(Weather::Dark);
    sleep(Duration::from_secs(5)).await;
    stage.proxies[1].set(Weather::Clear);
    stage.shut(1, false);
    [0, 0, killed]
}

/// Prints percentiles of `times`; returns the median.
fn print(what: &str, mut times: Vec<u64>) -> u64 {
    times.sort_unstable();
    let at = |percent: usize| times.get((times.len().max(1) - 1) * percent / 100).copied().unwrap_or_default();
    println!("{what:<32} {:>6} times, ms: p50 {:>5}, p99 {:>5}, most {:>5}", times.len(), at(50), at(99), at(100));
    at(50)
}

#[tokio::test(flavor = "multi_thread")]
async fn observers_agree_on_statuses_through_faults() {
    let mut world = World::start(GATEWAYS, true, SETTINGS).await;
    let first = world.pocketbase.user("first").await;
    let mut users = world.pocketbase.copies(&first, USERS + 4 * GATEWAYS).await;
    let watchers = users.split_off(USERS);
    let ids: Vec<String> = users.iter().map(|user| user.id.clone()).collect();
    let stage = Arc::new(Stage::before(&world).await);
    let seed = std::env::var("STATUS_SEED").map_or(SEED, |seed| seed.parse().unwrap());
    let (over, rng) = (Arc::new(AtomicBool::new(false)), Rng::new(seed));

    let (mut observers, watching) = (Vec::new(), Arc::new(AtomicUsize::new(0)));
    for (i, watcher) in watchers.iter().enumerate() {
        let observer = Observer::new(&stage, i % GATEWAYS, &watcher.token, &over);
        observers.push(match (i / GATEWAYS, i % GATEWAYS) {
            (0, _) => tokio::spawn(observer.watch(ids[..WATCHED].to_vec(), Arc::clone(&watching))),
            // Not on the last gateway, where each hop has to ask for a status without observers.
            (1, 0 | 1) => tokio::spawn(observer.watch(ids[WATCHED..].to_vec(), Arc::clone(&watching))),
            _ => tokio::spawn(observer.hop(ids[WATCHED..][..40].to_vec(), rng.fork(i as u64))),
        });
    }
    until("all watching observers to have subscribed", async || {
        (watching.load(Ordering::SeqCst) == GATEWAYS + 2).then_some(())
    })
    .await;
    let end = Instant::now() + STORM;
    let living: Vec<_> = users
        .iter()
        .enumerate()
        .map(|(i, user)| tokio::spawn(live(Arc::clone(&stage), user.clone(), rng.fork(1000 + i as u64), end)))
        .collect();
    let kills = faults(Arc::clone(&stage), &mut world).await;
    sleep_until(end).await;

    let (mut truth, mut staying) = (HashMap::new(), Vec::new());
    for (user, living) in users.iter().zip(living) {
        let (lives, stays) = living.await.unwrap();
        truth.insert(user.id.clone(), lives);
        staying.push(stays);
    }
    sleep(Duration::from_millis(LEASE + GRACE + 3000)).await;
    let ended = now();
    over.store(true, Ordering::SeqCst);
    let mut chains: Vec<Chain> = Vec::new();
    for observer in observers {
        chains.extend(observer.await.unwrap());
    }
    let asked = ask(&world, &watchers[0], &ids).await;

    let mut online = 0;
    let (mut came, mut closed, mut lost, mut killed) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut events, mut connections) = (0, 0);
    for (user, stays) in users.iter().zip(staying) {
        let mut lives = truth.remove(&user.id).unwrap();
        // The device that stays may have lost its connection without notice.
        let stays = match stays {
            Some(device) if device.is_over() => {
                lives.push(device.result().await);
                false
            }
            Some(device) => {
                let mut life = device.close(true).await;
                life.end = None;
                lives.push(life);
                true
            }
            None => false,
        };
        let seen: Vec<&Chain> = chains.iter().filter(|chain| chain.user == user.id).collect();
        let log = checker::log_of(&seen);
        seen.iter().for_each(|chain| checker::is_whole(chain, &log));
        checker::is_true(&lives, &log, &kills, ended);
        checker::last_seen_is_right(&lives, &log, &kills);
        let expected = if stays { Status::Online } else { Status::Offline };
        for chain in seen.iter().filter(|chain| chain.cut.is_none()) {
            assert_eq!(chain.states.last().unwrap().0.status, expected, "{chain:?}\n{lives:?}");
        }
        let now: UserStatus = state(&asked[&user.id]);
        assert_eq!(now.status, expected);
        online += usize::from(stays);
        events += log.len();
        connections += lives.len();
        came.extend(checker::times_to_online(&lives, &seen));
        closed.extend(checker::times_to_offline(How::Closed, &lives, &seen));
        lost.extend(checker::times_to_offline(How::Dark, &lives, &seen));
        killed.extend(checker::times_to_offline(How::Killed, &lives, &seen));
    }
    println!("{USERS} users, {connections} connections, {events} changes, {} chains, {online} stay", chains.len());
    assert!(events > 2 * USERS && (USERS / 4..USERS).contains(&online));
    let all = [&closed, &lost, &killed].map(Vec::len);
    assert!(all.iter().all(|count| *count > 10), "each end came up: {all:?}");
    let median = print("to online", came);
    print("to offline after a close", closed);
    print("to offline after a lost network", lost);
    print("to offline after a killed node", killed);
    // Far below the time between two renewals of a lease.
    assert!(median < 250, "{median} ms");
}

/// The users' statuses in one call.
async fn ask(world: &World, user: &User, ids: &[String]) -> Value {
    let mut client = Client::connect(&world.gateways[2], &user.token).await;
    rpc(&mut client, "status.get", json!({"users": ids})).await["statuses"].take()
}

async fn rpc(client: &mut Client, method: &str, data: Value) -> Value {
    let mut reply = client.call("rpc", json!({"method": method, "data": data})).await;
    assert!(reply["rpc"]["data"].is_object(), "{reply}");
    reply["rpc"]["data"].take()
}

async fn watch(client: &mut Client, user: &User) -> UserStatus {
    let reply = client.call("subscribe", json!({"channel": channel(&user.id)})).await;
    assert!(reply["subscribe"]["recoverable"].is_null(), "{reply}");
    state(&reply["subscribe"]["data"])
}

async fn next(client: &mut Client) -> UserStatus {
    state(&client.publication().await["data"])
}

/// Ann on the first gateway, and Bob, who watches Ann, on the second.
async fn ann_and_bob() -> (World, User, User, Client) {
    let world = World::start(2, true, PATIENT).await;
    let [ann, bob] = [world.pocketbase.user("ann").await, world.pocketbase.user("bob").await];
    let bobs = Client::connect(&world.gateways[1], &bob.token).await;
    (world, ann, bob, bobs)
}

#[tokio::test(flavor = "multi_thread")]
async fn users_choose_what_others_see() {
    let (world, ann, _, mut bobs) = ann_and_bob().await;
    assert_eq!(watch(&mut bobs, &ann).await, UserStatus::default());
    let mut phone = Client::connect(&world.gateways[0], &ann.token).await;
    let mut laptop = Client::connect(&world.gateways[1], &ann.token).await;
    assert_eq!(next(&mut bobs).await.status, Status::Online);

    rpc(&mut phone, "status.idle", json!({"idle": true})).await;
    rpc(&mut laptop, "status.idle", json!({"idle": true})).await;
    assert_eq!(next(&mut bobs).await.status, Status::Away);
    rpc(&mut laptop, "status.idle", json!({"idle": false})).await;
    assert_eq!(next(&mut bobs).await.status, Status::Online);
    let answer = rpc(&mut phone, "status.set", json!({"status": "dnd"})).await;
    let dnd = next(&mut bobs).await;
    assert_eq!((dnd.status, state(&answer)), (Status::Dnd, dnd));
    assert_eq!(answer["mode"], "dnd");

    let before = now();
    let answer = rpc(&mut phone, "status.set", json!({"status": "invisible"})).await;
    let hidden = next(&mut bobs).await;
    assert_eq!((answer["mode"].as_str(), hidden.status), (Some("invisible"), Status::Offline));
    assert!((before..=now()).contains(&hidden.last_seen.unwrap()));
    // While Ann is invisible, observers see no change.
    rpc(&mut laptop, "status.idle", json!({"idle": true})).await;
    drop(phone);
    let mut phone = Client::connect(&world.gateways[0], &ann.token).await;
    assert_eq!(rpc(&mut phone, "status.set", json!({})).await["mode"], "invisible");
    sleep(Duration::from_secs(3)).await;
    let users = json!({"users": [ann.id, "nobody"]});
    let asked = rpc(&mut bobs, "status.get", users).await["statuses"].take();
    assert_eq!(asked, json!({&ann.id: hidden}));
    bobs.call("unsubscribe", json!({"channel": channel(&ann.id)})).await;
    assert!(bobs.waiting().is_none());
    assert_eq!(watch(&mut bobs, &ann).await, hidden);

    rpc(&mut phone, "status.set", json!({"status": "online"})).await;
    assert_eq!(next(&mut bobs).await.status, Status::Online);
}

/// A client that closes without having read everything resets the connection. The grace begins there as well, and not
/// at the last pong.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_whose_connection_is_reset_stays_online_for_the_grace() {
    let settings = [("GATEWAY_STATUS_GRACE", "2"), ("GATEWAY_PING_INTERVAL", "25")];
    let world = World::start(1, false, &settings).await;
    let [ann, bob] = [world.pocketbase.user("ann").await, world.pocketbase.user("bob").await];
    let mut bobs = Client::connect(world.gateway(), &bob.token).await;
    watch(&mut bobs, &ann).await;
    let anns = Client::connect(world.gateway(), &ann.token).await;
    assert_eq!(next(&mut bobs).await.status, Status::Online);
    // Longer than the grace without a sign of life.
    sleep(Duration::from_secs(3)).await;
    let before = now();
    anns.reset();
    let offline = next(&mut bobs).await;
    assert_eq!(offline.status, Status::Offline);
    assert!(now() - before >= 1990, "offline {} ms after the reset", now() - before);
    assert!(offline.last_seen.unwrap() + 10 >= before, "{offline:?}, and the reset came at {before}");
}

/// The rate is per user, over the user's connections to a gateway.
#[tokio::test(flavor = "multi_thread")]
async fn status_changes_are_rate_limited_and_queries_are_not() {
    let world = World::start(1, false, PATIENT).await;
    let [ann, bob] = [world.pocketbase.user("ann").await, world.pocketbase.user("bob").await];
    let mut anns = Vec::new();
    for _ in 0..2 {
        anns.push(Client::connect(world.gateway(), &ann.token).await);
    }
    let mut refused = 0;
    for i in 0..150 {
        let (status, place) = (if i % 4 < 2 { "dnd" } else { "online" }, i % 2);
        let reply = anns[place].call("rpc", json!({"method": "status.set", "data": {"status": status}})).await;
        refused += usize::from(reply["error"]["code"] == 111);
    }
    // A burst of 100, and two more for each second of the test.
    assert!((1..=50).contains(&refused), "{refused} of 150 were refused");
    assert!(rpc(&mut anns[0], "status.set", json!({})).await["mode"].is_string());
    let mut bobs = Client::connect(world.gateway(), &bob.token).await;
    assert_eq!(rpc(&mut bobs, "status.set", json!({"status": "dnd"})).await["mode"], "dnd");
    world.gateway().metric_reaches("gateway_rate_limited_total{limit=\"statuses\"}", refused as f64).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_status_is_refused() {
    let (_world, ann, _, mut bobs) = ann_and_bob().await;
    watch(&mut bobs, &ann).await;
    for (method, data, code) in [
        ("status.set", json!({"status": "asleep"}), 107),
        ("status.idle", json!({}), 107),
        ("status.get", json!({"users": "all"}), 107),
        ("status.get", json!({"users": vec!["a"; 501]}), 106),
        ("status.take", json!({}), 104),
    ] {
        let reply = bobs.call("rpc", json!({"method": method, "data": data})).await;
        assert_eq!(reply["error"]["code"], code, "{method} {reply}");
    }
    for (command, more) in
        [("presence", json!({})), ("history", json!({})), ("publish", json!({"data": {"type": "typing"}}))]
    {
        let mut request = more;
        request["channel"] = json!(channel(&ann.id));
        let reply = bobs.call(command, request).await;
        assert_eq!(reply["error"]["code"], 108, "{command} {reply}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_is_visible_only_to_users_who_may_view_the_user() {
    let (world, ann, bob, mut bobs) = ann_and_bob().await;
    watch(&mut bobs, &ann).await;
    let rule = json!({"viewRule": "id = @request.auth.id"});
    world.pocketbase.as_superuser("PATCH", "collections/users", &rule).await;
    assert_eq!(bobs.unsubscribed().await["code"], 2103);
    let refused = bobs.call("subscribe", json!({"channel": channel(&ann.id)})).await;
    assert_eq!(refused["error"]["code"], 103);
    let asked = rpc(&mut bobs, "status.get", json!({"users": [ann.id, bob.id]})).await;
    let seen: Vec<&String> = asked["statuses"].as_object().unwrap().keys().collect();
    assert_eq!(seen, [&bob.id]);
    // No more publications arrive.
    let _ann = Client::connect(&world.gateways[0], &ann.token).await;
    assert!(timeout(Duration::from_secs(1), bobs.publication()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_are_restored_after_redis_lost_its_data() {
    let (mut world, ann, _, mut bobs) = ann_and_bob().await;
    watch(&mut bobs, &ann).await;
    let mut anns = Client::connect(&world.gateways[0], &ann.token).await;
    assert_eq!(next(&mut bobs).await.status, Status::Online);
    rpc(&mut anns, "status.set", json!({"status": "dnd"})).await;
    assert_eq!(next(&mut bobs).await.status, Status::Dnd);
    let redis = world.redis.as_mut().unwrap();
    redis.kill();
    redis.restart();
    for gateway in &mut world.gateways {
        gateway.ready().await;
    }
    let ids = vec![ann.id.clone()];
    until("her return", async || {
        let reply = bobs.call("rpc", json!({"method": "status.get", "data": {"users": ids}})).await;
        (reply["rpc"]["data"]["statuses"][&ann.id]["status"] == "dnd").then_some(())
    })
    .await;
    rpc(&mut anns, "status.set", json!({"status": "online"})).await;
    // No change was published meanwhile.
    assert_eq!(next(&mut bobs).await.status, Status::Online);
}

#[tokio::test(flavor = "multi_thread")]
async fn joins_and_leaves_are_sent_to_clients_that_ask_for_them() {
    let world = World::start(2, true, PATIENT).await;
    let (room, users) = world.room(&["ann", "bob", "cid", "nobody"]).await;
    let request = json!({"channel": format!("room:{room}"), "join_leave": true});
    let mut anns = Client::connect(&world.gateways[0], &users[0].token).await;
    assert!(anns.call("subscribe", request.clone()).await["subscribe"].is_object());
    let mut quiet = world.subscriber(0, &users[2], &room).await;
    assert_eq!(movement(&mut anns).await, ("join", users[2].id.clone()));
    let mut bobs = Client::connect(&world.gateways[1], &users[1].token).await;
    assert!(bobs.call("subscribe", request.clone()).await["subscribe"].is_object());
    assert_eq!(movement(&mut anns).await, ("join", users[1].id.clone()));
    drop(bobs);
    assert_eq!(movement(&mut anns).await, ("leave", users[1].id.clone()));

    // A killed gateway's clients leave once, when their leases expire.
    let mut world = world;
    let _bobs = world.subscriber(1, &users[1], &room).await;
    assert_eq!(movement(&mut anns).await, ("join", users[1].id.clone()));
    world.gateways[1].process.kill();
    assert_eq!(movement(&mut anns).await, ("leave", users[1].id.clone()));
    quiet.call("publish", json!({"channel": request["channel"], "data": {"type": "typing"}})).await;
    quiet.signal().await;
    assert_eq!(anns.signal().await["info"]["user"], users[2].id);
    // Clients without `join_leave` were not told, and no client twice.
    for client in [&mut anns, &mut quiet] {
        let moves = std::iter::from_fn(|| client.waiting()).filter(is_movement).count();
        assert_eq!(moves, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invisible_users_are_not_in_the_presence() {
    let world = World::start(2, true, PATIENT).await;
    let (room, users) = world.room(&["ann", "bob", "nobody"]).await;
    let request = json!({"channel": format!("room:{room}"), "join_leave": true});
    let mut bobs = Client::connect(&world.gateways[1], &users[1].token).await;
    assert!(bobs.call("subscribe", request.clone()).await["subscribe"].is_object());
    let mut anns = world.subscriber(0, &users[0], &room).await;
    assert_eq!(movement(&mut bobs).await, ("join", users[0].id.clone()));
    rpc(&mut anns, "status.set", json!({"status": "invisible"})).await;
    assert_eq!(movement(&mut bobs).await, ("leave", users[0].id.clone()));
    // Also with a new connection, and after a renewal of the lease.
    drop(anns);
    let mut anns = world.subscriber(0, &users[0], &room).await;
    sleep(Duration::from_secs(3)).await;
    let present = bobs.call("presence", json!({"channel": request["channel"]})).await;
    assert_eq!(present["presence"]["presence"].as_object().unwrap().len(), 1, "{present}");
    assert!(!std::iter::from_fn(|| bobs.waiting()).any(|it| is_movement(&it)));
    rpc(&mut anns, "status.set", json!({"status": "away"})).await;
    assert_eq!(movement(&mut bobs).await, ("join", users[0].id.clone()));
}

fn is_movement(frame: &Value) -> bool {
    frame["push"]["join"].is_object() || frame["push"]["leave"].is_object()
}

async fn movement(client: &mut Client) -> (&'static str, String) {
    loop {
        let push = client.push().await;
        for kind in ["join", "leave"] {
            if let Some(user) = push["push"][kind]["info"]["user"].as_str() {
                return (kind, user.to_owned());
            }
        }
    }
}
