//! `konvert-gateway init`: writes the hooks, the migration and a config into a PocketBase directory, and upgrades them.
//!
//! A record of the written files (their hashes, the version and the application) stays beside the hooks. At the next
//! run, the record tells a file that an older version wrote, which is replaced, from a file that somebody has edited,
//! which is kept unless `force` is given.

mod files;

pub use files::{App, Embedded};

use crate::hex;
use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use similar::TextDiff;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Component, Path};

/// The record of the written files.
const RECORD: &str = "pb_hooks/gateway/.written.json";
/// The modules of the hooks, too many for a line each.
const MODULES: &str = "pb_hooks/gateway/";
/// The file that everybody edits.
const CONFIG: &str = "pb_hooks/gateway.config.js";
const VERSION: &str = env!("CARGO_PKG_VERSION");

#[derive(Serialize, Deserialize)]
struct WrittenFiles {
    version: String,
    app: String,
    /// SHA-256 of each file as written, by path.
    files: BTreeMap<String, String>,
}

/// The result for one file.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Written,
    /// Replaced: nobody had edited the file.
    Updated,
    Unchanged,
    /// Kept, since somebody has edited the file.
    Edited,
    /// Replaced although edited.
    Overwritten,
    /// A file of an older version that this version does not need.
    Removed,
}

/// Summary of a run.
#[derive(Debug, PartialEq)]
pub struct Report {
    pub app: App,
    /// False if an earlier run has set up the directory.
    pub is_first: bool,
    /// A line for each file that was not simply unchanged, and differences of edited files.
    pub text: String,
    /// Edited files that may not fit this version, without the config.
    pub kept: usize,
}

/// Writes the files of `app` into `folder`, which is created if missing. Without `app`, the application of the
/// previous run, or [`App::Blank`].
///
/// # Errors
/// If `folder` is a data directory or was set up for another application, and if a file cannot be read or written.
pub fn init(folder: &Path, app: Option<App>, force: bool) -> anyhow::Result<Report> {
    if folder.exists() && !folder.is_dir() {
        bail!("{} is not a directory", folder.display());
    }
    if folder.join("data.db").exists() {
        bail!(
            "{} holds PocketBase's data; name the directory that contains it (usually the parent of pb_data)",
            folder.display()
        );
    }
    let _lock = lock(folder)?;
    let record = read_record(folder)?;
    let former = record.as_ref().and_then(|record| App::named(&record.app));
    let app = match (app, former) {
        (Some(app), Some(former)) if app != former => bail!(
            "{} was set up for the application \"{}\"; choose another directory for \"{}\"",
            folder.display(),
            former.name(),
            app.name()
        ),
        (app, former) => app.or(former).unwrap_or_default(),
    };
    let is_first = record.is_none();
    if is_first && app != App::Blank && folder.join("pb_data/data.db").exists() {
        bail!(
            "{} has the data of an application already, and the migration of \"{}\" would change its collections and rules; \
             choose a new directory, or leave --app out",
            folder.display(),
            app.name()
        );
    }
    let before = record.map(|record| record.files).unwrap_or_default();
    let files = app.files();
    let mut report = Report { app, is_first, text: String::new(), kept: 0 };
    if is_first && !folder.join("pb_data").exists() {
        let _ = writeln!(report.text, "  note         there is no pb_data in {} yet", folder.display());
    }
    let (mut unchanged, mut modules) = (0, 0);
    let mut after = BTreeMap::new();
    for file in &files {
        let found = read(&folder.join(file.path))?;
        let written = before.get(file.path).map(String::as_str);
        let outcome = outcome(file, found.as_deref(), written, force);
        match outcome {
            Outcome::Unchanged => unchanged += 1,
            Outcome::Edited => {}
            Outcome::Overwritten => {
                back_up(&folder.join(file.path))?;
                write(&folder.join(file.path), file.text)?;
            }
            _ => write(&folder.join(file.path), file.text)?,
        }
        if outcome == Outcome::Edited {
            report.keep(file, &found.unwrap_or_default(), written);
        } else if outcome == Outcome::Written && file.path.starts_with(MODULES) {
            modules += 1;
        } else {
            report.line(outcome, file.path);
        }
        // An edited file has another hash, and counts as edited at the next run, too.
        after.insert(file.path.to_owned(), hash(file.text));
    }
    let is_obsolete = |path: &str| is_inside(path) && files.iter().all(|file| file.path != path);
    for (path, written) in before.iter().filter(|(path, _)| is_obsolete(path)) {
        let place = folder.join(path);
        match read(&place)? {
            Some(found) if force || hash(&found) == *written => {
                if hash(&found) != *written {
                    back_up(&place)?;
                }
                fs::remove_file(&place).with_context(|| format!("cannot remove {}", place.display()))?;
                report.line(Outcome::Removed, path);
            }
            Some(_) => {
                report.kept += 1;
                let _ = writeln!(report.text, "  kept         {path} (edited; not part of version {VERSION})");
                after.insert(path.clone(), written.clone());
            }
            None => {}
        }
    }
    if modules > 0 {
        let _ = writeln!(report.text, "  wrote        {MODULES} ({modules} files)");
    }
    if unchanged > 0 {
        let _ = writeln!(report.text, "  unchanged    {unchanged} files");
    }
    let record = WrittenFiles { version: VERSION.to_owned(), app: app.name().to_owned(), files: after };
    write(&folder.join(RECORD), &serde_json::to_string_pretty(&record)?)?;
    Ok(report)
}

