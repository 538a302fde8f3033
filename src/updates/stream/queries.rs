//! Queries of a stream to PocketBase, in calls of limited time. Partial answers are kept, and the rest is asked again.

use crate::backoff::Backoff;
use crate::log_lines::limited;
use crate::pocketbase::{Page, PocketBaseError, View, Views, Visible};
use crate::protocol::Payload;
use crate::updates::source::Source;
use crate::updates::visibility::Ids;
use futures_util::StreamExt;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Concurrent calls about single records, for all streams of a node. For pages, the limit is lower by 1.
const CALLS: usize = 4;
/// Checks in one call; PocketBase takes up to 500.
const CHECKS: usize = 200;
/// Rows per page at first, and the least number: a timeout halves the size of the next page.
const ROWS: usize = 4_000;
const ROWS_MIN: usize = 50;
/// Timeouts in a row, at the least size of a call, before a query is given up.
const TIMEOUTS: u32 = 10;
/// Class changes during one load before the load is given up.
const RESTARTS: u32 = 10;
/// Bounds of the pause after a failed call.
const RETRY: std::ops::Range<Duration> = Duration::from_millis(100)..Duration::from_secs(2);

/// Limits of concurrent calls to PocketBase, for all streams of a node. A load waits in the queue before every page, so
/// a user with many pages does not hold up the others.
#[derive(Clone)]
pub struct CallLimits {
    views: Arc<Semaphore>,
    pages: Arc<Semaphore>,
    /// Low priority: one page at a time for the regular recheck.
    rechecks: Arc<Semaphore>,
}

impl Default for CallLimits {
    fn default() -> Self {
        let limits = |count| Arc::new(Semaphore::new(count));
        Self { views: limits(CALLS), pages: limits(CALLS - 1), rechecks: limits(1) }
    }
}

/// The guarded records' namespace as channels, and their collection.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct GuardedCollection {
    pub namespace: String,
    pub collection: String,
}

/// All visible records of a user or class.
pub(super) struct VisibleRecords {
    pub class: Option<Arc<str>>,
    pub yes: Ids,
    pub no: Ids,
    pub guarded: GuardedCollection,
}

/// Answers to [`View`] checks.
#[derive(Default)]
pub(super) struct Answers {
    results: HashMap<View, CheckAnswer>,
    /// Record bodies by record and call, equal for all readers. A user gets the body of the call with the user's
    /// verdict, since another call's body may be newer than the user's access.
    bodies: HashMap<(Arc<str>, u64), Payload>,
    /// Record bodies for one reader.
    own: HashMap<View, Payload>,
    /// True where the body depends on the reader.
    per_reader: bool,
    /// Records too large for an event; the body is the id alone.
    pub truncated: HashSet<Arc<str>>,
}

/// A verdict: true where the record is visible, `None` where the record does not exist.
#[derive(Clone, Copy)]
struct CheckAnswer {
    sees: Option<bool>,
    call: u64,
}

/// A record body, and the call that the body is from; `None`: the body is for one reader.
pub(super) type RecordBody<'a> = (&'a Payload, Option<u64>);

impl Answers {
    pub fn extend(&mut self, more: Self) {
        self.results.extend(more.results);
        self.bodies.extend(more.bodies);
        self.own.extend(more.own);
        self.per_reader |= more.per_reader;
        self.truncated.extend(more.truncated);
    }

    /// Whether the record is visible; `None`: not asked.
    pub fn sees(&self, view: &View) -> Option<bool> {
        self.results.get(view).map(|answer| answer.sees == Some(true))
    }

    pub fn sees_all(&self) -> impl Iterator<Item = (&View, Option<bool>)> {
        self.results.iter().map(|(view, answer)| (view, answer.sees))
    }

    /// The record's body for a user who may view the record, by a verdict for the user or for the user's class.
    pub fn body(&self, user: &View, class: Option<&View>) -> Option<RecordBody<'_>> {
        if self.per_reader {
            return self.own.get(user).map(|body| (body, None));
        }
        let view = [Some(user), class].into_iter().flatten().find(|view| self.results.contains_key(*view))?;
        let CheckAnswer { call, .. } = self.results.get(view)?;
        let body = self.bodies.get(&(Arc::clone(&view.record), *call))?;
        Some((body, Some(*call)))
    }

    /// Takes the answers to the first of these checks. Returns the number of answers.
    fn take(&mut self, call: u64, checks: &[View], views: Views) -> usize {
        self.per_reader |= views.per_reader;
        self.truncated.extend(views.truncated);
        let bodies = views.records.into_iter().map(|(id, body)| ((id, call), Payload::from_raw(&body)));
        self.bodies.extend(bodies);
        let own = views.own.into_iter().filter_map(|(i, body)| Some((checks.get(i)?.clone(), body)));
        self.own.extend(own.map(|(view, body)| (view, Payload::from_raw(&body))));
        let count = views.results.len().min(checks.len());
        let answers = views.results.into_iter().map(|sees| CheckAnswer { sees, call });
        self.results.extend(checks.iter().cloned().zip(answers));
        count
    }
}

pub(super) struct Queries {
    channel: Arc<str>,
    source: Arc<dyn Source>,
    limits: CallLimits,
    /// Number of the last call about single records.
    call: AtomicU64,
}

impl Queries {
    pub fn new(channel: &Arc<str>, source: Arc<dyn Source>, limits: CallLimits) -> Self {
        Self { channel: Arc::clone(channel), source, limits, call: AtomicU64::new(0) }
    }

