//! Delivery: events of visible records, bodies of newly visible records, and ids of records that are no longer visible.

use super::StreamState;
use super::subscribers::{SubscribedUser, Suspended};
use super::verdicts::{Backlogs, VisibilityChanges};
use crate::connection::Connection;
use crate::event::{DATA_MAX, truncated_data};
use crate::pocketbase::View;
use crate::protocol::Payload;
use crate::updates::stream::inputs::{InputQueue, RecordAction};
use crate::updates::stream::log::{EntryKind, LogEntry};
use crate::updates::stream::open_checks::OpenChecks;
use crate::updates::stream::queries::Answers;
use crate::updates::stream::shared_publication::SharedPublication;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use tokio::time::Instant;

/// Records that became visible (true) or hidden (false) to one user.
type UserChanges<'a> = HashMap<&'a Arc<str>, bool>;

/// Publications by record, action, and the call that the body is from.
type Publications = HashMap<(Arc<str>, &'static str, u64), Rc<SharedPublication>>;

impl StreamState {
    /// Suspends delivery to users with a queued change of their whole access: answers for a class may be newer than the
    /// user's membership in the class.
    pub(super) fn suspend_doubtful(
        &mut self,
        changes: &mut VisibilityChanges,
        backlogs: &mut Backlogs,
        queue: &InputQueue,
    ) {
        let mut users: HashSet<Arc<str>> = HashSet::new();
        for change in queue.lock().account_changes() {
            match &change.user {
                Some(user) => drop(users.insert(user.as_str().into())),
                None if change.namespace.as_deref().is_some_and(|namespace| self.is_elsewhere(namespace)) => {}
                None => users.extend(self.subscribed.keys().cloned()),
            }
        }
        for user in users {
            let Some(subscriber) =
                self.subscribed.get_mut(&user).filter(|subscriber| !subscriber.connections.is_empty())
            else {
                continue;
            };
            for (record, changed) in changes.iter_mut() {
                if let Some(sees) = changed.remove(&user) {
                    subscriber.viewer.set(record, !sees, &self.classes);
                }
            }
            let from = backlogs.remove(&user).map_or(self.batch, |batches| batches.start);
            let suspended = subscriber.suspended.get_or_insert_with(|| Suspended { from, since: Instant::now() });
            suspended.from = suspended.from.min(from);
        }
    }

    pub(super) fn deliver(
        &self,
        checks: &OpenChecks,
        changes: &VisibilityChanges,
        backlogs: &Backlogs,
        answers: &Answers,
    ) {
        let mut of_user: HashMap<&Arc<str>, UserChanges> = HashMap::new();
        for (record, users) in changes {
            for (user, sees) in users {
                of_user.entry(user).or_default().insert(record, *sees);
            }
        }
        let mut gone: HashSet<&Arc<str>> = checks.gone.iter().collect();
        let absent = answers.sees_all().filter(|(_, sees)| sees.is_none());
        gone.extend(absent.map(|(view, _)| &view.record));
        let mut publications = Publications::new();
        for (user, subscriber) in &self.subscribed {
            let batches = match backlogs.get(user) {
                Some(batches) => batches.clone(),
                None if subscriber.suspended.is_some() || subscriber.connections.is_empty() => continue,
                None => self.batch..self.batch + 1,
            };
            let changed = of_user.remove(user).unwrap_or_default();
            self.deliver_to((user, subscriber), batches, changed, &gone, answers, &mut publications);
        }
    }

    fn deliver_to(
        &self,
        (user, subscriber): (&Arc<str>, &SubscribedUser),
        batches: Range<u64>,
        mut changed: UserChanges,
        gone: &HashSet<&Arc<str>>,
        answers: &Answers,
        publications: &mut Publications,
    ) {
        let (mut created, mut deleted) = (HashSet::new(), HashSet::new());
        if !changed.is_empty() {
            for LogEntry { record, kind, .. } in self.log.of(batches.clone()) {
                match kind {
                    EntryKind::Event { action: RecordAction::Create, .. } => drop(created.insert(record)),
                    EntryKind::Deleted => drop(deleted.insert(record)),
                    EntryKind::Event { .. } | EntryKind::Touched(_) => {}
                }
            }
        }
        let mut publish_change = |record: &Arc<str>, sees: bool| {
            let action = match sees {
                true if created.contains(record) => "create",
                true => "join",
                false if deleted.contains(record) || gone.contains(record) => "delete",
                false => "leave",
            };
            let publication = self.publication_of_change(user, record, action, answers, publications);
            publication.iter().for_each(|publication| self.push(subscriber, publication));
        };
        let mut delivered = HashSet::new();
        for LogEntry { record, kind, .. } in self.log.of(batches) {
            if let Some(sees) = changed.remove(record) {
                publish_change(record, sees);
                delivered.insert(record);
            }
            let EntryKind::Event { action, publication } = kind else { continue };
            if *action == RecordAction::Delete
                || delivered.contains(record)
                || !subscriber.viewer.sees(record, &self.classes)
            {
                continue;
            }
            self.push(subscriber, publication);
        }
        changed.into_iter().for_each(|(record, sees)| publish_change(record, sees));
    }

    /// The publication for a record that became visible or hidden to a user.
    fn publication_of_change(
        &self,
        user: &Arc<str>,
        record: &Arc<str>,
        action: &'static str,
        answers: &Answers,
        publications: &mut Publications,
    ) -> Option<Rc<SharedPublication>> {
        let has_body = matches!(action, "create" | "join");
        let own = View { user: Arc::clone(user), record: Arc::clone(record) };
        let (body, call) = if has_body {
            let (body, call) = answers.body(&own, self.class_view(&own).as_ref())?;
            (Some(body), call)
        } else {
            (None, Some(0))
        };
        let make = || {
            Rc::new(SharedPublication::new(match body {
                Some(body) => self.body_data(action, record, body, answers),
                None => self.data(action, serde_json::json!({"id": record}).to_string().as_bytes()),
            }))
        };
        Some(match call {
            Some(call) => Rc::clone(publications.entry((Arc::clone(record), action, call)).or_insert_with(make)),
            None => make(),
        })
    }

    /// The data with the record's current body, or with the id alone where the record is too large for an event or
    /// queue.
    fn body_data(&self, action: &str, id: &str, record: &Payload, answers: &Answers) -> Payload {
        if record.len() > DATA_MAX || answers.truncated.contains(id) {
            truncated_data(action, self.collection(), id)
        } else {
            self.data(action, record.as_bytes())
        }
    }

    fn collection(&self) -> &str {
        self.guarded.as_ref().map_or("", |guarded| guarded.collection.as_str())
    }

    fn data(&self, action: &str, record: &[u8]) -> Payload {
        let collection = self.collection();
        let mut data = format!(r#"{{"action":"{action}","collection":"{collection}","record":"#).into_bytes();
        data.extend_from_slice(record);
        data.push(b'}');
        Payload::trusted(data.into())
    }

    fn push(&self, subscriber: &SubscribedUser, publication: &SharedPublication) {
        let push = |connection: &&Arc<Connection>| {
            let outbox = &connection.outbox;
            outbox.push(publication.frame(&self.channel, outbox.format(), &self.metrics))
        };
        let delivered = subscriber.connections.iter().filter(push).count();
        self.metrics.deliveries.inc_by(delivered as u64);
    }
}
