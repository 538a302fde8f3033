//! Loads of all visible records of a user or class: one task each, page by page, beside the stream.

use super::queries::{Queries, VisibleRecords};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// The user or class of a load.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub(super) enum LoadSubject {
    User(Arc<str>),
    Class(Arc<str>),
}

impl LoadSubject {
    /// The name in PocketBase's routes.
    pub fn name(&self) -> Arc<str> {
        match self {
            LoadSubject::User(user) => Arc::clone(user),
            LoadSubject::Class(class) => format!("~{class}").into(),
        }
    }
}

pub(super) struct Load {
    /// The batch at the start: answers are at least as new as all inputs of earlier batches and of this batch.
    pub since: u64,
    /// The first later batch with a change of the user's or class's whole access. The load is valid for earlier
    /// batches, and has to be repeated.
    pub again: Option<u64>,
    /// A regular recheck: delivery goes on meanwhile.
    pub recheck: bool,
    /// Set at the end of the load; `None` inside: given up.
    pub result: Option<Option<VisibleRecords>>,
    /// The time since which no subscribe waits for the load.
    abandoned: Option<Instant>,
    number: u64,
    _task: AbortOnDropHandle<()>,
}

impl Load {
    /// The first batch for which the load is not valid, when applied in batch `now`.
    pub fn end(&self, now: u64) -> u64 {
        self.again.unwrap_or(now + 1)
    }
}

type Done = (LoadSubject, u64, Option<VisibleRecords>);

pub(super) struct Loads {
    of: HashMap<LoadSubject, Load>,
    queries: Arc<Queries>,
    last: u64,
    // At most one message for each load.
    done: mpsc::UnboundedReceiver<Done>,
    finish: mpsc::UnboundedSender<Done>,
}

impl Loads {
    pub fn new(queries: Arc<Queries>) -> Self {
        let (finish, done) = mpsc::unbounded_channel();
        Self { of: HashMap::new(), queries, last: 0, done, finish }
    }

    pub fn get(&self, subject: &LoadSubject) -> Option<&Load> {
        self.of.get(subject)
    }

    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// Starts a load, in place of an earlier load of the same user or class.
    pub fn begin(&mut self, subject: LoadSubject, batch: u64, recheck: bool) {
        self.last += 1;
        let (number, queries, finish, asked) =
            (self.last, Arc::clone(&self.queries), self.finish.clone(), subject.clone());
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            let visible = queries.visible(&asked.name(), recheck).await;
            // Fails only at the end of the stream.
            let _ = finish.send((asked, number, visible));
        }));
        self.of.insert(
            subject,
            Load { since: batch, again: None, recheck, result: None, abandoned: None, number, _task: task },
        );
    }

    /// Marks the whole access of this user or class as doubtful from this batch on.
    pub fn doubt(&mut self, subject: LoadSubject, batch: u64) {
        match self.of.get_mut(&subject) {
            Some(load) if load.recheck => self.begin(subject, batch, false),
            Some(load) if load.since < batch => {
                load.again.get_or_insert(batch);
            }
            Some(_) => {}
            None => self.begin(subject, batch, false),
        }
    }

    pub fn remove(&mut self, subject: &LoadSubject) -> Option<Load> {
        self.of.remove(subject)
    }

    /// Ends loads that were unwanted for `patience`, by `is_wanted`: without an answer from PocketBase, the calls of
    /// such a load would be repeated without end.
    pub fn end_abandoned(&mut self, patience: Duration, is_wanted: impl Fn(&LoadSubject) -> bool) {
        let now = Instant::now();
        self.of.retain(|subject, load| {
            if is_wanted(subject) {
                load.abandoned = None;
                return true;
            }
            now - *load.abandoned.get_or_insert(now) < patience
        });
    }

    /// The time at which the oldest abandoned load was abandoned.
    pub fn abandoned(&self) -> Option<Instant> {
        self.of.values().filter_map(|load| load.abandoned).min()
    }

    pub fn clear(&mut self) {
        self.of.clear();
    }

    pub fn iter(&self) -> impl Iterator<Item = (&LoadSubject, &Load)> {
        self.of.iter()
    }

    /// Returns when a load has finished. Safe to cancel.
    pub async fn done(&mut self) {
        // The channel never closes: `self` holds a sender.
        if let Some(done) = self.done.recv().await {
            self.take(done);
        }
    }

    /// Takes the results of all finished loads.
    pub fn collect(&mut self) {
        while let Ok(done) = self.done.try_recv() {
            self.take(done);
        }
    }

    fn take(&mut self, (subject, number, visible): Done) {
        if let Some(load) = self.of.get_mut(&subject)
            && load.number == number
        {
            load.result = Some(visible);
        }
    }
}
