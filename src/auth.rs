//! Who is it: a PocketBase auth token becomes an [`Identity`], without asking PocketBase for each.
//!
//! A token is HS256, signed with a key that belongs to its user and changes when the password does. Keys come
//! from PocketBase, stay in memory for `key_ttl`, and are never logged.

use crate::config::Config;
use crate::pocketbase::batch::Batcher;
use crate::pocketbase::{PocketBase, PocketBaseError};
use dashmap::DashMap;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use std::sync::{Arc, Weak};
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

pub struct Auth {
    known: DashMap<String, KnownKey, foldhash::fast::RandomState>,
    questions: Batcher<String, Option<FetchedKey>>,
    key_ttl: Duration,
}

#[derive(Clone)]
struct FetchedKey {
    key: SecretString,
    collection: Arc<str>,
}

#[derive(Clone)]
struct KnownKey {
    fetched: FetchedKey,
    at: Instant,
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
    pub fn new(config: &Config, pocketbase: PocketBase) -> Arc<Self> {
        let questions = Batcher::start(move |users: Arc<[String]>| {
            let pocketbase = pocketbase.clone();
            async move {
                let answer = pocketbase.keys(&users).await?;
                let collection: Arc<str> = answer.collection.into();
                let fetched = |key| FetchedKey { key, collection: Arc::clone(&collection) };
                Ok(answer.keys.into_iter().map(|key| key.map(fetched)).collect())
            }
        });
        Arc::new(Self { known: DashMap::default(), questions, key_ttl: config.key_ttl })
    }

    /// Forgets keys that are past their time, for as long as `auth` lives.
    pub async fn sweep(auth: Weak<Self>) {
        loop {
            let Some(auth) = auth.upgrade() else { return };
            auth.known.retain(|_, known| known.at.elapsed() < auth.key_ttl);
            let pause = auth.key_ttl;
            drop(auth);
            tokio::time::sleep(pause).await;
        }
    }

    pub async fn verify(&self, token: &str, now: SystemTime) -> Result<Identity, AuthError> {
        if token.len() > TOKEN_MAX {
            return Err(AuthError::Invalid("too long"));
        }
        // Only to find the key; nothing of it is believed before the signature is.
        let claims: Claims =
            jsonwebtoken::dangerous::insecure_decode_claims(token).map_err(|_| AuthError::Invalid("malformed"))?;
        if claims.id.is_empty() || claims.id.len() > USER_ID_MAX {
            return Err(AuthError::Invalid("malformed"));
        }
        let remembered =
            self.known.get(&claims.id).map(|known| known.clone()).filter(|known| known.at.elapsed() < self.key_ttl);
        if let Some(known) = remembered {
            match check(token, &known.fetched, now) {
                Err(AuthError::Invalid(_)) if known.at.elapsed() > REFETCH_AFTER => {}
                checked => return checked,
            }
        }
        let fetched = self.fetch(&claims.id).await?;
        check(token, &fetched, now)
    }

    async fn fetch(&self, user: &str) -> Result<FetchedKey, AuthError> {
        let Some(fetched) = self.questions.ask(user.to_owned()).await? else {
            self.known.remove(user);
            return Err(AuthError::Invalid("unknown user"));
        };
        self.known.insert(user.to_owned(), KnownKey { fetched: fetched.clone(), at: Instant::now() });
        Ok(fetched)
    }
}

/// Checks signature, kind and time of a token against its user's key.
fn check(token: &str, fetched: &FetchedKey, now: SystemTime) -> Result<Identity, AuthError> {
    let key = fetched.key.expose_secret().as_bytes();
    if key.len() < KEY_MIN {
        return Err(AuthError::Invalid("unusable key"));
    }
    let mut validation = Validation::new(Algorithm::HS256);
    // Checked below against the clock that was passed in, and without leeway.
    validation.validate_exp = false;
    validation.validate_aud = false;
    let claims = match jsonwebtoken::decode::<Claims>(token, &DecodingKey::from_secret(key), &validation) {
        Ok(token) => token.claims,
        Err(error) => {
            return Err(AuthError::Invalid(match error.kind() {
                ErrorKind::InvalidSignature => "wrong signature",
                ErrorKind::InvalidAlgorithm => "wrong algorithm",
                _ => "malformed",
            }));
        }
    };
    if claims.kind != "auth" {
        return Err(AuthError::Invalid("not an auth token"));
    }
    if claims.collection != *fetched.collection {
        return Err(AuthError::Invalid("of another collection"));
    }
    let expires_at = UNIX_EPOCH.checked_add(Duration::from_secs(claims.exp)).ok_or(AuthError::Invalid("malformed"))?;
    if expires_at <= now {
        return Err(AuthError::Expired);
    }
    Ok(Identity { user: claims.id, expires_at })
}

/// As [`Auth::verify`], with the key at hand; for the fuzz targets in `tests/fuzz`.
#[doc(hidden)]
pub fn check_with(key: &str, collection: &str, token: &str, now: SystemTime) -> Result<Identity, AuthError> {
    check(token, &FetchedKey { key: key.into(), collection: collection.into() }, now)
}

#[cfg(test)]
#[path = "auth_tests.rs"]
mod tests;
