//! Commands of subscribers, and the commands about users' statuses.

use super::*;
use crate::protocol::decode::ClientFrame;

fn signal(data: &Value) -> Value {
    json!({"id": 9, "publish": {"channel": ROOM, "data": data}})
}

#[tokio::test(start_paused = true)]
async fn only_subscribers_read_and_publish() {
    let stage = Stage::start().await;
    let mut client = stage.connected(1, "ann").await;
    let commands = ["history", "presence", "presence_stats"].map(|name| json!({"id": 2, name: {"channel": ROOM}}));
    for command in commands.into_iter().chain([signal(&json!({"type": "typing"}))]) {
        assert_eq!(client.code(command.clone()).await, 103, "{command}");
    }
    client.send(&[subscribe(3, ROOM)]).await.unwrap();
    stage.services.hub.suspend(&[ROOM.into()], Cause::Member, |_, _| true);
    for name in ["history", "presence", "presence_stats"] {
        assert_eq!(client.code(json!({"id": 4, name: {"channel": ROOM}})).await, 100, "{name} during an access check");
    }
}

#[tokio::test(start_paused = true)]
async fn a_signal_reaches_the_other_subscribers_with_its_sender() {
    let stage = Stage::start().await;
    let (mut ann, bob) = (stage.subscribed(1, "ann").await, stage.subscribed(2, "bob").await);
    assert_eq!(ann.code(signal(&json!({"type": "typing"}))).await, 0);
    let push = bob.received().remove(0);
    assert_eq!(push["push"]["pub"]["info"]["user"], "ann", "{push}");
    assert_eq!(push["push"]["pub"]["data"], json!({"type": "typing"}));
}

#[tokio::test(start_paused = true)]
async fn signals_have_a_form_a_size_and_a_list_of_types() {
    let stage = Stage::start().await;
    let (mut ann, bob) = (stage.subscribed(1, "ann").await, stage.subscribed(2, "bob").await);
    let large = json!({"type": "typing", "more": "x".repeat(stage.services.config.max_signal_size)});
    for (data, code) in
        [(json!("typing"), 107), (json!({"kind": "typing"}), 107), (json!({"type": "dance"}), 103), (large, 106)]
    {
        assert_eq!(ann.code(signal(&data)).await, code, "{data:.60}");
    }
    // Two parsers could read different fields.
    let clock = crate::session::timing::Clock::new(&stage.services.config, tokio::time::Instant::now());
    let twice = r#"{"id":9,"publish":{"channel":"room:a","data":{"type":"typing","type":"dance"}}}"#;
    ann.session.handle(&ClientFrame::Json(twice.into()), &clock).await.unwrap();
    assert_eq!(ann.received()[0]["error"]["code"], 107);
    assert!(bob.received().is_empty());
}

#[tokio::test(start_paused = true)]
async fn muted_users_and_guests_send_no_signals() {
    let stage = Stage::start().await;
    let muted = UserKey { muted_until: u64::MAX / 2, ..UserKey::signing("ann", crate::stage::KEY) };
    stage.answers.set_user(account_id("ann"), Some(muted));
    assert_eq!(stage.subscribed(1, "ann").await.code(signal(&json!({"type": "typing"}))).await, 400);
    stage.answers.set_user(AccountId::guest(), Some(UserKey::signing("", "")));
    stage.answers.set("", ROOM, Verdict::Allowed);
    let mut guest = stage.client(2);
    guest.send(&[json!({"id": 1, "connect": {}}), subscribe(2, ROOM)]).await.unwrap();
    assert_eq!(stage.state(&guest), SubscriptionState::Subscribed);
    assert_eq!(guest.code(signal(&json!({"type": "typing"}))).await, 103);
    assert_eq!(guest.code(json!({"id": 3, "rpc": {"method": "status.set"}})).await, 103);
}

