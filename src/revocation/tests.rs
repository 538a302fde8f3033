//! Tests of revocation on the hub and the memory broker: which subscriptions and connections end, and with which code.

use super::*;
use crate::hub::subscriber::SubscriptionState;
use crate::outbox::OutboxState;
use crate::pocketbase::{UserKey, Verdict};
use crate::stage::{Client, KEY, ROOM, Stage, account_id, until};
use serde_json::{Value, json};

/// A gateway whose access changes reach the log of changes and revocation, as through the control channel.
struct Gateway {
    stage: Stage,
    revocation: Arc<Revocation>,
}

impl Gateway {
    async fn start() -> Self {
        let stage = Stage::start().await;
        let services = &stage.services;
        let revocation = Arc::new(Revocation {
            hub: Arc::clone(&services.hub),
            auth: Arc::clone(&services.auth),
            access: Arc::clone(&services.access),
            connections: Arc::clone(&services.connections),
            metrics: services.metrics.clone(),
        });
        Self { stage, revocation }
    }

    fn apply(&self, change: &Value) {
        let change: Change = serde_json::from_value(change.clone()).unwrap();
        self.stage.changes.note(&change);
        self.revocation.apply(&change);
    }

    fn state(&self, client: &Client) -> SubscriptionState {
        self.revocation.hub.subscription_state(ROOM, client.session.id())
    }

    fn revocations(&self, label: &str) -> u64 {
        self.stage.services.metrics.revocations.with_label_values(&[label]).get()
    }
}

/// The code of the next unsubscribe push.
async fn unsubscribed(client: &Client) -> u64 {
    let mut frames: Vec<bytes::Bytes> = Vec::new();
    let taken = tokio::time::timeout(Duration::from_secs(10), client.outbox.take(&mut frames)).await;
    taken.expect("a push in time").unwrap();
    let frame: Value = serde_json::from_slice(&frames[0]).unwrap();
    frame["push"]["unsubscribe"]["code"].as_u64().unwrap_or_else(|| panic!("{frame}"))
}

/// Waits for the end of the connection.
async fn disconnected(client: &Client) -> Disconnect {
    until("an end of the connection", async || client.outbox.state() != OutboxState::Open).await;
    let OutboxState::Over(Some(reason)) = client.outbox.state() else { panic!("{:?}", client.outbox.state()) };
    reason
}

#[tokio::test(start_paused = true)]
async fn a_lost_membership_ends_the_member_s_subscriptions_and_no_others() {
    let gateway = Gateway::start().await;
    let (first, second) = (gateway.stage.subscribed(1, "ann").await, gateway.stage.subscribed(2, "ann").await);
    let bob = gateway.stage.subscribed(3, "bob").await;
    let before = gateway.stage.answers.calls();
    gateway.stage.answers.set("ann", ROOM, Verdict::Denied);
    gateway.apply(&json!({"cause": "member", "user": "ann", "channel": ROOM}));
    assert_eq!(gateway.state(&first), SubscriptionState::Suspended, "at once");
    assert_eq!(gateway.state(&bob), SubscriptionState::Subscribed);
    gateway.stage.publish(json!("not for ann")).await;
    assert_eq!((unsubscribed(&first).await, unsubscribed(&second).await), (2100, 2100));
    assert_eq!(gateway.state(&first), SubscriptionState::NotSubscribed);
    assert_eq!(bob.received()[0]["push"]["pub"]["data"], "not for ann");
    assert_eq!(gateway.stage.answers.calls() - before, 1, "one question for all connections of a user");
    assert_eq!(gateway.revocations("member"), 2);
}

#[tokio::test(start_paused = true)]
async fn publications_wait_for_pocketbase_and_arrive_after_a_grant() {
    let gateway = Gateway::start().await;
    let client = gateway.stage.subscribed(1, "ann").await;
    gateway.stage.answers.set_down(true);
    gateway.apply(&json!({"cause": "record", "channel": ROOM}));
    gateway.stage.publish(json!("held")).await;
    // Longer than all backoffs.
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!((gateway.state(&client), client.received()), (SubscriptionState::Suspended, vec![]));
    gateway.stage.answers.set_down(false);
    until("the subscription goes on", async || gateway.state(&client) == SubscriptionState::Subscribed).await;
    assert_eq!(client.received()[0]["push"]["pub"]["data"], "held");
}

#[tokio::test(start_paused = true)]
async fn publications_held_during_an_outage_are_dropped_after_a_refusal() {
    let gateway = Gateway::start().await;
    let client = gateway.stage.subscribed(1, "ann").await;
    gateway.stage.answers.set_down(true);
    gateway.apply(&json!({"cause": "record", "channel": ROOM}));
    gateway.stage.publish(json!("secret")).await;
    gateway.stage.answers.set("ann", ROOM, Verdict::Denied);
    gateway.stage.answers.set_down(false);
    assert_eq!(unsubscribed(&client).await, 2101);
    assert!(client.received().is_empty());
}

