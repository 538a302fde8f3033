//! The passes over the export, in the order in which records may refer to each other. A pass turns the rows of one
//! section into rows of PocketBase's collections, in batches through a bounded queue.

use super::extras;
use super::ids::compact;
use super::ledger::Ledger;
use super::mapping::{ACCOUNTS, Mapping};
use super::messages;
use super::people;
use super::plan::Plan;
use super::record::{Record, Row, records};
use super::rooms;
use super::spool::key_hash;
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Rows and bytes of one batch: a transaction of about a tenth of a second, during which other writes wait.
const BATCH_ROWS: usize = 2000;
const BATCH_RECORDS: usize = 250;
const BATCH_BYTES: usize = 4 << 20;
/// Batches that wait for PocketBase.
const QUEUE: usize = 2;

/// A row for PocketBase.
pub struct Target {
    /// A collection, or the name of a second write to its records.
    pub kind: &'static str,
    pub id: String,
    /// Key of the row in the old table.
    pub key: String,
    pub row: Value,
    /// Whether the old row stands or falls with this row.
    pub is_primary: bool,
}

/// The collection of a kind.
pub fn collection(kind: &str) -> &str {
    match kind {
        "blocked" => "users",
        "pinned" => "rooms",
        "friends" => "friend_requests",
        kind => kind,
    }
}

/// Kinds that PocketBase validates one by one, which takes longer than the others.
fn is_validated(kind: &str) -> bool {
    !matches!(collection(kind), "messages" | "reactions" | "room_members" | "notifications" | "poll_votes")
}

pub struct Step {
    pub label: &'static str,
    pub section: &'static str,
    pub kinds: &'static [&'static str],
    /// Whether the section's rows are counted by this step.
    counts: bool,
}

const fn step(label: &'static str, section: &'static str, kinds: &'static [&'static str], counts: bool) -> Step {
    Step { label, section, kinds, counts }
}

pub const STEPS: &[Step] = &[
    step("users", "users", &["users"], true),
    step("accounts", ACCOUNTS, &["users"], false),
    step("blocked users", "users", &["blocked"], false),
    step("rooms", "rooms", &["rooms"], true),
    step("direct rooms", "direct_rooms", &["rooms"], true),
    step("hidden rooms", "direct_hidden", &[], true),
    step("members", "rooms", &["room_members"], false),
    step("direct members", "direct_rooms", &["room_members"], false),
    step("messages", "messages", &["messages", "reactions"], true),
    step("pins", "rooms", &["pins", "pinned"], false),
    step("polls", "polls", &["polls"], true),
    step("votes", "polls", &["poll_votes"], false),
    step("friends", "users", &["friends"], false),
    step("friend requests", "friend_requests", &["friend_requests"], true),
    step("notifications", "notifications", &["notifications"], true),
    step("achievements", "achievements", &["achievements"], true),
    step("room keys", "users", &["room_keys"], false),
];

/// The rows that a step yields, and what it has to report.
pub struct Out {
    kinds: &'static [&'static str],
    rows: Vec<Target>,
    repairs: Vec<(String, String, String)>,
    replaced: Vec<(String, String)>,
}

impl Out {
    pub fn push(&mut self, target: Target) {
        if self.kinds.contains(&target.kind) {
            self.rows.push(target);
        }
    }

    pub fn primary(&mut self, kind: &'static str, id: &str, key: &str, row: Value) {
        self.push(Target { kind, id: id.to_owned(), key: key.to_owned(), row, is_primary: true });
    }

    pub fn secondary(&mut self, kind: &'static str, id: &str, key: &str, row: Value) {
        self.push(Target { kind, id: id.to_owned(), key: key.to_owned(), row, is_primary: false });
    }

    /// A part of an imported row that was changed or left out.
    pub fn repair(&mut self, kind: &str, key: &str, field: &str, reason: &str) {
        if self.kinds.contains(&kind) {
            self.repairs.push((key.to_owned(), field.to_owned(), reason.to_owned()));
        }
    }

    pub fn replaced(&mut self, id: &str, original: &str) {
        self.replaced.push((id.to_owned(), original.to_owned()));
    }
}

/// Which rows are wanted.
#[derive(Clone, Default)]
pub struct Filter {
    /// Hashes of keys that have changed.
    pub changed: Option<Arc<HashSet<u64>>>,
    pub only: Option<Arc<Only>>,
}

