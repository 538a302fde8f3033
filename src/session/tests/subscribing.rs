//! `subscribe`: access, limits, recovery, and changes while a subscribe is under way.

use super::*;

fn recover(id: u32, offset: u64, epoch: &str, flag: u32) -> Value {
    json!({"id": id, "subscribe": {"channel": ROOM, "recover": true, "offset": offset, "epoch": epoch, "flag": flag}})
}

#[tokio::test(start_paused = true)]
async fn a_refused_subscribe_leaves_nothing_behind() {
    let stage = Stage::start().await;
    let mut client = stage.connected(1, "ann").await;
    for (verdict, code) in [(Verdict::Denied, 103), (Verdict::Unknown, 102)] {
        stage.answers.set("ann", ROOM, verdict);
        stage.changes.note(&change_of("ann"));
        assert_eq!(client.code(subscribe(2, ROOM)).await, code);
    }
    stage.answers.set_down(true);
    stage.changes.note(&change_of("ann"));
    assert_eq!(client.code(subscribe(3, ROOM)).await, 100);
    assert_eq!((stage.state(&client), stage.present().await), (SubscriptionState::NotSubscribed, 0));
}

/// PocketBase allows the subscribe, and the access ends before the subscribe takes effect.
#[tokio::test(start_paused = true)]
async fn an_access_change_during_a_subscribe_asks_again() {
    let stage = Stage::start().await;
    let mut client = stage.connected(1, "ann").await;
    for kind in ["single", "several in a frame"] {
        stage.answers.set("ann", ROOM, Verdict::Allowed);
        stage.changes.note(&change_of("ann"));
        let (answers, changes) = (Arc::clone(&stage.answers), Arc::clone(&stage.changes));
        stage.answers.interrupt(move || {
            // The answer under way still says "allowed".
            answers.set("ann", ROOM, Verdict::Denied);
            changes.note(&change_of("ann"));
        });
        let commands = [subscribe(2, ROOM), subscribe(3, "room:b")];
        let count = if kind == "single" { 1 } else { 2 };
        let replies = client.send(&commands[..count]).await.unwrap();
        assert_eq!(replies[0]["error"]["code"], 103, "{kind}: {replies:?}");
        assert_eq!(stage.state(&client), SubscriptionState::NotSubscribed, "{kind}");
        until("the presence is empty", async || stage.present().await == 0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_subscribes_of_a_frame_are_checked_in_one_call() {
    let stage = Stage::start().await;
    let rooms = ["room:a", "room:b", "room:c"];
    rooms.iter().for_each(|room| stage.answers.set("ann", room, Verdict::Allowed));
    let mut client = stage.connected(1, "ann").await;
    let before = stage.answers.calls();
    let commands: Vec<Value> = (2..).zip(rooms).map(|(id, room)| subscribe(id, room)).collect();
    let replies = client.send(&commands).await.unwrap();
    assert_eq!(replies.iter().map(|reply| reply["id"].as_u64().unwrap()).collect::<Vec<_>>(), [2, 3, 4]);
    assert!(replies.iter().all(|reply| reply["subscribe"].is_object()), "{replies:?}");
    assert_eq!(stage.answers.calls() - before, 1);
}

/// Publications from before the relay's first event are never published here: a client that subscribes earlier would
/// miss them without a gap.
#[tokio::test(start_paused = true)]
async fn a_subscribe_waits_for_the_start_of_the_relay() {
    let stage = Stage::start().await;
    stage.relay_start.send_replace(false);
    let mut client = stage.connected(1, "ann").await;
    let start = tokio::time::Instant::now();
    assert_eq!(client.code(subscribe(2, ROOM)).await, 100);
    assert_eq!(start.elapsed(), stage.services.config.command_timeout);
    stage.relay_start.send_replace(true);
    assert_eq!(client.code(subscribe(3, ROOM)).await, 0);
}

#[tokio::test(start_paused = true)]
async fn subscriptions_are_distinct_and_limited() {
    let stage = Stage::with(|config| config.max_subscriptions = 1).await;
    stage.answers.set("ann", "room:b", Verdict::Allowed);
    let mut client = stage.subscribed(1, "ann").await;
    assert_eq!(client.code(subscribe(2, ROOM)).await, 105);
    assert_eq!(client.code(subscribe(3, "room:b")).await, 106);
    assert_eq!(client.code(json!({"id": 4, "unsubscribe": {"channel": ROOM}})).await, 0);
    assert_eq!(client.code(subscribe(5, "room:b")).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_returning_client_gets_what_it_missed_or_is_told_to_reload() {
    let stage = Stage::start().await;
    let mut client = stage.connected(1, "ann").await;
    let reply = client.send(&[subscribe(2, ROOM)]).await.unwrap().remove(0);
    let epoch = reply["subscribe"]["epoch"].as_str().unwrap().to_owned();
    client.send(&[json!({"id": 3, "unsubscribe": {"channel": ROOM}})]).await.unwrap();
    for n in [1, 2] {
        stage.publish(json!(n)).await;
    }
    let reply = client.send(&[recover(4, 1, &epoch, 0)]).await.unwrap().remove(0);
    let subscribed = &reply["subscribe"];
    assert_eq!(subscribed["recovered"], true);
    assert_eq!(subscribed["publications"], json!([{"offset": 2, "data": 2}]));
    client.send(&[json!({"id": 5, "unsubscribe": {"channel": ROOM}})]).await.unwrap();

    assert_eq!(client.code(recover(6, 1, "another", 2)).await, 112, "the client rejects an unrecovered position");
    assert_eq!(stage.state(&client), SubscriptionState::NotSubscribed);
    let reply = client.send(&[recover(7, 1, "another", 0)]).await.unwrap().remove(0);
    assert!(reply["subscribe"].is_object() && reply["subscribe"]["recovered"] == false, "{reply}");
    assert_eq!(stage.state(&client), SubscriptionState::Subscribed);
}

/// A failed recovery costs five reads, and a user without reads left is refused before the broker is asked.
#[tokio::test(start_paused = true)]
async fn recoveries_count_against_the_reads_of_the_user() {
    let stage = Stage::with(|config| {
        (config.max_reads_per_second.0, config.max_reads_burst) = (1, 5);
    });
    let stage = stage.await;
    let mut client = stage.connected(1, "ann").await;
    assert_eq!(client.code(recover(2, 1, "another", 2)).await, 112);
    assert_eq!(client.code(recover(3, 1, "another", 2)).await, 111);
    assert_eq!(client.code(subscribe(4, ROOM)).await, 0, "a subscribe without recovery is no read");
}

#[tokio::test(start_paused = true)]
async fn a_status_channel_answers_with_the_state_of_its_user() {
    let stage = Stage::start().await;
    let of_bob = channel::status_of("bob");
    stage.answers.set("ann", &of_bob, Verdict::Allowed);
    let _bob = stage.connected(1, "bob").await;
    let mut ann = stage.connected(2, "ann").await;
    let reply = ann.send(&[subscribe(2, &of_bob)]).await.unwrap().remove(0);
    assert_eq!(reply["subscribe"]["data"]["status"], "online", "{reply}");
    for command in ["history", "presence", "presence_stats"] {
        assert_eq!(ann.code(json!({"id": 3, command: {"channel": of_bob}})).await, 108, "{command}");
    }
}
