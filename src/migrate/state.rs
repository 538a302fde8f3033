//! Progress of an export in `parts/state.json`, with which an interrupted export continues.

use super::document::private;
use anyhow::{Context, bail};
use konvert_gateway::random;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct State {
    pub table: String,
    pub source: String,
    pub exported_at: String,
    pub salt: String,
    /// Last key of the first pass.
    pub last_key: Option<String>,
    /// Whether the first pass has reached the end.
    pub is_read: bool,
}

impl State {
    /// The state of an earlier run, else a new one. A directory with an export of another table is refused.
    pub fn load(folder: &Path, source: &str, table: &str) -> anyhow::Result<Self> {
        if let Ok(text) = fs::read_to_string(path(folder)) {
            let state: Self =
                serde_json::from_str(&text).context("parts/state.json is unreadable; export into another directory")?;
            if state.source != source || state.table != table {
                bail!(
                    "{} holds an export of {} {}; export into another directory",
                    folder.display(),
                    state.source,
                    state.table
                );
            }
            return Ok(state);
        }
        fs::create_dir_all(folder.join("parts"))?;
        let state = Self {
            table: table.to_owned(),
            source: source.to_owned(),
            exported_at: super::dates::now(),
            salt: random::token::<16>(),
            ..Self::default()
        };
        state.save(folder)?;
        Ok(state)
    }

    pub fn save(&self, folder: &Path) -> anyhow::Result<()> {
        let part = folder.join("parts/state.json.part");
        private(&part)?.write_all(serde_json::to_string(self)?.as_bytes())?;
        Ok(fs::rename(&part, path(folder))?)
    }
}

fn path(folder: &Path) -> PathBuf {
    folder.join("parts/state.json")
}
