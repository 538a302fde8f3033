//! User and record ids of every character and length that a collection's settings may allow.

use crate::harness::World;
use crate::harness::client::Client;
use crate::harness::pocketbase::PocketBase;
use serde_json::{Value, json};

/// Makes a collection accept every id that PocketBase allows: up to 1,000 characters, without spaces.
async fn open_up(pocketbase: &PocketBase, collection: &str) {
    let path = format!("collections/{collection}");
    let mut fields = pocketbase.as_superuser("GET", &path, &Value::Null).await["fields"].take();
    let id = fields.as_array_mut().and_then(|fields| fields.iter_mut().find(|field| field["name"] == "id"));
    let id = id.expect("an id");
    (id["pattern"], id["min"], id["max"]) = (json!("^[^ ]+$"), json!(0), json!(1000));
    pocketbase.as_superuser("PATCH", &path, &json!({"fields": fields})).await;
}

async fn rooms_and_users_of_every_character(with_redis: bool) {
    let world = World::start(1, with_redis, &[]).await;
    let pocketbase = &world.pocketbase;
    open_up(pocketbase, "users").await;
    open_up(pocketbase, "rooms").await;
    let observer = pocketbase.user("observer").await;
    let mut observer = Client::connect(world.gateway(), &observer.token).await;
    let (long, wide) = ("x".repeat(1000), "ü".repeat(500));
    for (i, id) in ["jörg-größe", "日本語", "😀{}", "~[tilde],#&=", &long, &wide].into_iter().enumerate() {
        let email = format!("user{i}@example.com");
        let password = "password-of-tests";
        let user = json!({"id": id, "email": email, "password": password, "passwordConfirm": password});
        pocketbase.as_superuser("POST", "collections/users/records", &user).await;
        let login = json!({"identity": email, "password": password});
        let login = pocketbase.done("POST", "collections/users/auth-with-password", "", &login).await;
        let token = login["token"].as_str().expect("a token").to_owned();
        observer.subscribe(&format!("status:{id}")).await;

        let mut client = Client::connect(world.gateway(), &token).await;
        client.subscribe("room-updates").await;
        client.subscribe(&format!("user:{id}")).await;
        let online = observer.publication().await;
        assert_eq!(online["data"]["status"], "online", "{online}");
        let room = json!({"id": id, "name": "Room", "type": "private", "owner": id});
        pocketbase.done("POST", "collections/rooms/records", &token, &room).await;
        let told = client.publication().await;
        assert_eq!(told["data"]["record"]["id"], id, "{told}");

        let channel = format!("room:{id}");
        client.subscribe(&channel).await;
        let presence = client.call("presence", json!({"channel": channel})).await;
        let present = presence["presence"]["presence"].as_object().expect("clients").values();
        assert!(present.map(|client| &client["user"]).eq([id]), "{presence}");
        let message = json!({"room": id, "author": id, "content": "hello", "type": "text"});
        pocketbase.done("POST", "collections/messages/records", &token, &message).await;
        assert_eq!(client.message().await, "hello");
        let key = json!({"room": id, "user": id, "encrypted_key": "k", "key_version": 1});
        pocketbase.as_superuser("POST", "collections/room_keys/records", &key).await;
        let personal = client.publication_but_of(&["rooms", "room_members"]).await;
        assert_eq!(personal["data"]["collection"], "room_keys", "{personal}");
        assert!(!world.gateway().process.log().contains("impossible"), "{}", world.gateway().process.log());
    }
}

#[tokio::test]
async fn ids_of_every_character_and_length_work_in_channels() {
    rooms_and_users_of_every_character(false).await;
}

#[tokio::test]
async fn ids_of_every_character_and_length_work_in_channels_with_redis() {
    rooms_and_users_of_every_character(true).await;
}
