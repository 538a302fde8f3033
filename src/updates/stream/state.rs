//! The state of a stream: which user may view which record after all processed batches.

mod bodies;
mod checks;
mod publications;
mod subscribers;
mod verdicts;

use super::inputs::{InputQueue, RecordAction, RecordEvent, StreamInput, SubscribeRequest};
use super::loads::{LoadSubject, Loads};
use super::log::{EntryKind, RecordLog};
use super::open_checks::OpenChecks;
use super::queries::{GuardedCollection, Queries};
use super::shared_publication::SharedPublication;
use crate::event::{Cause, Change};
use crate::log_lines::limited;
use crate::metrics::Metrics;
use crate::updates::visibility::{Classes, Ids};
use std::collections::HashMap;
use std::sync::Arc;
use subscribers::{IDLE, SubscribedUser, SubscribedUsers, Suspended};
use tokio::time::Instant;

pub(super) struct StreamState {
    channel: Arc<str>,
    queries: Arc<Queries>,
    metrics: Metrics,
    /// Known after the first load.
    guarded: Option<GuardedCollection>,
    classes: Classes,
    subscribed: SubscribedUsers,
    /// Subscribes that wait for a load, by user.
    waiting: HashMap<Arc<str>, Vec<SubscribeRequest>>,
    loads: Loads,
    log: RecordLog,
    /// Number of the current batch.
    batch: u64,
    /// Interned record ids.
    names: Ids,
    /// Number of interned ids after the last purge.
    names_in_use: usize,
}

impl StreamState {
    pub fn new(channel: &Arc<str>, queries: Queries, metrics: Metrics) -> Self {
        let queries = Arc::new(queries);
        Self {
            channel: Arc::clone(channel),
            loads: Loads::new(Arc::clone(&queries)),
            queries,
            metrics,
            guarded: None,
            classes: Classes::default(),
            subscribed: SubscribedUsers::default(),
            waiting: HashMap::new(),
            log: RecordLog::default(),
            batch: 0,
            names: Ids::default(),
            names_in_use: 1024,
        }
    }

    /// Returns when a load is finished, or an idle user or an abandoned load is due for removal. Safe to cancel.
    pub async fn work(&mut self) {
        if !self.ready().is_empty() {
            // A load was waiting for another load, now applied.
            return;
        }
        let idle = self
            .subscribed
            .values()
            .filter_map(|subscriber| subscriber.empty_since)
            .chain(self.loads.abandoned())
            .min();
        tokio::select! {
            () = self.loads.done() => {}
            () = async { tokio::time::sleep_until(idle.unwrap_or_else(Instant::now) + IDLE).await }, if idle.is_some() => {}
        }
    }

    /// Processes a batch: applies the inputs, asks PocketBase about open records, and delivers.
    pub async fn process(&mut self, inputs: Vec<StreamInput>, queue: &InputQueue) {
        self.batch += 1;
        self.loads.collect();
        let mut checks = OpenChecks::default();
        for input in inputs {
            match input {
                StreamInput::Subscribe(request) => {
                    self.waiting.entry(Arc::clone(&request.connection.user)).or_default().push(request);
                }
                StreamInput::Unsubscribe(request) => self.unsubscribe(&request),
                StreamInput::Change(change) => self.take_change(&change, &mut checks),
                StreamInput::Event(event) => self.take_event(event, &mut checks),
                StreamInput::Recheck => self.recheck(),
                StreamInput::Lost => {
                    self.end_all(queue);
                    checks = OpenChecks::default();
                }
            }
        }
        self.purge();
        self.begin_loads();
        let ready = self.ready();
        let mut answers = self.queries.views(self.views_to_ask(&checks, &ready)).await;
        let (mut changes, mut backlogs) = self.apply_answers(&checks, ready, &mut answers, queue);
        self.complete(&checks, &backlogs, &mut changes, &mut answers).await;
        self.suspend_doubtful(&mut changes, &mut backlogs, queue);
        self.deliver(&checks, &changes, &backlogs, &answers);
        self.answer_subscribes();
        self.finish_batch(queue);
    }

    fn namespace(&self) -> Option<&str> {
        self.guarded.as_ref().map(|guarded| guarded.namespace.as_str())
    }

    fn is_elsewhere(&self, namespace: &str) -> bool {
        self.namespace().is_some_and(|here| here != namespace)
    }

    fn take_change(&mut self, change: &Change, checks: &mut OpenChecks) {
        match (&change.channel, &change.user) {
            (Some(channel), user) => {
                let Some((namespace, id)) = channel.split_once(':') else { return };
                if self.is_elsewhere(namespace) {
                    return;
                }
                let record: Arc<str> = id.into();
                let user: Option<Arc<str>> = user.as_deref().map(Arc::from);
                let kind = match user {
                    None if change.cause == Cause::Deleted => {
                        checks.delete(&record);
                        EntryKind::Deleted
                    }
                    None => {
                        checks.records.insert(Arc::clone(&record));
                        EntryKind::Touched(None)
                    }
                    Some(user) => {
                        if self.subscribed.contains_key(&user) {
                            checks.pairs.insert((Arc::clone(&user), Arc::clone(&record)));
                        }
                        EntryKind::Touched(Some(user))
                    }
                };
                self.log.push(self.batch, &record, kind);
            }
            (None, Some(user)) => self.doubt(&user.as_str().into()),
            (None, None) => {
                if !change.namespace.as_deref().is_some_and(|namespace| self.is_elsewhere(namespace)) {
                    self.doubt_all();
                }
            }
        }
    }

