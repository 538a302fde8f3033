//! Access checks: may a user subscribe to a channel? PocketBase's own rules decide, through the hooks' `authorize`
//! route.
//!
//! Answers are cached. Before a client is told of a cached refusal, PocketBase is asked again, since access may have
//! been granted meanwhile; a client that asks in a loop gets the cached refusal ([`ASK_AGAIN_RATE`]). A change of a
//! user or a channel ([`changes`]) invalidates earlier answers, and the answers of checks under way: callers call
//! [`Access::holds`] at the moment when an answer takes effect.

pub mod change_log;

use crate::channel::is_well_formed;
use crate::config::Config;
use crate::limits::bucket::{Bucket, Rate};
use crate::limits::questions::QuestionRates;
use crate::log_lines::limited;
use crate::metrics::Metrics;
use crate::pocketbase::batch::{Asker, Batcher};
use crate::pocketbase::{Check, PocketBaseError, Verdict};
use crate::protocol::codes::{self, ErrorCode};
use crate::tasks::{self, Task};
use change_log::{Changes, Moment};
use quick_cache::Weighter;
use quick_cache::sync::{Cache, DefaultLifecycle};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// Rate at which a cached refusal of a user in a channel may be asked again: per second, in the long run.
const ASK_AGAIN_RATE: usize = 1;
/// Maximum age of a cached refusal: time alone, such as the end of a ban, may grant access.
const DENIED_TTL: Duration = Duration::from_secs(1);
/// Checks that may be repeated at once after a quiet time. Past the burst, clients get the cached refusal.
const ASK_AGAIN_BURST: usize = 3;
/// Maximum age of a cached refusal for [`Purpose::List`]. No client is told of it: channels without access, or that do
/// not exist, are left out of the list.
const LEFT_OUT_TTL: Duration = Duration::from_secs(5);
/// Rounds of one check. A refusal is asked again if a change that the refusal may depend on arrives meanwhile.
const ATTEMPTS: usize = 2;

pub struct Access {
    questions: Batcher<Check, Verdict>,
    known: Cache<Check, KnownVerdict, ByName, foldhash::fast::RandomState>,
    changes: Arc<Changes>,
    ttl: Duration,
    again: Option<Rate>,
    rates: QuestionRates,
    metrics: Metrics,
}

/// Use of an answer: decides how old a cached refusal may be.
#[derive(Clone, Copy, PartialEq)]
pub enum Purpose {
    /// The client is told of a refusal, and SDKs treat refusals as final: a cached refusal is asked again.
    Subscribe,
    /// A channel without access is left out of a list: a refusal may be a few seconds old.
    List,
}

/// Weight of a cached answer: 1, plus 1 for every 256 bytes of the channel's name, which clients choose.
#[derive(Clone)]
struct ByName;

impl Weighter<Check, KnownVerdict> for ByName {
    fn weight(&self, check: &Check, _: &KnownVerdict) -> u64 {
        1 + (check.channel.len() / 256) as u64
    }
}

#[derive(Clone, Copy)]
struct KnownVerdict {
    verdict: Verdict,
    asked: Moment,
    at: Instant,
    /// Budget for asking again about a refusal.
    again: Bucket,
}

impl KnownVerdict {
    fn permit(self) -> Result<Moment, ErrorCode> {
        match self.verdict {
            Verdict::Allowed => Ok(self.asked),
            Verdict::Denied => Err(codes::PERMISSION_DENIED),
            Verdict::Unknown => Err(codes::UNKNOWN_CHANNEL),
        }
    }
}

impl Access {
    /// `questions` ask PocketBase.
    pub fn new(config: &Config, questions: Batcher<Check, Verdict>, changes: Arc<Changes>, metrics: Metrics) -> Self {
        let (size, hasher) = (config.access_cache_size, foldhash::fast::RandomState::default());
        let known = Cache::with(size, size as u64, ByName, hasher, DefaultLifecycle::default());
        let again = Rate::new(ASK_AGAIN_RATE, ASK_AGAIN_BURST);
        let rates = QuestionRates::new(config.max_questions_per_second.0, config.max_questions_burst);
        Self { questions, known, changes, ttl: config.access_ttl, again, rates, metrics }
    }

    /// Starts the sweep of expired answers and full rate buckets.
    pub fn start_sweep(self: &Arc<Self>) -> AbortOnDropHandle<()> {
        let access = Arc::clone(self);
        tasks::spawn(Task::AccessSweep, async move {
            loop {
                access.known.retain(|_, known| known.at.elapsed() < access.ttl);
                access.rates.forget(Instant::now());
                tokio::time::sleep(access.ttl).await;
            }
        })
    }

    /// Whether the user may subscribe. Returns the moment for [`Access::holds`], or the error code for the client.
    pub async fn check(&self, asker: Asker, user: &Arc<str>, channel: &Arc<str>) -> Result<Moment, ErrorCode> {
        let channels = std::slice::from_ref(channel);
        self.check_all(asker, user, channels, Purpose::Subscribe).await.pop().unwrap_or(Err(codes::INTERNAL))
    }

