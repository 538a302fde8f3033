//! The export's working files, `parts/SECTION.jsonl`: every row that was read, in the order of reading. A row whose
//! value has changed is appended again, and the last version counts. The working files make an interrupted export
//! continue, and let a later run find out what has changed.

use super::document::Writer;
use super::record::Row;
use anyhow::Context;
use aws_lc_rs::digest::{SHA256, digest};
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Section of rows that no layout describes; these go to `unmapped.jsonl`.
pub const UNMAPPED: &str = "unmapped";

/// The newest version of a row.
struct Entry {
    value: u64,
    offset: u64,
    section: u8,
    /// Number of the pass that has met the row last.
    pass: u8,
}

pub struct Spool {
    folder: PathBuf,
    sections: Vec<(String, BufWriter<File>, u64)>,
    rows: HashMap<u64, Entry, foldhash::fast::FixedState>,
    pass: u8,
    changed: Option<Changed>,
}

/// Hashes of the keys of new, changed and deleted rows since `watch`, also in the file `parts/changed`: an interrupted
/// delta has entered the rows already, and the next delta needs the keys.
struct Changed {
    hashes: Vec<u64>,
    file: File,
}

impl Changed {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).unwrap_or_default();
        let hashes = text.lines().filter_map(|line| u64::from_str_radix(line, 16).ok()).collect();
        Ok(Self { hashes, file: OpenOptions::new().create(true).append(true).mode(0o600).open(path)? })
    }

    fn add(&mut self, hash: u64) -> anyhow::Result<()> {
        self.hashes.push(hash);
        Ok(writeln!(self.file, "{hash:016x}")?)
    }
}

fn changed_path(folder: &Path) -> PathBuf {
    folder.join("parts/changed")
}

