//! Who is it: a PocketBase auth token becomes an [`Identity`], without asking PocketBase for each.
//!
//! A token is HS256, signed with a key that belongs to its user and changes when the password does. Keys come
//! from PocketBase as part of the user's [`Account`], stay in memory for `key_ttl` or until [`Changes`] says that
//! the user has changed, and are never logged.

use crate::access::changes::{Changes, Moment};
use crate::config::Config;
use crate::pocketbase::batch::Batcher;
use crate::pocketbase::{PocketBase, PocketBaseError, UserKey};
use dashmap::DashMap;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::sync::{Arc, LazyLock, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// The longest token that is looked at; PocketBase's have about 300 characters.
const TOKEN_MAX: usize = 4096;
/// The longest user id; PocketBase's have 15 characters unless configured otherwise.
const USER_ID_MAX: usize = 64;
/// PocketBase's keys have 80 to 100 characters. A short one would mean that something is wrong with the answer,
/// and an empty one would let everybody in.
const KEY_MIN: usize = 32;
/// How long before its token's end a client is asked to refresh; for short-lived tokens a quarter of their life.
const REFRESH_EARLY: Duration = Duration::from_secs(30);
/// A key that does not fit a token may have been changed since; it is not fetched again more often than this.
const REFETCH_AFTER: Duration = Duration::from_secs(2);

/// A user, as a valid token proves it.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    pub user: String,
    pub expires_at: SystemTime,
}

impl Identity {
    /// After how many seconds the client should bring a fresh token, at least 1: somewhat before this one expires,
    /// since PocketBase renews no token that has.
    pub fn ttl(&self, now: SystemTime) -> u32 {
        let left = self.expires_at.duration_since(now).unwrap_or_default().as_secs();
        let early = (left / 4).min(REFRESH_EARLY.as_secs());
        u32::try_from(left - early).unwrap_or(u32::MAX).max(1)
    }
}

#[cfg(test)]
impl Account {
    /// One that blocks these.
    pub fn blocking(blocked: &[&str]) -> Arc<Self> {
        let blocked = blocked.iter().map(|&user| user.to_owned()).collect();
        let user = UserKey { key: "a key for tests".into(), banned_until: 0, muted_until: 0, blocked };
        Arc::new(Self::new(user, &"users".into(), Instant::now()))
    }
}

#[derive(Debug, PartialEq, thiserror::Error)]
pub enum AuthError {
    /// Forged, foreign, malformed, or of a user that does not exist. The word says which, for the logs.
    #[error("invalid token: {0}")]
    Invalid(&'static str),
    #[error("token expired")]
    Expired,
    #[error(transparent)]
    Unavailable(#[from] PocketBaseError),
}

/// What PocketBase knows of a user and the gateway has to heed.
pub struct Account {
    /// What the user's tokens are signed with, and those of the whole collection beside it.
    key: SecretString,
    /// The id of the auth collection.
    collection: Arc<str>,
    banned_until: SystemTime,
    muted_until: SystemTime,
    /// Whose signals the user does not want.
    /// Sorted.
    blocked: Box<[String]>,
    /// When PocketBase was asked.
    at: Instant,
}

impl Account {
    fn new(mut user: UserKey, collection: &Arc<str>, at: Instant) -> Self {
        user.blocked.sort_unstable();
        let time = |millis| UNIX_EPOCH.checked_add(Duration::from_millis(millis)).unwrap_or(UNIX_EPOCH);
        Self {
            key: user.key,
            collection: Arc::clone(collection),
            banned_until: time(user.banned_until),
            muted_until: time(user.muted_until),
            blocked: user.blocked.into(),
            at,
        }
    }

    pub fn is_banned(&self, now: SystemTime) -> bool {
        now < self.banned_until
    }

    pub fn is_muted(&self, now: SystemTime) -> bool {
        now < self.muted_until
    }

    pub fn blocks(&self, user: &str) -> bool {
        self.blocked.binary_search_by(|blocked| blocked.as_str().cmp(user)).is_ok()
    }

    pub fn is_older_than(&self, other: &Self) -> bool {
        self.at < other.at
    }

    /// Whether what was signed for `self` is still valid for `other`.
    pub fn has_key_of(&self, other: &Self) -> bool {
        self.key.expose_secret() == other.key.expose_secret()
    }
}

impl Known {
    fn verified(&self, identity: Identity) -> Verified {
        Verified { identity, account: Arc::clone(&self.account), asked: self.asked }
    }
}

pub struct Auth {
    known: DashMap<String, Known, foldhash::fast::RandomState>,
    questions: Batcher<String, Option<Arc<Account>>>,
    key_ttl: Duration,
    changes: Arc<Changes>,
}

#[derive(Clone)]
struct Known {
    account: Arc<Account>,
    asked: Moment,
}

/// What a token proves, as of a moment that [`Auth::holds`] compares with what has changed since.
pub struct Verified {
    pub identity: Identity,
    pub account: Arc<Account>,
    asked: Moment,
}

#[derive(Deserialize)]
struct Claims {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(rename = "collectionId")]
    collection: String,
    /// Unix seconds.
    exp: u64,
}

impl Auth {
    pub fn new(config: &Config, pocketbase: PocketBase, changes: Arc<Changes>) -> Arc<Self> {
        let questions = Batcher::start(move |users: Arc<[String]>| {
            let pocketbase = pocketbase.clone();
            async move {
                let at = Instant::now();
                let answer = pocketbase.keys(&users).await?;
                let collection: Arc<str> = answer.collection.into();
                let account = |user| Arc::new(Account::new(user, &collection, at));
                Ok(answer.keys.into_iter().map(|user| user.map(account)).collect())
            }
        });
        Arc::new(Self { known: DashMap::default(), questions, key_ttl: config.key_ttl, changes })
    }

