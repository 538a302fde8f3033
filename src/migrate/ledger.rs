//! The account of an import: what became of every row, and what imported rows have lost.

use super::document::private;
use super::passes::Failed;
use super::progress::grouped;
use super::steps::Target;
use anyhow::ensure;
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

#[derive(Clone, Copy, Debug, Default, Serialize, PartialEq)]
pub struct Counts {
    pub created: u64,
    pub updated: u64,
    pub unchanged: u64,
    pub rejected: u64,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Rows {
    pub rows: u64,
    pub imported: u64,
    pub rejected: u64,
}

#[derive(Default)]
pub struct Ledger {
    rejects: Option<BufWriter<File>>,
    repairs: Option<BufWriter<File>>,
    ids: Option<BufWriter<File>>,
    /// By section of the export.
    pub sections: BTreeMap<String, Rows>,
    /// By collection of PocketBase, or by kind of second writes.
    pub kinds: BTreeMap<String, Counts>,
    pub reasons: BTreeMap<String, u64>,
    pub repaired: BTreeMap<String, u64>,
}

impl Ledger {
    /// Reports into `rejects.jsonl`, `repairs.jsonl` and `ids.jsonl`.
    pub fn new(folder: &Path) -> anyhow::Result<Self> {
        let open = |name: &str| -> anyhow::Result<_> { Ok(Some(BufWriter::new(private(&folder.join(name))?))) };
        Ok(Self {
            rejects: open("rejects.jsonl")?,
            repairs: open("repairs.jsonl")?,
            ids: open("ids.jsonl")?,
            ..Self::default()
        })
    }

    /// Counts only.
    pub fn silent() -> Self {
        Self::default()
    }

    /// A row of the export, after its transformation.
    pub fn row(&mut self, section: &str, line: &str, key: &str, failed: Failed) {
        let rows = self.sections.entry(section.to_owned()).or_default();
        rows.rows += 1;
        if failed.is_whole {
            rows.rejected += 1;
        } else {
            rows.imported += 1;
        }
        for reason in failed.reasons {
            self.reject(section, key, &reason, Some(line));
        }
    }

    pub fn unreadable(&mut self, section: &str, line: &str, error: &str) {
        let rows = self.sections.entry(section.to_owned()).or_default();
        rows.rows += 1;
        rows.rejected += 1;
        self.reject(section, "", &format!("unreadable: {error}"), Some(line));
    }

    /// A row that PocketBase has refused. `section`: of the old row.
    pub fn refused(&mut self, section: &str, target: &Target, reason: &str) {
        self.kinds.entry(target.kind.to_owned()).or_default().rejected += 1;
        if target.is_primary
            && let Some(rows) = self.sections.get_mut(section)
        {
            rows.imported = rows.imported.saturating_sub(1);
            rows.rejected += 1;
        }
        self.entry(
            target.kind,
            &target.key,
            Some(&target.id),
            &format!("PocketBase: {reason}"),
            Some(&target.row.to_string()),
        );
    }

    pub fn reject(&mut self, kind: &str, key: &str, reason: &str, row: Option<&str>) {
        self.entry(kind, key, None, reason, row);
    }

    /// `id`: of the record that PocketBase has refused.
    fn entry(&mut self, kind: &str, key: &str, id: Option<&str>, reason: &str, row: Option<&str>) {
        *self.reasons.entry(format!("{kind}: {}", general(reason))).or_default() += 1;
        if let Some(out) = &mut self.rejects {
            let line = json!({"kind": kind, "key": key, "id": id, "reason": reason, "row": row});
            let _ = writeln!(out, "{line}");
        }
    }

    pub fn reported(&mut self, repairs: &mut Vec<(String, String, String)>, replaced: &mut Vec<(String, String)>) {
        for (key, field, reason) in repairs.drain(..) {
            *self.repaired.entry(format!("{field}: {}", general(&reason))).or_default() += 1;
            if let Some(out) = &mut self.repairs {
                let _ = writeln!(out, "{}", json!({"key": key, "field": field, "reason": reason}));
            }
        }
        for (id, original) in replaced.drain(..) {
            if let Some(out) = &mut self.ids {
                let _ = writeln!(out, "{}", json!({"id": id, "original": original}));
            }
        }
    }

    pub fn written(&mut self, kind: &str, created: u64, updated: u64, unchanged: u64) {
        let counts = self.kinds.entry(kind.to_owned()).or_default();
        counts.created += created;
        counts.updated += updated;
        counts.unchanged += unchanged;
    }

    /// Sums of all kinds.
    pub fn total(&self) -> Counts {
        self.kinds.values().fold(Counts::default(), |sum, counts| Counts {
            created: sum.created + counts.created,
            updated: sum.updated + counts.updated,
            unchanged: sum.unchanged + counts.unchanged,
            rejected: sum.rejected + counts.rejected,
        })
    }

    pub fn flush(&mut self) -> anyhow::Result<()> {
        for out in [&mut self.rejects, &mut self.repairs, &mut self.ids].into_iter().flatten() {
            out.flush()?;
        }
        Ok(())
    }

    /// The sum that shows that nothing was dropped. `table_rows`: of the export.
    pub fn balance(&self, table_rows: u64, unmapped: u64, indexes: u64) -> anyhow::Result<String> {
        let imported: u64 = self.sections.values().map(|rows| rows.imported).sum();
        let rejected: u64 = self.sections.values().map(|rows| rows.rejected).sum();
        let sum = imported + rejected + unmapped + indexes;
        let [all, a, b, c, d] = [table_rows, imported, rejected, unmapped, indexes].map(grouped);
        ensure!(
            sum == table_rows,
            "{all} rows went in, but {a} imported + {b} rejected + {c} unmapped + {d} index lists are accounted for"
        );
        Ok(format!("{all} rows in = {a} imported + {b} rejected + {c} unmapped + {d} index lists"))
    }
}

/// A reason without its quoted values, for counting.
fn general(reason: &str) -> String {
    let mut out = String::new();
    for (number, part) in reason.split('"').enumerate() {
        out.push_str(if number % 2 == 0 { part } else { "…" });
    }
    out.chars().take(160).collect()
}
