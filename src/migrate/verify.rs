//! The verification: every row that the export yields is compared with PocketBase's row, field by field, also password
//! hashes and encrypted content; every file by its checksum; and the access rules for a sample of users.

use super::document::private;
use super::files;
use super::http::{Call, Http};
use super::ids::sha256_hex;
use super::ledger::Ledger;
use super::passes::{self, Event, Filter, STEPS, Target};
use super::plan::Plan;
use super::progress::{Progress, grouped};
use super::rules::{self, Sample};
use super::target::Pocket;
use anyhow::Context;
use futures_util::StreamExt;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Differences that the summary lists; `verify.jsonl` has all.
const LISTED: usize = 20;
const DOWNLOADS: usize = 4;

#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Rows compared, by kind.
    pub compared: BTreeMap<String, u64>,
    /// Rows that PocketBase had refused (in `rejects.jsonl`).
    pub rejected: u64,
    /// Contents that are end-to-end encrypted, and public and room keys: compared byte for byte.
    pub encrypted: u64,
    pub password_hashes: u64,
    pub files: u64,
    pub users_sampled: u64,
    pub logins: u64,
    /// Rows in PocketBase that are newer than the export, by collection.
    pub newer: BTreeMap<String, u64>,
    pub differences: u64,
    pub first_differences: Vec<Value>,
    pub seconds: f64,
}

/// A login to try: e-mail address and password.
pub type Login = (String, String);

struct Checker {
    report: Report,
    out: BufWriter<File>,
    /// Records that PocketBase refused.
    refused: HashSet<String>,
    /// Distinct records found, by collection.
    found: HashMap<String, u64>,
}

impl Checker {
    fn differs(&mut self, difference: Value) {
        self.report.differences += 1;
        let _ = writeln!(self.out, "{difference}");
        if self.report.first_differences.len() < LISTED {
            self.report.first_differences.push(difference);
        }
    }

    fn batch(&mut self, kind: &'static str, rows: &[Target], found: Vec<Value>) {
        let by_id: HashMap<&str, &Value> = found.iter().filter_map(|row| Some((row["id"].as_str()?, row))).collect();
        for target in rows {
            let Some(stored) = by_id.get(target.id.as_str()) else {
                if self.refused.contains(&format!("{kind} {}", target.id)) {
                    self.report.rejected += 1;
                } else {
                    self.differs(json!({"kind": kind, "id": target.id, "key": target.key, "problem": "missing"}));
                }
                continue;
            };
            *self.report.compared.entry(kind.to_owned()).or_default() += 1;
            if kind == passes::collection(kind) || kind == "friends" {
                *self.found.entry(passes::collection(kind).to_owned()).or_default() += 1;
            }
            self.fields(kind, target, stored);
        }
    }

    fn fields(&mut self, kind: &str, target: &Target, stored: &Value) {
        for (name, expected) in target.row.as_object().into_iter().flatten().filter(|(name, _)| *name != "amend") {
            let got = &stored[column(name)];
            if is_same(expected, got) {
                let is_encrypted = matches!(name.as_str(), "public_key" | "encrypted_key") && expected != ""
                    || name == "content" && expected.as_str().is_some_and(|text| text.contains("\"ciphertext\""));
                self.report.encrypted += u64::from(is_encrypted);
                self.report.password_hashes += u64::from(name == "hash");
                continue;
            }
            // Hashes are secrets, also in reports.
            let (expected, got) = if name == "hash" {
                (json!("the old hash"), json!("another hash"))
            } else {
                (expected.clone(), got.clone())
            };
            self.differs(json!({
                "kind": kind, "id": target.id, "key": target.key, "problem": "differs", "field": name,
                "expected": short(&expected), "found": short(&got),
            }));
        }
    }
}

fn column(name: &str) -> &str {
    if name == "hash" { "password" } else { name }
}