/// A second change arrives between the question and the answer: the answer may be from before the second change.
#[tokio::test(start_paused = true)]
async fn an_answer_overtaken_by_a_change_is_asked_again() {
    for (stale, current) in [(Verdict::Denied, Verdict::Allowed), (Verdict::Allowed, Verdict::Denied)] {
        let gateway = Gateway::start().await;
        let client = gateway.stage.subscribed(1, "ann").await;
        gateway.stage.answers.set("ann", ROOM, stale);
        let (answers, changes) = (Arc::clone(&gateway.stage.answers), Arc::clone(&gateway.stage.changes));
        let change = json!({"cause": "member", "user": "ann", "channel": ROOM});
        let again: Change = serde_json::from_value(change.clone()).unwrap();
        gateway.stage.answers.interrupt(move || {
            answers.set("ann", ROOM, current);
            changes.note(&again);
        });
        gateway.apply(&change);
        until("an end of the suspension", async || gateway.state(&client) != SubscriptionState::Suspended).await;
        let expected =
            if current == Verdict::Allowed { SubscriptionState::Subscribed } else { SubscriptionState::NotSubscribed };
        assert_eq!(gateway.state(&client), expected, "{stale:?}, then {current:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_change_of_an_account_ends_its_connections_with_its_own_code() {
    let key = || UserKey::signing("ann", KEY);
    let other_key = || UserKey::signing("ann", "another signing key, as long as the first signing key");
    let banned = UserKey { banned_until: u64::MAX / 2, ..key() };
    for (cause, account, reason) in [
        ("user", None, codes::USER_DELETED),
        ("user", Some(banned), codes::BANNED),
        ("user", Some(other_key()), codes::TOKEN_REVOKED),
        ("rules", Some(other_key()), codes::ALL_TOKENS_REVOKED),
        ("rules", Some(UserKey::signing("users/ann", KEY)), codes::RECONNECT),
    ] {
        let gateway = Gateway::start().await;
        let (ann, bob) = (gateway.stage.subscribed(1, "ann").await, gateway.stage.subscribed(2, "bob").await);
        gateway.stage.answers.set_user(account_id("ann"), account);
        let change = if cause == "user" { json!({"cause": cause, "user": "ann"}) } else { json!({"cause": cause}) };
        gateway.apply(&change);
        assert_eq!(disconnected(&ann).await, reason);
        assert_eq!(gateway.revocations(&reason.reason.replace(' ', "_")), 1);
        until("bob goes on", async || gateway.state(&bob) == SubscriptionState::Subscribed).await;
        assert_eq!(bob.outbox.state(), OutboxState::Open);
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_that_keeps_the_key_keeps_the_connection_and_updates_the_account() {
    let gateway = Gateway::start().await;
    let client = gateway.stage.subscribed(1, "ann").await;
    gateway
        .stage
        .answers
        .set_user(account_id("ann"), Some(UserKey { blocked: vec!["bob".into()], ..UserKey::signing("ann", KEY) }));
    gateway.apply(&json!({"cause": "user", "user": "ann"}));
    let connection = Arc::clone(client.session.authenticated().unwrap());
    until("the account is known", async || connection.blocks("bob")).await;
    until("the subscription goes on", async || gateway.state(&client) == SubscriptionState::Subscribed).await;
    assert_eq!(client.outbox.state(), OutboxState::Open);
}

#[tokio::test(start_paused = true)]
async fn guests_leave_when_the_config_no_longer_allows_them() {
    let gateway = Gateway::start().await;
    gateway.stage.answers.set_user(crate::pocketbase::AccountId::guest(), Some(UserKey::signing("", "")));
    let mut guest = gateway.stage.client(1);
    guest.send(&[json!({"id": 1, "connect": {}})]).await.unwrap();
    gateway.stage.answers.set_user(crate::pocketbase::AccountId::guest(), None);
    gateway.apply(&json!({"cause": "rules"}));
    assert_eq!(disconnected(&guest).await, codes::GUESTS_NOT_ALLOWED);
}

#[tokio::test(start_paused = true)]
async fn a_recheck_ends_lost_access_without_a_suspension_and_nothing_while_pocketbase_is_silent() {
    let gateway = Gateway::start().await;
    let (ann, bob) = (gateway.stage.subscribed(1, "ann").await, gateway.stage.subscribed(2, "bob").await);
    gateway.stage.answers.set("ann", ROOM, Verdict::Denied);
    gateway.stage.answers.set_down(true);
    gateway.revocation.recheck().await;
    assert_eq!([gateway.state(&ann), gateway.state(&bob)], [SubscriptionState::Subscribed; 2]);
    gateway.stage.answers.set_down(false);
    gateway.revocation.recheck().await;
    assert_eq!(unsubscribed(&ann).await, 2104);
    assert_eq!(
        [gateway.state(&ann), gateway.state(&bob)],
        [SubscriptionState::NotSubscribed, SubscriptionState::Subscribed]
    );
    gateway.stage.answers.set_user(account_id("bob"), None);
    gateway.revocation.recheck().await;
    assert_eq!(disconnected(&bob).await, codes::USER_DELETED);
}
