//! The last checks before delivery: bodies of newly visible records, and the existence of hidden records.

use super::StreamState;
use super::checks::class_name;
use super::verdicts::{Backlogs, VisibilityChanges};
use crate::pocketbase::View;
use crate::updates::stream::open_checks::OpenChecks;
use crate::updates::stream::queries::Answers;
use std::collections::HashSet;
use std::sync::Arc;

impl StreamState {
    /// Fetches the bodies of newly visible records, and checks the existence of newly hidden records. A newer refusal
    /// cancels the delivery.
    pub(super) async fn complete(
        &mut self,
        checks: &OpenChecks,
        backlogs: &Backlogs,
        changes: &mut VisibilityChanges,
        answers: &mut Answers,
    ) {
        let mut asked = HashSet::new();
        loop {
            let views = self.missing(changes, checks, backlogs, answers, &asked);
            if views.is_empty() {
                return;
            }
            asked.extend(views.iter().cloned());
            let more = self.queries.views(views).await;
            for (View { user, record }, sees) in more.sees_all() {
                let Some(users) = changes.get_mut(record) else { continue };
                let sees = sees == Some(true);
                if users.get(user).is_some_and(|changed| *changed != sees) {
                    users.remove(user);
                    if let Some(subscriber) = self.subscribed.get_mut(user) {
                        subscriber.viewer.set(record, sees, &self.classes);
                    }
                }
            }
            answers.extend(more);
        }
    }

    /// The checks still open before delivery: bodies, and the existence of newly hidden records.
    fn missing(
        &self,
        changes: &VisibilityChanges,
        checks: &OpenChecks,
        backlogs: &Backlogs,
        answers: &Answers,
        asked: &HashSet<View>,
    ) -> Vec<View> {
        let mut views = Vec::new();
        let exists: HashSet<&Arc<str>> = answers.sees_all().map(|(view, _)| &view.record).collect();
        for (record, users) in changes {
            let of = |sees: bool| {
                let users = users.iter().filter(move |(_, changed)| **changed == sees);
                users.map(|(user, _)| View { user: Arc::clone(user), record: Arc::clone(record) })
            };
            let is_open = |view: &View| {
                // The pages of a load and the set of the class are from different times: each record is checked.
                let class = self.class_view(view).filter(|_| !backlogs.contains_key(&view.user));
                !asked.contains(view) && answers.body(view, class.as_ref()).is_none()
            };
            views.extend(of(true).filter(is_open));
            if !checks.gone.contains(record) && !exists.contains(record) {
                views.extend(of(false).take(1));
            }
        }
        views
    }

    /// The same check for the user's class.
    pub(super) fn class_view(&self, View { user, record }: &View) -> Option<View> {
        let class = self.subscribed.get(user)?.viewer.class.as_ref()?;
        Some(View { user: class_name(class), record: Arc::clone(record) })
    }
}
