//! Random changes of the world, their relay to a stream, and clients that check every publication.

use super::world::{Dice, NoteRecord, Slow, World, note_id};
use super::{CHANNEL, GROUPS, RECORDS, USERS};
use crate::auth::Account;
use crate::connection::Connection;
use crate::event::UpdatesRoute;
use crate::event::{Cause, Change};
use crate::metrics::Metrics;
use crate::outbox::Outbox;
use crate::protocol::Payload;
use crate::protocol::frame::Frame;
use crate::updates::stream::{CallLimits, Stream, StreamInput, SubscribeRequest};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// A client with a list of notes.
pub(super) struct Client {
    pub(super) user: &'static str,
    pub(super) connection: Arc<Connection>,
    pub(super) subscribed: bool,
    pub(super) list: BTreeMap<String, u64>,
    /// Time of the newest relayed row at the subscribe.
    pub(super) asked: u64,
    /// Notes whose visibility changed between the subscribe and the client's read of PocketBase, and without a
    /// publication since. If the visibility changes back in the same batch, the stream publishes nothing.
    pub(super) uncertain: BTreeSet<String>,
    pub(super) received: Vec<String>,
}

/// A row of the outbox: its time, the access changes and the event.
pub(super) type OutboxRow = (u64, Vec<Change>, Option<(UpdatesRoute, Payload)>);

pub(super) struct Stage {
    pub(super) world: Arc<Mutex<World>>,
    pub(super) stream: Arc<Stream>,
    pub(super) clients: Vec<Client>,
    /// The outbox: rows not yet relayed to the stream.
    pub(super) pending: VecDeque<OutboxRow>,
    /// The time of the newest relayed row.
    pub(super) relayed: u64,
    pub(super) dice: Dice,
    pub(super) connections: u64,
    pub(super) steps: Vec<String>,
}

impl Stage {
    pub(super) fn new(seed: u64, shares: bool, per_reader: bool) -> Self {
        let world = Arc::new(Mutex::new(World {
            shares,
            per_reader,
            now: 1,
            notes: BTreeMap::new(),
            links: BTreeSet::new(),
            members: BTreeSet::new(),
            suspended: BTreeSet::new(),
            strict: false,
            seen: BTreeMap::new(),
            turned: BTreeMap::new(),
            interrupted: BTreeSet::new(),
            opened: BTreeMap::new(),
            dice: Dice(seed ^ 0x5eed),
        }));
        let source = Arc::new(Slow(Arc::clone(&world)));
        let stream = Stream::start(&CHANNEL.into(), source, CallLimits::default(), Metrics::new().unwrap());
        let (clients, pending, steps) = (Vec::new(), VecDeque::new(), Vec::new());
        Self { world, stream: Arc::new(stream), clients, pending, relayed: 0, dice: Dice(seed), connections: 0, steps }
    }

    fn change(cause: Cause, user: Option<&str>, id: Option<&str>, namespace: Option<&str>) -> Change {
        let channel = id.map(|id| format!("note:{id}"));
        Change { cause, user: user.map(str::to_owned), channel, namespace: namespace.map(str::to_owned) }
    }

