//! Access that ends in PocketBase ends on every gateway within a second. For each cause: the client's code, and the
//! delay on a gateway that does not get the hooks' posts.
//!
//! `REVOCATION_RUNS=20 cargo test --release --test gateway -- --nocapture revocation::each_cause` prints the table of `tests/README.md`.

use futures_util::future::join_all;
use crate::harness::client::Client;
use crate::harness::pocketbase::User;
use crate::harness::{World, message, until};
use serde_json::{Value, json};
use std::fmt::Write;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// The guaranteed limit.
const AT_MOST: Duration = Duration::from_secs(1);

/// A user who is about to lose access, subscribed on the second gateway; the hooks post to the first.
struct Victim {
    user: User,
    room: String,
    client: Client,
}

impl Victim {
    /// Publishes until refused; returns the error's code.
    async fn publishes_until_refused(&mut self) -> u64 {
        let typing = json!({"channel": format!("room:{}", self.room), "data": {"type": "typing"}});
        loop {
            let reply = self.client.call("publish", typing.clone()).await;
            match reply["error"]["code"].as_u64() {
                // Error 100 while the subscription is suspended: retried, as SDKs do.
                None | Some(100) => {}
                Some(code) => return code,
            }
            sleep(Duration::from_millis(1)).await;
        }
    }
}

struct Stage {
    world: World,
    owner: User,
    honest: Client,
    honest_room: String,
    people: usize,
}

impl Stage {
    async fn new() -> Self {
        let unlimited = [("GATEWAY_MAX_SIGNALS_PER_SECOND", "0"), ("GATEWAY_MAX_COMMANDS_PER_SECOND", "0")];
        let world = World::start(2, true, &unlimited).await;
        let (honest_room, users) = world.room(&["alice", "bob", "eve"]).await;
        let honest = world.subscriber(1, &users[1], &honest_room).await;
        Self { world, owner: users[0].clone(), honest, honest_room, people: 0 }
    }

    /// A new user in a new room of type `kind`.
    async fn victim(&mut self, kind: &str) -> Victim {
        self.people += 1;
        let user = self.world.pocketbase.user(&format!("victim{}", self.people)).await;
        // An earlier case may have ended every token.
        self.owner = self.world.pocketbase.log_in_again("alice").await;
        let room = json!({"name": "Room", "type": kind, "owner": self.owner.id});
        let room = self.world.pocketbase.create("rooms", &self.owner, &room).await["id"].as_str().unwrap().to_owned();
        if kind != "public" {
            self.world.pocketbase.join(&room, &user).await;
        }
        let client = self.world.subscriber(1, &user, &room).await;
        Victim { user, room, client }
    }

    async fn patch(&self, path: &str, body: &Value) {
        self.world.pocketbase.as_superuser("PATCH", path, body).await;
    }

    async fn membership(&self, victim: &Victim) -> String {
        let path =
            format!("collections/room_members/records?filter=(room='{}'%26%26user='{}')", victim.room, victim.user.id);
        let found = self.world.pocketbase.as_superuser("GET", &path, &Value::Null).await;
        found["items"][0]["id"].as_str().unwrap().to_owned()
    }

    /// Checks that the honest client is not affected.
    async fn honest_client_goes_on(&mut self, content: &str) {
        self.world.pocketbase.write(&self.honest_room, &self.owner, content).await;
        while self.honest.message().await != content {}
    }

    async fn do_it(&self, cause: &str, victim: &Victim) {
        let Victim { user, room, .. } = victim;
        let user_path = format!("collections/users/records/{}", user.id);
        let later = "2099-01-01 00:00:00.000Z";
        match cause {
            "membership deleted" => {
                let path = format!("collections/room_members/records/{}", self.membership(victim).await);
                self.world.pocketbase.as_superuser("DELETE", &path, &Value::Null).await;
            }
            "membership moved to another room" => {
                let path = format!("collections/room_members/records/{}", self.membership(victim).await);
                self.patch(&path, &json!({"room": self.honest_room})).await;
            }
            "room made private" => {
                self.patch(&format!("collections/rooms/records/{room}"), &json!({"type": "private"})).await
            }
            "room deleted" => {
                self.world
                    .pocketbase
                    .as_superuser("DELETE", &format!("collections/rooms/records/{room}"), &Value::Null)
                    .await;
            }
            "rule changed in the dashboard" => {
                let rooms = self.world.pocketbase.as_superuser("GET", "collections/rooms", &Value::Null).await;
                let rule = format!("{} && @request.auth.id != \"{}\"", rooms["viewRule"].as_str().unwrap(), user.id);
                self.patch("collections/rooms", &json!({"viewRule": rule})).await;
            }
            "user deleted" => {
                self.world.pocketbase.as_superuser("DELETE", &user_path, &Value::Null).await;
            }
            "user banned" => self.patch(&user_path, &json!({"banned_until": later})).await,
            "user muted" => self.patch(&user_path, &json!({"muted_until": later})).await,
            "password changed" => {
                let password = json!({"password": "another-password", "passwordConfirm": "another-password"});
                self.patch(&user_path, &password).await;
            }
            "token key changed" => self.patch(&user_path, &json!({"tokenKey": format!("{:x>50}", self.people)})).await,
            "token secret of the collection changed" => {
                let secret = format!("{:0>50}", self.people);
                self.patch("collections/users", &json!({"authToken": {"secret": secret, "duration": 432_000}})).await;
            }
            _ => panic!("{cause}?"),
        }
    }
}