/// Forgets the changed keys after an import of these rows.
pub fn settle(folder: &Path) -> anyhow::Result<()> {
    let path = changed_path(folder);
    if path.exists() {
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

/// A 64-bit hash of a key: among a million keys, two are equal with a probability of 3 in 100 million.
pub fn key_hash(key: &str) -> u64 {
    short_hash(key.as_bytes())
}

fn short_hash(bytes: &[u8]) -> u64 {
    let hash = digest(&SHA256, bytes);
    hash.as_ref()[..8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

impl Spool {
    /// Opens the working files of earlier runs. A torn last line is cut off.
    pub fn open(folder: &Path, sections: &[&str]) -> anyhow::Result<Self> {
        let folder = folder.join("parts");
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let mut spool = Self { folder, sections: Vec::new(), rows: HashMap::default(), pass: 0, changed: None };
        for name in sections {
            let path = spool.path(name);
            let size = spool.load(&path, spool.sections.len() as u8)?;
            let mut file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path)?;
            file.set_len(size)?;
            file.seek(SeekFrom::End(0))?;
            spool.sections.push(((*name).to_owned(), BufWriter::with_capacity(1 << 18, file), size));
        }
        Ok(spool)
    }

    fn path(&self, section: &str) -> PathBuf {
        self.folder.join(format!("{section}.jsonl"))
    }

    /// Enters the rows of a file; returns the size up to its last whole line.
    fn load(&mut self, path: &Path, section: u8) -> anyhow::Result<u64> {
        let Ok(file) = File::open(path) else { return Ok(0) };
        let mut reader = BufReader::with_capacity(1 << 18, file);
        let (mut line, mut offset) = (String::new(), 0);
        loop {
            line.clear();
            let read = reader.read_line(&mut line)? as u64;
            if read == 0 || !line.ends_with('\n') {
                return Ok(offset);
            }
            let Ok(row) = serde_json::from_str::<Row<'_>>(line.trim_end()) else { return Ok(offset) };
            let value = short_hash(row.value.get().as_bytes());
            self.rows.insert(key_hash(&row.key), Entry { value, offset, section, pass: 0 });
            offset += read;
        }
    }

    /// Begins a pass over the source: rows that the pass does not meet are gone at its end.
    pub fn begin_pass(&mut self) {
        self.pass = self.pass.wrapping_add(1);
    }

    /// Collects the keys of changed rows from now on, in addition to the keys of an interrupted delta.
    pub fn watch(&mut self) -> anyhow::Result<()> {
        let folder = self.folder.parent().context("no folder")?;
        self.changed = Some(Changed::open(&changed_path(folder))?);
        Ok(())
    }

    pub fn changed(&mut self) -> Vec<u64> {
        self.changed.take().map(|changed| changed.hashes).unwrap_or_default()
    }

    /// Enters a row. Returns whether the row is new or has another value.
    pub fn put(&mut self, section: &str, key: &str, value: &str) -> anyhow::Result<bool> {
        let (hash, digest) = (key_hash(key), short_hash(value.as_bytes()));
        if let Some(entry) = self.rows.get_mut(&hash)
            && entry.value == digest
            && self.sections[usize::from(entry.section)].0 == section
        {
            entry.pass = self.pass;
            return Ok(false);
        }
        let index = self.sections.iter().position(|(name, ..)| name == section).context("no such section")?;
        if let Some(changed) = &mut self.changed {
            changed.add(hash)?;
        }
        let (_, out, offset) = &mut self.sections[index];
        let line = format!("{{\"key\":{},\"value\":{}}}\n", serde_json::to_string(key)?, one_line(value));
        out.write_all(line.as_bytes())?;
        self.rows.insert(hash, Entry { value: digest, offset: *offset, section: index as u8, pass: self.pass });
        *offset += line.len() as u64;
        Ok(true)
    }

    pub fn flush(&mut self) -> anyhow::Result<()> {
        for (_, out, _) in &mut self.sections {
            out.flush()?;
        }
        Ok(())
    }

    /// Forgets the rows of these sections that the last pass has not met, and calls `each(section, row)` for them. Their
    /// keys count as changed.
    pub fn drop_gone(&mut self, sections: &[&str], mut each: impl FnMut(&str, &Row<'_>)) -> anyhow::Result<()> {
        self.flush()?;
        let (pass, names) = (self.pass, &self.sections);
        let mut gone: Vec<(u8, u64)> = Vec::new();
        self.rows.retain(|_, entry| {
            let stays = entry.pass == pass || !sections.contains(&names[usize::from(entry.section)].0.as_str());
            if !stays {
                gone.push((entry.section, entry.offset));
            }
            stays
        });
        gone.sort_unstable();
        for (section, offset) in gone {
            let name = &self.sections[usize::from(section)].0;
            let mut file = File::open(self.path(name))?;
            file.seek(SeekFrom::Start(offset))?;
            let mut line = String::new();
            BufReader::new(file).read_line(&mut line)?;
            let row: Row<'_> = serde_json::from_str(line.trim_end())?;
            each(name, &row);
            if let Some(changed) = &mut self.changed {
                changed.add(key_hash(&row.key))?;
            }
        }
        Ok(())
    }

    pub fn count(&self, section: &str) -> u64 {
        let index = self.sections.iter().position(|(name, ..)| name == section);
        self.rows.values().filter(|entry| Some(usize::from(entry.section)) == index).count() as u64
    }

    /// Rows of all these sections.
    pub fn total(&self, sections: &[&str]) -> u64 {
        sections.iter().map(|section| self.count(section)).sum()
    }

    /// Calls `each(line)` for the newest versions of a section's rows, without the line break.
    pub fn read(&mut self, section: &str, mut each: impl FnMut(&str) -> anyhow::Result<()>) -> anyhow::Result<()> {
        self.flush()?;
        let mut reader = BufReader::with_capacity(1 << 18, File::open(self.path(section))?);
        let (mut line, mut offset) = (String::new(), 0);
        loop {
            line.clear();
            let read = reader.read_line(&mut line)? as u64;
            if read == 0 {
                return Ok(());
            }
            let text = line.trim_end();
            let row: Row<'_> = serde_json::from_str(text)?;
            let entry = self.rows.get(&key_hash(&row.key));
            let here = entry
                .is_some_and(|entry| entry.offset == offset && self.sections[usize::from(entry.section)].0 == section);
            if here {
                each(text)?;
            }
            offset += read;
        }
    }

    pub fn write_section(&mut self, writer: &mut Writer, section: &str) -> anyhow::Result<()> {
        writer.section(section)?;
        self.read(section, |line| writer.row(line.as_bytes()))
    }
}

/// JSON without line breaks. Inside of texts JSON has none.
fn one_line(json: &str) -> std::borrow::Cow<'_, str> {
    if json.contains(['\n', '\r']) { json.replace(['\n', '\r'], " ").into() } else { json.into() }
}
