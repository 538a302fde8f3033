//! Users of several auth collections, with keys that differ where the ids do not.

use super::stage::{Stage, how_connected, subscribe};
use crate::harness::client::Client;
use crate::harness::http::Http;
use crate::harness::pocketbase::{PocketBase, User};
use crate::harness::tokens::{accounts_of, claims, sign};
use crate::harness::{SECRET, until};
use jsonwebtoken::Algorithm;
use konvert_gateway::pocketbase::AccountId;
use konvert_gateway::signature::{SIGNATURE, Signer, TIMESTAMP};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::SystemTime;

async fn collection_id(pocketbase: &PocketBase, name: &str) -> String {
    let collection = pocketbase.as_superuser("GET", &format!("collections/{name}"), &Value::Null).await;
    collection["id"].as_str().expect("an id").to_owned()
}

/// The signing key of a record's tokens.
async fn signing_key(pocketbase: &PocketBase, collection: &str, id: &str) -> String {
    let account = AccountId::new(collection, id).expect("no empty ids");
    let answer = accounts_of(pocketbase, &[account]).await.remove(0).expect("the record exists");
    answer.key.expose_secret().to_owned()
}

/// A request of the server API.
async fn call_api(stage: &Stage, method: &str, question: &Value) -> Value {
    let (target, body) = (format!("/api/{method}"), question.to_string());
    let (timestamp, signature) = Signer::new(&SECRET.into()).sign(SystemTime::now(), "POST", &target, body.as_bytes());
    let headers = [(TIMESTAMP, timestamp.as_str()), (SIGNATURE, signature.as_str())];
    let answer = Http::new().send("POST", &stage.gateways[0].url(&target), &headers, body).await;
    answer.expect("the gateway answers").json()
}

async fn present(client: &mut Client, channel: &str) -> Vec<String> {
    let reply = client.call("presence", json!({"channel": channel})).await;
    let clients = reply["presence"]["presence"].as_object().unwrap_or_else(|| panic!("{reply}")).values();
    let mut users: Vec<String> = clients.map(|info| info["user"].as_str().expect("a text").to_owned()).collect();
    users.sort();
    users
}