    /// Makes one random change in the world, and adds a row to the outbox.
    pub(super) fn step(&mut self) {
        let dice = &mut self.dice;
        let mut world = self.world.lock();
        world.now += 1;
        let (now, id, user) = (world.now, note_id(dice.roll(RECORDS)), dice.pick(&USERS));
        let (mut changes, mut event) = (Vec::new(), None);
        let mut deleted = false;
        let exists = world.notes.contains_key(&id);
        let step = dice.roll(13);
        match (step, exists) {
            (0..=2, false) => {
                let note = NoteRecord { owner: user, group: dice.roll(GROUPS), open: dice.roll(3) == 0, at: now };
                if dice.roll(3) == 0 {
                    let linked = dice.pick(&USERS);
                    world.links.insert((linked, id.clone()));
                    changes.push(Self::change(Cause::Member, Some(linked), Some(&id), None));
                }
                world.notes.insert(id.clone(), note);
                event = Some("create");
            }
            (0..=1, true) => {
                let mut changes_access = true;
                let note = world.notes.get_mut(&id).unwrap();
                note.at = now;
                match dice.roll(4) {
                    0 => note.owner = user,
                    1 => note.open = !note.open,
                    2 => note.group = dice.roll(GROUPS),
                    _ => changes_access = false,
                }
                if changes_access {
                    changes.push(Self::change(Cause::Record, None, Some(&id), None));
                }
                event = Some("update");
            }
            (2..=3, true) => {
                world.notes.remove(&id);
                world.links.retain(|(_, record)| *record != id);
                changes.push(Self::change(Cause::Deleted, None, Some(&id), None));
                deleted = true;
                event = Some("delete");
            }
            (4..=5, true) => {
                if !world.links.remove(&(user, id.clone())) {
                    world.links.insert((user, id.clone()));
                }
                changes.push(Self::change(Cause::Member, Some(user), Some(&id), None));
            }
            (6..=7, _) => {
                let group = dice.roll(GROUPS);
                if !world.members.remove(&(user, group)) {
                    world.members.insert((user, group));
                }
                changes.push(Self::change(Cause::User, Some(user), None, None));
            }
            (8, _) => {
                if !world.suspended.remove(user) {
                    world.suspended.insert(user);
                }
                changes.push(Self::change(Cause::User, Some(user), None, None));
            }
            (9, _) if dice.roll(3) == 0 => {
                world.strict = !world.strict;
                let namespace = dice.pick(&[None, Some("note")]);
                changes.push(Self::change(Cause::Rules, None, None, namespace));
            }
            (10, true) => changes.push(Self::change(Cause::Related, None, Some(&id), None)),
            (11, _) => changes.push(Self::change(Cause::Related, None, Some("note0"), Some("elsewhere"))),
            _ => changes.push(Self::change(Cause::User, Some(user), None, None)),
        }
        self.steps.push(format!("{now} {step} {id} {user} {event:?} {changes:?}"));
        let event = event.map(|action| {
            let users = if deleted { vec![] } else { vec![world.notes[&id].owner.to_owned(), user.to_owned()] };
            let at = if deleted { now } else { world.notes[&id].at };
            let data = json!({"action": action, "collection": "notes", "record": {"id": id, "at": at}});
            (UpdatesRoute { channels: vec![CHANNEL.to_owned()], users }, Payload::parse(&data.to_string()).unwrap())
        });
        world.observe();
        drop(world);
        self.pending.push_back((now, changes, event));
    }

    /// Relays the oldest row of the outbox to the stream.
    pub(super) fn relay(&mut self) {
        let Some((at, changes, event)) = self.pending.pop_front() else { return };
        self.relayed = at;
        changes.iter().for_each(|change| self.stream.push(|| StreamInput::Change(change.clone())));
        if let Some((part, data)) = event {
            self.stream.event(&part, &data);
        }
    }

    pub(super) fn join(&mut self) {
        self.connections += 1;
        let user = self.dice.pick(&USERS);
        let connection =
            Connection::new(self.connections, user, "client", &Outbox::alone(1 << 20), Account::blocking(&[]));
        self.steps.push(format!("{user} comes as {}", self.connections));
        let (list, uncertain) = (BTreeMap::new(), BTreeSet::new());
        self.clients.push(Client { user, connection, subscribed: false, list, asked: 0, uncertain, received: vec![] });
        self.subscribe(self.clients.len() - 1);
    }

    fn subscribe(&mut self, client: usize) {
        let connection = Arc::clone(&self.clients[client].connection);
        self.clients[client].asked = self.relayed;
        connection.add_channel(CHANNEL.into());
        let (accepted, answer) = oneshot::channel();
        // The client waits without a timeout, like a client that subscribes again and again.
        std::mem::forget(answer);
        let reply = Frame::from_static(b"\x81\x0f{\"subscribe\":1}");
        self.stream.subscribe(SubscribeRequest { connection, reply, accepted, at: Instant::now() });
    }

    pub(super) fn leave(&mut self) {
        if self.clients.is_empty() {
            return;
        }
        let client = self.clients.swap_remove(self.dice.roll(self.clients.len()));
        self.steps.push(format!("{} goes as {}", client.user, client.connection.id));
        client.connection.channels().remove(CHANNEL);
        self.stream.unsubscribe(&client.connection, None);
    }

