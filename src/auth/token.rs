//! PocketBase's auth tokens: the claims, and the check against the account.

use super::{Account, AuthError, Identity};
use crate::pocketbase::{AccountId, UserKey};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// Maximum length of a token, in bytes; PocketBase's have about 300.
const TOKEN_MAX: usize = 4096;
/// Maximum length of a record's or collection's id, in bytes. PocketBase's have 15 characters unless configured
/// otherwise; with a longer id, a user could have no channel (see `NAME_MAX`).
const ID_MAX: usize = 1000;
/// Minimum length of a signing key. PocketBase's have 80 to 100 characters; a short key means a wrong answer, and an
/// empty key would make every forged token valid.
const KEY_MIN: usize = 32;

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

static VALIDATION: LazyLock<Validation> = LazyLock::new(|| {
    let mut validation = Validation::new(Algorithm::HS256);
    // [`Unproven::check`] compares with the caller's clock, without leeway.
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation
});

/// A token before the check of the signature. The claims serve to find the account, and for nothing else.
pub struct Unproven<'a> {
    token: &'a str,
    claims: Claims,
    /// The account in the claims.
    pub account: AccountId,
}

impl<'a> Unproven<'a> {
    pub fn read(token: &'a str) -> Result<Self, AuthError> {
        let malformed = AuthError::Invalid("malformed");
        if token.len() > TOKEN_MAX {
            return Err(AuthError::Invalid("too long"));
        }
        let claims: Claims =
            jsonwebtoken::dangerous::insecure_decode_claims(token).map_err(|_| AuthError::Invalid("malformed"))?;
        if claims.id.len() > ID_MAX || claims.collection.len() > ID_MAX {
            return Err(malformed);
        }
        let account = AccountId::new(&claims.collection, &claims.id).ok_or(malformed)?;
        Ok(Self { token, claims, account })
    }

    /// Checks account, signature, kind and time.
    pub fn check(&self, account: &Account, now: SystemTime) -> Result<Identity, AuthError> {
        let key = account.key.expose_secret().as_bytes();
        if key.len() < KEY_MIN {
            return Err(AuthError::Invalid("unusable key"));
        }
        // The claims have been read already.
        jsonwebtoken::decode::<IgnoredAny>(self.token, &DecodingKey::from_secret(key), &VALIDATION).map_err(
            |error| {
                AuthError::Invalid(match error.kind() {
                    ErrorKind::InvalidSignature => "wrong signature",
                    ErrorKind::InvalidAlgorithm => "wrong algorithm",
                    _ => "malformed",
                })
            },
        )?;
        if self.account != account.id {
            return Err(AuthError::Invalid("of another account"));
        }
        let Claims { kind, exp, .. } = &self.claims;
        if kind != "auth" {
            return Err(AuthError::Invalid("not an auth token"));
        }
        let expires_at = UNIX_EPOCH.checked_add(Duration::from_secs(*exp)).ok_or(AuthError::Invalid("malformed"))?;
        if expires_at <= now {
            return Err(AuthError::Expired);
        }
        Ok(Identity { user: Arc::clone(&account.user), expires_at: Some(expires_at) })
    }
}

/// As [`super::Auth::verify`], with the key at hand and the record's id as the user's key; for the fuzz targets in
/// `tests/fuzz`.
#[doc(hidden)]
pub fn check_with(key: &str, collection: &str, token: &str, now: SystemTime) -> Result<Identity, AuthError> {
    let unproven = Unproven::read(token)?;
    let id = AccountId::new(collection, &unproven.claims.id).ok_or(AuthError::Invalid("malformed"))?;
    let user = UserKey::signing(&unproven.claims.id, key);
    unproven.check(&Account::new(id, user, Instant::now()), now)
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
