//! Asking PocketBase, until it answers, what a batch leaves open.

use crate::pocketbase::batch::Batcher;
use crate::pocketbase::{PocketBase, PocketBaseError, Sees, View, Visible};
use crate::protocol::Payload;
use crate::updates::sight::Ids;
use futures_util::{StreamExt, TryStreamExt};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// Questions that are open at once; they are asked in batches.
const CONCURRENCY: usize = 2000;
/// Users whose whole sight is asked for in one call, which may have to look at thousands of records of each; and calls
/// at once.
const USERS: usize = 16;
const CALLS: usize = 4;
/// Bounds of the pause while PocketBase gives no answer.
const RETRY: std::ops::Range<Duration> = Duration::from_millis(100)..Duration::from_secs(2);

/// For whom, a class or none, and a user (who stands for the class); and about which record.
pub(super) type Question = (Option<Arc<str>>, Arc<str>, Arc<str>);

/// What a batch leaves open.
#[derive(Default)]
pub(super) struct Questions {
    /// Records to be looked at for everybody.
    pub records: HashSet<Arc<str>>,
    /// New records, with those users whom they name: to be looked at for these and for each class.
    pub created: HashMap<Arc<str>, HashSet<Arc<str>>>,
    /// A user and a record.
    pub pairs: HashSet<(Arc<str>, Arc<str>)>,
    /// Users whose whole sight is asked for.
    pub users: HashSet<Arc<str>>,
    pub everybody: bool,
    pub gone: HashSet<Arc<str>>,
    /// All records that were named, in the order in which they first were.
    pub order: Vec<Arc<str>>,
    pub named: HashSet<Arc<str>>,
}

impl Questions {
    pub fn name(&mut self, record: &Arc<str>) {
        if self.named.insert(Arc::clone(record)) {
            self.order.push(Arc::clone(record));
        }
    }
}

/// What PocketBase has answered.
#[derive(Default)]
pub(super) struct Answers {
    pub verdicts: HashMap<Arc<str>, Verdicts>,
    /// Records that somebody may view, as they are now.
    pub records: HashMap<Arc<str>, Payload>,
    pub sights: HashMap<Arc<str>, Sees>,
    pub classes: HashMap<Arc<str>, Ids>,
    /// The records' namespace and collection.
    pub place: Option<(String, String)>,
}

/// Who may view one record.
#[derive(Default)]
pub(super) struct Verdicts {
    pub users: HashMap<Arc<str>, bool>,
    pub classes: HashMap<Arc<str>, bool>,
    /// It was deleted.
    pub gone: bool,
}

/// A record, and those asked before the first who may view it.
type Fetched = (Arc<str>, Option<Payload>, Vec<Arc<str>>);

pub(super) struct Inquiry {
    channel: Arc<str>,
    pocketbase: PocketBase,
    /// What a record is now, if the user may view it.
    views: Batcher<View, Option<Payload>>,
}

impl Inquiry {
    pub fn new(channel: &Arc<str>, pocketbase: PocketBase) -> Arc<Self> {
        let (asked, client) = (Arc::clone(channel), pocketbase.clone());
        let views = Batcher::start(move |checks: Arc<[View]>| {
            let (pocketbase, channel) = (client.clone(), Arc::clone(&asked));
            async move { view(&pocketbase, &channel, &checks).await }
        });
        Arc::new(Self { channel: Arc::clone(channel), pocketbase, views })
    }

    /// Asks for these views, and for all that the users in question and the newcomers see.
    pub async fn answers(
        self: &Arc<Self>,
        questions: &Questions,
        views: &[Question],
        newcomers: &HashSet<Arc<str>>,
    ) -> Answers {
        let mut pause = RETRY.start;
        loop {
            match self.try_for_answers(questions, views, newcomers).await {
                Ok(answers) => return answers,
                Err(error) => self.rest(&mut pause, &error).await,
            }
        }
    }