/// SQLite has no booleans, and arrays are JSON texts.
fn is_same(expected: &Value, got: &Value) -> bool {
    match expected {
        Value::Bool(flag) => got.as_bool() == Some(*flag) || got.as_i64() == Some(i64::from(*flag)),
        Value::Number(number) => number.as_f64() == got.as_f64(),
        Value::Array(list) => match got {
            Value::Array(other) => list == other,
            Value::String(text) => serde_json::from_str::<Value>(if text.is_empty() { "[]" } else { text })
                .is_ok_and(|other| other == *expected),
            _ => false,
        },
        expected => expected == got,
    }
}

fn short(value: &Value) -> Value {
    match value {
        Value::String(text) if text.chars().count() > 200 => json!(text.chars().take(200).collect::<String>() + "…"),
        value => value.clone(),
    }
}

pub async fn run(
    plan: &Arc<Plan>,
    pocket: &Pocket,
    logins: &[Login],
    filter: &Filter,
    with_files: bool,
) -> anyhow::Result<Report> {
    let started = Instant::now();
    let folder = &plan.document.folder;
    let mut checker = Checker {
        report: Report::default(),
        out: BufWriter::new(private(&folder.join("verify.jsonl"))?),
        refused: refused(folder),
        found: HashMap::new(),
    };
    let mut sample = Sample::of(plan);
    compare(plan, pocket, filter, &mut checker, &mut sample).await?;
    if with_files {
        compare_files(plan, pocket, filter, &mut checker).await?;
    }
    if filter.only.is_none() && filter.changed.is_none() {
        extra(plan, pocket, with_files, &mut checker).await?;
        for difference in rules::check(pocket, &sample).await? {
            checker.differs(difference);
        }
        checker.report.users_sampled = sample.size() as u64;
    }
    for (email, password) in logins {
        if pocket.can_log_in(email, password).await? {
            checker.report.logins += 1;
        } else {
            checker.differs(json!({"kind": "login", "id": email, "problem": "the login was refused"}));
        }
    }
    checker.out.flush()?;
    checker.report.seconds = started.elapsed().as_secs_f64();
    std::fs::write(folder.join("verify.json"), serde_json::to_string_pretty(&checker.report)?)?;
    Ok(checker.report)
}

async fn compare(
    plan: &Arc<Plan>,
    pocket: &Pocket,
    filter: &Filter,
    checker: &mut Checker,
    sample: &mut Sample,
) -> anyhow::Result<()> {
    let ledger = Arc::new(Mutex::new(Ledger::silent()));
    let (mut events, task) = passes::start(Arc::clone(plan), filter.clone(), ledger);
    let (mut step, mut progress) = (0, None);
    while let Some(event) = events.recv().await {
        match event {
            Event::Begin(label, total) => progress = (total > 0).then(|| Progress::new(label, total)),
            Event::Rows(kind, rows) => {
                sample.see(kind, &rows);
                let ids: Vec<&str> = rows.iter().map(|target| target.id.as_str()).collect();
                let names: HashSet<&str> = rows
                    .iter()
                    .filter_map(|target| target.row.as_object())
                    .flat_map(|row| row.keys())
                    .map(|name| column(name))
                    .filter(|name| *name != "amend")
                    .collect();
                let names: Vec<&str> = names.into_iter().collect();
                let found = pocket
                    .read(passes::collection(kind), &ids, &names)
                    .await
                    .with_context(|| format!("reading {kind} ({})", STEPS[step].label))?;
                checker.batch(kind, &rows, found);
            }
            Event::Lines(count) => {
                if let Some(progress) = &mut progress {
                    progress.add(count);
                }
            }
            Event::End => {
                if let Some(progress) = progress.take() {
                    progress.finish();
                }
                step += 1;
            }
        }
    }
    task.await.context("the passes")?
}

