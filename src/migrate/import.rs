//! The import into PocketBase: all rows, then the files, then one announcement for connected clients.

use super::files;
use super::filter::Filter;
use super::gone::Gone;
use super::ledger::{Counts, Ledger, Rows};
use super::leftovers::Leftovers;
use super::mapping::INDEX;
use super::passes::{self, Event};
use super::plan::Plan;
use super::progress::{Progress, grouped};
use super::steps::{STEPS, Target, collection};
use super::target::{Pocket, Removed};
use anyhow::Context;
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use tokio::task::JoinSet;

/// Batches under way at the same time: while PocketBase writes a batch, the next batch arrives. PocketBase writes in the
/// order of arrival, so a live user's write waits for two batches at most.
const AT_ONCE: usize = 2;

#[derive(Clone, Default)]
pub struct Options {
    pub filter: Filter,
    /// Replaces rows that differ, also rows that were changed in PocketBase.
    pub force: bool,
    /// Nothing is written.
    pub dry_run: bool,
    pub with_files: bool,
    /// Deleted rows of a delta. Records of deleted rows, and of deleted parts of changed rows, are removed.
    pub gone: Option<Arc<Gone>>,
}

#[derive(Debug, Serialize)]
pub struct Summary {
    pub seconds: f64,
    pub messages_seconds: f64,
    /// Seconds by label of the step.
    pub step_seconds: BTreeMap<&'static str, f64>,
    pub balance: Option<String>,
    pub sections: BTreeMap<String, Rows>,
    pub kinds: BTreeMap<String, Counts>,
    pub total: Counts,
    pub rejected_reasons: BTreeMap<String, u64>,
    pub repairs: BTreeMap<String, u64>,
    pub passwords: BTreeMap<String, u64>,
    pub files_sent: u64,
    pub bytes_sent: u64,
    /// Removed records of deleted rows and parts.
    pub removed: u64,
    /// Deleted users and rooms with messages written in PocketBase, for which the records stay.
    pub kept: u64,
    pub dry_run: bool,
}

impl Summary {
    /// True after an import with rejected rows.
    pub fn has_rejects(&self) -> bool {
        !self.rejected_reasons.is_empty()
    }
}

/// `pocket` may be absent for a dry run only.
pub async fn run(plan: &Arc<Plan>, pocket: Option<&Pocket>, options: &Options) -> anyhow::Result<Summary> {
    let started = Instant::now();
    let ledger = Arc::new(Mutex::new(Ledger::new(&plan.document.folder)?));
    let is_real = pocket.filter(|_| !options.dry_run);
    let mut removed = Removed::default();
    // Before the passes, since names and pairs of deleted records are unique and may be in use again.
    if let (Some(pocket), Some(gone)) = (is_real, &options.gone) {
        removed = gone.remove(pocket, plan).await.context("removing what is gone")?;
    }
    let (mut events, task) = passes::start(Arc::clone(plan), options.filter.clone(), Arc::clone(&ledger));
    let mut writes = Writes::new(is_real, options.force, &ledger);
    let mut step = 0;
    let mut progress = None;
    let mut step_seconds = BTreeMap::new();
    let mut began = Instant::now();
    let mut leftovers = options.gone.as_ref().map(|_| Leftovers::default());
    while let Some(event) = events.recv().await {
        match event {
            Event::Begin(label, total) => {
                began = Instant::now();
                progress = (total > 0).then(|| Progress::new(label, total));
            }
            Event::Rows(kind, rows) => {
                if let Some(leftovers) = &mut leftovers {
                    leftovers.see(kind, &rows);
                }
                writes.add(STEPS[step].section, kind, rows).await?;
            }
            Event::Lines(count) => {
                if let Some(progress) = &mut progress {
                    progress.add(count);
                }
            }
            Event::End => {
                writes.finish().await?;
                step_seconds.insert(STEPS[step].label, began.elapsed().as_secs_f64());
                if let Some(progress) = progress.take() {
                    progress.finish();
                }
                step += 1;
            }
        }
    }
    task.await.context("the passes")??;
    let (mut files_sent, mut bytes_sent) = (0, 0);
    if let (Some(pocket), Some(leftovers)) = (is_real, leftovers) {
        removed.removed += leftovers.remove(pocket, plan).await.context("removing parts that are gone")?;
    }
    if let Some(pocket) = is_real {
        if options.with_files {
            began = Instant::now();
            (files_sent, bytes_sent) = files::import(plan, pocket, &options.filter, &ledger).await?;
            step_seconds.insert("files", began.elapsed().as_secs_f64());
        }
        pocket.done().await.context("announcing the end of the import")?;
    }
    let mut ledger = ledger.lock();
    ledger.flush()?;
    let header = &plan.document.header;
    let is_whole = options.filter.changed.is_none() && options.filter.only.is_none();
    let balance =
        is_whole.then(|| ledger.balance(header.table_rows, header.unmapped, plan.document.rows(INDEX))).transpose()?;
    Ok(Summary {
        seconds: started.elapsed().as_secs_f64(),
        messages_seconds: step_seconds.get("messages").copied().unwrap_or(0.0),
        step_seconds,
        balance,
        sections: ledger.sections.clone(),
        kinds: ledger.kinds.clone(),
        total: ledger.total(),
        rejected_reasons: ledger.reasons.clone(),
        repairs: ledger.repaired.clone(),
        passwords: plan.classes.iter().map(|(class, count)| (class.name().to_owned(), *count)).collect(),
        files_sent,
        bytes_sent,
        removed: removed.removed,
        kept: removed.kept,
        dry_run: options.dry_run,
    })
}

