//! Who sees what after all that was taken in so far, and handing out accordingly.

use super::inquiry::{Answers, Inquiry, Question, Questions, Verdicts};
use super::{Action, Event, Inbox, Input, Join, Leave};
use crate::access::changes::{Cause, Change};
use crate::connection::{Connection, ConnectionId};
use crate::metrics::Metrics;
use crate::pocketbase::{PocketBase, Sees};
use crate::protocol::{Payload, Publication, codes, json};
use crate::updates::sight::{Classes, Viewer};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A subscribed user.
struct Seat {
    viewer: Viewer,
    connections: Vec<Arc<Connection>>,
}

type Seats = HashMap<Arc<str>, Seat, foldhash::fast::RandomState>;

pub(super) struct Settled {
    channel: Arc<str>,
    inquiry: Arc<Inquiry>,
    metrics: Metrics,
    /// The guarded records' namespace as channels, and their collection; known as soon as somebody is here.
    place: Option<(String, String)>,
    classes: Classes,
    seats: Seats,
}

/// Record → users for whom it has come into sight (true) or gone out of it.
type Turns = HashMap<Arc<str>, HashMap<Arc<str>, bool>>;

impl Settled {
    pub fn new(channel: &Arc<str>, pocketbase: PocketBase, metrics: Metrics) -> Self {
        let (channel, inquiry) = (Arc::clone(channel), Inquiry::new(channel, pocketbase));
        Self { channel, inquiry, metrics, place: None, classes: Classes::default(), seats: HashMap::default() }
    }

    /// Takes a batch: asks what it leaves open, and then gives each what is his.
    pub async fn settle(&mut self, inputs: Vec<Input>, inbox: &Inbox) {
        let (mut joins, mut events) = (HashMap::<ConnectionId, Join>::new(), Vec::new());
        let mut questions = Questions::default();
        for input in inputs {
            match input {
                Input::Join(join) => drop(joins.insert(join.connection.id, join)),
                Input::Leave(leave) => {
                    self.leave(&leave);
                    joins.remove(&leave.connection);
                }
                Input::Change(change) => self.take_change(&change, &mut questions),
                Input::Event(event) => {
                    self.take_event(&event, &mut questions);
                    events.push(event);
                }
                Input::Lost => {
                    self.end_all(inbox);
                    (events, questions) = (Vec::new(), Questions::default());
                }
            }
        }
        self.tidy();
        if questions.everybody {
            questions.users.extend(self.seats.keys().cloned());
        }
        questions.users.retain(|user| self.seats.contains_key(user));
        joins.retain(|_, join| !join.joined.is_closed());
        let newcomers = joins.values().map(|join| Arc::clone(&join.connection.user));
        let newcomers: HashSet<Arc<str>> = newcomers.filter(|user| !self.seats.contains_key(user)).collect();

        let views = self.views_to_ask(&questions);
        let mut answers = self.inquiry.answers(&questions, &views, &newcomers).await;
        self.place = answers.place.take().or(self.place.take());
        let turns = self.take_in(&questions, &mut answers).await;
        self.hand_out(&events, &turns, &questions, &answers);
        for join in joins.into_values() {
            self.join(join, &mut answers);
        }
    }

    /// Ends all subscriptions; their clients subscribe again.
    fn end_all(&mut self, inbox: &Inbox) {
        let channel = &self.channel;
        self.metrics.updates_lost.inc();
        tracing::warn!(channel = &**channel, "an updates channel fell behind; its subscribers are told to reload");
        for connection in self.seats.drain().flat_map(|(_, seat)| seat.connections) {
            inbox.lock().wanted.remove(&connection.id);
            connection.channels().remove(channel);
            self.metrics.subscriptions.dec();
            connection.outbox.push(json::unsubscribe_push(channel, codes::INSUFFICIENT_STATE));
        }
    }

    fn leave(&mut self, Leave { user, connection, code }: &Leave) {
        let Some(seat) = self.seats.get_mut(user) else { return };
        let Some(place) = seat.connections.iter().position(|other| other.id == *connection) else { return };
        let left = seat.connections.swap_remove(place);
        if seat.connections.is_empty() {
            self.seats.remove(user);
        }
        self.metrics.subscriptions.dec();
        if let Some(code) = code {
            left.outbox.push(json::unsubscribe_push(&self.channel, *code));
        }
    }

    /// Forgets what no subscriber shares any more: nobody would keep it right.
    fn tidy(&mut self) {
        let wanted = self.seats.values().filter_map(|seat| seat.viewer.class.clone()).collect();
        self.classes.retain(&wanted);
    }

    fn namespace(&self) -> Option<&str> {
        self.place.as_ref().map(|(namespace, _)| namespace.as_str())
    }