/// A trial import of one user: their record, their rooms and the owners of these, and the messages that they wrote.
#[derive(Default)]
pub struct Only {
    user: String,
    users: HashSet<String>,
    rooms: HashSet<String>,
}

impl Only {
    pub fn of(plan: &Plan, email: &str) -> anyhow::Result<Self> {
        let email = email.trim().to_lowercase();
        let person = plan.users.values().find(|person| person.email == email);
        let user =
            person.ok_or_else(|| anyhow::anyhow!("no user of the export has the e-mail address {email}"))?.id.clone();
        let mut only = Self { users: HashSet::from([user.clone()]), user, rooms: HashSet::new() };
        let ledger = Mutex::new(Ledger::silent());
        for step in STEPS.iter().filter(|step| step.kinds == ["room_members"] || step.kinds == ["rooms"]) {
            rows_of(plan, step, &Filter::default(), &ledger, |targets| {
                for target in targets {
                    if target.kind == "room_members" && target.row["user"] == *only.user {
                        only.rooms.insert(target.row["room"].as_str().unwrap_or_default().to_owned());
                    }
                }
                Ok(())
            })?;
        }
        let mut owners = Vec::new();
        for step in STEPS.iter().filter(|step| step.kinds == ["rooms"]) {
            rows_of(plan, step, &Filter::default(), &ledger, |targets| {
                owners.extend(
                    targets
                        .iter()
                        .filter(|t| only.rooms.contains(&t.id))
                        .filter_map(|t| t.row["owner"].as_str().map(str::to_owned)),
                );
                Ok(())
            })?;
        }
        only.users.extend(owners.into_iter().filter(|owner| !owner.is_empty()));
        Ok(only)
    }

    fn wants(&self, target: &Target) -> bool {
        let text = |name: &str| target.row[name].as_str().unwrap_or_default();
        match target.kind {
            "users" => self.users.contains(&target.id),
            "rooms" => self.rooms.contains(&target.id),
            "room_members" => self.rooms.contains(text("room")) && self.users.contains(text("user")),
            "messages" => self.rooms.contains(text("room")) && text("author") == self.user,
            "friends" | "friend_requests" => self.users.contains(text("from")) && self.users.contains(text("to")),
            "notifications" => text("user") == self.user && text("from").is_empty(),
            "reactions" | "achievements" | "room_keys" => text("user") == self.user,
            _ => false,
        }
    }

    pub fn owns(&self, user: &str) -> bool {
        self.user == user
    }
}

impl Filter {
    /// Whether a row is wanted, by its key.
    fn takes(&self, section: &str, key: &str) -> bool {
        let Some(changed) = &self.changed else { return true };
        if changed.contains(&key_hash(key)) {
            return true;
        }
        let Some(id) = key.strip_prefix("user:").filter(|_| section == "users") else { return false };
        changed.contains(&key_hash(&format!("account:{id}"))) || changed.contains(&key_hash(&format!("hash:{id}")))
    }
}