/// Cause, type of the room, code.
const CAUSES: [(&str, &str, u64); 11] = [
    ("membership deleted", "private", 2100),
    ("membership moved to another room", "private", 2100),
    ("room made private", "public", 2101),
    ("room deleted", "private", 2102),
    ("rule changed in the dashboard", "private", 2103),
    ("user deleted", "private", 4500),
    ("user banned", "private", 4501),
    ("user muted", "private", 400),
    ("password changed", "private", 4502),
    ("token key changed", "private", 4502),
    // The last case, since it ends every connection.
    ("token secret of the collection changed", "private", 4503),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_cause_takes_effect_on_the_other_gateway_within_a_second() {
    let runs: usize = std::env::var("REVOCATION_RUNS").map_or(3, |runs| runs.parse().expect("a number"));
    let mut stage = Stage::new().await;
    let mut table = String::from("| cause | code | p50, ms | max, ms |\n|---|---:|---:|---:|\n");
    for (cause, kind, code) in CAUSES {
        let mut times = Vec::new();
        for run in 0..runs {
            let mut victim = stage.victim(kind).await;
            let begin = Instant::now();
            stage.do_it(cause, &victim).await;
            let seen = match code {
                400 => victim.publishes_until_refused().await,
                2100..3000 => victim.client.unsubscribed().await["code"].as_u64().unwrap(),
                _ => u64::from(victim.client.closed().await.0),
            };
            let took = begin.elapsed();
            assert_eq!(seen, code, "{cause}");
            assert!(took < AT_MOST, "{cause}: {took:?}");
            times.push(took);
            if code != 4503 {
                stage.honest_client_goes_on(&format!("{cause} {run}")).await;
            }
        }
        times.sort();
        let [p50, max] = [times[runs / 2], times[runs - 1]].map(|time| time.as_secs_f64() * 1000.0);
        writeln!(table, "| {cause} | {code} | {p50:.0} | {max:.0} |").unwrap();
    }
    println!("{runs} runs each\n{table}");
    for (cause, least) in [("member", 2), ("record", 1), ("deleted", 1), ("rules", 1)] {
        let counted = stage.world.gateways[1].metric(&format!("gateway_revocations_total{{cause=\"{cause}\"}}")).await;
        assert!(counted >= (least * runs) as f64, "{cause}: {counted}");
    }
}

/// One commit order: messages before the removal reach the member, later messages do not.
#[tokio::test(flavor = "multi_thread")]
async fn messages_written_after_a_removal_do_not_arrive() {
    let mut stage = Stage::new().await;
    for _ in 0..10 {
        let mut victim = stage.victim("private").await;
        let membership = stage.membership(&victim).await;
        let (world, owner) = (&stage.world, &stage.owner);
        for i in 0..5 {
            world.pocketbase.write(&victim.room, owner, &format!("before {i}")).await;
        }
        let path = format!("collections/room_members/records/{membership}");
        world.pocketbase.as_superuser("DELETE", &path, &Value::Null).await;
        for i in 0..5 {
            world.pocketbase.write(&victim.room, owner, &format!("after {i}")).await;
        }
        let mut got = Vec::new();
        loop {
            let text = timeout(AT_MOST, victim.client.text()).await.expect("the removal is told").unwrap();
            let frame: Value = serde_json::from_str(&text).unwrap();
            if frame["push"]["unsubscribe"]["code"] == 2100 {
                break;
            }
            got.extend(frame["push"]["pub"]["data"]["record"]["content"].as_str().map(str::to_owned));
        }
        assert!(got.iter().all(|content| content.starts_with("before")), "{got:?}");
        // Nor later, nor through another command.
        sleep(Duration::from_millis(100)).await;
        let channel = format!("room:{}", victim.room);
        for command in ["subscribe", "history", "presence"] {
            let refused = victim.client.call(command, json!({"channel": channel})).await;
            assert_eq!(refused["error"]["code"], 103, "{command}: {refused}");
        }
        let place = json!({"channel": channel, "recover": true, "offset": 0, "epoch": ""});
        assert_eq!(victim.client.call("subscribe", place).await["error"]["code"], 103);
    }
}

/// A user who is let in again at once stays in, or comes back, and misses nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_removed_and_added_again_at_once_misses_nothing() {
    let mut stage = Stage::new().await;
    let mut stayed = 0;
    for _ in 0..10 {
        let mut victim = stage.victim("private").await;
        let path = format!("collections/room_members/records/{}", stage.membership(&victim).await);
        stage.world.pocketbase.as_superuser("DELETE", &path, &Value::Null).await;
        stage.world.pocketbase.join(&victim.room, &victim.user).await;
        stage.world.pocketbase.write(&victim.room, &stage.owner, "again").await;
        let text = loop {
            let text = timeout(AT_MOST, victim.client.text()).await.expect("something comes").unwrap();
            if text.contains("again") || text.contains("unsubscribe") {
                break text;
            }
        };
        if text.contains("unsubscribe") {
            let place = victim.client.subscribe(&format!("room:{}", victim.room)).await;
            assert!(place.offset > 0);
        } else {
            stayed += 1;
        }
    }
    println!("{stayed} of 10 stayed in");
}