    fn take_change(&self, change: &Change, questions: &mut Questions) {
        let seated = |user: &str| self.seats.get_key_value(user).map(|(user, _)| Arc::clone(user));
        match (&change.channel, &change.user) {
            (Some(channel), user) => {
                let Some((namespace, id)) = channel.split_once(':') else { return };
                if self.namespace() != Some(namespace) {
                    return;
                }
                let record: Arc<str> = id.into();
                questions.name(&record);
                match user {
                    Some(user) => questions.pairs.extend(seated(user).map(|user| (user, record))),
                    None if change.cause == Cause::Deleted => {
                        questions.gone.insert(record);
                    }
                    None => {
                        questions.records.insert(record);
                    }
                }
            }
            (None, Some(user)) => questions.users.extend(seated(user)),
            (None, None) => {
                questions.everybody |= change.namespace.is_none() || change.namespace.as_deref() == self.namespace();
            }
        }
    }

    fn take_event(&self, event: &Event, questions: &mut Questions) {
        questions.name(&event.record);
        match event.action {
            Action::Create => {
                questions.gone.remove(&event.record);
                let named = event.users.iter().filter_map(|user| self.seats.get_key_value(user.as_str()));
                let asked = questions.created.entry(Arc::clone(&event.record)).or_default();
                asked.extend(named.map(|(user, _)| Arc::clone(user)));
            }
            Action::Update => {}
            Action::Delete => {
                questions.gone.insert(Arc::clone(&event.record));
            }
        }
    }

    /// Each with a class if the user stands for it.
    fn views_to_ask(&self, questions: &Questions) -> Vec<Question> {
        let (mut classes, mut alone) = (HashMap::new(), Vec::new());
        for (user, seat) in &self.seats {
            match &seat.viewer.class {
                Some(class) => drop(classes.insert(class, user)),
                None => alone.push(user),
            }
        }
        let mut users: HashSet<(&Arc<str>, &Arc<str>)> =
            questions.pairs.iter().map(|(u, record)| (u, record)).collect();
        for record in &questions.records {
            users.extend(self.seats.keys().map(|user| (user, record)));
        }
        for (record, named) in &questions.created {
            users.extend(named.iter().chain(alone.iter().copied()).map(|user| (user, record)));
        }
        let users = users.into_iter().filter(|(user, _)| !questions.users.contains(*user));
        let users = users.map(|(user, record)| (None, user, record));
        let records: HashSet<&Arc<str>> = questions.records.iter().chain(questions.created.keys()).collect();
        let records = records.into_iter().filter(|_| !questions.everybody);
        let shared = records.flat_map(|record| classes.iter().map(move |(class, user)| (Some(*class), *user, record)));
        let views = users.chain(shared).filter(|(_, _, record)| !questions.gone.contains(*record));
        views.map(|(class, user, record)| (class.cloned(), Arc::clone(user), Arc::clone(record))).collect()
    }

    /// Notes who sees what now, and returns for whom that is another than before.
    async fn take_in(&mut self, questions: &Questions, answers: &mut Answers) -> Turns {
        let mut turns = Turns::new();
        let before = (!questions.users.is_empty()).then(|| self.classes.clone());
        for (record, verdicts) in &answers.verdicts {
            let turned = self.take_verdicts(record, verdicts, &questions.users);
            turns.entry(Arc::clone(record)).or_default().extend(turned);
        }
        if questions.everybody {
            self.classes = Classes::default();
        }
        for (class, ids) in answers.classes.drain() {
            // What is known already is kept right by the changes.
            if !self.classes.knows(&class) {
                self.classes.insert(class, ids);
            }
        }
        if let Some(before) = before {
            for user in &questions.users {
                let (Some(seat), Some(Sees { class, yes, no })) =
                    (self.seats.get_mut(user), answers.sights.remove(user))
                else {
                    continue;
                };
                let now = Viewer::new(class, yes, no, &self.classes);
                let then = std::mem::replace(&mut seat.viewer, now);
                for (record, sees) in seat.viewer.difference(&self.classes, &then, &before) {
                    turns.entry(record).or_default().insert(Arc::clone(user), sees);
                }
            }
        }
        self.fetch_records(&mut turns, answers).await;
        turns
    }

    /// Notes what PocketBase says of one record, except for users of whom it has said everything.
    fn take_verdicts(
        &mut self,
        record: &Arc<str>,
        verdicts: &Verdicts,
        except: &HashSet<Arc<str>>,
    ) -> Vec<(Arc<str>, bool)> {
        let Self { classes, seats, .. } = self;
        let everybody = verdicts.gone || !verdicts.classes.is_empty();
        let concerned: Vec<(&Arc<str>, &mut Seat)> = if everybody {
            seats.iter_mut().collect()
        } else {
            seats.iter_mut().filter(|(user, _)| verdicts.users.contains_key(*user)).collect()
        };
        let decided = concerned.into_iter().map(|(user, seat)| {
            let before = seat.viewer.sees(record, classes);
            let shared = || seat.viewer.class.as_ref().and_then(|class| verdicts.classes.get(class));
            let verdict = verdicts.users.get(user).or_else(shared).copied().unwrap_or(before);
            (user, seat, before, verdict && !verdicts.gone)
        });
        let decided: Vec<_> = decided.collect();
        for class in classes.names() {
            if let Some(sees) = verdicts.classes.get(&class).copied().or(verdicts.gone.then_some(false)) {
                classes.set(&class, record, sees);
            }
        }
        let mut turned = Vec::new();
        for (user, seat, before, now) in decided {
            seat.viewer.set(record, now, classes);
            if now != before && !except.contains(user) {
                turned.push((Arc::clone(user), now));
            }
        }
        turned
    }

