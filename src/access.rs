//! May this user use this channel: PocketBase's own rules decide, through the hooks' `authorize` route.
//!
//! Answers are remembered for a while. What [`changes`] says of a user or a channel makes those before it void, and
//! also those that are still under way: whoever acts on an answer has to see that it [`still holds`](Access::holds)
//! in the very moment in which it takes effect.

pub mod changes;

use crate::config::Config;
use crate::event::{CHANNEL_NAME_MAX, INTERNAL};
use crate::metrics::Metrics;
use crate::pocketbase::batch::Batcher;
use crate::pocketbase::{Check, PocketBase, PocketBaseError, Verdict};
use crate::protocol::codes::{self, ErrorCode};
use changes::{Changes, Moment};
use quick_cache::UnitWeighter;
use quick_cache::sync::{Cache, DefaultLifecycle};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// A refusal is remembered for this long at most: time alone, such as a ban's end, may let somebody in.
const DENIED_TTL: Duration = Duration::from_secs(1);

pub struct Access {
    questions: Batcher<Check, Verdict>,
    known: Cache<Check, Known, UnitWeighter, foldhash::fast::RandomState>,
    changes: Arc<Changes>,
    ttl: Duration,
    metrics: Metrics,
}

#[derive(Clone, Copy)]
struct Known {
    verdict: Verdict,
    asked: Moment,
    at: Instant,
}

impl Known {
    fn permit(self) -> Result<Moment, ErrorCode> {
        match self.verdict {
            Verdict::Allowed => Ok(self.asked),
            Verdict::Denied => Err(codes::PERMISSION_DENIED),
            Verdict::Unknown => Err(codes::UNKNOWN_CHANNEL),
        }
    }
}

impl Access {
    pub fn new(config: &Config, pocketbase: PocketBase, changes: Arc<Changes>, metrics: Metrics) -> Self {
        let questions = Batcher::start(move |checks: Arc<[Check]>| {
            let pocketbase = pocketbase.clone();
            async move { pocketbase.authorize(&checks).await }
        });
        let (size, hasher) = (config.access_cache_size, foldhash::fast::RandomState::default());
        let known = Cache::with(size, size as u64, UnitWeighter, hasher, DefaultLifecycle::default());
        Self { questions, known, changes, ttl: config.access_ttl, metrics }
    }

    /// Forgets answers that are past their time, for as long as `access` lives.
    pub async fn sweep(access: Weak<Self>) {
        loop {
            let Some(access) = access.upgrade() else { return };
            access.known.retain(|_, known| known.at.elapsed() < access.ttl);
            let pause = access.ttl;
            drop(access);
            tokio::time::sleep(pause).await;
        }
    }

    /// Whether the user may subscribe, and the moment for [`Access::holds`]; the error is what the client is told.
    pub async fn check(&self, user: &Arc<str>, channel: &Arc<str>) -> Result<Moment, ErrorCode> {
        if !is_well_formed(channel) {
            return Err(codes::UNKNOWN_CHANNEL);
        }
        let check = Check { user: Arc::clone(user), channel: Arc::clone(channel) };
        if let Some(known) = self.known.get(&check).filter(|known| self.is_fresh(known, &check)) {
            self.count("remembered");
            return known.permit();
        }
        self.ask(check).await.map_err(|_| codes::INTERNAL)?.permit()
    }

    /// What PocketBase says now, whatever is remembered: whether the user may, as of a moment for [`Access::holds`].
    pub async fn ask_anew(&self, user: &Arc<str>, channel: &Arc<str>) -> Result<(bool, Moment), PocketBaseError> {
        let known = self.ask(Check { user: Arc::clone(user), channel: Arc::clone(channel) }).await?;
        Ok((known.verdict == Verdict::Allowed, known.asked))
    }

    /// Whether nothing has changed since then that the answer may depend on.
    pub fn holds(&self, moment: Moment, user: &str, channel: &str) -> bool {
        self.changes.none_since(moment, user, Some(channel))
    }

    async fn ask(&self, check: Check) -> Result<Known, PocketBaseError> {
        let asked = self.changes.now();
        let answer = self.questions.ask(check.clone()).await;
        self.count(if answer.is_ok() { "asked" } else { "failed" });
        let verdict = answer.inspect_err(|error| tracing::warn!(%error, "asking PocketBase for access failed"))?;
        let known = Known { verdict, asked, at: Instant::now() };
        self.known.insert(check, known);
        Ok(known)
    }

    fn is_fresh(&self, known: &Known, check: &Check) -> bool {
        let ttl = if known.verdict == Verdict::Allowed { self.ttl } else { DENIED_TTL.min(self.ttl) };
        known.at.elapsed() < ttl && self.holds(known.asked, &check.user, &check.channel)
    }

    fn count(&self, outcome: &str) {
        self.metrics.access_checks.with_label_values(&[outcome]).inc();
    }
}

/// Channel names are visible ASCII: what PocketBase's record ids consist of, and what looks the same everywhere.
pub fn is_well_formed(channel: &str) -> bool {
    !channel.is_empty()
        && channel.len() <= CHANNEL_NAME_MAX
        && !channel.starts_with(INTERNAL)
        && channel.bytes().all(|byte| byte.is_ascii_graphic())
}
