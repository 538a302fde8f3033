//! `room-updates`: users hear about visible rooms, and about no other rooms, through every change of access.

use crate::harness::client::Client;
use crate::harness::gateway::Gateway;
use crate::harness::http::Http;
use crate::harness::pocketbase::{PocketBase, User};
use crate::harness::process::free_port;
use crate::harness::proxy::{Proxy, Weather};
use crate::harness::{World, until};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const CHANNEL: &str = "room-updates";
/// The guaranteed limit.
const AT_MOST: Duration = Duration::from_secs(1);

/// Ann owns rooms, Bob comes and goes, Eve is in no room. Their clients are on the last gateway, while the hooks post
/// to the first.
struct Stage {
    world: World,
    users: [User; 3],
    clients: [Client; 3],
    marks: usize,
}

/// Indices of the users.
const ANN: usize = 0;
const BOB: usize = 1;

impl Stage {
    async fn new(world: World) -> Self {
        let names = ["ann", "bob", "eve"];
        let mut users = Vec::new();
        let mut clients = Vec::new();
        for name in names {
            let user = world.pocketbase.user(name).await;
            let mut client = Client::connect(world.gateways.last().unwrap(), &user.token).await;
            client.subscribe(CHANNEL).await;
            users.push(user);
            clients.push(client);
        }
        let (users, clients) = (users.try_into().ok().unwrap(), clients.try_into().ok().unwrap());
        Self { world, users, clients, marks: 0 }
    }

    async fn room(&self, kind: &str, name: &str) -> String {
        let room = json!({"name": name, "type": kind, "owner": self.users[ANN].id});
        let room = self.world.pocketbase.as_superuser("POST", "collections/rooms/records", &room).await;
        room["id"].as_str().unwrap().to_owned()
    }

    async fn patch(&self, room: &str, body: Value) {
        self.world.pocketbase.as_superuser("PATCH", &format!("collections/rooms/records/{room}"), &body).await;
    }

    async fn remove(&self, collection: &str, id: &str) {
        self.world
            .pocketbase
            .as_superuser("DELETE", &format!("collections/{collection}/records/{id}"), &Value::Null)
            .await;
    }

    /// The events of `room` at each user, up to a public room made afterwards: "action name", without the name if the
    /// event has only the id.
    async fn got(&mut self, room: &str) -> [Vec<String>; 3] {
        self.marks += 1;
        let mark = format!("mark {}", self.marks);
        self.room("public", &mark).await;
        let mut all = [Vec::new(), Vec::new(), Vec::new()];
        for (client, got) in self.clients.iter_mut().zip(&mut all) {
            loop {
                let publication = client.publication().await;
                assert!(publication.get("offset").is_none(), "a count would tell of others' rooms: {publication}");
                let data = &publication["data"];
                assert_eq!(data["collection"], "rooms", "{data}");
                if data["record"]["name"] == mark.as_str() {
                    break;
                }
                if data["record"]["id"] == room {
                    let told = data["record"].as_object().unwrap();
                    let name = told.get("name").map_or(String::new(), |name| format!(" {}", name.as_str().unwrap()));
                    assert!(!name.is_empty() || told.len() == 1, "{data}");
                    got.push(format!("{}{name}", data["action"].as_str().unwrap()));
                } else {
                    let name = data["record"]["name"].as_str();
                    assert!(name.is_some_and(|name| name.starts_with("mark")), "of another room: {data}");
                }
            }
        }
        all
    }
}

/// [Ann's, Bob's, Eve's].
fn expect(ann: &[&str], bob: &[&str], eve: &[&str]) -> [Vec<String>; 3] {
    [ann, bob, eve].map(|got| got.iter().map(|&it| it.to_owned()).collect())
}

