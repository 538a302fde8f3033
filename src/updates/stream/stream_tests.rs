//! Model test of a stream: random changes in a small world, relayed to the stream in batches of random size. After all
//! changes are settled, the list built from a client's publications equals PocketBase's list for the user.

use super::*;
use crate::access::changes::Cause;
use crate::auth::Account;
use crate::outbox::Outbox;
use crate::pocketbase::{Page, PocketBaseError, View, Views, Visible};
use async_trait::async_trait;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const CHANNEL: &str = "note-updates";
const USERS: [&str; 4] = ["ann", "bob", "cat", "dan"];
const RECORDS: usize = 8;
const GROUPS: usize = 3;

/// Pseudorandom small numbers from a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len())].clone()
    }
}

#[derive(Clone, PartialEq)]
struct Note {
    owner: &'static str,
    group: usize,
    open: bool,
    /// Time of the last write.
    at: u64,
}

/// PocketBase's data. A note is visible to the owner and to linked users. Unless the rule is strict, an open note is
/// visible to all users and, without shared classes, every note to the members of the group. Suspended users see
/// nothing.
struct World {
    shares: bool,
    per_reader: bool,
    now: u64,
    notes: BTreeMap<String, Note>,
    links: BTreeSet<(&'static str, String)>,
    members: BTreeSet<(&'static str, usize)>,
    suspended: BTreeSet<&'static str>,
    strict: bool,
    /// Last time at which a note was visible to a user.
    seen: BTreeMap<(&'static str, String), u64>,
    /// Visibility of a note to a user, and the time of the last change.
    turned: BTreeMap<(&'static str, String), (bool, u64)>,
    /// Last time at which a note was visible to all users with a class. PocketBase's answer for a class may be newer
    /// than the stream's knowledge of a user who has just left the class.
    opened: BTreeMap<String, u64>,
    /// Existing notes that were hidden from a user at some time since the last rest.
    interrupted: BTreeSet<(&'static str, String)>,
    dice: Dice,
}

impl World {
    fn may_view(&self, user: &str, id: &str) -> bool {
        let Some(note) = self.notes.get(id) else { return false };
        let is_member = !self.shares && self.members.iter().any(|(it, group)| *it == user && *group == note.group);
        let is_linked = self.links.iter().any(|(it, record)| *it == user && record == id);
        !self.suspended.contains(user)
            && (note.owner == user || is_linked || (!self.strict && (note.open || is_member)))
    }

    fn class_may_view(&self, is_suspended: bool, id: &str) -> bool {
        !is_suspended && !self.strict && self.notes.get(id).is_some_and(|note| note.open)
    }

    fn class_of(&self, user: &str) -> Option<Arc<str>> {
        self.shares.then(|| format!("{} {}", self.strict, self.suspended.contains(user)).into())
    }

    /// True for the class of the suspended users; `None`: the class no longer exists.
    fn class(&self, name: &str) -> Option<bool> {
        let is_suspended = name.ends_with("true");
        (format!("{} {is_suspended}", self.strict) == name).then_some(is_suspended)
    }

    fn names(&self, user: &str, id: &str) -> bool {
        self.notes.get(id).is_some_and(|note| note.owner == user)
            || self.links.iter().any(|(it, record)| *it == user && record == id)
    }

    fn body(&self, id: &str, reader: &str) -> Value {
        let mut body = json!({"id": id, "at": self.notes[id].at});
        if self.per_reader {
            body["reader"] = reader.into();
        }
        body
    }

    fn list(&self, user: &str) -> BTreeMap<String, u64> {
        let seen = self.notes.iter().filter(|(id, _)| self.may_view(user, id));
        seen.map(|(id, note)| (id.clone(), note.at)).collect()
    }

    /// Records the current visibility of all notes to all users.
    fn observe(&mut self) {
        if self.shares && !self.strict {
            let open = self.notes.iter().filter(|(_, note)| note.open);
            self.opened.extend(open.map(|(id, _)| (id.clone(), self.now)));
        }
        for user in USERS {
            for id in (0..RECORDS).map(note_id) {
                let sees = self.may_view(user, &id);
                let turned = self.turned.entry((user, id.clone())).or_default();
                if turned.0 != sees {
                    *turned = (sees, self.now);
                }
                if sees {
                    self.seen.insert((user, id), self.now);
                } else if self.notes.contains_key(&id) {
                    self.interrupted.insert((user, id));
                }
            }
        }
    }

    fn visible(&self, who: &str, after: &str, rows: usize) -> Visible {
        let later: Vec<&String> = self.notes.keys().filter(|id| id.as_str() > after).collect();
        let next = later.get(rows).map(|_| later[rows - 1].as_str().into());
        let ids = later.iter().take(rows);
        let some =
            |sees: &dyn Fn(&str) -> bool| ids.clone().filter(|id| sees(id)).map(|id| id.as_str().into()).collect();
        let page = match who.strip_prefix('~') {
            Some(class) => self.class(class).map(|is_suspended| Page {
                class: Some(class.into()),
                yes: some(&|id| self.class_may_view(is_suspended, id)),
                no: Vec::new(),
                next,
            }),
            None if self.shares => Some(Page {
                class: self.class_of(who),
                yes: some(&|id| self.names(who, id) && self.may_view(who, id)),
                no: some(&|id| self.names(who, id) && !self.may_view(who, id)),
                next,
            }),
            None => Some(Page { class: None, yes: some(&|id| self.may_view(who, id)), no: Vec::new(), next }),
        };
        Visible { namespace: "note".to_owned(), collection: "notes".to_owned(), page }
    }

    fn view(&self, checks: &[View]) -> Views {
        let mut views = Views {
            results: vec![],
            records: Default::default(),
            own: Default::default(),
            per_reader: self.per_reader,
            truncated: vec![],
        };
        for (i, View { user, record }) in checks.iter().enumerate() {
            let exists = self.notes.contains_key(&**record);
            let sees = match user.strip_prefix('~') {
                Some(class) => self.class(class).is_some_and(|is_suspended| self.class_may_view(is_suspended, record)),
                None => self.may_view(user, record),
            };
            views.results.push(exists.then_some(sees));
            if sees {
                let body = serde_json::value::to_raw_value(&self.body(record, user)).unwrap();
                if self.per_reader {
                    views.own.insert(i, body);
                } else {
                    views.records.insert(Arc::clone(record), body);
                }
            }
        }
        views
    }
}

fn note_id(number: usize) -> String {
    format!("note{number}")
}

/// A source with random delays, partial answers and failures.
struct Slow(Arc<Mutex<World>>);

impl Slow {
    async fn answer<T>(&self, answer: impl FnOnce(&mut World) -> T) -> Result<T, PocketBaseError> {
        let roll = |sides| self.0.lock().unwrap().dice.roll(sides);
        tokio::time::sleep(Duration::from_millis(roll(20) as u64)).await;
        let answer = match roll(40) {
            0 => return Err(PocketBaseError::Timeout),
            1 => return Err(PocketBaseError::Unreachable("for a test".to_owned())),
            _ => answer(&mut self.0.lock().unwrap()),
        };
        tokio::time::sleep(Duration::from_millis(roll(20) as u64)).await;
        Ok(answer)
    }
}

#[async_trait]
impl Source for Slow {
    async fn visible(&self, _: &str, who: &str, after: &str, _: usize) -> Result<Visible, PocketBaseError> {
        self.answer(|world| {
            let rows = 1 + world.dice.roll(RECORDS);
            world.visible(who, after, rows)
        })
        .await
    }

    async fn view(&self, _: &str, checks: &[View]) -> Result<Views, PocketBaseError> {
        self.answer(|world| {
            let answered = 1 + world.dice.roll(checks.len());
            world.view(&checks[..answered])
        })
        .await
    }
}

/// A client with a list of notes.
struct Client {
    user: &'static str,
    connection: Arc<Connection>,
    subscribed: bool,
    list: BTreeMap<String, u64>,
    /// Time of the newest relayed row at the subscribe.
    asked: u64,
    /// Notes whose visibility changed between the subscribe and the client's read of PocketBase, and without a
    /// publication since. If the visibility changes back in the same batch, the stream publishes nothing.
    uncertain: BTreeSet<String>,
    told: Vec<String>,
}

/// A row of the outbox: its time, the access changes and the event.
type Row = (u64, Vec<Change>, Option<(Told, Payload)>);

struct Stage {
    world: Arc<Mutex<World>>,
    stream: Arc<Stream>,
    clients: Vec<Client>,
    /// The outbox: rows not yet relayed to the stream.
    pending: VecDeque<Row>,
    /// The time of the newest relayed row.
    relayed: u64,
    dice: Dice,
    connections: u64,
    steps: Vec<String>,
}

impl Stage {
    fn new(seed: u64, shares: bool, per_reader: bool) -> Self {
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
        let stream = Stream::start(&CHANNEL.into(), source, Turns::default(), Metrics::new().unwrap());
        let (clients, pending, steps) = (Vec::new(), VecDeque::new(), Vec::new());
        Self { world, stream: Arc::new(stream), clients, pending, relayed: 0, dice: Dice(seed), connections: 0, steps }
    }

    fn change(cause: Cause, user: Option<&str>, id: Option<&str>, namespace: Option<&str>) -> Change {
        let channel = id.map(|id| format!("note:{id}"));
        Change { cause, user: user.map(str::to_owned), channel, namespace: namespace.map(str::to_owned) }
    }

    /// Makes one random change in the world, and adds a row to the outbox.
    fn step(&mut self) {
        let dice = &mut self.dice;
        let mut world = self.world.lock().unwrap();
        world.now += 1;
        let (now, id, user) = (world.now, note_id(dice.roll(RECORDS)), dice.pick(&USERS));
        let (mut changes, mut event) = (Vec::new(), None);
        let mut deleted = false;
        let exists = world.notes.contains_key(&id);
        let step = dice.roll(13);
        match (step, exists) {
            (0..=2, false) => {
                let note = Note { owner: user, group: dice.roll(GROUPS), open: dice.roll(3) == 0, at: now };
                if dice.roll(3) == 0 {
                    let linked = dice.pick(&USERS);
                    world.links.insert((linked, id.clone()));
                    changes.push(Self::change(Cause::Member, Some(linked), Some(&id), None));
                }
                world.notes.insert(id.clone(), note);
                event = Some("create");
            }
            (0..=1, true) => {
                let mut told = BTreeSet::from([world.notes[&id].owner]);
                let note = world.notes.get_mut(&id).unwrap();
                note.at = now;
                match dice.roll(4) {
                    0 => note.owner = user,
                    1 => note.open = !note.open,
                    2 => note.group = dice.roll(GROUPS),
                    _ => told.clear(),
                }
                if !told.is_empty() {
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
            (Told { channels: vec![CHANNEL.to_owned()], users }, Payload::parse(&data.to_string()).unwrap())
        });
        world.observe();
        drop(world);
        self.pending.push_back((now, changes, event));
    }

    /// Relays the oldest row of the outbox to the stream.
    fn relay(&mut self) {
        let Some((at, changes, event)) = self.pending.pop_front() else { return };
        self.relayed = at;
        changes.iter().for_each(|change| self.stream.push(|| Input::Change(change.clone())));
        if let Some((told, data)) = event {
            self.stream.event(&told, &data);
        }
    }

    fn join(&mut self) {
        self.connections += 1;
        let user = self.dice.pick(&USERS);
        let connection =
            Connection::new(self.connections, user, "client", &Outbox::alone(1 << 20), Account::blocking(&[]));
        self.steps.push(format!("{user} comes as {}", self.connections));
        let (list, uncertain) = (BTreeMap::new(), BTreeSet::new());
        self.clients.push(Client { user, connection, subscribed: false, list, asked: 0, uncertain, told: vec![] });
        self.subscribe(self.clients.len() - 1);
    }

    fn subscribe(&mut self, client: usize) {
        let connection = Arc::clone(&self.clients[client].connection);
        self.clients[client].asked = self.relayed;
        connection.channels().insert(CHANNEL.into());
        let (joined, answer) = oneshot::channel();
        // The client waits without a timeout, like a client that subscribes again and again.
        std::mem::forget(answer);
        let reply = Frame::from_static(b"\x81\x0f{\"subscribe\":1}");
        self.stream.join(Join { connection, reply, joined, at: Instant::now() });
    }

    fn leave(&mut self) {
        if self.clients.is_empty() {
            return;
        }
        let client = self.clients.swap_remove(self.dice.roll(self.clients.len()));
        self.steps.push(format!("{} goes as {}", client.user, client.connection.id));
        client.connection.channels().remove(CHANNEL);
        self.stream.leave(&client.connection, None);
    }

    /// Takes the frames of all clients.
    async fn read(&mut self) {
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
        let mut world = self.world.lock().unwrap();
        let Client { user, subscribed, list, asked, uncertain, told, .. } = &mut self.clients[client];
        told.push(frame.to_string());
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
                assert!(seen.is_some_and(|seen| seen >= at()), "the note was not visible to {user}: {data}; {told:?}");
                if action == "join" && world.per_reader {
                    assert_eq!(data["record"]["reader"], *user, "{data}");
                }
                list.insert(id, at());
            }
            action @ ("delete" | "leave") => {
                assert_eq!(data["record"].as_object().unwrap().len(), 1);
                assert!(seen.is_some(), "the note was never visible to {user}: {data}; {told:?}");
                let stayed = !world.interrupted.contains(&(*user, id.clone()));
                let is_gone = !world.notes.contains_key(&id);
                assert!(
                    action == "delete" || !is_gone || !stayed,
                    "the note was visible to {user} until its deletion: {data}; {told:?}"
                );
                list.remove(&id);
            }
            other => panic!("{other}"),
        }
        world.observe();
        false
    }

    /// Relays all rows, and waits until each client's list equals PocketBase's list for the user.
    async fn rest(&mut self) {
        while !self.pending.is_empty() {
            self.relay();
        }
        let deadline = Instant::now() + Duration::from_secs(600);
        loop {
            // Gives the stream time to settle.
            tokio::time::sleep(Duration::from_millis(50)).await;
            self.read().await;
            let wrong = {
                let world = self.world.lock().unwrap();
                for Client { user, list, uncertain, .. } in &mut self.clients {
                    let truth = world.list(user);
                    for id in uncertain.iter() {
                        list.remove(id);
                        list.extend(truth.get(id).map(|at| (id.clone(), *at)));
                    }
                }
                let is_wrong = |client: &&Client| !client.subscribed || client.list != world.list(client.user);
                self.clients.iter().find(is_wrong).map(|it| (it.user, it.list.clone(), world.list(it.user), &it.told))
            };
            if wrong.is_none() && self.stream.behind() == Duration::ZERO {
                break;
            }
            assert!(
                Instant::now() < deadline,
                "(user, its list, PocketBase's list, told): {wrong:?}, {:?} behind; the last steps: {:#?}",
                self.stream.behind(),
                &self.steps[self.steps.len().saturating_sub(60)..]
            );
        }
        let mut world = self.world.lock().unwrap();
        self.clients.iter_mut().for_each(|client| client.uncertain.clear());
        world.interrupted.clear();
        world.observe();
    }
}

async fn run(seed: u64, shares: bool, per_reader: bool) {
    println!("seed {seed}, shares {shares}, per reader {per_reader}");
    let mut stage = Stage::new(seed, shares, per_reader);
    for _ in 0..12 {
        for _ in 0..1 + stage.dice.roll(40) {
            match stage.dice.roll(20) {
                0 | 1 => stage.join(),
                2 => stage.leave(),
                3 => stage.stream.push(|| Input::Recheck),
                4 if stage.dice.roll(10) == 0 => stage.stream.push(|| Input::Lost),
                5..=8 => (0..stage.dice.roll(6)).for_each(|_| stage.relay()),
                9..=11 => tokio::time::sleep(Duration::from_millis(stage.dice.roll(60) as u64)).await,
                12 => stage.read().await,
                _ => stage.step(),
            }
        }
        stage.rest().await;
    }
}

async fn run_all(shares: bool, per_reader: bool) {
    let first = std::env::var("SEED").ok().map(|seed| seed.parse().unwrap());
    let count = std::env::var("SEEDS").map_or(150, |count| count.parse().unwrap());
    let first = first.unwrap_or_else(|| u64::from(rand_seed()));
    for seed in first..first + count {
        run(seed, shares, per_reader).await;
    }
}

fn rand_seed() -> u32 {
    crate::random::token::<4>().bytes().fold(0, |seed, byte| seed.wrapping_mul(31).wrapping_add(u32::from(byte)))
}

#[tokio::test(start_paused = true)]
async fn clients_have_what_pocketbase_lists_where_users_share() {
    run_all(true, false).await;
}

#[tokio::test(start_paused = true)]
async fn clients_have_what_pocketbase_lists_where_users_share_nothing() {
    run_all(false, false).await;
}

#[tokio::test(start_paused = true)]
async fn clients_get_records_as_their_own_reader_does() {
    run_all(true, true).await;
}

#[tokio::test(start_paused = true)]
async fn joins_that_wait_are_bounded() {
    let stage = Stage::new(1, true, false);
    let connection = Connection::new(1, "ann", "client", &Outbox::alone(1 << 20), Account::blocking(&[]));
    // Nothing is settled before the first await.
    let mut answers: Vec<_> = (0..JOINS + 2)
        .map(|_| {
            let (joined, answer) = oneshot::channel();
            let reply = Frame::from_static(b"\x81\x02{}");
            stage.stream.join(Join { connection: Arc::clone(&connection), reply, joined, at: Instant::now() });
            answer
        })
        .collect();
    let refused = |answer: &mut oneshot::Receiver<()>| answer.try_recv() == Err(oneshot::error::TryRecvError::Closed);
    let refused: Vec<bool> = answers.iter_mut().map(refused).collect();
    assert_eq!(refused.iter().filter(|refused| **refused).count(), 2);
    assert!(refused.ends_with(&[true, true]));
}
