//! Which user may view which record after all events so far; takes each batch of inputs, and delivers accordingly.

mod telling;
mod verdicts;

use super::inquiry::{Inquiry, Place};
use super::loads::{Loads, Who};
use super::log::{Happened, Log};
use super::questions::Questions;
use super::{Action, Event, Inbox, Input, Join, Leave};
use crate::access::changes::{Cause, Change};
use crate::connection::Connection;
use crate::metrics::Metrics;
use crate::protocol::codes::UnsubscribeCode;
use crate::protocol::{codes, json};
use crate::updates::sight::{Classes, Ids, Viewer};
use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long the sight of a user is kept whose subscribe took too long: the next attempt finds it ready.
const IDLE: Duration = Duration::from_secs(30);

/// A subscribed user.
struct Seat {
    /// What the user has been told, or could see when subscribing.
    viewer: Viewer,
    connections: Vec<Arc<Connection>>,
    /// While the user's access is in doubt: since when nothing is delivered.
    owed: Option<Owed>,
    /// Since when there has been no connection.
    empty_since: Option<Instant>,
}

struct Owed {
    /// The first batch that was not delivered.
    from: u64,
    since: Instant,
}

type Seats = HashMap<Arc<str>, Seat, foldhash::fast::RandomState>;

pub(super) struct Settled {
    channel: Arc<str>,
    inquiry: Arc<Inquiry>,
    metrics: Metrics,
    /// Known as soon as somebody is here.
    place: Option<Place>,
    classes: Classes,
    seats: Seats,
    /// Subscribes under way.
    waiting: HashMap<Arc<str>, Vec<Join>>,
    loads: Loads,
    log: Log,
    /// The number of the batch at hand.
    batch: u64,
    /// Ids of records, each kept once for all users who may view it.
    names: Ids,
    /// How many of them were in use when that was last looked at.
    names_in_use: usize,
}

impl Settled {
    pub fn new(channel: &Arc<str>, inquiry: Inquiry, metrics: Metrics) -> Self {
        let inquiry = Arc::new(inquiry);
        Self {
            channel: Arc::clone(channel),
            loads: Loads::new(Arc::clone(&inquiry)),
            inquiry,
            metrics,
            place: None,
            classes: Classes::default(),
            seats: Seats::default(),
            waiting: HashMap::new(),
            log: Log::default(),
            batch: 0,
            names: Ids::default(),
            names_in_use: 1024,
        }
    }

    /// Returns when there is something to settle beside new inputs: a whole sight has been read, or nobody has wanted
    /// one for a while. Cancelling it loses nothing.
    pub async fn due(&mut self) {
        if !self.ready().is_empty() {
            // Another load was waited for, which is settled now.
            return;
        }
        let idle = self.seats.values().filter_map(|seat| seat.empty_since).min();
        tokio::select! {
            () = self.loads.done() => {}
            () = async { tokio::time::sleep_until(idle.unwrap_or_else(Instant::now) + IDLE).await }, if idle.is_some() => {}
        }
    }

    /// Takes a batch: asks PocketBase what it leaves open, and then gives each subscriber what is theirs.
    pub async fn settle(&mut self, inputs: Vec<Input>, inbox: &Inbox) {
        self.batch += 1;
        self.loads.collect();
        let mut questions = Questions::default();
        for input in inputs {
            match input {
                Input::Join(join) => self.waiting.entry(Arc::clone(&join.connection.user)).or_default().push(join),
                Input::Leave(leave) => self.leave(&leave),
                Input::Change(change) => self.take_change(&change, &mut questions),
                Input::Event(event) => self.take_event(event, &mut questions),
                Input::Recheck => self.recheck(),
                Input::Lost => {
                    self.end_all(inbox);
                    questions = Questions::default();
                }
            }
        }
        self.tidy();
        self.begin_loads();
        let ready = self.ready();
        let mut answers = self.inquiry.views(self.views_to_ask(&questions, &ready)).await;
        let (mut turns, told) = self.take_in(&questions, ready, &mut answers, inbox);
        self.complete(&questions, &mut turns, &mut answers).await;
        self.tell(&questions, &turns, &told, &answers);
        self.let_in();
        self.go_on(inbox);
    }

    fn namespace(&self) -> Option<&str> {
        self.place.as_ref().map(|place| place.namespace.as_str())
    }

    fn is_elsewhere(&self, namespace: &str) -> bool {
        self.namespace().is_some_and(|here| here != namespace)
    }

    fn take_change(&mut self, change: &Change, questions: &mut Questions) {
        match (&change.channel, &change.user) {
            (Some(channel), user) => {
                let Some((namespace, id)) = channel.split_once(':') else { return };
                if self.is_elsewhere(namespace) {
                    return;
                }
                let record: Arc<str> = id.into();
                let user: Option<Arc<str>> = user.as_deref().map(Arc::from);
                let happened = match user {
                    None if change.cause == Cause::Deleted => {
                        questions.delete(&record);
                        Happened::Deleted
                    }
                    None => {
                        questions.records.insert(Arc::clone(&record));
                        Happened::Touched(None)
                    }
                    Some(user) => {
                        if self.seats.contains_key(&user) {
                            questions.pairs.insert((Arc::clone(&user), Arc::clone(&record)));
                        }
                        Happened::Touched(Some(user))
                    }
                };
                self.log.push(self.batch, &record, happened);
            }
            (None, Some(user)) => self.doubt(&user.as_str().into()),
            (None, None) => {
                if !change.namespace.as_deref().is_some_and(|namespace| self.is_elsewhere(namespace)) {
                    self.doubt_all();
                }
            }
        }
    }