    /// Asks until all checks are answered.
    pub async fn views(&self, mut views: Vec<View>) -> Answers {
        // Sorted by user: PocketBase answers a user's checks in one query.
        views.sort_unstable_by(|a, b| (&a.user, &a.record).cmp(&(&b.user, &b.record)));
        let chunks: Vec<Vec<View>> = views.chunks(CHECKS).map(<[View]>::to_vec).collect();
        let asking = futures_util::stream::iter(chunks.into_iter().map(|chunk| self.chunk(chunk)));
        let asking = asking.buffer_unordered(CALLS);
        asking
            .fold(Answers::default(), async |mut all, some| {
                all.extend(some);
                all
            })
            .await
    }

    async fn chunk(&self, mut open: Vec<View>) -> Answers {
        let mut answers = Answers::default();
        let mut attempt = Attempt::new(open.len(), 1);
        while !open.is_empty() {
            let asked = attempt.size.min(open.len());
            let answered = {
                let _permit = self.limits.views.acquire().await;
                self.source.view(&self.channel, &open[..asked]).await
            };
            match answered {
                Ok(views) if !views.results.is_empty() => {
                    let call = self.call.fetch_add(1, Ordering::Relaxed);
                    let done = answers.take(call, &open[..asked], views);
                    open.drain(..done);
                    attempt.succeed();
                }
                Ok(_) => self.back_off(&mut attempt, &PocketBaseError::Abandoned).await,
                Err(error) if attempt.is_futile(&error) => {
                    let View { user, record } = open.remove(0);
                    limited!(
                        error,
                        "access checks that PocketBase did not finish in time",
                        user = &*user,
                        record = &*record,
                        channel = &*self.channel,
                        "PocketBase repeatedly timed out on one access check; the record stays hidden from the user; \
                         simplify the viewRule, or add an index for it"
                    );
                    answers.results.insert(View { user, record }, CheckAnswer { sees: Some(false), call: u64::MAX });
                    attempt.succeed();
                }
                Err(error) => self.back_off(&mut attempt, &error).await,
            }
        }
        answers
    }

    /// Loads all visible records of a user or a class ("~" and the name of the class), page by page. `None`: given up.
    /// `recheck`: at low priority.
    pub async fn visible(&self, who: &str, recheck: bool) -> Option<VisibleRecords> {
        let mut visible: Option<VisibleRecords> = None;
        let mut after: Arc<str> = "".into();
        let (mut attempt, mut restarts) = (Attempt::new(ROWS, ROWS_MIN), 0);
        loop {
            match self.page(who, &after, attempt.size, recheck).await {
                Ok(Visible { namespace, collection, page }) => {
                    attempt.succeed();
                    let Page { class, yes, no, next } =
                        page.unwrap_or(Page { class: None, yes: Vec::new(), no: Vec::new(), next: None });
                    let guarded = GuardedCollection { namespace, collection };
                    if visible.as_ref().is_some_and(|visible| visible.class != class || visible.guarded != guarded) {
                        // The account or the rule has changed between two pages.
                        restarts += 1;
                        if restarts > RESTARTS {
                            return None;
                        }
                        (visible, after) = (None, "".into());
                        continue;
                    }
                    let all = visible.get_or_insert_with(|| {
                        let (yes, no) = Default::default();
                        VisibleRecords { class, yes, no, guarded }
                    });
                    all.yes.extend(yes);
                    all.no.extend(no);
                    match next {
                        Some(next) => after = next,
                        None => return visible,
                    }
                }
                Err(error) if attempt.is_futile(&error) => {
                    limited!(
                        error,
                        "lists of visible records that PocketBase did not finish in time",
                        who,
                        channel = &*self.channel,
                        "PocketBase repeatedly timed out on the list of visible records; subscribes of the affected \
                         users fail, and their subscriptions end with code 2500; simplify the viewRule, or add an \
                         index for it"
                    );
                    return None;
                }
                Err(error) => self.back_off(&mut attempt, &error).await,
            }
        }
    }

    async fn page(&self, who: &str, after: &str, rows: usize, recheck: bool) -> Result<Visible, PocketBaseError> {
        let _low_priority = if recheck { Some(self.limits.rechecks.acquire().await) } else { None };
        let _permit = self.limits.pages.acquire().await;
        self.source.visible(&self.channel, who, after, rows).await
    }

    async fn back_off(&self, attempt: &mut Attempt, error: &PocketBaseError) {
        let pause = attempt.fail(error);
        limited!(
            warn,
            "failed access checks of updates channels",
            %error,
            channel = &*self.channel,
            "PocketBase did not answer an access check; the affected updates wait, retrying in {pause:?}"
        );
        tokio::time::sleep(pause).await;
    }
}

/// Size of the next call, and the backoff after failures.
struct Attempt {
    size: usize,
    range: (usize, usize),
    backoff: Backoff,
    timeouts: u32,
}

impl Attempt {
    fn new(size: usize, least: usize) -> Self {
        Self { size, range: (least, size), backoff: Backoff::new(RETRY), timeouts: 0 }
    }

    fn succeed(&mut self) {
        self.size = (self.size * 2).min(self.range.1);
        self.backoff.reset();
        self.timeouts = 0;
    }

    /// Returns the pause before the next call. A timeout halves the size of the call.
    fn fail(&mut self, error: &PocketBaseError) -> Duration {
        if *error == PocketBaseError::Timeout {
            self.size = (self.size / 2).max(self.range.0);
            self.timeouts += 1;
        }
        self.backoff.pause()
    }

    fn is_futile(&self, error: &PocketBaseError) -> bool {
        *error == PocketBaseError::Timeout && self.size <= self.range.0 && self.timeouts >= TIMEOUTS
    }
}