/// The writes of a step. Steps do not overlap, since rows refer to rows of earlier steps.
struct Writes {
    /// Absent in a dry run.
    pocket: Option<Pocket>,
    force: bool,
    ledger: Arc<Mutex<Ledger>>,
    under_way: JoinSet<anyhow::Result<()>>,
}

impl Writes {
    fn new(pocket: Option<&Pocket>, force: bool, ledger: &Arc<Mutex<Ledger>>) -> Self {
        Self { pocket: pocket.cloned(), force, ledger: Arc::clone(ledger), under_way: JoinSet::new() }
    }

    /// Starts a write, after waiting while [`AT_ONCE`] writes are under way.
    async fn add(&mut self, section: &'static str, kind: &'static str, rows: Vec<Target>) -> anyhow::Result<()> {
        let Some(pocket) = &self.pocket else {
            self.ledger.lock().written(kind, rows.len() as u64, 0, 0);
            return Ok(());
        };
        let (pocket, force, ledger) = (pocket.clone(), self.force, Arc::clone(&self.ledger));
        while self.under_way.len() >= AT_ONCE {
            self.next().await?;
        }
        self.under_way.spawn(async move { write(&pocket, force, &ledger, section, kind, &rows).await });
        Ok(())
    }

    async fn finish(&mut self) -> anyhow::Result<()> {
        while !self.under_way.is_empty() {
            self.next().await?;
        }
        Ok(())
    }

    async fn next(&mut self) -> anyhow::Result<()> {
        self.under_way.join_next().await.map_or(Ok(()), |ended| ended.context("a write")?)
    }
}

async fn write(
    pocket: &Pocket,
    force: bool,
    ledger: &Mutex<Ledger>,
    section: &str,
    kind: &'static str,
    rows: &[Target],
) -> anyhow::Result<()> {
    let written = pocket.write(collection(kind), body(rows)?, rows.len(), force).await;
    let written = written
        .with_context(|| format!("writing {} rows of the kind {kind}, the first {}", rows.len(), rows[0].key))?;
    let mut ledger = ledger.lock();
    ledger.written(kind, written.created, written.updated, written.unchanged);
    for rejected in &written.rejected {
        if let Some(target) = rows.iter().find(|target| target.id == rejected.id) {
            ledger.refused(section, target, &rejected.reason);
        }
    }
    Ok(())
}

/// The rows as a JSON array.
fn body(rows: &[Target]) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::with_capacity(rows.len() * 600);
    body.push(b'[');
    for (number, target) in rows.iter().enumerate() {
        if number > 0 {
            body.push(b',');
        }
        serde_json::to_writer(&mut body, &target.row)?;
    }
    body.push(b']');
    Ok(body)
}

/// The summary for people.
pub fn text(summary: &Summary) -> String {
    let mut lines = Vec::new();
    if summary.dry_run {
        lines.push("dry run: nothing was written".to_owned());
    }
    lines.push(format!("{:<18} {:>11} {:>11} {:>11} {:>11}", "", "created", "updated", "unchanged", "rejected"));
    let row = |name: &str, counts: &Counts| {
        let [a, b, c, d] = [counts.created, counts.updated, counts.unchanged, counts.rejected].map(grouped);
        format!("{name:<18} {a:>11} {b:>11} {c:>11} {d:>11}")
    };
    lines.extend(summary.kinds.iter().map(|(kind, counts)| row(kind, counts)));
    lines.push(row("all", &summary.total));
    lines.extend(summary.balance.clone());
    let mut list = |title: &str, entries: &BTreeMap<String, u64>| {
        if !entries.is_empty() {
            lines.push(title.to_owned());
            lines.extend(entries.iter().map(|(name, count)| format!("  {:>9}  {name}", grouped(*count))));
        }
    };
    list("passwords:", &summary.passwords);
    list("parts that imported rows have lost (repairs.jsonl):", &summary.repairs);
    list("rejected (rejects.jsonl):", &summary.rejected_reasons);
    if summary.removed > 0 {
        lines.push(format!("{} records removed, which the old chat no longer has", grouped(summary.removed)));
    }
    if summary.kept > 0 {
        lines.push(format!(
            "{} users or rooms kept, which the old chat no longer has: they have messages that were written here",
            grouped(summary.kept)
        ));
    }
    lines.push(format!("{:.1} s, the messages {:.1} s", summary.seconds, summary.messages_seconds));
    lines.join("\n")
}