/// A user who subscribes repeatedly during the removal gets in before the removal and never after.
#[tokio::test(flavor = "multi_thread")]
async fn subscribing_during_the_removal_gives_no_access_afterwards() {
    let mut stage = Stage::new().await;
    for round in 0..10 {
        let victim = stage.victim("private").await;
        let channel = format!("room:{}", victim.room);
        let membership = stage.membership(&victim).await;
        let mut clients = Vec::new();
        for number in 0..6 {
            clients.push(Client::connect(&stage.world.gateways[number % 2], &victim.user.token).await);
        }
        let asking = clients.into_iter().map(|mut client| {
            let channel = channel.clone();
            tokio::spawn(async move {
                let end = Instant::now() + Duration::from_millis(400);
                while Instant::now() < end {
                    client.call("subscribe", json!({"channel": channel})).await;
                    client.call("unsubscribe", json!({"channel": channel})).await;
                }
                client.call("subscribe", json!({"channel": channel})).await;
                client
            })
        });
        let asking: Vec<_> = asking.collect();
        sleep(Duration::from_millis(100 + round * 7)).await;
        let path = format!("collections/room_members/records/{membership}");
        stage.world.pocketbase.as_superuser("DELETE", &path, &Value::Null).await;
        stage.world.pocketbase.write(&victim.room, &stage.owner, "secret").await;
        for task in asking {
            let mut client = task.await.unwrap();
            stage.world.pocketbase.write(&victim.room, &stage.owner, "secret").await;
            client.call("ping", json!({})).await;
            // Earlier pushes have arrived before the reply.
            while let Some(push) = client.waiting() {
                assert_ne!(push["push"]["pub"]["data"]["record"]["content"], "secret", "{push}");
            }
            let refused = client.call("subscribe", json!({"channel": channel})).await;
            assert_eq!(refused["error"]["code"], 103, "{refused}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_muted_user_reads_and_may_not_publish_until_the_mute_ends() {
    let mut stage = Stage::new().await;
    let mut victim = stage.victim("private").await;
    let channel = format!("room:{}", victim.room);
    let typing = json!({"channel": channel, "data": {"type": "typing"}});
    assert!(victim.client.call("publish", typing.clone()).await["publish"].is_object());
    let path = format!("collections/users/records/{}", victim.user.id);
    let muted = async |seconds: u64| stage.patch(&path, &json!({"muted_until": in_seconds(seconds)})).await;
    muted(3).await;
    let begin = Instant::now();
    until("the mute", async || {
        let reply = victim.client.call("publish", typing.clone()).await;
        (reply["error"]["code"] == 400).then_some(())
    })
    .await;
    assert!(begin.elapsed() < AT_MOST);
    stage.world.pocketbase.write(&victim.room, &stage.owner, "still readable").await;
    assert_eq!(victim.client.message().await, "still readable");
    until("the mute's end", async || {
        victim.client.call("publish", typing.clone()).await["publish"].is_object().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ban_ends_at_its_date() {
    let mut stage = Stage::new().await;
    let mut victim = stage.victim("private").await;
    let path = format!("collections/users/records/{}", victim.user.id);
    stage.patch(&path, &json!({"banned_until": in_seconds(3)})).await;
    assert_eq!(victim.client.closed().await.0, 4501);
    let mut early = Client::open(&stage.world.gateways[0].websocket()).await;
    early.send(&json!({"id": 1, "connect": {"token": victim.user.token}}).to_string()).await;
    assert_eq!(early.closed().await.0, 4501);
    sleep(Duration::from_secs(3)).await;
    let mut back = stage.world.subscriber(1, &victim.user, &victim.room).await;
    stage.world.pocketbase.write(&victim.room, &stage.owner, "welcome back").await;
    assert_eq!(back.message().await, "welcome back");
}

/// A date in PocketBase's format.
fn in_seconds(seconds: u64) -> String {
    let then = std::time::SystemTime::now() + Duration::from_secs(seconds);
    let output = std::process::Command::new("date")
        .args(["-u", "+%Y-%m-%d %H:%M:%S.000Z", "-d"])
        .arg(format!("@{}", then.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()))
        .output();
    String::from_utf8(output.unwrap().stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_of_a_blocked_user_reach_everyone_except_the_blocker() {
    let world = World::start(2, true, &[]).await;
    let (room, users) = world.room(&["alice", "bob", "carol", "eve"]).await;
    let mut alice = world.subscriber(0, &users[0], &room).await;
    let mut bob = world.subscriber(1, &users[1], &room).await;
    let mut carol = world.subscriber(0, &users[2], &room).await;
    let channel = format!("room:{room}");
    let path = format!("collections/users/records/{}", users[1].id);
    world.pocketbase.done("PATCH", &path, &users[1].token, &json!({"blocked": [users[0].id]})).await;
    sleep(AT_MOST).await;
    for (client, n) in [(&mut alice, 1), (&mut carol, 2)] {
        let sent = client.call("publish", json!({"channel": channel, "data": {"type": "typing", "n": n}})).await;
        assert!(sent["publish"].is_object(), "{sent}");
    }
    assert_eq!(alice.signal().await["data"]["n"], 1);
    assert_eq!(carol.signal().await["data"]["n"], 1);
    assert_eq!(bob.signal().await["data"]["n"], 2, "Alice's came first and was left out");
}

/// While PocketBase is down, subscribed clients stay in and get publications from other gateways; new subscribes get
/// a temporary error. Suspended subscriptions are settled when PocketBase is back.
#[tokio::test(flavor = "multi_thread")]
async fn without_pocketbase_subscribers_stay_and_new_subscribes_fail() {
    let mut world = World::start(1, false, &[("GATEWAY_ACCESS_TTL", "1"), ("GATEWAY_RECHECK_INTERVAL", "1")]).await;
    let (room, users) = world.room(&["alice", "bob", "eve"]).await;
    let mut alice = world.subscriber(0, &users[0], &room).await;
    let mut bob = Client::connect(world.gateway(), &users[1].token).await;
    world.pocketbase.process.kill();
    sleep(Duration::from_millis(2500)).await;
    let channel = format!("room:{room}");
    let refused = bob.call("subscribe", json!({"channel": channel})).await;
    assert_eq!(refused["error"], json!({"code": 100, "message": "internal server error", "temporary": true}));
    assert!(
        alice.call("publish", json!({"channel": channel, "data": {"type": "typing"}})).await["publish"].is_object()
    );
    assert_eq!(alice.signal().await["data"]["type"], "typing");
    world.pocketbase.restart().await;
    world.pocketbase.create("messages", &users[0], &message(&room, &users[0], "here again")).await;
    assert_eq!(alice.message().await, "here again");
}

/// A thousand users who subscribe to one room within a second cost PocketBase only a few calls.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_subscribes_cost_a_few_calls() {
    let world = World::start(1, false, &[("GATEWAY_MAX_CONNECTIONS_PER_IP", "0")]).await;
    let owner = world.pocketbase.user("alice").await;
    let room = json!({"name": "Room", "type": "public", "owner": owner.id});
    let room = world.pocketbase.create("rooms", &owner, &room).await["id"].as_str().unwrap().to_owned();
    let channel = format!("room:{room}");
    let users = world.pocketbase.copies(&owner, 1000).await;
    let clients = join_all(users.iter().map(|user| Client::connect(world.gateway(), &user.token))).await;
    let begin = Instant::now();
    let subscribing = clients.into_iter().enumerate().map(|(i, mut client)| {
        let channel = channel.clone();
        tokio::spawn(async move {
            tokio::time::sleep_until((begin + Duration::from_micros(900 * i as u64)).into()).await;
            client.subscribe(&channel).await;
            client
        })
    });
    let mut clients = Vec::new();
    for task in subscribing.collect::<Vec<_>>() {
        clients.push(task.await.unwrap());
    }
    let (gateway, took) = (world.gateway(), begin.elapsed());
    let calls = gateway.metric("gateway_pocketbase_seconds_count{route=\"authorize\"}").await;
    let asked = gateway.metric("gateway_access_checks_total{outcome=\"asked\"}").await;
    println!("1000 subscribes of 1000 users within {took:?}: {asked} questions in {calls} calls to PocketBase");
    assert!(asked >= 1000.0 && calls <= 50.0, "{calls} calls");
}