async fn each_transition(world: World) {
    let mut stage = Stage::new(world).await;

    let room = stage.room("private", "secret").await;
    assert_eq!(stage.got(&room).await, expect(&["create secret"], &[], &[]), "created");
    let membership = stage.world.pocketbase.join(&room, &stage.users[BOB]).await;
    assert_eq!(stage.got(&room).await, expect(&[], &["join secret"], &[]), "added");
    stage.patch(&room, json!({"name": "renamed"})).await;
    assert_eq!(stage.got(&room).await, expect(&["update renamed"], &["update renamed"], &[]), "renamed");
    stage.remove("room_members", membership["id"].as_str().unwrap()).await;
    stage.patch(&room, json!({"name": "hidden"})).await;
    assert_eq!(stage.got(&room).await, expect(&["update hidden"], &["leave"], &[]), "removed");
    stage.patch(&room, json!({"type": "public"})).await;
    assert_eq!(stage.got(&room).await, expect(&["update hidden"], &["join hidden"], &["join hidden"]), "opened");
    stage.patch(&room, json!({"name": "open"})).await;
    assert_eq!(stage.got(&room).await, expect(&["update open"], &["update open"], &["update open"]), "renamed, open");
    stage.world.pocketbase.join(&room, &stage.users[BOB]).await;
    assert_eq!(stage.got(&room).await, expect(&[], &[], &[]), "added to the rooms of before");
    stage.patch(&room, json!({"type": "private", "name": "closed"})).await;
    assert_eq!(stage.got(&room).await, expect(&["update closed"], &["update closed"], &["leave"]), "closed");
    stage.patch(&room, json!({"name": "still closed"})).await;
    assert_eq!(
        stage.got(&room).await,
        expect(&["update still closed"], &["update still closed"], &[]),
        "renamed, closed"
    );
    stage.remove("rooms", &room).await;
    assert_eq!(stage.got(&room).await, expect(&["delete"], &["delete"], &[]), "deleted");

    // In one transaction with its members, and again in a transaction that is rolled back.
    let record = |name: &str| {
        json!({"method": "POST", "url": "/api/collections/rooms/records",
        "body": {"id": "fifteenletters0", "name": name, "type": "private", "owner": stage.users[ANN].id}})
    };
    let member = json!({"method": "POST", "url": "/api/collections/room_members/records",
        "body": {"room": "fifteenletters0", "user": stage.users[BOB].id, "role": "member"}});
    let failing = json!({"method": "POST", "url": "/api/collections/rooms/records", "body": {"type": "none"}});
    let requests = json!({"requests": [record("failed"), member, failing]});
    let failed =
        stage.world.pocketbase.call("POST", "batch", &stage.world.pocketbase.superuser, &requests).await.unwrap();
    assert_eq!(failed.status, 400);
    let requests = json!({"requests": [record("batch"), member]});
    stage.world.pocketbase.as_superuser("POST", "batch", &requests).await;
    let [ann, bob, eve] = stage.got("fifteenletters0").await;
    assert_eq!((ann, eve), (vec!["create batch".to_owned()], vec![]));
    assert!(bob == ["create batch"] || bob == ["join batch"], "{bob:?}");

    // A changed rule by which Bob loses every room, and the old rule again.
    let rooms = stage.world.pocketbase.as_superuser("GET", "collections/rooms", &Value::Null).await;
    let rule = rooms["viewRule"].as_str().unwrap();
    let without_bob = format!("{rule} && @request.auth.id != \"{}\"", stage.users[BOB].id);
    let begin = Instant::now();
    for (rule, action) in [(without_bob.as_str(), "leave"), (rule, "join")] {
        stage.world.pocketbase.as_superuser("PATCH", "collections/rooms", &json!({"viewRule": rule})).await;
        let mut changed = Vec::new();
        for _ in 0..=stage.marks {
            let publication = stage.clients[BOB].publication().await;
            assert_eq!(publication["data"]["action"], action, "{publication}");
            let record = &publication["data"]["record"];
            assert_eq!(record.as_object().unwrap().len() == 1, action == "leave", "{record}");
            changed.push(record["id"].as_str().unwrap().to_owned());
        }
        changed.sort();
        changed.dedup();
        assert_eq!(changed.len(), stage.marks + 1);
    }
    assert!(begin.elapsed() < 2 * AT_MOST, "{:?}", begin.elapsed());
    assert_eq!(stage.got("fifteenletters0").await, expect(&[], &[], &[]), "the others noticed nothing");

    let ban = json!({"banned_until": "2099-01-01 00:00:00.000Z"});
    let path = format!("collections/users/records/{}", stage.users[BOB].id);
    stage.world.pocketbase.as_superuser("PATCH", &path, &ban).await;
    assert_eq!(stage.clients[BOB].closed().await.0, 4501);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_transition_on_two_gateways() {
    each_transition(World::start(2, true, &[]).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_transition_on_one_gateway_without_redis() {
    each_transition(World::single().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn returning_clients_are_told_to_reload_and_unsubscribed_clients_get_nothing() {
    let mut stage = Stage::new(World::single().await).await;
    let [ann, ..] = &mut stage.clients;
    assert_eq!(ann.call("subscribe", json!({"channel": CHANNEL})).await["error"]["code"], 105);
    for command in ["history", "presence"] {
        assert_eq!(ann.call(command, json!({"channel": CHANNEL})).await["error"]["code"], 108, "{command}");
    }
    let typing = json!({"channel": CHANNEL, "data": {"type": "typing"}});
    assert_eq!(ann.call("publish", typing).await["error"]["code"], 108);
    assert!(ann.call("unsubscribe", json!({"channel": CHANNEL})).await["unsubscribe"].is_object());
    let room = stage.room("private", "unheard").await;
    assert_eq!(stage.got_by_others(&room).await, [Vec::<String>::new(), Vec::new()]);
    let ann = &mut stage.clients[ANN];
    let again = json!({"channel": CHANNEL, "recover": true, "offset": 0, "epoch": "before"});
    let reply = ann.call("subscribe", again).await;
    assert!(ann.waiting().is_none());
    assert_eq!(
        (&reply["subscribe"]["was_recovering"], &reply["subscribe"]["recovered"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(
        (&reply["subscribe"]["recoverable"], &reply["subscribe"]["offset"]),
        (&json!(true), &json!(0)),
        "{reply}"
    );
    ann.call("unsubscribe", json!({"channel": CHANNEL})).await;
    // An SDK's `getState` in strict mode, which would retry error 112 forever.
    for epoch in ["before", ""] {
        let strictly = json!({"channel": CHANNEL, "recover": true, "offset": 0, "epoch": epoch, "flag": 2});
        let reply = ann.call("subscribe", strictly).await;
        assert_eq!(reply["subscribe"]["recovered"], json!(false), "{reply}");
        ann.call("unsubscribe", json!({"channel": CHANNEL})).await;
    }
    ann.subscribe(CHANNEL).await;
    stage.patch(&room, json!({"name": "heard"})).await;
    assert_eq!(stage.got(&room).await, expect(&["update heard"], &[], &[]));
    for channel in ["rooms-updates", "room", "$access"] {
        let refused = stage.clients[ANN].call("subscribe", json!({"channel": channel})).await;
        assert_eq!(refused["error"]["code"], 102, "{channel}");
    }
}

impl Stage {
    /// Like `got`, for Bob and Eve.
    async fn got_by_others(&mut self, room: &str) -> [Vec<String>; 2] {
        self.marks += 1;
        let mark = format!("mark {}", self.marks);
        self.room("public", &mark).await;
        let mut all = [Vec::new(), Vec::new()];
        for (client, got) in self.clients[BOB..].iter_mut().zip(&mut all) {
            loop {
                let data = client.publication().await["data"].take();
                if data["record"]["name"] == mark.as_str() {
                    break;
                }
                assert_eq!(data["record"]["id"], room);
                got.push(data["action"].to_string());
            }
        }
        all
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_personal_channel_is_private_and_recovers() {
    let world = World::single().await;
    let (ann, bob) = (world.pocketbase.user("ann").await, world.pocketbase.user("bob").await);
    let channel = format!("user:{}", bob.id);
    let mut outsider = Client::connect(world.gateway(), &ann.token).await;
    assert_eq!(outsider.call("subscribe", json!({"channel": channel})).await["error"]["code"], 103);
    let mut client = Client::connect(world.gateway(), &bob.token).await;
    let place = client.subscribe(&channel).await;
    let request = json!({"from": ann.id, "to": bob.id, "status": "pending"});
    let request = world.pocketbase.create("friend_requests", &ann, &request).await;
    let publication = client.publication().await;
    assert_eq!((&publication["data"]["record"], &publication["offset"]), (&request, &json!(place.offset + 1)));
    client.cut();
    let mut client = Client::connect(world.gateway(), &bob.token).await;
    let recovered = client.recover(&channel, &place).await;
    assert_eq!((&recovered["recovered"], recovered["publications"].as_array().unwrap().len()), (&json!(true), 1));
    world.pocketbase.as_superuser("DELETE", &format!("collections/users/records/{}", bob.id), &Value::Null).await;
    assert_eq!(client.closed().await.0, 4500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_in_a_thousand_rooms_subscribes_fast() {
    let world = World::single().await;
    let ann = world.pocketbase.user("ann").await;
    for batch in 0..20 {
        let room = |i: usize| {
            let kind = if i.is_multiple_of(2) { "private" } else { "public" };
            let room = json!({"name": format!("room {batch} {i}"), "type": kind, "owner": ann.id});
            json!({"method": "POST", "url": "/api/collections/rooms/records", "body": room})
        };
        let requests: Vec<Value> = (0..50).map(room).collect();
        world.pocketbase.as_superuser("POST", "batch", &json!({"requests": requests})).await;
    }
    let mut times = Vec::new();
    for _ in 0..5 {
        let mut client = Client::connect(world.gateway(), &ann.token).await;
        let begin = Instant::now();
        client.subscribe(CHANNEL).await;
        times.push(begin.elapsed());
        client.cut();
        until("an empty channel", async || {
            (world.gateway().metric("gateway_subscriptions").await == 0.0).then_some(())
        })
        .await;
    }
    times.sort();
    println!("subscribe of a user in 1,000 rooms: {times:?}");
    assert!(times[times.len() / 2] < Duration::from_secs(2), "{times:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_echo_gets_the_signals_of_others_only() {
    let world = World::single().await;
    let (room, users) = world.room(&["ann", "bob", "eve"]).await;
    let channel = format!("room:{room}");
    let mut quiet = Client::connect(world.gateway(), &users[0].token).await;
    let reply = quiet.call("subscribe", json!({"channel": channel, "data": {"echo": false, "more": [1]}})).await;
    assert!(reply["subscribe"].is_object(), "{reply}");
    // Another connection of the same user, with application data.
    let mut second = Client::connect(world.gateway(), &users[0].token).await;
    let reply = second.call("subscribe", json!({"channel": channel, "data": ["echo", false]})).await;
    assert!(reply["subscribe"].is_object(), "{reply}");
    let mut bob = world.subscriber(0, &users[1], &room).await;
    for (client, n) in [(&mut quiet, 1), (&mut second, 2), (&mut bob, 3)] {
        let sent = client.call("publish", json!({"channel": channel, "data": {"type": "typing", "n": n}})).await;
        assert!(sent["publish"].is_object(), "{sent}");
    }
    for (client, expected) in [(&mut quiet, vec![2, 3]), (&mut second, vec![1, 2, 3]), (&mut bob, vec![1, 2, 3])] {
        for n in expected {
            assert_eq!(client.signal().await["data"]["n"], n);
        }
    }
}

/// The number of calls for a new room depends on the users that the room names, not on the number of users.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_room_is_checked_once_per_class_of_users() {
    const USERS: usize = 400;
    let world = World::single().await;
    let ann = world.pocketbase.user("ann").await;
    let users = world.pocketbase.copies(&ann, USERS).await;
    let begin = Instant::now();
    let connecting = users.iter().map(async |user| {
        let mut client = Client::connect(world.gateway(), &user.token).await;
        client.subscribe(CHANNEL).await;
        client
    });
    let mut clients = join_all(connecting).await;
    println!("{USERS} users connect and subscribe: {:?}", begin.elapsed());
    // No two rooms may share a call.
    let asked = async || world.gateway().metric("gateway_pocketbase_seconds_count{route=\"view\"}").await;
    assert_eq!(asked().await, 0.0);
    for (kind, owner, audience) in [("private", 0, 1), ("public", 1, USERS)] {
        let room = json!({"name": kind, "type": kind, "owner": users[owner].id});
        let before = asked().await;
        let begin = Instant::now();
        world.pocketbase.as_superuser("POST", "collections/rooms/records", &room).await;
        for client in &mut clients[owner..][..if audience == 1 { 1 } else { USERS - owner }] {
            let data = client.publication().await["data"].take();
            assert_eq!((&data["action"], &data["record"]["name"]), (&json!("create"), &json!(kind)));
        }
        println!("a {kind} room reaches {audience}: {:?}, {} calls", begin.elapsed(), asked().await - before);
        // A call for the class and the owner, and a call for the owner's membership.
        assert!(asked().await - before <= 2.0);
    }
    // The first user's next event is the public room, so the others did not get the private room either.
    assert_eq!(clients[0].publication().await["data"]["record"]["name"], "public");
}

/// PocketBase's events reach the gateway, and the gateway's calls do not reach PocketBase.
#[tokio::test(flavor = "multi_thread")]
async fn a_lagging_updates_channel_is_named_and_catches_up() {
    let port = free_port();
    let pocketbase = PocketBase::start(&format!("http://127.0.0.1:{port}")).await;
    let proxy = Proxy::start(pocketbase.port).await;
    let gateway = Gateway::start(port, &format!("http://127.0.0.1:{}", proxy.port), &[]).await;
    let ann = pocketbase.user("ann").await;
    let mut client = Client::connect(&gateway, &ann.token).await;
    client.subscribe(CHANNEL).await;
    let behind = format!("gateway_updates_behind_seconds{{channel=\"{CHANNEL}\"}}");
    assert_eq!(gateway.metric(&behind).await, 0.0);

    proxy.set(Weather::Cut);
    let room = json!({"name": "late", "type": "public", "owner": ann.id});
    pocketbase.as_superuser("POST", "collections/rooms/records", &room).await;
    let (http, ready) = (Http::new(), gateway.admin("readyz"));
    until("the channel to be named", async || {
        let text = http.get(&ready).await.expect("an answer").text;
        text.contains(&format!("updates: {CHANNEL} is ")).then_some(())
    })
    .await;
    assert!(gateway.metric(&behind).await >= 5.0);
    assert!(client.waiting().is_none());

    proxy.set(Weather::Clear);
    let told = client.publication().await;
    assert_eq!((&told["data"]["action"], &told["data"]["record"]["name"]), (&json!("create"), &json!("late")));
    until("the channel to be settled", async || (gateway.metric(&behind).await == 0.0).then_some(())).await;
    assert!(!http.get(&ready).await.expect("an answer").text.contains("updates:"));
}
