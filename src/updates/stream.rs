//! One updates channel on this node: takes in order what has come, settles with PocketBase who sees what now, and
//! hands out to each subscriber what is his.
//!
//! It goes batch by batch: whatever came while PocketBase was asked is the next one. What PocketBase answers is at
//! least as new as all of the batch, so of each record and user it is enough to compare before and after.

use super::Told;
use super::sight::{Classes, Ids, Viewer};
use crate::access::changes::{Cause, Change};
use crate::connection::{Connection, ConnectionId};
use crate::metrics::Metrics;
use crate::pocketbase::batch::Batcher;
use crate::pocketbase::{PocketBase, PocketBaseError, Sees, View, Visible};
use crate::protocol::codes::{self, UnsubscribeCode};
use crate::protocol::frame::Frame;
use crate::protocol::{Payload, Publication, json};
use futures_util::{StreamExt, TryStreamExt};
use serde::Deserialize;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio_util::task::AbortOnDropHandle;

/// What may wait while PocketBase is asked. Beyond that, subscribers are told to reload.
const INBOX: usize = 10_000;
/// Questions that are open at once; they are asked in batches.
const CONCURRENCY: usize = 2000;
/// Users whose whole sight is asked for in one call, which may have to look at thousands of records of each; and calls
/// at once.
const USERS: usize = 16;
const CALLS: usize = 4;
/// Bounds of the pause while PocketBase gives no answer.
const RETRY: std::ops::Range<Duration> = Duration::from_millis(100)..Duration::from_secs(2);

/// Feeds the channel's task, which ends with it.
pub struct Stream {
    inbox: Arc<Inbox>,
    _task: AbortOnDropHandle<()>,
}

pub enum Input {
    Join(Join),
    Leave(Leave),
    Change(Change),
    Event(Event),
    /// There was too much.
    Lost,
}

pub struct Join {
    pub connection: Arc<Connection>,
    /// What the client gets before anything of the channel.
    pub reply: Frame,
    pub joined: oneshot::Sender<()>,
}

pub struct Leave {
    user: Arc<str>,
    connection: ConnectionId,
    /// Told to the client, if there is one.
    code: Option<UnsubscribeCode>,
}

/// What happened to a guarded record.
pub struct Event {
    action: Action,
    record: Arc<str>,
    data: Payload,
    /// The users whom the record names.
    users: Vec<String>,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Action {
    Create,
    Update,
    Delete,
}

/// A std Mutex is enough: held for a push or a swap.
#[derive(Default)]
struct Inbox {
    state: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Default)]
struct Waiting {
    inputs: VecDeque<Input>,
    /// Who is subscribed or about to be. With nobody there, what comes is of no interest.
    wanted: HashSet<ConnectionId>,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Vec<Input> {
        self.lock().inputs.drain(..).collect()
    }
}

