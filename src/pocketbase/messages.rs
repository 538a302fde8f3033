//! Questions and answers of PocketBase's routes for the gateway.

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::sync::Arc;

/// Whether a user may subscribe to a channel.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Allowed,
    Denied,
    /// No such kind of channel is configured.
    Unknown,
}

/// Identifies an account in PocketBase: `COLLECTIONID/ID`, both from a token's claims; empty for guests.
#[derive(Clone, Debug, Default, Hash, PartialEq, Eq, Serialize)]
pub struct AccountId(Arc<str>);

impl AccountId {
    /// `None` for an empty part, or a slash in the collection's id: then two accounts could share an `AccountId`.
    pub fn new(collection: &str, id: &str) -> Option<Self> {
        let clear = !collection.is_empty() && !collection.contains('/') && !id.is_empty();
        clear.then(|| Self(format!("{collection}/{id}").into()))
    }

    pub fn guest() -> Self {
        Self::default()
    }

    pub fn is_guest(&self) -> bool {
        self.0.is_empty()
    }
}

/// A user, by key, and the channel that the user wants to subscribe to. The empty key stands for guests.
#[derive(Clone, Debug, Hash, PartialEq, Eq, Serialize)]
pub struct Check {
    pub user: Arc<str>,
    pub channel: Arc<str>,
}

/// A user, or "~" and the name of a class of users, and a record that the user or class may or may not view.
#[derive(Clone, Debug, Hash, PartialEq, Eq, Serialize)]
pub struct View {
    pub user: Arc<str>,
    pub record: Arc<str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Views {
    /// Answers to the first checks, in order, at least one: whether the record may be viewed; `None` if there is no
    /// such record.
    pub results: Vec<Option<bool>>,
    /// The current records that at least one of the askers may view, by id.
    #[serde(default)]
    pub records: HashMap<Arc<str>, Box<RawValue>>,
    /// Only if readers of one record may get different fields: the record as its reader gets it, by index of the
    /// check.
    #[serde(default)]
    pub own: HashMap<usize, Box<RawValue>>,
    /// Whether readers of one record may get different fields.
    #[serde(default)]
    pub per_reader: bool,
    /// Ids of records that are too large for an event, and therefore absent.
    #[serde(default)]
    pub truncated: Vec<Arc<str>>,
}

/// A page of the records of an updates channel that a user or a class may view.
#[derive(Deserialize)]
pub struct Visible {
    /// Namespace of the records' channels.
    pub namespace: String,
    pub collection: String,
    /// `None` if there is no such user or class.
    pub page: Option<Page>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Page {
    /// The user's class; `None` if users of this channel share no set of records.
    pub class: Option<Arc<str>>,
    /// With a class: the records that name the user, split by whether the user may view them (`yes`, `no`). Otherwise:
    /// all records that the user or the class may view (`yes`), and `no` is empty.
    pub yes: Vec<Arc<str>>,
    #[serde(default)]
    pub no: Vec<Arc<str>>,
    /// Id after which the next page begins; `None` for the last page.
    pub next: Option<Arc<str>>,
}

/// The accounts in the order of the question; `None` for unknown records, for collections outside the hooks' config,
/// and for guests if the config allows none.
#[derive(Deserialize)]
pub(super) struct KeysAnswer {
    pub keys: Vec<Option<UserKey>>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UserKey {
    /// The user's key, which names the user everywhere in the gateway: the record's id for the first auth collection,
    /// `COLLECTION/ID` for further auth collections, empty for guests.
    pub user: Arc<str>,
    /// The signing key of the user's tokens; absent for guests.
    #[serde(default)]
    pub key: SecretString,
    /// Unix milliseconds; 0: not banned.
    #[serde(default)]
    pub banned_until: u64,
    #[serde(default)]
    pub muted_until: u64,
    /// The keys of blocked users.
    #[serde(default)]
    pub blocked: Vec<String>,
}

impl UserKey {
    /// A user with only a signing key.
    pub fn signing(user: &str, key: &str) -> Self {
        Self { user: user.into(), key: key.into(), banned_until: 0, muted_until: 0, blocked: Vec::new() }
    }
}
