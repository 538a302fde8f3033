//! The passes over the export, one for each step. A pass turns the rows of a section into rows of PocketBase's
//! collections, in batches through a bounded queue.

use super::extras;
use super::filter::Filter;
use super::ids::compact;
use super::ledger::Ledger;
use super::mapping::{ACCOUNTS, Mapping};
use super::messages;
use super::plan::Plan;
use super::record::{Record, Row, records};
use super::rooms;
use super::spool::key_hash;
use super::steps::{STEPS, Step, Target, is_validated};
use super::users;
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Rows and bytes of a batch: a transaction of about a tenth of a second, during which live users' writes wait.
const BATCH_ROWS: usize = 2000;
const BATCH_RECORDS: usize = 250;
const BATCH_BYTES: usize = 4 << 20;
/// Batches that wait for PocketBase.
const QUEUE: usize = 2;

/// Rows and reports of a step.
pub struct Out {
    kinds: &'static [&'static str],
    rows: Vec<Target>,
    /// True for a delta: empty lists are written too, since the record of an earlier import may have a longer list.
    pub is_delta: bool,
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

    /// Reports a changed or omitted part of an imported row.
    pub fn repair(&mut self, kind: &str, key: &str, field: &str, reason: &str) {
        if self.kinds.contains(&kind) {
            self.repairs.push((key.to_owned(), field.to_owned(), reason.to_owned()));
        }
    }

    pub fn replaced(&mut self, id: &str, original: &str) {
        self.replaced.push((id.to_owned(), original.to_owned()));
    }
}

/// Events for the consumer of the passes.
pub enum Event {
    Begin(&'static str, u64),
    Rows(&'static str, Vec<Target>),
    /// Number of finished rows of the section.
    Lines(u64),
    End,
}

/// Runs the steps in a separate thread.
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
pub fn rows_of(
    plan: &Plan,
    step: &Step,
    filter: &Filter,
    ledger: &Mutex<Ledger>,
    mut each: impl FnMut(&mut Vec<Target>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let is_delta = filter.changed.is_some();
    let mut out = Out { kinds: step.kinds, rows: Vec::new(), is_delta, repairs: Vec::new(), replaced: Vec::new() };
    let only = filter.only.as_deref();
    if step.section == ACCOUNTS {
        for person in plan.bare_accounts.iter().map(|hash| &plan.users[hash]).filter(|p| filter.takes_account(p)) {
            users::bare(person, &mut out);
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
        if !filter.takes(mapping, step.section, &row) {
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

/// The rejected objects of a row: a reason for each, and whether every object of the row was rejected.
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
        "users" => users::user(plan, record, out),
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
