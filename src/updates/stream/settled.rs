//! The state of a stream: which user may view which record after all settled batches.

mod telling;
mod verdicts;

use super::inquiry::{Inquiry, Place};
use super::loads::{Loads, Who};
use super::log::{Happened, Log};
use super::questions::Questions;
use super::{Action, Event, Inbox, Input, Join, Leave};
use crate::access::changes::{Cause, Change};
use crate::connection::Connection;
use crate::limits::lines::limited;
use crate::metrics::Metrics;
use crate::protocol::codes::UnsubscribeCode;
use crate::protocol::{codes, json};
use crate::updates::sight::{Classes, Ids, Viewer};
use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Time to keep the sight of a user without connections, and to continue an abandoned load, so that a subscribe after a
/// timeout needs no new load.
const IDLE: Duration = Duration::from_secs(30);

/// A subscribed user.
struct Seat {
    /// The records that the user's clients know.
    viewer: Viewer,
    connections: Vec<Arc<Connection>>,
    /// Set while the user's access is in doubt and delivery is suspended.
    owed: Option<Owed>,
    /// The time when the last connection left.
    empty_since: Option<Instant>,
}

struct Owed {
    /// The first batch without delivery.
    from: u64,
    since: Instant,
}

type Seats = HashMap<Arc<str>, Seat, foldhash::fast::RandomState>;

pub(super) struct Settled {
    channel: Arc<str>,
    inquiry: Arc<Inquiry>,
    metrics: Metrics,
    /// Known after the first load.
    place: Option<Place>,
    classes: Classes,
    seats: Seats,
    /// Subscribes that wait for a sight, by user.
    waiting: HashMap<Arc<str>, Vec<Join>>,
    loads: Loads,
    log: Log,
    /// Number of the current batch.
    batch: u64,
    /// Interned record ids.
    names: Ids,
    /// Number of interned ids after the last purge.
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

    /// Returns when a load is finished, or an idle seat or an abandoned load is due for removal. Safe to cancel.
    pub async fn due(&mut self) {
        if !self.ready().is_empty() {
            // A load was waiting for another load, now settled.
            return;
        }
        let idle = self.seats.values().filter_map(|seat| seat.empty_since).chain(self.loads.abandoned()).min();
        tokio::select! {
            () = self.loads.done() => {}
            () = async { tokio::time::sleep_until(idle.unwrap_or_else(Instant::now) + IDLE).await }, if idle.is_some() => {}
        }
    }

    /// Settles a batch: applies the inputs, asks PocketBase about open records, and delivers.
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
        let (mut turns, mut told) = self.take_in(&questions, ready, &mut answers, inbox);
        self.complete(&questions, &told, &mut turns, &mut answers).await;
        self.hold_back(&mut turns, &mut told, inbox);
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

    /// Suspends delivery to a user until a new load of the user's whole sight is settled.
    fn doubt(&mut self, user: &Arc<str>) {
        let who = Who::User(Arc::clone(user));
        if let Some(seat) = self.seats.get_mut(user) {
            seat.owed.get_or_insert_with(|| Owed { from: self.batch, since: Instant::now() });
            if seat.connections.is_empty() {
                // A new connection starts from a new sight.
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

    /// Starts loads for all users and classes without suspending delivery: for rules that depend on the
    /// time, and for writes past the hooks.
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

    /// Ends all subscriptions after a loss of inputs; clients subscribe again.
    fn end_all(&mut self, inbox: &Inbox) {
        let channel = &*self.channel;
        limited!(
            warn,
            "updates channels with lost events",
            channel,
            "events of an updates channel were lost; its subscribers get code 2500, subscribe again and reload"
        );
        let users: Vec<Arc<str>> = self.seats.keys().cloned().collect();
        self.metrics.updates_lost.inc();
        users.iter().for_each(|user| self.end(user, inbox));
        self.loads.clear();
        self.classes = Classes::default();
        self.log.trim(self.batch + 1);
    }

    /// Ends the subscriptions of a user with code 2500, so that clients subscribe again and reload.
    fn end(&mut self, user: &Arc<str>, inbox: &Inbox) {
        self.loads.remove(&Who::User(Arc::clone(user)));
        let Some(seat) = self.seats.remove(user) else { return };
        for connection in seat.connections {
            inbox.lock().wanted.remove(&connection.id);
            // False: the client has just unsubscribed.
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

    /// Drops abandoned subscribes, idle seats, unused classes and unused ids.
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
        self.end_abandoned_loads();
        let read = self.loads.iter().filter_map(|(_, load)| load.result.as_ref()?.as_ref()?.class.clone());
        let wanted = self.seats.values().filter_map(|seat| seat.viewer.class.clone()).chain(read).collect();
        self.classes.retain(&wanted);
        if self.names.len() > 2 * self.names_in_use {
            self.names.retain(|name| Arc::strong_count(name) > 1);
            self.names_in_use = self.names.len().max(1024);
        }
    }

    /// Ends loads of users without subscribes and connections, and loads of unused classes, after [`IDLE`]: a client
    /// subscribes again after a timeout.
    fn end_abandoned_loads(&mut self) {
        let Self { waiting, seats, loads, .. } = self;
        if loads.is_empty() {
            return;
        }
        let of_seats = seats.values().filter_map(|seat| seat.viewer.class.clone());
        let of_loads = loads.iter().filter_map(|(_, load)| load.result.as_ref()?.as_ref()?.class.clone());
        let classes: HashSet<Arc<str>> = of_seats.chain(of_loads).collect();
        loads.end_abandoned(IDLE, |who| match who {
            Who::User(user) => waiting.contains_key(user) || seats.contains_key(user),
            Who::Class(class) => classes.contains(class),
        });
    }

    /// Answers the waiting subscribes of all users with a known sight.
    fn let_in(&mut self) {
        let Self { waiting, seats, metrics, .. } = self;
        waiting.retain(|user, joins| {
            // A seat in doubt without connections is new in this batch.
            let known = |seat: &&mut Seat| seat.owed.is_none() || seat.connections.is_empty();
            let Some(seat) = seats.get_mut(user).filter(known) else { return true };
            for Join { connection, reply, joined, .. } in joins.drain(..) {
                // False: the subscribe has timed out.
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