    /// Gets those records that have come into somebody's sight. Who may not view one after all, since something has
    /// changed again that is still to come, does not get it.
    async fn fetch_records(&mut self, turns: &mut Turns, answers: &mut Answers) {
        let missing = turns.iter().filter(|(record, _)| !answers.records.contains_key(*record));
        let missing = missing.map(|(record, users)| {
            let gained: Vec<Arc<str>> =
                users.iter().filter(|(_, sees)| **sees).map(|(user, _)| Arc::clone(user)).collect();
            (Arc::clone(record), gained)
        });
        let missing = missing.filter(|(_, gained)| !gained.is_empty()).collect();
        for (record, found, refused) in self.inquiry.records(missing).await {
            for user in refused {
                turns.entry(Arc::clone(&record)).or_default().remove(&user);
                if let Some(seat) = self.seats.get_mut(&user) {
                    seat.viewer.set(&record, false, &self.classes);
                }
            }
            answers.records.extend(found.map(|found| (record, found)));
        }
    }

    /// Gives each subscriber what is his: of a record that came into sight, the record; of one that went out of it,
    /// its id; of any other that he sees, each event.
    fn hand_out(&self, events: &[Event], turns: &Turns, questions: &Questions, answers: &Answers) {
        let nobody = HashMap::new();
        let mut by_record: HashMap<&Arc<str>, Vec<&Event>> = HashMap::new();
        for event in events.iter().filter(|event| event.action != Action::Delete) {
            by_record.entry(&event.record).or_default().push(event);
        }
        let others = turns.keys().filter(|record| !questions.named.contains(*record));
        for record in questions.order.iter().chain(others) {
            let turned = turns.get(record).unwrap_or(&nobody);
            for event in by_record.get(record).into_iter().flatten() {
                let audience = self
                    .seats
                    .iter()
                    .filter(|(user, seat)| !turned.contains_key(*user) && seat.viewer.sees(record, &self.classes));
                self.send(audience.map(|(_, seat)| seat), || event.data.clone());
            }
            let of = |sees: bool| {
                let users = turned.iter().filter(move |(_, now)| **now == sees);
                users.filter_map(|(user, _)| self.seats.get(user))
            };
            let come = if questions.created.contains_key(record) { "create" } else { "join" };
            if let Some(found) = answers.records.get(record) {
                self.send(of(true), || self.data(come, found.as_bytes()));
            }
            let gone = if questions.gone.contains(record) { "delete" } else { "leave" };
            self.send(of(false), || self.data(gone, serde_json::json!({"id": record}).to_string().as_bytes()));
        }
    }

    /// Encodes once, if there is anybody to get it.
    fn send<'a>(&self, audience: impl Iterator<Item = &'a Seat>, data: impl FnOnce() -> Payload) {
        let mut audience = audience.flat_map(|seat| &seat.connections).peekable();
        if audience.peek().is_none() {
            return;
        }
        let publication = Publication { offset: 0, data: data(), info: None };
        let frame = json::publication_push(&self.channel, &publication);
        let delivered = audience.filter(|connection| connection.outbox.push(frame.clone())).count();
        self.metrics.publications.inc();
        self.metrics.deliveries.inc_by(delivered as u64);
    }

    fn data(&self, action: &str, record: &[u8]) -> Payload {
        let collection = self.place.as_ref().map_or("", |(_, collection)| collection);
        let mut data = format!(r#"{{"action":"{action}","collection":"{collection}","record":"#).into_bytes();
        data.extend_from_slice(record);
        data.push(b'}');
        Payload::trusted(data.into())
    }

    /// Adds a subscriber, unless it has given up waiting.
    fn join(&mut self, Join { connection, reply, joined }: Join, answers: &mut Answers) {
        let user = Arc::clone(&connection.user);
        if !self.seats.contains_key(&user) {
            let Some(Sees { class, yes, no }) = answers.sights.remove(&user) else { return };
            let viewer = Viewer::new(class, yes, no, &self.classes);
            self.seats.insert(Arc::clone(&user), Seat { viewer, connections: Vec::new() });
        }
        let Some(seat) = self.seats.get_mut(&user) else { return };
        if joined.send(()).is_ok() {
            self.metrics.subscriptions.inc();
            connection.outbox.push(reply);
            seat.connections.push(connection);
        } else if seat.connections.is_empty() {
            self.seats.remove(&user);
        }
    }
}