fn outcome(file: &Embedded, found: Option<&str>, written: Option<&str>, force: bool) -> Outcome {
    match found {
        None => Outcome::Written,
        Some(found) if found == file.text => Outcome::Unchanged,
        Some(found) if written == Some(hash(found).as_str()) => Outcome::Updated,
        // Nobody means to lose all settings.
        Some(_) if force && file.path != CONFIG => Outcome::Overwritten,
        Some(_) => Outcome::Edited,
    }
}

impl Report {
    fn line(&mut self, outcome: Outcome, path: &str) {
        let word = match outcome {
            Outcome::Written => "wrote",
            Outcome::Updated => "updated",
            Outcome::Overwritten => "overwrote",
            Outcome::Removed => "removed",
            Outcome::Unchanged | Outcome::Edited => return,
        };
        let backup = if outcome == Outcome::Overwritten {
            " (a copy of your file ends in .bak)".to_owned()
        } else {
            String::new()
        };
        let _ = writeln!(self.text, "  {word:<12} {path}{backup}");
    }

    /// The config is kept without a difference, unless a new version has changed the file that it was made from.
    fn keep(&mut self, file: &Embedded, found: &str, written: Option<&str>) {
        let is_as_before = written == Some(hash(file.text).as_str());
        if file.path == CONFIG && is_as_before {
            let _ = writeln!(self.text, "  kept         {CONFIG} (your settings)");
            return;
        }
        self.kept += usize::from(file.path != CONFIG);
        let _ = writeln!(self.text, "  kept         {} (edited; differences to version {VERSION}:)", file.path);
        let difference = TextDiff::from_lines(found, file.text);
        let shown = difference.unified_diff().context_radius(1).header("yours", VERSION).to_string();
        for line in shown.lines() {
            let _ = writeln!(self.text, "      {line}");
        }
    }
}

fn read_record(folder: &Path) -> anyhow::Result<Option<WrittenFiles>> {
    let place = folder.join(RECORD);
    let Some(text) = read(&place)? else { return Ok(None) };
    let record = serde_json::from_str(&text).with_context(|| {
        format!("{} is unreadable; remove it, and every file that differs counts as edited", place.display())
    })?;
    Ok(Some(record))
}

/// The text of a file with line ends of Unix, since git on Windows changes the line ends of a checkout; `None` if
/// there is no file. Bytes that are not UTF-8 are shown as U+FFFD.
fn read(place: &Path) -> anyhow::Result<Option<String>> {
    match fs::read(place) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).replace("\r\n", "\n"))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", place.display())),
    }
}

/// Whether a path of the record is inside the directory. The record may come from elsewhere.
fn is_inside(path: &str) -> bool {
    let is_normal = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    is_normal && (path.starts_with("pb_hooks/") || path.starts_with("pb_migrations/"))
}

/// Copies the file, byte for byte, to FILE.bak, FILE.1.bak and so on; replaces no earlier copy.
fn back_up(place: &Path) -> anyhow::Result<()> {
    let bytes = fs::read(place).with_context(|| format!("cannot read {}", place.display()))?;
    for number in 0.. {
        let mut copy = place.as_os_str().to_owned();
        copy.push(if number == 0 { ".bak".to_owned() } else { format!(".{number}.bak") });
        match fs::File::options().write(true).create_new(true).open(&copy) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            opened => {
                let written = opened.and_then(|mut file| std::io::Write::write_all(&mut file, &bytes));
                return written.with_context(|| format!("cannot write {}", copy.display()));
            }
        }
    }
    Ok(())
}

/// Writes a new file and renames it into place: PocketBase, which watches its hooks, reads no half of a file. Writes
/// through a symbolic link that leads to a file.
fn write(place: &Path, text: &str) -> anyhow::Result<()> {
    if let Some(folder) = place.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let target = fs::canonicalize(place).unwrap_or_else(|_| place.to_owned());
    let mut new = target.as_os_str().to_owned();
    new.push(".new");
    let written = fs::write(&new, text).and_then(|()| fs::rename(&new, &target));
    written.with_context(|| format!("cannot write {}", target.display()))
}

/// Keeps other runs of `init` off the directory until the result is dropped.
fn lock(folder: &Path) -> anyhow::Result<fs::File> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let directory = fs::File::open(folder).with_context(|| format!("cannot open {}", folder.display()))?;
    flock(&directory, FlockOperation::LockExclusive).with_context(|| format!("cannot lock {}", folder.display()))?;
    Ok(directory)
}

fn hash(text: &str) -> String {
    hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes()).as_ref())
}

#[cfg(test)]
mod tests;
