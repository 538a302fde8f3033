//! Table of PocketBase's answers, for unit tests of the parts that ask PocketBase in batches. The tests of the whole
//! gateway ask a real PocketBase.

use super::batch::Batcher;
use super::{AccountId, Check, PocketBaseError, UserKey, Verdict};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

type Keys = std::future::Ready<Result<Vec<Option<UserKey>>, PocketBaseError>>;
type Interruption = Box<dyn FnOnce() + Send>;

#[derive(Default)]
pub struct Answers {
    /// By user and channel; users without an entry are denied.
    verdicts: Mutex<HashMap<(String, String), Verdict>>,
    users: Mutex<HashMap<AccountId, UserKey>>,
    is_down: AtomicBool,
    calls: AtomicUsize,
    interruption: Mutex<Option<Interruption>>,
}

impl Answers {
    pub fn set(&self, user: &str, channel: &str, verdict: Verdict) {
        self.verdicts.lock().insert((user.to_owned(), channel.to_owned()), verdict);
    }

    /// Adds, changes or removes an account.
    pub fn set_user(&self, id: AccountId, user: Option<UserKey>) {
        match user {
            Some(user) => drop(self.users.lock().insert(id, user)),
            None => drop(self.users.lock().remove(&id)),
        }
    }

    /// Without answers, as from a PocketBase that is down.
    pub fn set_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::Relaxed);
    }

    /// Number of calls about access and accounts so far.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// Runs `event` once, between the next question and the arrival of its answer.
    pub fn interrupt(&self, event: impl FnOnce() + Send + 'static) {
        *self.interruption.lock() = Some(Box::new(event));
    }

    pub fn checks(self: &Arc<Self>) -> Batcher<Check, Verdict> {
        let me = Arc::clone(self);
        Batcher::start(move |checks: Arc<[Check]>| {
            let verdict = |Check { user, channel }: &Check| {
                let found = me.verdicts.lock().get(&(user.to_string(), channel.to_string())).copied();
                found.unwrap_or(Verdict::Denied)
            };
            let answer = checks.iter().map(verdict).collect();
            std::future::ready(me.answer(answer))
        })
    }

    pub fn keys(self: &Arc<Self>) -> impl Fn(Arc<[AccountId]>) -> Keys + use<> {
        let me = Arc::clone(self);
        move |ids| {
            let answer = ids.iter().map(|id| me.users.lock().get(id).cloned()).collect();
            std::future::ready(me.answer(answer))
        }
    }

    fn answer<T>(&self, answer: T) -> Result<T, PocketBaseError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if let Some(event) = self.interruption.lock().take() {
            event();
        }
        if self.is_down.load(Ordering::Relaxed) { Err(PocketBaseError::Timeout) } else { Ok(answer) }
    }
}
