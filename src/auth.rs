//! Authentication: from a PocketBase auth token, or a missing token, to an [`Identity`], mostly without a call to
//! PocketBase.
//!
//! A token is a JWT (HS256). The signing key belongs to the user and changes with the password. Keys come from
//! PocketBase as part of the user's [`Account`], stay in memory for `key_ttl` or until [`Changes`] reports a change of
//! the user, and are never logged. Accounts are cached by collection and record, so a token is never checked against
//! a record of another collection with the same id.

mod account;
mod token;

use crate::access::change_log::{Changes, Moment};
use crate::config::Config;
use crate::pocketbase::batch::Batcher;
use crate::pocketbase::{AccountId, PocketBase, PocketBaseError, UserKey};
use crate::tasks::{self, Task};
pub use account::Account;
use dashmap::DashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use token::Unproven;
pub use token::check_with;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// Time between the request for a fresh token and the old token's end; a quarter of the lifetime for short-lived
/// tokens.
const REFRESH_EARLY: Duration = Duration::from_secs(30);
/// Shortest time between two fetches of a key after a failed signature check: the key may have changed meanwhile.
const REFETCH_AFTER: Duration = Duration::from_secs(2);

/// The user of a valid token, or a guest.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// The user's key; empty for guests.
    pub user: Arc<str>,
    /// The end of the token; `None` for guests.
    pub expires_at: Option<SystemTime>,
}

impl Identity {
    /// Seconds until the client should bring a fresh token, at least 1. Before the end of the token, since PocketBase
    /// does not renew expired tokens.
    pub fn ttl(&self, now: SystemTime) -> Option<u32> {
        let left = self.expires_at?.duration_since(now).unwrap_or_default().as_secs();
        let early = (left / 4).min(REFRESH_EARLY.as_secs());
        Some(u32::try_from(left - early).unwrap_or(u32::MAX).max(1))
    }
}

#[derive(Debug, PartialEq, thiserror::Error)]
pub enum AuthError {
    /// Forged, foreign, malformed, or of an unknown user; with the reason, for the logs.
    #[error("invalid token: {0}")]
    Invalid(&'static str),
    #[error("token expired")]
    Expired,
    /// The hooks' config allows no guests.
    #[error("guests are not allowed")]
    NoGuests,
    #[error(transparent)]
    Unavailable(#[from] PocketBaseError),
}

pub struct Auth {
    known: DashMap<AccountId, KnownAccount, foldhash::fast::RandomState>,
    questions: Batcher<AccountId, Option<Arc<Account>>>,
    key_ttl: Duration,
    changes: Arc<Changes>,
}

#[derive(Clone)]
struct KnownAccount {
    account: Arc<Account>,
    asked: Moment,
}

impl KnownAccount {
    fn verified(&self, identity: Identity) -> Verified {
        Verified { identity, account: Arc::clone(&self.account), asked: self.asked }
    }
}

/// An identity with the account, and the moment of the question to PocketBase, for [`Auth::holds`].
pub struct Verified {
    pub identity: Identity,
    pub account: Arc<Account>,
    asked: Moment,
}

impl Auth {
    pub fn new(config: &Config, pocketbase: PocketBase, changes: Arc<Changes>) -> Arc<Self> {
        let keys = move |ids: Arc<[AccountId]>| {
            let pocketbase = pocketbase.clone();
            async move { pocketbase.keys(&ids).await }
        };
        Self::asking(keys, config.key_ttl, changes)
    }

    /// `keys` answers a batch of accounts, in its order, with `None` for accounts that do not exist.
    pub(crate) fn asking<F, Fut>(keys: F, key_ttl: Duration, changes: Arc<Changes>) -> Arc<Self>
    where
        F: Fn(Arc<[AccountId]>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<Option<UserKey>>, PocketBaseError>> + Send + 'static,
    {
        let questions = Batcher::start(move |ids: Arc<[AccountId]>| {
            let (at, answered) = (Instant::now(), keys(Arc::clone(&ids)));
            async move {
                let users = answered.await?;
                Ok(ids.iter().zip(users).map(|(id, user)| accepted(id, user?, at)).collect())
            }
        });
        Arc::new(Self { known: DashMap::default(), questions, key_ttl, changes })
    }

    /// Starts the sweep of expired accounts.
    pub fn start_sweep(self: &Arc<Self>) -> AbortOnDropHandle<()> {
        let auth = Arc::clone(self);
        tasks::spawn(Task::AccountSweep, async move {
            loop {
                auth.known.retain(|_, known| known.account.at.elapsed() < auth.key_ttl);
                tokio::time::sleep(auth.key_ttl).await;
            }
        })
    }

    pub async fn verify(&self, token: &str, now: SystemTime) -> Result<Verified, AuthError> {
        let unproven = Unproven::read(token)?;
        if let Some(known) = self.remembered(&unproven.account) {
            match unproven.check(&known.account, now) {
                Err(AuthError::Invalid(_)) if known.account.at.elapsed() > REFETCH_AFTER => {}
                checked => return checked.map(|identity| known.verified(identity)),
            }
        }
        let known = self.fetch(&unproven.account).await?.ok_or(AuthError::Invalid("unknown user"))?;
        unproven.check(&known.account, now).map(|identity| known.verified(identity))
    }

    /// The identity of a client without a token.
    pub async fn guest(&self) -> Result<Verified, AuthError> {
        let id = AccountId::guest();
        let known = match self.remembered(&id) {
            Some(known) => known,
            None => self.fetch(&id).await?.ok_or(AuthError::NoGuests)?,
        };
        Ok(known.verified(Identity { user: Arc::clone(&known.account.user), expires_at: None }))
    }

    /// PocketBase's answer about an account, newer than every change so far of the user with the key `user`; `None` for
    /// a deleted account.
    pub async fn account(&self, id: &AccountId, user: &str) -> Result<Option<Arc<Account>>, PocketBaseError> {
        loop {
            let asked = self.changes.now();
            let known = self.fetch(id).await?;
            if self.changes.none_since(asked, user, None) {
                return Ok(known.map(|known| known.account));
            }
        }
    }

    async fn fetch(&self, id: &AccountId) -> Result<Option<KnownAccount>, PocketBaseError> {
        let asked = self.changes.now();
        let account = self.questions.ask(id.clone()).await?;
        let known = account.map(|account| KnownAccount { account, asked });
        match &known {
            Some(known) => self.known.insert(id.clone(), known.clone()),
            None => self.known.remove(id).map(|(_, known)| known),
        };
        Ok(known)
    }

    fn remembered(&self, id: &AccountId) -> Option<KnownAccount> {
        let known = self.known.get(id)?.clone();
        let fresh = known.account.at.elapsed() < self.key_ttl;
        (fresh && self.changes.none_since(known.asked, &known.account.user, None)).then_some(known)
    }

    /// Whether the user has not changed since the question to PocketBase.
    pub fn holds(&self, Verified { identity, asked, .. }: &Verified) -> bool {
        self.changes.none_since(*asked, &identity.user, None)
    }
}

/// The account of an answer. The empty key belongs to guests alone: a user with the empty key would act as a guest.
fn accepted(id: &AccountId, user: UserKey, at: Instant) -> Option<Arc<Account>> {
    if user.user.is_empty() != id.is_guest() {
        tracing::error!("PocketBase's hooks sent an empty key for a user, or a key for guests; the account is refused");
        return None;
    }
    Some(Arc::new(Account::new(id.clone(), user, at)))
}
