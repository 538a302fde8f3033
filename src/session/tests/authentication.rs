//! `connect`, `refresh`, and the end of a session.

use super::*;

#[tokio::test(start_paused = true)]
async fn commands_before_connect_end_the_connection() {
    let stage = Stage::start().await;
    assert_eq!(refused(stage.client(1).send(&[subscribe(1, ROOM)]).await), codes::BAD_REQUEST_FRAME);
    let mut client = stage.connected(2, "ann").await;
    let again = json!({"id": 2, "connect": {"token": token("ann", 600)}});
    assert_eq!(refused(client.send(&[again]).await), codes::BAD_REQUEST_FRAME);
}

/// An SDK sends its subscribes behind `connect`, in one frame. After the error reply, a close code that is final for
/// SDKs would hide the error.
#[tokio::test(start_paused = true)]
async fn commands_after_a_refused_connect_get_no_answer() {
    let stage = Stage::start().await;
    let expired = json!({"id": 1, "connect": {"token": token("ann", -5)}});
    let guest = json!({"id": 1, "connect": {}});
    for (connect, code) in [(expired, 109), (guest, 101)] {
        let mut client = stage.client(1);
        let replies = client.send(&[connect, subscribe(2, ROOM)]).await.unwrap();
        assert_eq!(replies.iter().map(|reply| &reply["error"]["code"]).collect::<Vec<_>>(), [code], "{replies:?}");
        let retry = json!({"id": 3, "connect": {"token": token("ann", 600)}});
        assert!(client.send(&[retry]).await.unwrap().is_empty());
        assert!(stage.services.connections.users().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn forged_tokens_and_banned_users_are_turned_away_for_good() {
    let stage = Stage::start().await;
    let connect = |token: String| json!({"id": 1, "connect": {"token": token}});
    let forged = format!("{}x", token("ann", 600));
    assert_eq!(refused(stage.client(1).send(&[connect(forged)]).await), codes::INVALID_TOKEN);
    let banned = UserKey { banned_until: u64::MAX / 2, ..UserKey::signing("ann", crate::stage::KEY) };
    stage.answers.set_user(account_id("ann"), Some(banned));
    stage.changes.note(&change_of("ann"));
    assert_eq!(refused(stage.client(2).send(&[connect(token("ann", 600))]).await), codes::BANNED);
    stage.answers.set_down(true);
    assert_eq!(
        stage.client(3).code(connect(token("bob", 600))).await,
        100,
        "PocketBase does not answer: a retry may help"
    );
    assert!(stage.services.connections.users().is_empty());
}

/// The connection is registered before the account takes effect, and later changes reach the registered connection. A
/// change between the question and the registration must not be missed.
#[tokio::test(start_paused = true)]
async fn a_change_of_the_account_during_connect_is_noticed() {
    let stage = Stage::start().await;
    let (answers, changes) = (Arc::clone(&stage.answers), Arc::clone(&stage.changes));
    stage.answers.interrupt(move || {
        let banned = UserKey { banned_until: u64::MAX / 2, ..UserKey::signing("ann", crate::stage::KEY) };
        answers.set_user(account_id("ann"), Some(banned));
        changes.note(&change_of("ann"));
    });
    let connect = json!({"id": 1, "connect": {"token": token("ann", 600)}});
    let mut client = stage.client(1);
    assert_eq!(refused(client.send(&[connect]).await), codes::BANNED);
    assert!(stage.services.connections.users().is_empty(), "a refused connection is not registered");
    drop(client);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_session_leaves_everything() {
    let stage = Stage::start().await;
    let client = stage.subscribed(1, "ann").await;
    assert_eq!((stage.services.connections.of("ann").len(), stage.present().await), (1, 1));
    assert_eq!(stage.services.metrics.subscriptions.get(), 1);
    drop(client);
    assert!(stage.services.connections.users().is_empty());
    assert_eq!(stage.services.metrics.subscriptions.get(), 0);
    until("the presence is empty", async || stage.present().await == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_refresh_needs_a_fresh_token_of_the_same_user() {
    let stage = Stage::start().await;
    let refresh = |token: String| json!({"id": 2, "refresh": {"token": token}});
    let mut client = stage.connected(1, "ann").await;
    let replies = client.send(&[refresh(token("ann", 1200))]).await.unwrap();
    let ttl = replies[0]["refresh"]["ttl"].as_u64().unwrap();
    assert!((1160..=1170).contains(&ttl), "half a minute before the end: {ttl}");
    // After an error reply to `refresh`, an SDK does not connect again.
    assert_eq!(refused(client.send(&[refresh(token("ann", -5))]).await), codes::EXPIRED);
    for wrong in [token("bob", 600), String::new()] {
        assert_eq!(refused(client.send(&[refresh(wrong)]).await), codes::INVALID_TOKEN);
    }
}

#[tokio::test(start_paused = true)]
async fn guests_have_a_limit_per_address_and_give_their_place_back() {
    let stage = Stage::with(|config| config.max_guests_per_ip.0 = 1).await;
    stage.answers.set_user(AccountId::guest(), Some(UserKey::signing("", "")));
    let connect = || json!({"id": 1, "connect": {}});
    let mut first = stage.client(1);
    let reply = first.send(&[connect()]).await.unwrap().remove(0);
    assert!(reply["connect"]["client"].is_string() && reply["connect"]["ttl"].is_null(), "{reply}");
    assert_eq!(refused(stage.client(2).send(&[connect()]).await), codes::GUEST_LIMIT);
    assert_eq!(first.code(json!({"id": 2, "refresh": {"token": token("ann", 600)}})).await, 108);
    drop(first);
    assert_eq!(stage.client(3).code(connect()).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_user_s_connections_are_limited() {
    let stage = Stage::with(|config| config.max_connections_per_user.0 = 1).await;
    let first = stage.connected(1, "ann").await;
    let connect = || json!({"id": 1, "connect": {"token": token("ann", 600)}});
    assert_eq!(refused(stage.client(2).send(&[connect()]).await), codes::CONNECTION_LIMIT);
    stage.connected(3, "bob").await;
    drop(first);
    until("there is room again", async || stage.client(4).send(&[connect()]).await.is_ok()).await;
}

#[tokio::test(start_paused = true)]
async fn commands_have_a_rate_and_a_flood_ends_the_connection() {
    let stage = Stage::with(|config| {
        (config.max_commands_per_second.0, config.max_commands_burst) = (1, 3);
    });
    let stage = stage.await;
    let mut client = stage.connected(1, "ann").await;
    let ping = || json!({"id": 2, "ping": {}});
    let mut codes = Vec::new();
    for _ in 0..5 {
        codes.push(client.code(ping()).await);
    }
    assert_eq!(codes, [0, 0, 111, 111, 111]);
    assert_eq!(refused(client.send(&[ping()]).await), codes::FLOOD);
}

#[tokio::test(start_paused = true)]
async fn a_pong_without_a_ping_and_unreadable_frames_end_the_connection() {
    let stage = Stage::start().await;
    for bad in [json!({}), json!([]), json!({"id": 2, "unknown": {}}), json!({"ping": {}})] {
        let mut client = stage.connected(1, "ann").await;
        assert_eq!(refused(client.send(&[bad]).await), codes::BAD_REQUEST_FRAME);
    }
    let kinds = ["malformed", "no_id", "unknown_command"];
    let counted = kinds.map(|kind| stage.services.metrics.bad_frames.with_label_values(&[kind]).get());
    assert_eq!(counted, [1, 1, 1]);
}
