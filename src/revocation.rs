//! Revocation: applies access changes reported by PocketBase's hooks to running subscriptions and connections.
//!
//! Each [`Change`] arrives through the [control](crate::control) channel, in outbox order. The affected subscriptions
//! are suspended at once. PocketBase is then asked again, and each subscription either resumes with the publications
//! held back, or ends with the code of the cause. While PocketBase gives no answer, the subscriptions stay suspended.
//! Accounts (deleted, banned, another key) are checked in the same way, and end whole connections.

use crate::access::Access;
use crate::auth::{Account, Auth};
use crate::backoff::Backoff;
use crate::channel::INTERNAL;
use crate::connection::{Connection, Connections};
use crate::event::{Cause, Change};
use crate::hub::Hub;
use crate::hub::suspension::{Revoked, Subscription};
use crate::log_lines::limited;
use crate::metrics::Metrics;
use crate::pocketbase::AccountId;
use crate::pocketbase::batch::Asker;
use crate::protocol::codes::{self, Disconnect};
use crate::refusals::{Code, Refusal, Refusals};
use futures_util::StreamExt;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Concurrent access checks, which PocketBase gets in batches.
const CONCURRENCY: usize = 1000;
/// Shortest and longest pause between retries while PocketBase gives no answer.
const RETRY: std::ops::Range<Duration> = Duration::from_millis(100)..Duration::from_secs(2);

/// Channel and user of an access check.
type CheckKey = (Arc<str>, Arc<str>);

pub struct Revocation {
    pub hub: Arc<Hub>,
    pub auth: Arc<Auth>,
    pub access: Arc<Access>,
    pub connections: Arc<Connections>,
    pub refusals: Arc<Refusals>,
    pub metrics: Metrics,
}

impl Revocation {
    /// Checks all accounts and subscriptions once, without a suspension.
    pub async fn recheck(&self) {
        let users = self.connections.users();
        let accounts = futures_util::stream::iter(users).for_each_concurrent(CONCURRENCY, |user| async move {
            for id in self.connections.accounts_of(&user) {
                if let Ok(account) = self.auth.account(&id, &user).await {
                    self.enforce_account(&user, &id, account.as_ref(), Cause::User);
                }
            }
        });
        accounts.await;
        let all = checks(self.hub.subscriptions(&self.hub.channel_names(), |_, _| true));
        let checks = futures_util::stream::iter(all).for_each_concurrent(CONCURRENCY, |(check, connections)| {
            let (channel, user) = check;
            async move {
                if let Ok((false, asked)) = self.access.ask_anew(asker(&connections), &user, &channel).await {
                    let still = || self.access.holds(asked, &user, &channel);
                    connections.iter().for_each(|it| _ = self.revoke(&channel, it, Cause::Related, still));
                }
            }
        });
        checks.await;
    }

    /// Suspends the affected subscriptions, and starts their check.
    pub fn apply(self: &Arc<Self>, change: &Change) {
        if change.concerns_accounts() {
            for (user, suspended) in self.suspend_accounts(change) {
                tokio::spawn(Arc::clone(self).check_account(user, suspended, change.cause));
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
                tokio::spawn(Arc::clone(self).check_subscriptions(suspended, change.cause));
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
    async fn check_account(self: Arc<Self>, user: Arc<str>, suspended: Vec<Subscription>, cause: Cause) {
        for id in self.connections.accounts_of(&user) {
            let mut backoff = Backoff::new(RETRY);
            let account = loop {
                match self.auth.account(&id, &user).await {
                    Ok(account) => break account,
                    Err(error) => pause_before_retry(&mut backoff, &error).await,
                }
            };
            self.enforce_account(&user, &id, account.as_ref(), cause);
        }
        self.check_subscriptions(suspended, cause).await;
    }

    /// Ends the user's connections with this account if the account's current state requires it.
    fn enforce_account(&self, user: &str, id: &AccountId, account: Option<&Arc<Account>>, cause: Cause) {
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

    pub fn disconnect(&self, connection: &Connection, reason: Disconnect) {
        connection.outbox.abort(reason);
        self.metrics.revocations.with_label_values(&[&reason.reason.replace(' ', "_")]).inc();
        let (user, client) = (&*connection.user, &*connection.client);
        self.note(user, None, Code::Number(reason.code), reason.reason);
        limited!(info, "disconnected clients", user, client, reason = reason.reason, "disconnected");
    }

    /// Asks PocketBase about the subscriptions until every subscription has an answer.
    async fn check_subscriptions(self: Arc<Self>, suspended: Vec<Subscription>, cause: Cause) {
        let checking = futures_util::stream::iter(checks(suspended)).for_each_concurrent(
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
                            Err(error) => pause_before_retry(&mut backoff, &error).await,
                        }
                    }
                }
            },
        );
        checking.await;
    }

    /// Ends a subscription, unless the refusal is no longer valid. Returns false if PocketBase has to be asked
    /// again.
    pub fn revoke(&self, channel: &str, connection: &Connection, cause: Cause, still: impl FnOnce() -> bool) -> bool {
        let outcome = self.hub.revoke(channel, connection, cause, still);
        if let Revoked::Ended(cause) = outcome {
            self.metrics.revocations.with_label_values(&[cause.name()]).inc();
            let (user, cause) = (&*connection.user, cause.name());
            self.note(user, Some(channel), Code::Word(cause), "a subscription was revoked");
            limited!(info, "revoked subscriptions", user, channel, cause, "a subscription was revoked");
        }
        outcome != Revoked::Overtaken
    }

    /// Notes the end of a user's access for the admin page.
    fn note(&self, user: &str, channel: Option<&str>, code: Code, cause: &str) {
        self.refusals.note(&Refusal { action: "access", channel, user, address: None, code, cause });
    }
}

/// Groups subscriptions by access check: connections of a user share the answer for a channel, and so do guests.
fn checks(subscriptions: Vec<Subscription>) -> HashMap<CheckKey, Vec<Arc<Connection>>> {
    let mut checks: HashMap<CheckKey, Vec<Arc<Connection>>> = HashMap::new();
    for (channel, connection) in subscriptions {
        checks.entry((channel, Arc::clone(&connection.user))).or_default().push(connection);
    }
    checks
}

/// Asker of a check: the user, so that the check counts among the user's own questions. Guests have a turn for each
/// connection.
fn asker(connections: &[Arc<Connection>]) -> Asker {
    match connections.first() {
        Some(connection) if !connection.is_guest() => Asker::of(&*connection.user),
        first => Asker::of(first.map_or(0, |connection| connection.id)),
    }
}

async fn pause_before_retry(backoff: &mut Backoff, why: &impl std::fmt::Display) {
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

#[cfg(test)]
mod tests;