    fn take_event(&mut self, RecordEvent { action, record, data, users }: RecordEvent, checks: &mut OpenChecks) {
        match action {
            RecordAction::Create => {
                let users = users.iter().map(|user| user.as_str().into());
                checks.create(&record, users);
            }
            RecordAction::Update => {}
            RecordAction::Delete => {
                checks.delete(&record);
                self.log.push(self.batch, &record, EntryKind::Deleted);
            }
        }
        self.log.push(self.batch, &record, EntryKind::Event { action, publication: SharedPublication::new(data) });
    }

    /// Suspends delivery to a user until a new load of the user's visible records is applied.
    fn doubt(&mut self, user: &Arc<str>) {
        let subject = LoadSubject::User(Arc::clone(user));
        if let Some(subscriber) = self.subscribed.get_mut(user) {
            subscriber.suspended.get_or_insert_with(|| Suspended { from: self.batch, since: Instant::now() });
            if subscriber.connections.is_empty() {
                // A new connection starts from a new load.
                self.subscribed.remove(user);
            }
        } else if self.loads.get(&subject).is_none() {
            return;
        }
        self.loads.doubt(subject, self.batch);
    }

    fn doubt_all(&mut self) {
        self.classes.doubt(self.batch);
        let classes = self.classes.names().into_iter().map(LoadSubject::Class);
        let loading: Vec<LoadSubject> = classes.chain(self.loads.iter().map(|(subject, _)| subject.clone())).collect();
        let users: Vec<Arc<str>> = self.subscribed.keys().cloned().collect();
        users.iter().for_each(|user| self.doubt(user));
        loading.into_iter().for_each(|subject| self.loads.doubt(subject, self.batch));
    }

    /// Starts loads for all users and classes without suspending delivery: for rules that depend on the
    /// time, and for writes past the hooks.
    fn recheck(&mut self) {
        if self.loads.iter().any(|(_, load)| load.recheck) {
            return;
        }
        let classes = self.classes.names().into_iter().map(LoadSubject::Class);
        let all: Vec<LoadSubject> = self.subscribed.keys().cloned().map(LoadSubject::User).chain(classes).collect();
        for subject in all {
            if self.loads.get(&subject).is_none() {
                self.loads.begin(subject, self.batch, true);
            }
        }
    }

    /// Ends the batch: restarts loads where necessary, trims the log, and updates the queue's view of pending work.
    fn finish_batch(&mut self, queue: &InputQueue) {
        self.subscribed.retain(|_, subscriber| subscriber.suspended.is_none() || !subscriber.connections.is_empty());
        let suspended = self.subscribed.iter().filter(|(_, subscriber)| subscriber.suspended.is_some());
        for subject in suspended.map(|(user, _)| LoadSubject::User(Arc::clone(user))).collect::<Vec<_>>() {
            if self.loads.get(&subject).is_none() {
                self.loads.begin(subject, self.batch, false);
            }
        }
        self.begin_loads();
        let since = self.loads.iter().map(|(_, load)| load.since + 1);
        let from = self.suspensions().map(|suspended| suspended.from);
        self.log.trim(since.chain(from).min().unwrap_or(self.batch + 1));
        self.end_behind(queue);
        let suspended = self.suspensions().map(|suspended| suspended.since);
        let waiting = self.waiting.values().flatten().map(|request| request.at);
        let mut queue = queue.lock();
        queue.loading = suspended.chain(waiting).min();
        queue.is_needed = !self.subscribed.is_empty() || !self.loads.is_empty();
    }

    fn suspensions(&self) -> impl Iterator<Item = &Suspended> {
        self.subscribed.values().filter_map(|subscriber| subscriber.suspended.as_ref())
    }

    /// Ends subscriptions and restarts loads where the log no longer reaches back far enough.
    fn end_behind(&mut self, queue: &InputQueue) {
        let behind = |subscriber: &SubscribedUser| {
            subscriber.suspended.as_ref().is_some_and(|suspended| !self.log.reaches(suspended.from))
        };
        let users =
            self.subscribed.iter().filter(|(_, subscriber)| behind(subscriber)).map(|(user, _)| Arc::clone(user));
        let users: Vec<Arc<str>> = users.collect();
        if !users.is_empty() {
            let (users, channel) = (users.len(), &*self.channel);
            limited!(
                warn,
                "updates channels that fell too far behind",
                users,
                channel,
                "PocketBase's answers came too late to keep all events of an updates channel; the affected users get \
                 code 2500, subscribe again and reload"
            );
            self.metrics.updates_lost.inc();
        }
        users.iter().for_each(|user| self.end(user, queue));
        let late = self.loads.iter().filter(|(_, load)| !self.log.reaches(load.since + 1));
        for (subject, recheck) in late.map(|(subject, load)| (subject.clone(), load.recheck)).collect::<Vec<_>>() {
            self.loads.begin(subject, self.batch, recheck);
        }
    }
}