    async fn try_for_answers(
        self: &Arc<Self>,
        questions: &Questions,
        views: &[Question],
        newcomers: &HashSet<Arc<str>>,
    ) -> Result<Answers, PocketBaseError> {
        let mut answers = Answers::default();
        for record in &questions.gone {
            answers.verdicts.insert(Arc::clone(record), Verdicts { gone: true, ..Verdicts::default() });
        }
        let asking: Vec<_> = views.iter().map(|view| Arc::clone(self).ask(view.clone())).collect();
        let mut asking = futures_util::stream::iter(asking).buffer_unordered(CONCURRENCY);
        while let Some((class, user, record, seen)) = asking.try_next().await? {
            let verdicts = answers.verdicts.entry(Arc::clone(&record)).or_default();
            match class {
                Some(class) => verdicts.classes.insert(class, seen.is_some()),
                None => verdicts.users.insert(user, seen.is_some()),
            };
            answers.records.extend(seen.map(|seen| (record, seen)));
        }
        let whole: Vec<Arc<str>> = questions.users.union(newcomers).cloned().collect();
        let asking: Vec<_> = whole.chunks(USERS).map(|users| Arc::clone(self).sights(users.to_vec())).collect();
        let mut asking = futures_util::stream::iter(asking).buffer_unordered(CALLS);
        while let Some((users, visible)) = asking.try_next().await? {
            answers.classes.extend(visible.classes.into_iter().map(|(class, ids)| (class, ids.into_iter().collect())));
            for (user, sees) in users.iter().zip(visible.users) {
                let nothing = || Sees { class: None, yes: Vec::new(), no: Vec::new() };
                answers.sights.insert(Arc::clone(user), sees.unwrap_or_else(nothing));
            }
            answers.place = Some((visible.namespace, visible.collection));
        }
        Ok(answers)
    }

    async fn ask(
        self: Arc<Self>,
        (class, user, record): Question,
    ) -> Result<(Option<Arc<str>>, Arc<str>, Arc<str>, Option<Payload>), PocketBaseError> {
        let asked = if class.is_some() { format!("~{user}") } else { user.to_string() };
        let seen = self.views.ask(View { user: asked, record: Arc::clone(&record) }).await?;
        Ok((class, user, record, seen))
    }

    async fn sights(self: Arc<Self>, users: Vec<Arc<str>>) -> Result<(Vec<Arc<str>>, Visible), PocketBaseError> {
        let visible = self.pocketbase.visible(&self.channel, &users).await?;
        Ok((users, visible))
    }

    /// Gets each record as the first of its users may view it; also returns those asked before him.
    pub async fn records(self: &Arc<Self>, wanted: Vec<(Arc<str>, Vec<Arc<str>>)>) -> Vec<Fetched> {
        let fetching: Vec<_> =
            wanted.into_iter().map(|(record, users)| Arc::clone(self).fetch(record, users)).collect();
        futures_util::stream::iter(fetching).buffer_unordered(CONCURRENCY).collect().await
    }

    async fn fetch(self: Arc<Self>, record: Arc<str>, users: Vec<Arc<str>>) -> Fetched {
        let mut refused = Vec::new();
        let mut pause = RETRY.start;
        for user in users {
            let view = View { user: user.to_string(), record: Arc::clone(&record) };
            loop {
                match self.views.ask(view.clone()).await {
                    Ok(Some(found)) => return (record, Some(found), refused),
                    Ok(None) => break refused.push(Arc::clone(&user)),
                    Err(error) => self.rest(&mut pause, &error).await,
                }
            }
        }
        (record, None, refused)
    }

    async fn rest(&self, pause: &mut Duration, error: &PocketBaseError) {
        tracing::warn!(%error, channel = &*self.channel, "who sees what is not known; updates wait");
        tokio::time::sleep(*pause).await;
        *pause = (*pause * 2).min(RETRY.end);
    }
}

async fn view(
    pocketbase: &PocketBase,
    channel: &str,
    checks: &[View],
) -> Result<Vec<Option<Payload>>, PocketBaseError> {
    let answer = pocketbase.view(channel, checks).await?;
    let records: HashMap<&Arc<str>, Payload> =
        answer.records.iter().map(|(id, record)| (id, Payload::from_raw(record))).collect();
    let seen = checks.iter().zip(&answer.results).map(|(check, &sees)| records.get(&check.record).filter(|_| sees));
    Ok(seen.map(|record| record.cloned()).collect())
}