fn superuser(stage: &Stage) -> (User, String) {
    let token = stage.pocketbase.superuser_token().to_owned();
    let claims: Value = jsonwebtoken::dangerous::insecure_decode_claims(&token).expect("a token");
    let id = claims["id"].as_str().expect("an id").to_owned();
    let key = format!("_superusers/{id}");
    (User { id, token }, key)
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_signals_statuses_and_server_api_name_users_by_key() {
    let stage = Stage::pair().await;
    let (ann, tom) = stage.twins().await;
    let (root, root_key) = superuser(&stage);
    let tom_key = format!("staff/{}", tom.id);
    let room = stage.room("public").await;

    let mut member = Client::connect(&stage.gateways[1], &ann.token).await;
    let mut staff = stage.connect(&tom).await;
    let mut admin = stage.connect(&root).await;
    let mut guest = stage.guest().await;
    for client in [&mut member, &mut staff, &mut admin, &mut guest] {
        assert_eq!(subscribe(client, &room).await, "ok");
    }
    let all: Vec<String> = {
        let mut all = vec![String::new(), ann.id.clone(), tom_key.clone(), root_key.clone()];
        all.sort();
        all
    };
    assert_eq!(present(&mut guest, &room).await, all);
    assert_eq!(present(&mut member, &room).await, all);
    let stats = member.call("presence_stats", json!({"channel": room})).await["presence_stats"].take();
    assert_eq!(stats, json!({"num_clients": 4, "num_users": 3}));
    let stats = call_api(&stage, "presence_stats", &json!({"channel": room})).await;
    assert_eq!(stats, json!({"clients": 4, "users": 3}));

    for (sender, key) in [(&mut staff, &tom_key), (&mut admin, &root_key)] {
        let signal = json!({"channel": room, "data": {"type": "typing"}});
        assert!(sender.call("publish", signal).await["publish"].is_object());
        for client in [&mut member, &mut guest] {
            assert_eq!(client.signal().await["info"]["user"], **key);
        }
    }

    // Records with the same id in two collections have two statuses.
    staff.call("rpc", json!({"method": "status.set", "data": {"status": "dnd"}})).await;
    for (key, status) in [(&tom_key, "dnd"), (&ann.id, "online")] {
        let reply = admin.call("subscribe", json!({"channel": format!("status:{key}")})).await;
        assert_eq!(reply["subscribe"]["data"]["status"], status, "{reply}");
    }
    let statuses = call_api(&stage, "statuses", &json!({"users": [tom_key, ann.id, ""]})).await;
    let of = |key: &str| statuses["statuses"][key]["status"].clone();
    assert_eq!([of(&tom_key), of(&ann.id), of("")], ["dnd", "online", "offline"]);

    // An order for the staff user leaves the member alone; an order for guests leaves users alone.
    call_api(&stage, "disconnect", &json!({"user": tom_key})).await;
    assert_eq!(staff.closed().await.0, 4504);
    call_api(&stage, "unsubscribe", &json!({"user": "", "channel": room})).await;
    assert_eq!(guest.unsubscribed().await["code"], 2105);
    let mut left = vec![ann.id.clone(), root_key.clone()];
    left.sort();
    until("the others alone", async || (present(&mut member, &room).await == left).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_and_personal_channels_apply_to_the_right_collection() {
    let stage = Stage::new(&[]).await;
    let (ann, tom) = stage.twins().await;
    let (root, _) = superuser(&stage);
    let members = stage.room("members").await;
    let vault = format!("vault:{}", stage.create("vaults", &json!({"name": "gold"})).await);
    let [own, crew] = [format!("user:{}", ann.id), format!("crew:{}", tom.id)];

    let mut clients =
        [stage.connect(&ann).await, stage.connect(&tom).await, stage.connect(&root).await, stage.guest().await];
    for (channel, outcomes) in [
        (members, ["ok", "103", "ok", "103"]),
        (vault.clone(), ["103", "103", "ok", "103"]),
        (own.clone(), ["ok", "103", "103", "103"]),
        (crew, ["103", "ok", "103", "103"]),
        (format!("user:staff/{}", tom.id), ["103"; 4]),
        (format!("status:{}", ann.id), ["ok", "ok", "ok", "103"]),
        (format!("status:staff/{}", tom.id), ["ok"; 4]),
        ("status:".to_owned(), ["103"; 4]),
        ("room-updates".to_owned(), ["ok"; 4]),
    ] {
        for (client, outcome) in clients.iter_mut().zip(outcomes) {
            assert_eq!(subscribe(client, &channel).await, outcome, "{channel}");
        }
    }
    // Superusers get events too.
    let id = vault.strip_prefix("vault:").expect("its name").to_owned();
    stage.update("vaults", &id, &json!({"name": "silver"})).await;
    let [_, _, admin, _] = &mut clients;
    let publication = admin.publication_but_of(&["rooms", "members", "staff"]).await;
    assert_eq!(publication["data"]["record"]["name"], "silver", "{publication}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_valid_only_for_the_record_of_its_own_collection() {
    let stage = Stage::new(&[]).await;
    let (ann, tom) = stage.twins().await;
    let pocketbase = &stage.pocketbase;
    let [members, staff] = [collection_id(pocketbase, "members").await, collection_id(pocketbase, "staff").await];
    let key = signing_key(pocketbase, &staff, &tom.id).await;
    let made = |id: &str, collection: &str| sign(Algorithm::HS256, &claims(id, collection), &key);
    assert_eq!(how_connected(stage.gateway(), &made(&tom.id, &staff)).await, "ok", "the key is the right one");

    // Tokens signed with the staff user's key are invalid for the member with the same id, cached or not.
    drop(stage.connect(&ann).await);
    for (id, collection) in [
        (ann.id.clone(), members.clone()),
        (ann.id.clone(), "members".to_owned()),
        (format!("{}/{}", staff, tom.id), members.clone()),
        (tom.id.clone(), format!("{staff}/")),
        (tom.id.clone(), String::new()),
        (String::new(), staff.clone()),
        (String::new(), String::new()),
        (tom.id.clone(), "staff".to_owned()),
    ] {
        assert_eq!(how_connected(stage.gateway(), &made(&id, &collection)).await, "3500", "{collection} {id}");
    }

    // A refresh with the staff user's token ends the member's connection.
    let mut client = stage.connect(&ann).await;
    client.send(&json!({"id": 9, "refresh": {"token": tom.token}}).to_string()).await;
    assert_eq!(client.closed().await.0, 3500);

    // A genuine token of a member is refused if the id looks like the staff user's key.
    let eve = pocketbase.account("members", "eve").await;
    let key = signing_key(pocketbase, &members, &eve.id).await;
    let fake = format!("staff/{}", tom.id);
    pocketbase.change_id("members", &eve.id, &fake);
    let token = sign(Algorithm::HS256, &claims(&fake, &members), &key);
    assert_eq!(how_connected(stage.gateway(), &token).await, "3500");
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_with_the_same_id_are_revoked_separately() {
    let stage = Stage::new(&[]).await;
    let pocketbase = &stage.pocketbase;
    let room = stage.room("public").await;
    let mut bystanders = Vec::new();
    for collection in ["members", "staff", "_superusers"] {
        let bystander = pocketbase.account(collection, &format!("bystander-{collection}")).await;
        let mut client = stage.connect(&bystander).await;
        client.subscribe(&room).await;
        bystanders.push(client);
    }
    for (collection, ban) in
        [("members", Some("banned_until")), ("staff", Some("suspended_until")), ("_superusers", None)]
    {
        let user = |name: &str| format!("{name}-{}", collection.trim_start_matches('_'));
        let connected = async |name: &str| {
            let user = pocketbase.account(collection, &user(name)).await;
            let mut client = stage.connect(&user).await;
            client.subscribe(&room).await;
            (client, user)
        };
        let (mut client, one) = connected("password").await;
        stage
            .update(
                collection,
                &one.id,
                &json!({"password": "another-password", "passwordConfirm": "another-password"}),
            )
            .await;
        assert_eq!(client.closed().await.0, 4502, "{collection}");
        assert_eq!(how_connected(stage.gateway(), &one.token).await, "3500", "{collection}");
        let (mut client, one) = connected("deleted").await;
        stage.delete(collection, &one.id).await;
        assert_eq!(client.closed().await.0, 4500, "{collection}");
        if let Some(ban) = ban {
            let (mut client, one) = connected("banned").await;
            stage.update(collection, &one.id, &json!({ban: "2100-01-01 00:00:00.000Z"})).await;
            assert_eq!(client.closed().await.0, 4501, "{collection}");
        }
    }
    stage.create("notes", &json!({"room": &room[5..], "text": "still here"})).await;
    for client in &mut bystanders {
        assert_eq!(client.publication_but_of(&["rooms"]).await["data"]["record"]["text"], "still here");
    }
}

/// PocketBase's rule compares ids alone, and so lets in the users with this id of every collection.
#[tokio::test(flavor = "multi_thread")]
async fn users_let_in_by_a_comparison_of_ids_are_removed_when_it_fails() {
    let stage = Stage::new(&[]).await;
    let (ann, tom) = stage.twins().await;
    let room = stage.room("invited").await;
    let invitation = stage.create("invitations", &json!({"room": &room[5..], "member": ann.id})).await;
    let mut clients = [stage.connect(&ann).await, stage.connect(&tom).await];
    for client in &mut clients {
        assert_eq!(subscribe(client, &room).await, "ok");
    }
    stage.delete("invitations", &invitation).await;
    for client in &mut clients {
        assert_eq!(client.unsubscribed().await["code"], 2100);
    }

    // Deleting the staff user leaves the member's connection open.
    stage.delete("staff", &tom.id).await;
    let [member, staff] = &mut clients;
    assert_eq!(staff.closed().await.0, 4500);
    let open = stage.room("public").await;
    assert_eq!(subscribe(member, &open).await, "ok");
    let users: BTreeSet<String> = present(member, &open).await.into_iter().collect();
    assert_eq!(users, BTreeSet::from([ann.id]));
}