impl Stream {
    pub fn start(channel: &Arc<str>, pocketbase: PocketBase, metrics: Metrics) -> Self {
        let inbox = Arc::<Inbox>::default();
        let (channel, asked, client) = (Arc::clone(channel), Arc::clone(channel), pocketbase.clone());
        let views = Batcher::start(move |checks: Arc<[View]>| {
            let (pocketbase, channel) = (client.clone(), Arc::clone(&asked));
            async move { view(&pocketbase, &channel, &checks).await }
        });
        let room = Arc::new(Room { channel, pocketbase, views, metrics });
        let mut settled = Settled { room, place: None, classes: Classes::default(), seats: HashMap::default() };
        let waiting = Arc::clone(&inbox);
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                waiting.arrived.notified().await;
                let inputs = waiting.take();
                settled.settle(inputs, &waiting).await;
            }
        }));
        Self { inbox, _task: task }
    }

    /// Takes in what `input` gives, if anybody is there to hear of it.
    pub fn push(&self, input: impl FnOnce() -> Input) {
        let mut waiting = self.inbox.lock();
        if waiting.wanted.is_empty() {
            return;
        }
        let full = waiting.inputs.len() >= INBOX;
        if full {
            waiting.inputs.retain(|input| matches!(input, Input::Join(_) | Input::Leave(_)));
            waiting.inputs.push_front(Input::Lost);
        } else {
            waiting.inputs.push_back(input());
        }
        self.inbox.arrived.notify_one();
    }

    pub fn event(&self, told: &Told, data: &Payload) {
        #[derive(Deserialize)]
        struct Record {
            id: Arc<str>,
        }
        #[derive(Deserialize)]
        struct Data {
            action: Action,
            record: Record,
        }
        self.push(|| match serde_json::from_slice::<Data>(data.as_bytes()) {
            Ok(Data { action, record: Record { id: record } }) => {
                Input::Event(Event { action, record, data: data.clone(), users: told.users.clone() })
            }
            Err(error) => {
                tracing::error!(%error, "an event of a guarded record is unreadable");
                Input::Lost
            }
        });
    }

    pub fn join(&self, join: Join) {
        let mut waiting = self.inbox.lock();
        waiting.wanted.insert(join.connection.id);
        waiting.inputs.push_back(Input::Join(join));
        self.inbox.arrived.notify_one();
    }

    pub fn leave(&self, connection: &Connection, code: Option<UnsubscribeCode>) {
        let mut waiting = self.inbox.lock();
        if waiting.wanted.remove(&connection.id) {
            let leave = Leave { user: Arc::clone(&connection.user), connection: connection.id, code };
            waiting.inputs.push_back(Input::Leave(leave));
            self.inbox.arrived.notify_one();
        }
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

/// What asks PocketBase and writes frames.
struct Room {
    channel: Arc<str>,
    pocketbase: PocketBase,
    /// What a record is now, if the user may view it.
    views: Batcher<View, Option<Payload>>,
    metrics: Metrics,
}

/// A subscribed user.
struct Seat {
    viewer: Viewer,
    connections: Vec<Arc<Connection>>,
}

type Seats = HashMap<Arc<str>, Seat, foldhash::fast::RandomState>;

/// Who sees what after all that was taken in so far.
struct Settled {
    room: Arc<Room>,
    /// The guarded records' namespace as channels, and their collection; known as soon as somebody is here.
    place: Option<(String, String)>,
    classes: Classes,
    seats: Seats,
}

/// For whom, a class or none, and a user (who stands for the class); and about which record.
type Question = (Option<Arc<str>>, Arc<str>, Arc<str>);

/// What a batch leaves open.
#[derive(Default)]
struct Questions {
    /// Records to be looked at for everybody.
    records: HashSet<Arc<str>>,
    /// New records, with those users whom they name: to be looked at for these and for each class.
    created: HashMap<Arc<str>, HashSet<Arc<str>>>,
    /// A user and a record.
    pairs: HashSet<(Arc<str>, Arc<str>)>,
    /// Users whose whole sight is asked for.
    users: HashSet<Arc<str>>,
    everybody: bool,
    gone: HashSet<Arc<str>>,
    /// All records that were named, in the order in which they first were.
    order: Vec<Arc<str>>,
    named: HashSet<Arc<str>>,
}

impl Questions {
    fn name(&mut self, record: &Arc<str>) {
        if self.named.insert(Arc::clone(record)) {
            self.order.push(Arc::clone(record));
        }
    }
}

/// What PocketBase has answered.
#[derive(Default)]
struct Answers {
    verdicts: HashMap<Arc<str>, Verdicts>,
    /// Records that somebody may view, as they are now.
    records: HashMap<Arc<str>, Payload>,
    sights: HashMap<Arc<str>, Sees>,
    classes: HashMap<Arc<str>, Ids>,
    /// The records' namespace and collection.
    place: Option<(String, String)>,
}

/// Who may view one record.
#[derive(Default)]
struct Verdicts {
    users: HashMap<Arc<str>, bool>,
    classes: HashMap<Arc<str>, bool>,
    /// It was deleted.
    gone: bool,
}

/// Record → users for whom it has come into sight (true) or gone out of it.
type Turns = HashMap<Arc<str>, HashMap<Arc<str>, bool>>;

impl Settled {
    async fn settle(&mut self, inputs: Vec<Input>, inbox: &Inbox) {
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

        let mut pause = RETRY.start;
        let mut answers = loop {
            match self.ask(&questions, &newcomers).await {
                Ok(answers) => break answers,
                Err(error) => self.room.rest(&mut pause, &error).await,
            }
        };
        self.place = answers.place.take().or(self.place.take());
        let turns = self.take_in(&questions, &mut answers).await;
        self.hand_out(&events, &turns, &questions, &answers);
        for join in joins.into_values() {
            self.join(join, &mut answers);
        }
    }

    /// Ends all subscriptions; their clients subscribe again.
    fn end_all(&mut self, inbox: &Inbox) {
        let channel = &self.room.channel;
        self.room.metrics.updates_lost.inc();
        tracing::warn!(channel = &**channel, "an updates channel fell behind; its subscribers are told to reload");
        for connection in self.seats.drain().flat_map(|(_, seat)| seat.connections) {
            inbox.lock().wanted.remove(&connection.id);
            connection.channels().remove(channel);
            self.room.metrics.subscriptions.dec();
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
        self.room.metrics.subscriptions.dec();
        if let Some(code) = code {
            left.outbox.push(json::unsubscribe_push(&self.room.channel, *code));
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

    async fn ask(&self, questions: &Questions, newcomers: &HashSet<Arc<str>>) -> Result<Answers, PocketBaseError> {
        let mut answers = Answers::default();
        for record in &questions.gone {
            answers.verdicts.insert(Arc::clone(record), Verdicts { gone: true, ..Verdicts::default() });
        }
        let asking = self.views_to_ask(questions).into_iter().map(|view| Arc::clone(&self.room).ask(view));
        let asking: Vec<_> = asking.collect();
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
        let asking: Vec<_> = whole.chunks(USERS).map(|users| Arc::clone(&self.room).sights(users.to_vec())).collect();
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
        let missing: Vec<_> = missing.filter(|(_, gained)| !gained.is_empty()).collect();
        let fetching: Vec<_> =
            missing.into_iter().map(|(record, gained)| Arc::clone(&self.room).fetch(record, gained)).collect();
        let fetched: Vec<_> = futures_util::stream::iter(fetching).buffer_unordered(CONCURRENCY).collect().await;
        for (record, found, refused) in fetched {
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
                self.room.send(audience.map(|(_, seat)| seat), || event.data.clone());
            }
            let of = |sees: bool| {
                let users = turned.iter().filter(move |(_, now)| **now == sees);
                users.filter_map(|(user, _)| self.seats.get(user))
            };
            let come = if questions.created.contains_key(record) { "create" } else { "join" };
            if let Some(found) = answers.records.get(record) {
                self.room.send(of(true), || self.data(come, found.as_bytes()));
            }
            let gone = if questions.gone.contains(record) { "delete" } else { "leave" };
            self.room.send(of(false), || self.data(gone, serde_json::json!({"id": record}).to_string().as_bytes()));
        }
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
            self.room.metrics.subscriptions.inc();
            connection.outbox.push(reply);
            seat.connections.push(connection);
        } else if seat.connections.is_empty() {
            self.seats.remove(&user);
        }
    }
}

impl Room {
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

    /// The record, and those asked before the first who may view it.
    async fn fetch(
        self: Arc<Self>,
        record: Arc<str>,
        users: Vec<Arc<str>>,
    ) -> (Arc<str>, Option<Payload>, Vec<Arc<str>>) {
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
}
