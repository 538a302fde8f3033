//! The comparison of expected rows with PocketBase's, field by field, and the report about it.

use super::document::private;
use super::steps::{Target, collection};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

/// Differences that the summary lists; `verify.jsonl` has all.
const LISTED: usize = 20;

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

pub struct Checker {
    pub report: Report,
    out: BufWriter<File>,
    /// Records that PocketBase refused.
    pub refused: HashSet<String>,
    /// Distinct records found, by collection.
    pub found: HashMap<String, u64>,
}

impl Checker {
    /// `folder`: of the export, which gets `verify.jsonl`.
    pub fn new(folder: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            report: Report::default(),
            out: BufWriter::new(private(&folder.join("verify.jsonl"))?),
            refused: refused(folder),
            found: HashMap::new(),
        })
    }

    /// Writes the last lines of `verify.jsonl`, and returns the report.
    pub fn finish(mut self) -> anyhow::Result<Report> {
        self.out.flush()?;
        Ok(self.report)
    }

    pub fn differs(&mut self, difference: Value) {
        self.report.differences += 1;
        let _ = writeln!(self.out, "{difference}");
        if self.report.first_differences.len() < LISTED {
            self.report.first_differences.push(difference);
        }
    }

    pub fn batch(&mut self, kind: &'static str, rows: &[Target], found: Vec<Value>) {
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
            if kind == collection(kind) || kind == "friends" {
                *self.found.entry(collection(kind).to_owned()).or_default() += 1;
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

pub fn column(name: &str) -> &str {
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