/// Rows in PocketBase beside those of the export: newer rows are users' own; older rows should not be there.
async fn extra(plan: &Plan, pocket: &Pocket, with_files: bool, checker: &mut Checker) -> anyhow::Result<()> {
    let all = pocket.counts(None).await?;
    let before = pocket.counts(Some(&plan.document.header.exported_at)).await?;
    for (collection, total) in all {
        if collection == "files" && !with_files {
            continue;
        }
        let (old, found) =
            (before.get(&collection).copied().unwrap_or(0), checker.found.get(&collection).copied().unwrap_or(0));
        if old > found {
            checker.differs(json!({
                "kind": collection, "problem": "rows from before the export that the export does not have",
                "expected": found, "found": old,
            }));
        }
        checker.report.newer.insert(collection, total.saturating_sub(found));
    }
    Ok(())
}

async fn compare_files(plan: &Plan, pocket: &Pocket, filter: &Filter, checker: &mut Checker) -> anyhow::Result<()> {
    let wanted = files::wanted(plan, filter);
    let mut progress = Progress::new("files", wanted.len() as u64);
    let http = Http::new(&pocket.url)?;
    let mut downloads = futures_util::stream::iter(wanted.into_iter().map(|file| {
        let call = Call::get(format!("{}/api/files/{}/{}/{}", pocket.url, file.kind, file.id, file.name));
        let http = http.clone();
        async move { (file, http.call(&call).await) }
    }))
    .buffer_unordered(DOWNLOADS);
    while let Some((file, answer)) = downloads.next().await {
        let answer = answer?;
        let key = super::storage::key(&file.stored.bucket, &file.stored.path);
        progress.add(1);
        if file.kind == "files" && answer.is_success() {
            *checker.found.entry("files".to_owned()).or_default() += 1;
        }
        if checker.refused.contains(&format!("files {key}")) {
            checker.report.rejected += 1;
        } else if !answer.is_success() {
            checker.differs(
                json!({"kind": "files", "id": file.id, "key": key, "problem": "missing", "found": answer.status}),
            );
        } else if sha256_hex(&answer.body) != file.stored.sha256 {
            checker
                .differs(json!({"kind": "files", "id": file.id, "key": key, "problem": "differs", "field": "content"}));
        } else {
            checker.report.files += 1;
        }
    }
    progress.finish();
    Ok(())
}

/// The refused records of `rejects.jsonl`, as "kind id"; files as "files key".
fn refused(folder: &Path) -> HashSet<String> {
    let Ok(file) = File::open(folder.join("rejects.jsonl")) else { return HashSet::new() };
    let lines = BufReader::new(file).lines().map_while(Result::ok);
    let entry = |line: String| {
        let reject: Value = serde_json::from_str(&line).ok()?;
        Some(format!("{} {}", reject["kind"].as_str()?, reject["id"].as_str().or(reject["key"].as_str())?))
    };
    lines.filter_map(entry).collect()
}

/// The report for people.
pub fn text(report: &Report) -> String {
    let mut lines: Vec<String> =
        report.compared.iter().map(|(kind, count)| format!("{kind:<18} {:>11} compared", grouped(*count))).collect();
    lines.push(format!(
        "{} password hashes, {} encrypted contents and keys, {} files are the same byte for byte",
        grouped(report.password_hashes),
        grouped(report.encrypted),
        grouped(report.files)
    ));
    lines.push(format!(
        "{} users see what they saw, and nothing else; {} logins with a known password worked",
        report.users_sampled, report.logins
    ));
    if report.rejected > 0 {
        lines.push(format!("{} rows were rejected by the import (rejects.jsonl)", grouped(report.rejected)));
    }
    for (kind, count) in report.newer.iter().filter(|(_, count)| **count > 0) {
        lines.push(format!("{kind}: {} rows are newer than the export", grouped(*count)));
    }
    for difference in &report.first_differences {
        lines.push(format!("DIFFERENCE {difference}"));
    }
    lines.push(match report.differences {
        0 => format!("no differences, {:.1} s", report.seconds),
        count => format!("{} differences, all in verify.jsonl; {:.1} s", grouped(count), report.seconds),
    });
    lines.join("\n")
}