    /// Takes the frames of all clients.
    pub(super) async fn read(&mut self) {
        for i in 0..self.clients.len() {
            let mut frames = Vec::new();
            let outbox = Arc::clone(&self.clients[i].connection.outbox);
            while tokio::time::timeout(Duration::ZERO, outbox.take(&mut frames)).await.is_ok() {}
            for frame in frames {
                let frame: Value = serde_json::from_slice(&frame).unwrap();
                if self.take(i, &frame) {
                    self.subscribe(i);
                }
            }
        }
    }

    /// Applies a frame to a client's list. Returns true if the client has to subscribe again.
    fn take(&mut self, client: usize, frame: &Value) -> bool {
        let mut world = self.world.lock();
        let Client { user, subscribed, list, asked, uncertain, received, .. } = &mut self.clients[client];
        received.push(frame.to_string());
        if frame.get("subscribe").is_some() {
            assert!(!*subscribed);
            *subscribed = true;
            *list = world.list(user);
            let turned = world.turned.iter().filter(|((it, _), (_, at))| it == user && *at > *asked);
            *uncertain = turned.map(|((_, id), _)| id.clone()).collect();
            return false;
        }
        assert!(*subscribed, "{user} gets a publication before the reply: {frame}");
        if frame["push"].get("unsubscribe").is_some() {
            assert_eq!(frame["push"]["unsubscribe"]["code"], 2500);
            *subscribed = false;
            return true;
        }
        let data = &frame["push"]["pub"]["data"];
        let id = data["record"]["id"].as_str().unwrap().to_owned();
        uncertain.remove(&id);
        let at = || data["record"]["at"].as_u64().unwrap();
        let seen = world.seen.get(&(*user, id.clone())).max(world.opened.get(&id)).copied();
        match data["action"].as_str().unwrap() {
            action @ ("create" | "join" | "update") => {
                assert!(
                    seen.is_some_and(|seen| seen >= at()),
                    "the note was not visible to {user}: {data}; {received:?}"
                );
                if action == "join" && world.per_reader {
                    assert_eq!(data["record"]["reader"], *user, "{data}");
                }
                list.insert(id, at());
            }
            action @ ("delete" | "leave") => {
                assert_eq!(data["record"].as_object().unwrap().len(), 1);
                assert!(seen.is_some(), "the note was never visible to {user}: {data}; {received:?}");
                let stayed = !world.interrupted.contains(&(*user, id.clone()));
                let is_gone = !world.notes.contains_key(&id);
                assert!(
                    action == "delete" || !is_gone || !stayed,
                    "the note was visible to {user} until its deletion: {data}; {received:?}"
                );
                list.remove(&id);
            }
            other => panic!("{other}"),
        }
        world.observe();
        false
    }

    /// Relays all rows, and waits until each client's list equals PocketBase's list for the user.
    pub(super) async fn rest(&mut self) {
        while !self.pending.is_empty() {
            self.relay();
        }
        let deadline = Instant::now() + Duration::from_secs(600);
        loop {
            // Gives the stream time to process.
            tokio::time::sleep(Duration::from_millis(50)).await;
            self.read().await;
            let wrong = {
                let world = self.world.lock();
                for Client { user, list, uncertain, .. } in &mut self.clients {
                    let truth = world.list(user);
                    for id in uncertain.iter() {
                        list.remove(id);
                        list.extend(truth.get(id).map(|at| (id.clone(), *at)));
                    }
                }
                let is_wrong = |client: &&Client| !client.subscribed || client.list != world.list(client.user);
                self.clients
                    .iter()
                    .find(is_wrong)
                    .map(|it| (it.user, it.list.clone(), world.list(it.user), &it.received))
            };
            if wrong.is_none() && self.stream.behind() == Duration::ZERO {
                break;
            }
            assert!(
                Instant::now() < deadline,
                "(user, its list, PocketBase's list, received): {wrong:?}, {:?} behind; the last steps: {:#?}",
                self.stream.behind(),
                &self.steps[self.steps.len().saturating_sub(60)..]
            );
        }
        let mut world = self.world.lock();
        self.clients.iter_mut().for_each(|client| client.uncertain.clear());
        world.interrupted.clear();
        world.observe();
    }
}
