//! Guests, connections without a token: permissions, limits, and the end of the connection.

use super::stage::{Stage, how_answered, how_connected, subscribe};
use crate::harness::client::Client;
use crate::harness::until;
use serde_json::{Value, json};
use std::net::Ipv4Addr;

const REFUSED: &str = "gateway_guests_refused_total{reason=\"max_guests_per_ip\"}";

#[tokio::test(flavor = "multi_thread")]
async fn guests_subscribe_where_rules_require_no_login_and_may_do_nothing_else() {
    let stage = Stage::new(&[("GATEWAY_MAX_CONNECTIONS_PER_USER", "1")]).await;
    let tom = stage.pocketbase.account("staff", "tom").await;
    let ann = stage.pocketbase.account("members", "ann").await;
    let (public, members) = (stage.room("public").await, stage.room("members").await);
    let mut guest = Client::open(&stage.gateway().websocket()).await;
    let reply = guest.call("connect", json!({})).await;
    assert!(reply["connect"]["ttl"].is_null() && reply["connect"]["expires"].is_null(), "{reply}");
    // Guests do not count against max_connections_per_user.
    let mut other = stage.guest().await;
    for client in [&mut guest, &mut other] {
        assert_eq!([subscribe(client, &public).await, subscribe(client, &members).await], ["ok", "103"]);
    }
    stage.create("notes", &json!({"room": &public[5..], "text": "to everybody"})).await;
    for client in [&mut guest, &mut other] {
        assert_eq!(client.publication_but_of(&["rooms"]).await["data"]["record"]["text"], "to everybody");
    }
    assert_eq!(stage.gateway().metric("gateway_guests").await, 2.0);

    let mut code = async |command: &str, request: Value| {
        let reply = guest.call(command, request).await;
        reply["error"]["code"].as_u64().unwrap_or_default()
    };
    assert_eq!(code("publish", json!({"channel": public, "data": {"type": "typing"}})).await, 103);
    assert_eq!(code("rpc", json!({"method": "status.set", "data": {"status": "dnd"}})).await, 103);
    assert_eq!(code("rpc", json!({"method": "status.idle", "data": {"idle": true}})).await, 103);
    assert_eq!(code("subscribe", json!({"channel": "user:"})).await, 103);
    assert_eq!(code("refresh", json!({"token": ann.token})).await, 108);
    assert_eq!(code("history", json!({"channel": public, "limit": 10})).await, 0);
    let question = json!({"users": [ann.id, format!("staff/{}", tom.id), ""]});
    let reply = guest.call("rpc", json!({"method": "status.get", "data": question})).await;
    let statuses = reply["rpc"]["data"]["statuses"].as_object().unwrap_or_else(|| panic!("{reply}"));
    assert_eq!(statuses.keys().collect::<Vec<_>>(), [&format!("staff/{}", tom.id)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_records_and_rules_grant_and_end_guests_access() {
    let stage = Stage::new(&[]).await;
    let room = stage.room("public").await;
    let id = room[5..].to_owned();
    let rule = stage.pocketbase.as_superuser("GET", "collections/rooms", &Value::Null).await["viewRule"].take();
    let mut guests = [stage.guest().await, stage.guest().await];
    for guest in &mut guests {
        assert_eq!(subscribe(guest, &room).await, "ok");
    }
    stage.update("rooms", &id, &json!({"visibility": "members"})).await;
    stage.create("notes", &json!({"room": id, "text": "secret"})).await;
    for guest in &mut guests {
        assert_eq!(guest.unsubscribed().await["code"], 2101);
        while let Some(push) = guest.waiting() {
            assert!(!push.to_string().contains("secret"), "{push}");
        }
        assert_eq!(subscribe(guest, &room).await, "103");
    }
    stage.update("rooms", &id, &json!({"visibility": "public"})).await;
    for guest in &mut guests {
        until("the room to be open again", async || (subscribe(guest, &room).await == "ok").then_some(())).await;
    }
    let set = async |rule: &Value| {
        stage.pocketbase.as_superuser("PATCH", "collections/rooms", &json!({"viewRule": rule})).await;
    };
    set(&json!("@request.auth.id != \"\"")).await;
    for guest in &mut guests {
        assert_eq!(guest.unsubscribed().await["code"], 2103);
    }
    set(&rule).await;
    for guest in &mut guests {
        until("the rule to be back", async || (subscribe(guest, &room).await == "ok").then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_are_disconnected_when_the_config_forbids_guests() {
    let mut stage = Stage::new(&[("GATEWAY_PULL_INTERVAL", "1")]).await;
    let ann = stage.pocketbase.account("members", "ann").await;
    let room = stage.room("public").await;
    let (mut guest, mut member) = (stage.guest().await, stage.connect(&ann).await);
    for client in [&mut guest, &mut member] {
        assert_eq!(subscribe(client, &room).await, "ok");
    }
    stage.pocketbase.edit_config("guests: true", "guests: false");
    stage.pocketbase.restart().await;
    assert_eq!(guest.closed().await.0, 4505);
    assert_eq!(how_connected(stage.gateway(), "").await, "101");
    let refused = "gateway_guests_refused_total{reason=\"not_allowed\"}";
    assert_eq!(stage.gateway().metric(refused).await, 1.0);
    stage.create("notes", &json!({"room": &room[5..], "text": "to members"})).await;
    assert_eq!(member.publication_but_of(&["rooms"]).await["data"]["record"]["text"], "to members");

    stage.pocketbase.edit_config("guests: false", "guests: true");
    stage.pocketbase.restart().await;
    until("guests to be let in again", async || (how_connected(stage.gateway(), "").await == "ok").then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_are_limited_per_address_and_users_are_not() {
    let stage = Stage::new(&[("GATEWAY_MAX_GUESTS_PER_IP", "2")]).await;
    let ann = stage.pocketbase.account("members", "ann").await;
    let (first, _second) = (stage.guest().await, stage.guest().await);
    assert_eq!(how_connected(stage.gateway(), "").await, "4002");
    assert_eq!(stage.gateway().metric(REFUSED).await, 1.0);
    assert_eq!(stage.gateway().metric("gateway_guests").await, 2.0);
    // Users, and guests from another address, do not count.
    assert_eq!(how_connected(stage.gateway(), &ann.token).await, "ok");
    assert_eq!(from(&stage, Ipv4Addr::new(127, 0, 0, 9), &[]).await.1, "ok");
    first.cut();
    let mut third = Vec::new();
    until("the place of who has left", async || {
        let (client, how) = from(&stage, Ipv4Addr::LOCALHOST, &[]).await;
        third.push(client);
        (how == "ok").then_some(())
    })
    .await;
    assert_eq!(how_connected(stage.gateway(), "").await, "4002");
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_behind_a_trusted_proxy_are_counted_by_client_address() {
    let settings = [("GATEWAY_MAX_GUESTS_PER_IP", "1"), ("GATEWAY_TRUSTED_PROXIES", "127.0.0.3")];
    let stage = Stage::new(&settings).await;
    let (proxy, stranger) = (Ipv4Addr::new(127, 0, 0, 3), Ipv4Addr::new(127, 0, 0, 4));
    let mut kept = Vec::new();
    for (via, client, outcome) in [
        (proxy, "192.0.2.1", "ok"),
        (proxy, "192.0.2.1", "4002"),
        (proxy, "192.0.2.2", "ok"),
        (proxy, "2001:db8:1:2::1", "ok"),
        (proxy, "2001:db8:1:2:ffff::9", "4002"),
        // The header of an untrusted peer is ignored.
        (stranger, "192.0.2.3", "ok"),
        (stranger, "192.0.2.4", "4002"),
    ] {
        let (connection, how) = from(&stage, via, &[("x-forwarded-for", client)]).await;
        assert_eq!(how, outcome, "{client} by {via}");
        kept.push(connection);
    }
    assert_eq!(stage.gateway().metric(REFUSED).await, 3.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_guests_share_one_access_check() {
    let stage = Stage::new(&[("GATEWAY_MAX_GUESTS_PER_IP", "0")]).await;
    let room = stage.room("public").await;
    let calls = async |route: &str| {
        stage.gateway().metric(&format!("gateway_pocketbase_seconds_count{{route=\"{route}\"}}")).await
    };
    let before = [calls("keys").await, calls("authorize").await];
    let mut guests = Vec::new();
    for _ in 0..200 {
        let mut guest = stage.guest().await;
        assert_eq!(subscribe(&mut guest, &room).await, "ok");
        guests.push(guest);
    }
    // A change in between, such as the room's creation, costs one more question.
    for (route, before) in ["keys", "authorize"].into_iter().zip(before) {
        let asked = calls(route).await - before;
        assert!((1.0..=3.0).contains(&asked), "{route}: {asked} calls for 200 guests");
    }
    stage.update("rooms", &room[5..], &json!({"visibility": "members"})).await;
    for guest in &mut guests {
        assert_eq!(guest.unsubscribed().await["code"], 2101);
    }
    let asked = calls("authorize").await - before[1];
    assert!(asked <= 6.0, "{asked} calls to shut 200 guests out");
}

/// A guest from an address, with headers, and the outcome of `connect`.
async fn from(stage: &Stage, address: Ipv4Addr, headers: &[(&str, &str)]) -> (Client, String) {
    let mut client = Client::open_from(stage.gateway(), address, headers).await.expect("the handshake succeeds");
    client.send(&json!({"id": 1, "connect": {}}).to_string()).await;
    let how = how_answered(&mut client).await;
    (client, how)
}
