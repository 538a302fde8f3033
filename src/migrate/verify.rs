//! The verification: every row that the export yields is compared with PocketBase's row, field by field, also password
//! hashes and encrypted content; every file by its checksum; and the access rules for a sample of users.

use super::compare::{Checker, Report, column};
use super::files;
use super::filter::Filter;
use super::http::{Call, Http};
use super::ids::sha256_hex;
use super::ledger::Ledger;
use super::passes::{self, Event};
use super::plan::Plan;
use super::progress::{Progress, grouped};
use super::rules::{self, Sample};
use super::steps::{STEPS, collection};
use super::target::Pocket;
use anyhow::Context;
use futures_util::StreamExt;
use parking_lot::Mutex;
use serde_json::json;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

const DOWNLOADS: usize = 4;

/// A login to try: e-mail address and password.
pub type Login = (String, String);

pub async fn run(
    plan: &Arc<Plan>,
    pocket: &Pocket,
    logins: &[Login],
    filter: &Filter,
    with_files: bool,
) -> anyhow::Result<Report> {
    let started = Instant::now();
    let folder = &plan.document.folder;
    let mut checker = Checker::new(folder)?;
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
    let mut report = checker.finish()?;
    report.seconds = started.elapsed().as_secs_f64();
    std::fs::write(folder.join("verify.json"), serde_json::to_string_pretty(&report)?)?;
    Ok(report)
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
                    .read(collection(kind), &ids, &names)
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