    fn take_event(&mut self, Event { action, record, data, users }: Event, questions: &mut Questions) {
        match action {
            Action::Create => {
                let users = users.iter().map(|user| user.as_str().into());
                questions.create(&record, users);
            }
            Action::Update => {}
            Action::Delete => {
                questions.delete(&record);
                self.log.push(self.batch, &record, Happened::Deleted);
            }
        }
        self.log.push(self.batch, &record, Happened::Event { action, data, frame: OnceCell::new() });
    }

    /// The access of this user to all records is in doubt: nothing is delivered until it has been read.
    fn doubt(&mut self, user: &Arc<str>) {
        let who = Who::User(Arc::clone(user));
        if let Some(seat) = self.seats.get_mut(user) {
            seat.owed.get_or_insert_with(|| Owed { from: self.batch, since: Instant::now() });
            if seat.connections.is_empty() {
                // Whoever comes now has no earlier state that events could continue.
                self.seats.remove(user);
            }
        } else if self.loads.get(&who).is_none() {
            return;
        }
        self.loads.doubt(who, self.batch);
    }

    fn doubt_all(&mut self) {
        self.classes.doubt(self.batch);
        let classes = self.classes.names().into_iter().map(Who::Class);
        let loading: Vec<Who> = classes.chain(self.loads.iter().map(|(who, _)| who.clone())).collect();
        let users: Vec<Arc<str>> = self.seats.keys().cloned().collect();
        users.iter().for_each(|user| self.doubt(user));
        loading.into_iter().for_each(|who| self.loads.doubt(who, self.batch));
    }

    /// Begins to read everything anew while events go on: for what no change tells of, such as the time.
    fn recheck(&mut self) {
        if self.loads.iter().any(|(_, load)| load.recheck) {
            return;
        }
        let classes = self.classes.names().into_iter().map(Who::Class);
        let all: Vec<Who> = self.seats.keys().cloned().map(Who::User).chain(classes).collect();
        for who in all {
            if self.loads.get(&who).is_none() {
                self.loads.begin(who, self.batch, true);
            }
        }
    }

    /// Ends all subscriptions; their clients subscribe again.
    fn end_all(&mut self, inbox: &Inbox) {
        tracing::warn!(channel = &*self.channel, "events of an updates channel were lost; its subscribers reload");
        let users: Vec<Arc<str>> = self.seats.keys().cloned().collect();
        self.metrics.updates_lost.inc();
        users.iter().for_each(|user| self.end(user, inbox));
        self.loads.clear();
        self.classes = Classes::default();
        self.log.trim(self.batch + 1);
    }

    /// Tells a user's clients to subscribe again, and to reload.
    fn end(&mut self, user: &Arc<str>, inbox: &Inbox) {
        self.loads.remove(&Who::User(Arc::clone(user)));
        let Some(seat) = self.seats.remove(user) else { return };
        for connection in seat.connections {
            inbox.lock().wanted.remove(&connection.id);
            // Otherwise the client has just left by itself.
            let is_there = connection.channels().remove(&self.channel);
            self.unsubscribed(&connection, is_there.then_some(codes::INSUFFICIENT_STATE));
        }
    }

    fn unsubscribed(&self, connection: &Connection, code: Option<UnsubscribeCode>) {
        self.metrics.subscriptions.dec();
        if let Some(code) = code {
            connection.outbox.push(json::unsubscribe_push(&self.channel, code));
        }
    }

    fn leave(&mut self, Leave { user, connection, code }: &Leave) {
        if let Some(joins) = self.waiting.get_mut(user) {
            joins.retain(|join| join.connection.id != *connection);
        }
        let Some(seat) = self.seats.get_mut(user) else { return };
        let Some(place) = seat.connections.iter().position(|other| other.id == *connection) else { return };
        let left = seat.connections.swap_remove(place);
        if seat.connections.is_empty() {
            self.seats.remove(user);
            self.loads.remove(&Who::User(Arc::clone(user)));
        }
        self.unsubscribed(&left, *code);
    }

    /// Forgets what nobody needs any more.
    fn tidy(&mut self) {
        self.waiting.retain(|_, joins| {
            joins.retain(|join| !join.joined.is_closed());
            !joins.is_empty()
        });
        let loads = &mut self.loads;
        self.seats.retain(|user, seat| {
            let stays = seat.empty_since.is_none_or(|since| since.elapsed() < IDLE);
            if !stays {
                loads.remove(&Who::User(Arc::clone(user)));
            }
            stays
        });
        let read = self.loads.iter().filter_map(|(_, load)| load.result.as_ref()?.as_ref()?.class.clone());
        let wanted = self.seats.values().filter_map(|seat| seat.viewer.class.clone()).chain(read).collect();
        self.classes.retain(&wanted);
        if self.names.len() > 2 * self.names_in_use {
            self.names.retain(|name| Arc::strong_count(name) > 1);
            self.names_in_use = self.names.len().max(1024);
        }
    }

    /// Adds those who wait and whose sight is known.
    fn let_in(&mut self) {
        let Self { waiting, seats, metrics, .. } = self;
        waiting.retain(|user, joins| {
            // In doubt, but without connections: seated with this very batch.
            let known = |seat: &&mut Seat| seat.owed.is_none() || seat.connections.is_empty();
            let Some(seat) = seats.get_mut(user).filter(known) else { return true };
            for Join { connection, reply, joined, .. } in joins.drain(..) {
                // Unless it has given up waiting.
                if joined.send(()).is_ok() {
                    metrics.subscriptions.inc();
                    connection.outbox.push(reply);
                    seat.connections.push(connection);
                    seat.empty_since = None;
                }
            }
            false
        });
    }
}