#[tokio::test(start_paused = true)]
async fn signals_and_reads_have_rates_shared_by_a_user_s_connections() {
    let stage = Stage::with(|config| {
        (config.max_signals_per_second.0, config.max_signals_burst) = (1, 2);
        (config.max_reads_per_second.0, config.max_reads_burst) = (1, 2);
    });
    let stage = stage.await;
    let mut both = [stage.subscribed(1, "ann").await, stage.subscribed(2, "ann").await];
    let history = json!({"id": 3, "history": {"channel": ROOM}});
    for command in [signal(&json!({"type": "typing"})), history] {
        let mut codes = Vec::new();
        for i in [0, 1, 0, 1] {
            codes.push(both[i].code(command.clone()).await);
        }
        assert_eq!(codes, [0, 0, 111, 111], "{command}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_history_ends_at_the_limit_and_belongs_to_one_epoch() {
    let stage = Stage::with(|config| config.history_limit = 2).await;
    let mut client = stage.subscribed(1, "ann").await;
    for n in 1..=5 {
        stage.publish(json!(n)).await;
    }
    client.received();
    let history = |more: Value| {
        let mut request = json!({"channel": ROOM});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"id": 2, "history": request})
    };
    let mut read = async |more: Value| client.send(&[history(more)]).await.unwrap().remove(0);
    let offsets = |reply: &Value| -> Vec<u64> {
        let publications = reply["history"]["publications"].as_array().cloned().unwrap_or_default();
        publications.iter().map(|publication| publication["offset"].as_u64().unwrap()).collect()
    };
    let all = read(json!({"limit": -1})).await;
    assert_eq!((offsets(&all), &all["history"]["offset"]), (vec![1, 2], &json!(5)));
    let epoch = all["history"]["epoch"].clone();
    let since = |offset: u64, epoch: &Value| json!({"offset": offset, "epoch": epoch});
    assert_eq!(offsets(&read(json!({"limit": 9, "since": since(3, &epoch)})).await), [4, 5]);
    assert_eq!(offsets(&read(json!({"limit": 9, "reverse": true, "since": since(3, &epoch)})).await), [2, 1]);
    let beyond = read(json!({"limit": 9, "reverse": true, "since": since(6, &epoch)})).await;
    assert!(beyond["history"].is_object() && offsets(&beyond).is_empty(), "an offset of another history: {beyond}");
    assert_eq!(read(json!({"limit": 9, "since": since(3, &"another".into())})).await["error"]["code"], 112);
}

#[tokio::test(start_paused = true)]
async fn a_crowded_presence_is_counted_and_not_listed() {
    let stage = Stage::with(|config| config.presence_max = 1).await;
    let mut ann = stage.subscribed(1, "ann").await;
    let presence = || json!({"id": 2, "presence": {"channel": ROOM}});
    let listed = ann.send(&[presence()]).await.unwrap().remove(0);
    assert_eq!(listed["presence"]["presence"].as_object().unwrap().len(), 1, "{listed}");
    let _bob = stage.subscribed(2, "bob").await;
    assert_eq!(ann.code(presence()).await, 106);
    let stats = ann.send(&[json!({"id": 3, "presence_stats": {"channel": ROOM}})]).await.unwrap().remove(0);
    assert_eq!(stats["presence_stats"], json!({"num_clients": 2, "num_users": 2}));
}

#[tokio::test(start_paused = true)]
async fn statuses_of_users_out_of_sight_are_left_out() {
    let stage = Stage::start().await;
    stage.answers.set("ann", &channel::status_of("bob"), Verdict::Allowed);
    let _bob = stage.connected(1, "bob").await;
    let mut ann = stage.connected(2, "ann").await;
    let get = |users: Value| json!({"id": 3, "rpc": {"method": "status.get", "data": {"users": users}}});
    let reply = ann.send(&[get(json!(["bob", "eve", "ann"]))]).await.unwrap().remove(0);
    let statuses = reply["rpc"]["data"]["statuses"].as_object().unwrap();
    assert_eq!((statuses.len(), &statuses["bob"]["status"]), (1, &json!("online")), "{reply}");
    let many: Vec<String> = (0..501).map(|n| n.to_string()).collect();
    assert_eq!(ann.code(get(json!(many))).await, 106);
    assert_eq!(ann.code(json!({"id": 4, "rpc": {"method": "status.sing"}})).await, 104);
}

#[tokio::test(start_paused = true)]
async fn an_invisible_user_is_offline_for_others_and_absent_from_channels() {
    let stage = Stage::start().await;
    stage.answers.set("ann", &channel::status_of("bob"), Verdict::Allowed);
    let (mut ann, mut bob) = (stage.connected(1, "ann").await, stage.subscribed(2, "bob").await);
    let set = json!({"id": 3, "rpc": {"method": "status.set", "data": {"status": "invisible"}}});
    let reply = bob.send(&[set]).await.unwrap().remove(0);
    assert_eq!(reply["rpc"]["data"]["mode"], "invisible", "{reply}");
    until("bob has left the presence", async || stage.present().await == 0).await;
    let get = json!({"id": 4, "rpc": {"method": "status.get", "data": {"users": ["bob"]}}});
    let reply = ann.send(&[get]).await.unwrap().remove(0);
    assert_eq!(reply["rpc"]["data"]["statuses"]["bob"]["status"], "offline", "{reply}");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(stage.present().await, 0, "a renewal does not show the user");
}
