//! The account of a user, or of all guests: the answer of PocketBase's hooks, as of one moment.

use crate::pocketbase::{AccountId, UserKey};
use secrecy::SecretString;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

pub struct Account {
    pub id: AccountId,
    /// The user's key: the user's name everywhere in the gateway; empty for guests.
    pub user: Arc<str>,
    /// The signing key of the user's tokens; empty for guests.
    pub(super) key: SecretString,
    banned_until: SystemTime,
    muted_until: SystemTime,
    /// The keys of blocked users, sorted: signals from them are left out.
    blocked: Box<[String]>,
    /// When PocketBase was asked.
    pub(super) at: Instant,
}

impl Account {
    pub(super) fn new(id: AccountId, mut user: UserKey, at: Instant) -> Self {
        user.blocked.sort_unstable();
        let time = |millis| UNIX_EPOCH.checked_add(Duration::from_millis(millis)).unwrap_or(UNIX_EPOCH);
        Self {
            id,
            user: user.user,
            key: user.key,
            banned_until: time(user.banned_until),
            muted_until: time(user.muted_until),
            blocked: user.blocked.into(),
            at,
        }
    }

    pub fn is_guest(&self) -> bool {
        self.id.is_guest()
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

    /// Whether both accounts have the same signing key.
    pub fn has_key_of(&self, other: &Self) -> bool {
        use secrecy::ExposeSecret;
        self.key.expose_secret() == other.key.expose_secret()
    }
}

#[cfg(test)]
impl Account {
    /// The account of a user, with blocked users.
    pub fn blocking(blocked: &[&str]) -> Arc<Self> {
        let blocked = blocked.iter().map(|&user| user.to_owned()).collect();
        let user = UserKey { blocked, ..UserKey::signing("u", "a key for tests") };
        Arc::new(Self::new(AccountId::new("users", "u").unwrap(), user, Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bans_and_mutes_end_by_themselves() {
        let user = UserKey { banned_until: 2_000, muted_until: 3_000, ..UserKey::signing("u", "a key") };
        let user = UserKey { blocked: vec!["staff/eve".into(), "eve".into()], ..user };
        let account = Account::new(AccountId::new("users", "u").unwrap(), user, Instant::now());
        let at = |millis| UNIX_EPOCH + Duration::from_millis(millis);
        assert!(account.is_banned(at(1_999)) && !account.is_banned(at(2_000)));
        assert!(account.is_muted(at(2_999)) && !account.is_muted(at(3_000)));
        assert!(account.blocks("eve") && account.blocks("staff/eve") && !account.blocks("bob"));
    }
}
