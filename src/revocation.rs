//! Revocation: applies access changes reported by PocketBase's hooks to running subscriptions and connections, on
//! every node.
//!
//! Each [`Change`] arrives through the hub's watched channel, in outbox order. The affected subscriptions are
//! suspended at once, and earlier answers of PocketBase become invalid. PocketBase is then asked again, and each
//! subscription either resumes with the publications held back, or ends with the code of the cause. While PocketBase
//! gives no answer, the subscriptions stay suspended. Accounts (deleted, banned, another key) are checked in the same
//! way, and end whole connections.
//!
//! In addition, all accounts and subscriptions are checked every `recheck_interval`, without a suspension: for rules
//! that depend on the time, and for writes that bypassed the hooks.

use crate::access::Access;
use crate::access::changes::{Cause, Change, Changes};
use crate::auth::{Account, Auth};
use crate::backoff::Backoff;
use crate::channel::Kind;
use crate::connection::{Connection, Connections};
use crate::event::INTERNAL;
use crate::hub::suspension::{Revoked, Subscription};
use crate::hub::{Hub, Watcher};
use crate::limits::lines::limited;
use crate::metrics::Metrics;
use crate::pocketbase::AccountId;
use crate::pocketbase::batch::Asker;
use crate::protocol::Payload;
use crate::protocol::codes::{self, Disconnect};
use crate::protocol::json;
use crate::updates::{Told, Updates};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

/// Concurrent questions to PocketBase, which are sent in batches.
const CONCURRENCY: usize = 1000;
/// Shortest and longest pause between retries while PocketBase gives no answer.
const RETRY: std::ops::Range<Duration> = Duration::from_millis(100)..Duration::from_secs(2);

/// An access check: channel and user.
type Question = (Arc<str>, Arc<str>);

pub struct Revocation {
    me: Weak<Revocation>,
    pub hub: Arc<Hub>,
    pub auth: Arc<Auth>,
    pub access: Arc<Access>,
    pub connections: Arc<Connections>,
    pub updates: Arc<Updates>,
    changes: Arc<Changes>,
    metrics: Metrics,
}

/// Order of a back end to all gateways. Sent as a signal: a gateway that is cut off at that moment misses the order.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// End a user's connections; the empty key stands for all guests.
    Disconnect { user: String, reconnect: bool },
    /// End a user's subscriptions to a channel.
    Unsubscribe { user: String, channel: String },
}

impl Order {
    /// The payload for the watched channel.
    pub fn notice(&self) -> Payload {
        #[derive(Serialize)]
        struct Notice<'a> {
            order: &'a Order,
        }
        // Serialization cannot fail: the order contains only texts and flags.
        Payload::trusted(serde_json::to_vec(&Notice { order: self }).unwrap_or_default().into())
    }
}

/// Content of the watched channel; see [`Order::notice`] and [`crate::event::Event::notice`].
#[derive(Deserialize)]
struct Notice<'a> {
    #[serde(default)]
    access: Vec<Change>,
    updates: Option<Told>,
    order: Option<Order>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

impl Revocation {
    pub fn new(
        hub: Arc<Hub>,
        (auth, access): (Arc<Auth>, Arc<Access>),
        connections: Arc<Connections>,
        updates: Arc<Updates>,
        changes: Arc<Changes>,
        metrics: Metrics,
    ) -> Arc<Self> {
        let me = |me: &Weak<Self>| me.clone();
        Arc::new_cyclic(|it| Self { me: me(it), hub, auth, access, connections, updates, changes, metrics })
    }

    /// Checks all accounts and subscriptions every `interval`, for as long as `revocation` lives.
    pub async fn recheck(revocation: Weak<Self>, interval: Duration) {
        loop {
            tokio::time::sleep(interval).await;
            let Some(me) = revocation.upgrade() else { return };
            let users = me.connections.users();
            let accounts = futures_util::stream::iter(users).for_each_concurrent(CONCURRENCY, |user| {
                let me = &me;
                async move {
                    for id in me.connections.accounts_of(&user) {
                        if let Ok(account) = me.auth.account(&id, &user).await {
                            me.judge(&user, &id, account.as_ref(), Cause::User);
                        }
                    }
                }
            });
            accounts.await;
            let all = questions(me.hub.subscriptions(&me.hub.channel_names(), |_, _| true));
            let checks = futures_util::stream::iter(all).for_each_concurrent(CONCURRENCY, |(question, connections)| {
                let (me, (channel, user)) = (&me, question);
                async move {
                    if let Ok((false, asked)) = me.access.ask_anew(asker(&connections), &user, &channel).await {
                        let still = || me.access.holds(asked, &user, &channel);
                        connections.iter().for_each(|it| _ = me.revoke(&channel, it, Cause::Related, still));
                    }
                }
            });
            checks.await;
            me.updates.recheck();
        }
    }