    /// Forgets keys that are past their time, for as long as `auth` lives.
    pub async fn sweep(auth: Weak<Self>) {
        loop {
            let Some(auth) = auth.upgrade() else { return };
            auth.known.retain(|_, known| known.account.at.elapsed() < auth.key_ttl);
            let pause = auth.key_ttl;
            drop(auth);
            tokio::time::sleep(pause).await;
        }
    }

    pub async fn verify(&self, token: &str, now: SystemTime) -> Result<Verified, AuthError> {
        let unproven = Unproven::read(token)?;
        let user = &unproven.claims.id;
        let remembered = self.known.get(user).map(|known| known.clone()).filter(|known| self.is_fresh(known, user));
        if let Some(known) = remembered {
            match unproven.check(&known.account, now) {
                Err(AuthError::Invalid(_)) if known.account.at.elapsed() > REFETCH_AFTER => {}
                checked => return checked.map(|identity| known.verified(identity)),
            }
        }
        let known = self.fetch(user).await?.ok_or(AuthError::Invalid("unknown user"))?;
        unproven.check(&known.account, now).map(|identity| known.verified(identity))
    }

    /// What PocketBase says of the user after everything that has changed so far; `None`: there is no such user.
    pub async fn account(&self, user: &str) -> Result<Option<Arc<Account>>, PocketBaseError> {
        loop {
            let asked = self.changes.now();
            let known = self.fetch(user).await?;
            if self.changes.none_since(asked, user, None) {
                return Ok(known.map(|known| known.account));
            }
        }
    }

    async fn fetch(&self, user: &str) -> Result<Option<Known>, PocketBaseError> {
        let asked = self.changes.now();
        let account = self.questions.ask(user.to_owned()).await?;
        let known = account.map(|account| Known { account, asked });
        match &known {
            Some(known) => self.known.insert(user.to_owned(), known.clone()),
            None => self.known.remove(user).map(|(_, known)| known),
        };
        Ok(known)
    }

    /// Whether the user has not changed since.
    pub fn holds(&self, Verified { identity, asked, .. }: &Verified) -> bool {
        self.changes.none_since(*asked, &identity.user, None)
    }

    fn is_fresh(&self, known: &Known, user: &str) -> bool {
        known.account.at.elapsed() < self.key_ttl && self.changes.none_since(known.asked, user, None)
    }
}

static VALIDATION: LazyLock<Validation> = LazyLock::new(|| {
    let mut validation = Validation::new(Algorithm::HS256);
    // Checked by [`Unproven::check`] against the clock that was passed in, and without leeway.
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation
});

/// A token that says whose it is, to find the key by; nothing of it is believed before its signature is.
struct Unproven<'a> {
    token: &'a str,
    claims: Claims,
}

impl<'a> Unproven<'a> {
    fn read(token: &'a str) -> Result<Self, AuthError> {
        if token.len() > TOKEN_MAX {
            return Err(AuthError::Invalid("too long"));
        }
        let claims: Claims =
            jsonwebtoken::dangerous::insecure_decode_claims(token).map_err(|_| AuthError::Invalid("malformed"))?;
        if claims.id.is_empty() || claims.id.len() > USER_ID_MAX {
            return Err(AuthError::Invalid("malformed"));
        }
        Ok(Self { token, claims })
    }

    /// Checks signature, kind and time against its user's account.
    fn check(&self, account: &Account, now: SystemTime) -> Result<Identity, AuthError> {
        let key = account.key.expose_secret().as_bytes();
        if key.len() < KEY_MIN {
            return Err(AuthError::Invalid("unusable key"));
        }
        // What is signed has been read already.
        jsonwebtoken::decode::<IgnoredAny>(self.token, &DecodingKey::from_secret(key), &VALIDATION).map_err(
            |error| {
                AuthError::Invalid(match error.kind() {
                    ErrorKind::InvalidSignature => "wrong signature",
                    ErrorKind::InvalidAlgorithm => "wrong algorithm",
                    _ => "malformed",
                })
            },
        )?;
        let Claims { id, kind, collection, exp } = &self.claims;
        if kind != "auth" {
            return Err(AuthError::Invalid("not an auth token"));
        }
        if *collection != *account.collection {
            return Err(AuthError::Invalid("of another collection"));
        }
        let expires_at = UNIX_EPOCH.checked_add(Duration::from_secs(*exp)).ok_or(AuthError::Invalid("malformed"))?;
        if expires_at <= now {
            return Err(AuthError::Expired);
        }
        Ok(Identity { user: id.clone(), expires_at })
    }
}

/// As [`Auth::verify`], with the key at hand; for the fuzz targets in `tests/fuzz`.
#[doc(hidden)]
pub fn check_with(key: &str, collection: &str, token: &str, now: SystemTime) -> Result<Identity, AuthError> {
    let user = UserKey { key: key.into(), banned_until: 0, muted_until: 0, blocked: Vec::new() };
    Unproven::read(token)?.check(&Account::new(user, &collection.into(), Instant::now()), now)
}

#[cfg(test)]
#[path = "auth_tests.rs"]
mod tests;