    /// As [`Access::check`], for several channels, in order: PocketBase is asked about all at once. Past the asker's
    /// rate of questions, channels without a cached answer fail with error 111.
    pub async fn check_all(
        &self,
        asker: Asker,
        user: &Arc<str>,
        channels: &[Arc<str>],
        purpose: Purpose,
    ) -> Vec<Result<Moment, ErrorCode>> {
        let check = |channel: &Arc<str>| Check { user: Arc::clone(user), channel: Arc::clone(channel) };
        let mut verdicts: Vec<_> = channels.iter().map(|channel| self.cached(&check(channel), purpose)).collect();
        let mut open: Vec<usize> = (0..channels.len()).filter(|&i| verdicts[i].is_none()).collect();
        if !open.is_empty() && !self.rates.take(asker.0, open.len(), Instant::now()) {
            self.metrics.rate_limited.with_label_values(&["questions"]).inc();
            open.drain(..).for_each(|i| verdicts[i] = Some(Err(codes::TOO_MANY_REQUESTS)));
        }
        for _ in 0..ATTEMPTS {
            let answers = self.ask(asker, open.iter().map(|&i| check(&channels[i])).collect()).await;
            let (mut outdated, mut refused) = (Vec::new(), 0);
            for (i, answer) in std::mem::take(&mut open).into_iter().zip(answers) {
                if let Ok(KnownVerdict { verdict: Verdict::Denied | Verdict::Unknown, asked, .. }) = answer
                    && !self.holds(asked, user, &channels[i])
                {
                    outdated.push(i);
                }
                refused += usize::from(answer.as_ref().is_ok_and(|known| known.verdict != Verdict::Allowed));
                verdicts[i] = Some(answer.map_err(|_| codes::INTERNAL).and_then(KnownVerdict::permit));
            }
            self.rates.refused(asker.0, refused, Instant::now());
            open = outdated;
        }
        verdicts.into_iter().map(|verdict| verdict.unwrap_or(Err(codes::INTERNAL))).collect()
    }

    /// PocketBase's current answer, regardless of the cache: whether the user may subscribe, and the moment for
    /// [`Access::holds`].
    pub async fn ask_anew(
        &self,
        asker: Asker,
        user: &Arc<str>,
        channel: &Arc<str>,
    ) -> Result<(bool, Moment), PocketBaseError> {
        let check = Check { user: Arc::clone(user), channel: Arc::clone(channel) };
        let known = self.ask(asker, vec![check]).await.pop().unwrap_or(Err(PocketBaseError::Abandoned))?;
        Ok((known.verdict == Verdict::Allowed, known.asked))
    }

    /// Whether no change that the answer may depend on was noted after `moment`.
    pub fn holds(&self, moment: Moment, user: &str, channel: &str) -> bool {
        self.changes.none_since(moment, user, Some(channel))
    }

    /// The cached verdict; `None` if PocketBase has to be asked.
    fn cached(&self, check: &Check, purpose: Purpose) -> Option<Result<Moment, ErrorCode>> {
        if !is_well_formed(&check.channel) {
            return Some(Err(codes::UNKNOWN_CHANNEL));
        }
        let mut known = self.known.get(check)?;
        if !self.holds(known.asked, &check.user, &check.channel) {
            return None;
        }
        let age = known.at.elapsed();
        if known.verdict == Verdict::Allowed {
            if age >= self.ttl {
                return None;
            }
            self.count("remembered");
            return Some(Ok(known.asked));
        }
        if purpose == Purpose::List && age < LEFT_OUT_TTL.min(self.ttl) {
            self.count("remembered");
            return Some(known.permit());
        }
        let may_ask = self.again.is_none_or(|rate| known.again.take(&rate, Instant::now()));
        if may_ask || age >= DENIED_TTL.min(self.ttl) {
            // Stored before the answer arrives: concurrent checks find one token less.
            self.known.insert(check.clone(), known);
            return None;
        }
        self.count("remembered");
        Some(known.permit())
    }

    /// Asks PocketBase and caches the answers.
    async fn ask(&self, asker: Asker, checks: Vec<Check>) -> Vec<Result<KnownVerdict, PocketBaseError>> {
        if checks.is_empty() {
            return Vec::new();
        }
        let asked = self.changes.now();
        let answers = self.questions.ask_all(asker, checks.iter().cloned()).await;
        let keep = |(check, answer): (Check, Result<Verdict, PocketBaseError>)| {
            self.count(if answer.is_ok() { "asked" } else { "failed" });
            let verdict = answer?;
            let at = Instant::now();
            let again = self.known.get(&check).map_or(Bucket::full(at), |known| known.again);
            let known = KnownVerdict { verdict, asked, at, again };
            self.known.insert(check, known);
            Ok(known)
        };
        let answers: Vec<Result<KnownVerdict, PocketBaseError>> = checks.into_iter().zip(answers).map(keep).collect();
        if let Some(error) = answers.iter().find_map(|answer| answer.as_ref().err()) {
            limited!(
                warn,
                "failed access checks",
                %error,
                "an access check at PocketBase failed; new subscriptions get error 100, running ones in doubt stay suspended until a retry succeeds"
            );
        }
        answers
    }

    fn count(&self, outcome: &str) {
        self.metrics.access_checks.with_label_values(&[outcome]).inc();
    }
}