    fn apply(&self, change: &Change) {
        self.changes.note(change);
        self.updates.change(change);
        let Some(me) = self.me.upgrade() else { return };
        if change.concerns_accounts() {
            for (user, suspended) in self.suspend_accounts(change) {
                tokio::spawn(Arc::clone(&me).settle_account(user, suspended, change.cause));
            }
        } else {
            let channels = match &change.channel {
                Some(channel) => vec![channel.as_str().into()],
                None => self.hub.channel_names(),
            };
            if change.cause == Cause::Deleted {
                // The gateways' own channel is locked by the caller.
                channels.iter().filter(|channel| !channel.starts_with(INTERNAL)).for_each(|name| self.hub.forget(name));
            }
            let suspended = self
                .hub
                .suspend(&channels, change.cause, |channel, connection| change.concerns(&connection.user, channel));
            if !suspended.is_empty() {
                tokio::spawn(me.settle(suspended, change.cause));
            }
        }
    }

    /// Suspends all subscriptions of the change's user, or of all users if the change names none. Returns the users
    /// with connections here, and their subscriptions.
    fn suspend_accounts(&self, change: &Change) -> HashMap<Arc<str>, Vec<Subscription>> {
        if let Some(user) = &change.user {
            let connections = self.connections.of(user);
            let subscriptions = self.hub.suspend_all_of(&connections, change.cause);
            return connections.first().map(|it| (Arc::clone(&it.user), subscriptions)).into_iter().collect();
        }
        let mut suspended: HashMap<Arc<str>, Vec<Subscription>> =
            self.connections.users().into_iter().map(|user| (user, Vec::new())).collect();
        for subscription in self.hub.suspend(&self.hub.channel_names(), change.cause, |_, _| true) {
            suspended.entry(Arc::clone(&subscription.1.user)).or_default().push(subscription);
        }
        suspended
    }

    /// Checks a user's account, then the user's subscriptions.
    async fn settle_account(self: Arc<Self>, user: Arc<str>, suspended: Vec<Subscription>, cause: Cause) {
        for id in self.connections.accounts_of(&user) {
            let mut backoff = Backoff::new(RETRY);
            let account = loop {
                match self.auth.account(&id, &user).await {
                    Ok(account) => break account,
                    Err(error) => rest(&mut backoff, &error).await,
                }
            };
            self.judge(&user, &id, account.as_ref(), cause);
        }
        self.settle(suspended, cause).await;
    }

    /// Ends the user's connections with this account if the account's current state requires it.
    fn judge(&self, user: &str, id: &AccountId, account: Option<&Arc<Account>>, cause: Cause) {
        for connection in self.connections.of(user) {
            let known = connection.account();
            if known.id != *id {
                continue;
            }
            let reason = match account {
                None if id.is_guest() => codes::GUESTS_NOT_ALLOWED,
                None => codes::USER_DELETED,
                // The connection's account is newer, perhaps with a newer key.
                Some(account) if account.is_older_than(&known) => continue,
                Some(account) if account.is_banned(SystemTime::now()) => codes::BANNED,
                // A new config gave the account another key.
                Some(account) if account.user != connection.user => codes::RECONNECT,
                Some(account) if account.has_key_of(&known) => {
                    connection.set_account(Arc::clone(account));
                    continue;
                }
                Some(_) if cause == Cause::Rules => codes::ALL_TOKENS_REVOKED,
                Some(_) => codes::TOKEN_REVOKED,
            };
            self.disconnect(&connection, reason);
        }
    }

    fn obey(&self, order: &Order) {
        match order {
            Order::Disconnect { user, reconnect } => {
                let reason = if *reconnect { codes::RECONNECT } else { codes::DISCONNECTED };
                self.connections.of(user).iter().for_each(|connection| self.disconnect(connection, reason));
            }
            Order::Unsubscribe { user, channel } => {
                for connection in self.connections.of(user) {
                    match Kind::of(channel) {
                        Kind::Updates => self.updates.end(channel, &connection, codes::BY_SERVER),
                        Kind::Feed | Kind::Status => _ = self.revoke(channel, &connection, Cause::Server, || true),
                    }
                }
            }
        }
    }