/// What the consumer of the passes gets.
pub enum Event {
    Begin(&'static str, u64),
    Rows(&'static str, Vec<Target>),
    /// Rows of the section that are done.
    Lines(u64),
    End,
}

/// Runs all steps in a thread of its own.
pub fn start(
    plan: Arc<Plan>,
    filter: Filter,
    ledger: Arc<Mutex<Ledger>>,
) -> (mpsc::Receiver<Event>, tokio::task::JoinHandle<anyhow::Result<()>>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let task = tokio::task::spawn_blocking(move || {
        for step in STEPS {
            produce(&plan, step, &filter, &ledger, &sender)?;
        }
        Ok(())
    });
    (receiver, task)
}

fn produce(
    plan: &Plan,
    step: &Step,
    filter: &Filter,
    ledger: &Mutex<Ledger>,
    sender: &mpsc::Sender<Event>,
) -> anyhow::Result<()> {
    let send = |event| sender.blocking_send(event).map_err(|_| anyhow::anyhow!("stopped"));
    send(Event::Begin(step.label, plan.document.rows(step.section)))?;
    let mut batches: BTreeMap<&'static str, (Vec<Target>, usize)> = BTreeMap::new();
    let mut lines = 0;
    rows_of(plan, step, filter, ledger, |targets| {
        lines += 1;
        for target in targets.drain(..) {
            let kind = target.kind;
            let (rows, bytes) = batches.entry(kind).or_default();
            *bytes += 300 + target.row["content"].as_str().map_or(0, str::len);
            rows.push(target);
            let most = if is_validated(kind) { BATCH_RECORDS } else { BATCH_ROWS };
            if rows.len() >= most || *bytes >= BATCH_BYTES {
                *bytes = 0;
                send(Event::Rows(kind, std::mem::take(rows)))?;
            }
        }
        if lines % 500 == 0 {
            send(Event::Lines(500))?;
        }
        Ok(())
    })?;
    for (kind, (rows, _)) in batches {
        if !rows.is_empty() {
            send(Event::Rows(kind, rows))?;
        }
    }
    send(Event::Lines(lines % 500))?;
    send(Event::End)
}

/// Calls `each` with the targets of every row of a step.
fn rows_of(
    plan: &Plan,
    step: &Step,
    filter: &Filter,
    ledger: &Mutex<Ledger>,
    mut each: impl FnMut(&mut Vec<Target>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut out = Out { kinds: step.kinds, rows: Vec::new(), repairs: Vec::new(), replaced: Vec::new() };
    let only = filter.only.as_deref();
    if step.section == ACCOUNTS {
        for hash in &plan.bare_accounts {
            people::bare(&plan.users[hash], &mut out);
            out.rows.retain(|target| only.is_none_or(|only| only.wants(target)));
            ledger.lock().reported(&mut out.repairs, &mut out.replaced);
            each(&mut out.rows)?;
        }
        return Ok(());
    }
    let mapping = &plan.document.header.mapping;
    plan.document.section(step.section, |line| {
        let row: Row<'_> = match serde_json::from_str(line) {
            Ok(row) => row,
            Err(error) => {
                ledger.lock().unreadable(step.section, line, &error.to_string());
                return Ok(());
            }
        };
        if !filter.takes(step.section, &row.key) {
            return Ok(());
        }
        let failed = transform(plan, mapping, step.section, &row, &mut out);
        out.rows.retain(|target| only.is_none_or(|only| only.wants(target)));
        if only.is_some() && out.rows.is_empty() {
            out.repairs.clear();
            out.replaced.clear();
            return Ok(());
        }
        let mut ledger = ledger.lock();
        if step.counts && only.is_none() {
            ledger.row(step.section, line, &row.key, failed);
        }
        if step.counts || !out.repairs.is_empty() {
            ledger.reported(&mut out.repairs, &mut out.replaced);
        }
        out.repairs.clear();
        out.replaced.clear();
        drop(ledger);
        each(&mut out.rows)
    })
}

/// The reasons of all objects of a row that cannot be imported, and whether others could.
pub struct Failed {
    pub reasons: Vec<String>,
    pub is_whole: bool,
}

fn transform(plan: &Plan, mapping: &Mapping, section: &str, row: &Row<'_>, out: &mut Out) -> Failed {
    let found = match records(mapping, section, row) {
        Ok(found) => found,
        Err(reason) => return Failed { reasons: vec![reason.to_owned()], is_whole: true },
    };
    let count = found.len();
    let reasons: Vec<String> = found.iter().filter_map(|record| one(plan, section, record, out).err()).collect();
    Failed { is_whole: reasons.len() == count, reasons }
}

fn one(plan: &Plan, section: &str, record: &Record, out: &mut Out) -> Result<(), String> {
    if section != "messages" && plan.duplicates.contains(&key_hash(&record.key)) {
        return Err("another row has the same id".to_owned());
    }
    match section {
        "users" => people::user(plan, record, out),
        "rooms" | "direct_rooms" => rooms::room(plan, section, record, out),
        "direct_hidden" => hidden(plan, record),
        "messages" => messages::message(plan, record, out),
        "polls" => extras::poll(plan, record, out),
        "notifications" => extras::notification(plan, record, out),
        "friend_requests" => extras::friend_request(plan, record, out),
        "achievements" => extras::achievements(plan, record, out),
        _ => Err("no such section".to_owned()),
    }
}

/// The date itself is written with the membership.
fn hidden(plan: &Plan, record: &Record) -> Result<(), String> {
    let room = compact(&rooms::direct_id(&record.text("a"), &record.text("b")));
    let is_known = plan.rooms.contains_key(&room) && plan.user(&record.text("user")).is_some();
    if !is_known {
        return Err("the direct room or the user is gone".to_owned());
    }
    record.date("hidden_at").map(|_| ()).ok_or_else(|| "no date".to_owned())
}
