//! Delivery: events of visible records, bodies of records that entered a sight, and ids of records that left a sight.

use super::verdicts::{Told, Turns};
use super::{Owed, Seat, Settled};
use crate::event::{DATA_MAX, truncated_data};
use crate::limits::lines::limited;
use crate::pocketbase::View;
use crate::protocol::frame::Frame;
use crate::protocol::{Payload, Publication, json};
use crate::updates::stream::inquiry::Answers;
use crate::updates::stream::loads::Who;
use crate::updates::stream::log::{Entry, Happened};
use crate::updates::stream::questions::Questions;
use crate::updates::stream::{Action, Inbox};
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use tokio::time::Instant;

/// Records that entered (true) or left the sight of one user.
type Turned<'a> = HashMap<&'a Arc<str>, bool>;

/// Encoded publications by record, action, and the call that the body is from.
type Frames = HashMap<(Arc<str>, &'static str, u64), Frame>;

impl Settled {
    /// Suspends delivery to users with a queued change of their whole access: answers for a class may be newer than the
    /// user's membership in the class.
    pub(super) fn hold_back(&mut self, turns: &mut Turns, told: &mut Told, inbox: &Inbox) {
        let mut users: HashSet<Arc<str>> = HashSet::new();
        for change in inbox.lock().doubts() {
            match &change.user {
                Some(user) => drop(users.insert(user.as_str().into())),
                None if change.namespace.as_deref().is_some_and(|namespace| self.is_elsewhere(namespace)) => {}
                None => users.extend(self.seats.keys().cloned()),
            }
        }
        for user in users {
            let Some(seat) = self.seats.get_mut(&user).filter(|seat| !seat.connections.is_empty()) else { continue };
            for (record, turned) in turns.iter_mut() {
                if let Some(sees) = turned.remove(&user) {
                    seat.viewer.set(record, !sees, &self.classes);
                }
            }
            let from = told.remove(&user).map_or(self.batch, |batches| batches.start);
            let owed = seat.owed.get_or_insert_with(|| Owed { from, since: Instant::now() });
            owed.from = owed.from.min(from);
        }
    }

    pub(super) fn tell(&self, questions: &Questions, turns: &Turns, told: &Told, answers: &Answers) {
        let mut of_user: HashMap<&Arc<str>, Turned> = HashMap::new();
        for (record, users) in turns {
            for (user, sees) in users {
                of_user.entry(user).or_default().insert(record, *sees);
            }
        }
        let mut gone: HashSet<&Arc<str>> = questions.gone.iter().collect();
        let absent = answers.sees_all().filter(|(_, sees)| sees.is_none());
        gone.extend(absent.map(|(view, _)| &view.record));
        let mut frames = Frames::new();
        for (user, seat) in &self.seats {
            let batches = match told.get(user) {
                Some(batches) => batches.clone(),
                None if seat.owed.is_some() || seat.connections.is_empty() => continue,
                None => self.batch..self.batch + 1,
            };
            let turned = of_user.remove(user).unwrap_or_default();
            self.tell_user((user, seat), batches, turned, &gone, answers, &mut frames);
        }
    }

    fn tell_user(
        &self,
        (user, seat): (&Arc<str>, &Seat),
        batches: Range<u64>,
        mut turned: Turned,
        gone: &HashSet<&Arc<str>>,
        answers: &Answers,
        frames: &mut Frames,
    ) {
        let (mut created, mut deleted) = (HashSet::new(), HashSet::new());
        if !turned.is_empty() {
            for Entry { record, happened, .. } in self.log.of(batches.clone()) {
                match happened {
                    Happened::Event { action: Action::Create, .. } => drop(created.insert(record)),
                    Happened::Deleted => drop(deleted.insert(record)),
                    Happened::Event { .. } | Happened::Touched(_) => {}
                }
            }
        }
        let mut tell_turn = |record: &Arc<str>, sees: bool| {
            let action = match sees {
                true if created.contains(record) => "create",
                true => "join",
                false if deleted.contains(record) || gone.contains(record) => "delete",
                false => "leave",
            };
            let frame = self.turn(user, record, action, answers, frames);
            frame.into_iter().for_each(|frame| self.push(seat, &frame));
        };
        let mut settled = HashSet::new();
        for Entry { record, happened, .. } in self.log.of(batches) {
            if let Some(sees) = turned.remove(record) {
                tell_turn(record, sees);
                settled.insert(record);
            }
            let Happened::Event { action, data, frame } = happened else { continue };
            if *action == Action::Delete || settled.contains(record) || !seat.viewer.sees(record, &self.classes) {
                continue;
            }
            self.push(seat, frame.get_or_init(|| self.encode(data.clone())));
        }
        turned.into_iter().for_each(|(record, sees)| tell_turn(record, sees));
    }

    /// The publication for a record that entered or left a user's sight.
    fn turn(
        &self,
        user: &Arc<str>,
        record: &Arc<str>,
        action: &'static str,
        answers: &Answers,
        frames: &mut Frames,
    ) -> Option<Frame> {
        let has_body = matches!(action, "create" | "join");
        let own = View { user: Arc::clone(user), record: Arc::clone(record) };
        let (body, call) = if has_body {
            let (body, call) = answers.body(&own, self.class_view(&own).as_ref())?;
            (Some(body), call)
        } else {
            (None, Some(0))
        };
        let encode = || match body {
            Some(body) => self.encode(self.whole(action, record, body, answers)),
            None => self.encode(self.data(action, serde_json::json!({"id": record}).to_string().as_bytes())),
        };
        match call {
            Some(call) => Some(frames.entry((Arc::clone(record), action, call)).or_insert_with(encode).clone()),
            None => Some(encode()),
        }
    }

    /// The data with the record's current body, or with the id alone where the record is too large for an event or
    /// queue.
    fn whole(&self, action: &str, id: &str, record: &Payload, answers: &Answers) -> Payload {
        if record.len() > DATA_MAX || answers.truncated.contains(id) {
            truncated_data(action, self.collection(), id)
        } else {
            self.data(action, record.as_bytes())
        }
    }

    fn collection(&self) -> &str {
        self.place.as_ref().map_or("", |place| place.collection.as_str())
    }

    fn data(&self, action: &str, record: &[u8]) -> Payload {
        let collection = self.collection();
        let mut data = format!(r#"{{"action":"{action}","collection":"{collection}","record":"#).into_bytes();
        data.extend_from_slice(record);
        data.push(b'}');
        Payload::trusted(data.into())
    }

    fn encode(&self, data: Payload) -> Frame {
        self.metrics.publications.inc();
        json::publication_push(&self.channel, &Publication { offset: 0, at: 0, data, info: None })
    }

    fn push(&self, seat: &Seat, frame: &Frame) {
        let delivered = seat.connections.iter().filter(|connection| connection.outbox.push(frame.clone())).count();
        self.metrics.deliveries.inc_by(delivered as u64);
    }

    /// Ends the batch: restarts loads where necessary, trims the log, and updates the inbox's view of pending work.
    pub(super) fn go_on(&mut self, inbox: &Inbox) {
        self.seats.retain(|_, seat| seat.owed.is_none() || !seat.connections.is_empty());
        let owed =
            self.seats.iter().filter(|(_, seat)| seat.owed.is_some()).map(|(user, _)| Who::User(Arc::clone(user)));
        for who in owed.collect::<Vec<_>>() {
            if self.loads.get(&who).is_none() {
                self.loads.begin(who, self.batch, false);
            }
        }
        self.begin_loads();
        let since = self.loads.iter().map(|(_, load)| load.since + 1);
        let from = self.seats.values().filter_map(|seat| seat.owed.as_ref().map(|owed| owed.from));
        self.log.trim(since.chain(from).min().unwrap_or(self.batch + 1));
        self.drop_those_behind(inbox);
        let owed = self.seats.values().filter_map(|seat| seat.owed.as_ref().map(|owed| owed.since));
        let waiting = self.waiting.values().flatten().map(|join| join.at);
        let mut inbox = inbox.lock();
        inbox.unsettled = owed.chain(waiting).min();
        inbox.is_needed = !self.seats.is_empty() || !self.loads.is_empty();
    }

    /// Ends subscriptions and restarts loads where the log no longer reaches back far enough.
    fn drop_those_behind(&mut self, inbox: &Inbox) {
        let behind = |seat: &Seat| seat.owed.as_ref().is_some_and(|owed| !self.log.reaches(owed.from));
        let users = self.seats.iter().filter(|(_, seat)| behind(seat)).map(|(user, _)| Arc::clone(user));
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
        users.iter().for_each(|user| self.end(user, inbox));
        let late = self.loads.iter().filter(|(_, load)| !self.log.reaches(load.since + 1));
        for (who, recheck) in late.map(|(who, load)| (who.clone(), load.recheck)).collect::<Vec<_>>() {
            self.loads.begin(who, self.batch, recheck);
        }
    }
}