    fn disconnect(&self, connection: &Connection, reason: Disconnect) {
        connection.outbox.abort(reason);
        self.metrics.revocations.with_label_values(&[&reason.reason.replace(' ', "_")]).inc();
        let (user, client) = (&*connection.user, &*connection.client);
        limited!(info, "disconnected clients", user, client, reason = reason.reason, "disconnected");
    }

    /// Asks PocketBase about the subscriptions until each has an answer.
    async fn settle(self: Arc<Self>, suspended: Vec<Subscription>, cause: Cause) {
        let settling = futures_util::stream::iter(questions(suspended)).for_each_concurrent(
            CONCURRENCY,
            |((channel, user), connections)| {
                let me = &self;
                async move {
                    let mut backoff = Backoff::new(RETRY);
                    loop {
                        let answer = me.access.ask_anew(asker(&connections), &user, &channel).await;
                        let still = |asked| me.access.holds(asked, &user, &channel);
                        match answer {
                            Ok((true, asked)) => {
                                if connections.iter().all(|it| me.hub.resume(&channel, it, || still(asked))) {
                                    return;
                                }
                            }
                            Ok((false, asked)) => {
                                if connections.iter().all(|it| me.revoke(&channel, it, cause, || still(asked))) {
                                    return;
                                }
                            }
                            Err(error) => rest(&mut backoff, &error).await,
                        }
                    }
                }
            },
        );
        settling.await;
    }

    /// Ends a subscription, unless the refusal is no longer valid. Returns false in that case: PocketBase has to be
    /// asked again.
    fn revoke(&self, channel: &str, connection: &Connection, cause: Cause, still: impl FnOnce() -> bool) -> bool {
        let outcome = self.hub.revoke(channel, connection, cause, still);
        if let Revoked::Ended(cause) = outcome {
            self.metrics.revocations.with_label_values(&[cause.name()]).inc();
            let (user, cause) = (&*connection.user, cause.name());
            limited!(info, "revoked subscriptions", user, channel, cause, "a subscription was revoked");
        }
        outcome != Revoked::Overtaken
    }
}

/// Groups subscriptions by question: connections of a user share the answer for a channel, and so do guests.
fn questions(subscriptions: Vec<Subscription>) -> HashMap<Question, Vec<Arc<Connection>>> {
    let mut questions: HashMap<Question, Vec<Arc<Connection>>> = HashMap::new();
    for (channel, connection) in subscriptions {
        questions.entry((channel, Arc::clone(&connection.user))).or_default().push(connection);
    }
    questions
}

/// Asker of a check: the user, so that the check counts among the user's own questions. Guests have a turn for each
/// connection.
fn asker(connections: &[Arc<Connection>]) -> Asker {
    match connections.first() {
        Some(connection) if !connection.is_guest() => Asker::of(&*connection.user),
        first => Asker::of(first.map_or(0, |connection| connection.id)),
    }
}

async fn rest(backoff: &mut Backoff, why: &impl std::fmt::Display) {
    let pause = backoff.pause();
    limited!(
        warn,
        "failed rechecks of access",
        error = %why,
        "PocketBase did not answer an access check; affected subscriptions stay suspended, retrying in {} ms",
        pause.as_millis()
    );
    tokio::time::sleep(pause).await;
}

impl Watcher for Revocation {
    fn publication(&self, data: &Payload) {
        match serde_json::from_slice::<Notice>(data.as_bytes()) {
            Ok(Notice { access, updates, order, data }) => {
                order.iter().for_each(|order| self.obey(order));
                access.iter().for_each(|change| self.apply(change));
                if let (Some(told), Some(data)) = (updates, data) {
                    self.updates.event(&told, &Payload::from_raw(data));
                }
            }
            Err(error) => {
                let error = json::place(&error);
                tracing::error!(
                    error,
                    "a notice from PocketBase's hooks is unreadable; all subscriptions are suspended and checked again"
                );
                self.lost();
            }
        }
    }

    fn lost(&self) {
        self.apply(&Change::EVERYTHING);
        // Changes of records are lost as well.
        self.updates.lost();
    }
}
