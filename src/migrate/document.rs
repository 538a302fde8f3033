//! `export.json`: one JSON object with an array per section, one row per line. Written as a stream, and read line by
//! line, so that its size does not matter. A reformatted file is refused: the checksums are those of the lines.

use super::ids::sha256_hex;
use super::mapping::Mapping;
use anyhow::{Context, bail, ensure};
use aws_lc_rs::digest;
use konvert_gateway::hex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

pub const NAME: &str = "export.json";
const FORMAT: &str = "konvert-export";
const VERSION: u32 = 1;

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Header {
    pub format: String,
    pub version: u32,
    pub exported_at: String,
    /// Address of the old project.
    pub source: String,
    pub table: String,
    /// Secret of this export: makes names of imported files unguessable and equal in every run.
    pub salt: String,
    pub mapping: Mapping,
    /// Rows of the old table: all sections but accounts, hashes and files, and `unmapped.jsonl`.
    pub table_rows: u64,
    pub unmapped: u64,
}

impl Header {
    pub fn new(source: &str, table: &str, exported_at: &str, salt: &str, mapping: &Mapping) -> Self {
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            exported_at: exported_at.to_owned(),
            source: source.to_owned(),
            table: table.to_owned(),
            salt: salt.to_owned(),
            mapping: mapping.clone(),
            table_rows: 0,
            unmapped: 0,
        }
    }
}

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
pub struct Checksum {
    pub rows: u64,
    pub sha256: String,
}

pub fn private(path: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.with_context(|| format!("cannot write {}", path.display()))
}

// ---- writing

pub struct Writer {
    out: BufWriter<File>,
    path: PathBuf,
    checksums: BTreeMap<String, Checksum>,
    open: Option<(String, digest::Context, u64)>,
}

impl Writer {
    /// Writes beside the final name; `finish` renames.
    pub fn new(folder: &Path, header: &Header) -> anyhow::Result<Self> {
        let path = folder.join(NAME);
        let mut out = BufWriter::with_capacity(1 << 20, private(&path.with_extension("json.part"))?);
        writeln!(out, "{{\"header\":{}", serde_json::to_string(header)?)?;
        Ok(Self { out, path, checksums: BTreeMap::new(), open: None })
    }

    pub fn section(&mut self, name: &str) -> anyhow::Result<()> {
        self.end_section()?;
        write!(self.out, ",\"{name}\":[")?;
        self.open = Some((name.to_owned(), digest::Context::new(&digest::SHA256), 0));
        Ok(())
    }

    /// `row`: one JSON value without line breaks.
    pub fn row(&mut self, row: &[u8]) -> anyhow::Result<()> {
        let (_, context, rows) = self.open.as_mut().context("a row outside of a section")?;
        context.update(row);
        context.update(b"\n");
        self.out.write_all(if *rows == 0 { b"\n" } else { b",\n" })?;
        self.out.write_all(row)?;
        *rows += 1;
        Ok(())
    }

    fn end_section(&mut self) -> anyhow::Result<()> {
        if let Some((name, context, rows)) = self.open.take() {
            writeln!(self.out, "\n]")?;
            let sha256 = hex::encode(context.finish().as_ref());
            self.checksums.insert(name, Checksum { rows, sha256 });
        }
        Ok(())
    }

    pub fn finish(mut self) -> anyhow::Result<BTreeMap<String, Checksum>> {
        self.end_section()?;
        writeln!(self.out, ",\"checksums\":{}}}", serde_json::to_string(&self.checksums)?)?;
        self.out.flush()?;
        self.out.get_ref().sync_all()?;
        std::fs::rename(self.path.with_extension("json.part"), &self.path)?;
        Ok(self.checksums)
    }
}

// ---- reading

/// An open export: its header, and where its sections begin.
#[derive(Clone)]
pub struct Document {
    pub folder: PathBuf,
    pub header: Header,
    pub checksums: BTreeMap<String, Checksum>,
    starts: BTreeMap<String, u64>,
    /// Checksum of the checksums: equal for equal content.
    pub fingerprint: String,
}

impl Document {
    /// Reads the whole file once, verifies the checksums, and calls `each(section, row)`.
    pub fn open(folder: &Path, mut each: impl FnMut(&str, &str) -> anyhow::Result<()>) -> anyhow::Result<Self> {
        let header = Self::header(folder)?;
        let mut reader = BufReader::with_capacity(1 << 20, File::open(folder.join(NAME))?);
        let mut line = String::new();
        let mut at = reader.read_line(&mut line)? as u64;
        let (mut starts, mut found) = (BTreeMap::new(), BTreeMap::new());
        loop {
            line.clear();
            at += reader.read_line(&mut line)? as u64;
            let text = line.trim_end();
            if let Some(text) = text.strip_prefix(",\"checksums\":") {
                let text = text.strip_suffix('}').context("the export is cut off")?;
                let checksums: BTreeMap<String, Checksum> = serde_json::from_str(text)?;
                compare(&checksums, &found)?;
                let fingerprint = sha256_hex(text.as_bytes());
                return Ok(Self { folder: folder.to_owned(), header, checksums, starts, fingerprint });
            }
            let name = text.strip_prefix(",\"").and_then(|text| text.strip_suffix("\":["));
            let name =
                name.context("the export is cut off or was reformatted; restore the file, or export again")?.to_owned();
            starts.insert(name.clone(), at);
            let (mut context, mut rows) = (digest::Context::new(&digest::SHA256), 0);
            at += lines(&mut reader, &mut line, |row| {
                context.update(row.as_bytes());
                context.update(b"\n");
                rows += 1;
                each(&name, row)
            })?;
            found.insert(name, Checksum { rows, sha256: hex::encode(context.finish().as_ref()) });
        }
    }

    /// The header alone.
    pub fn header(folder: &Path) -> anyhow::Result<Header> {
        let path = folder.join(NAME);
        let file = File::open(&path).with_context(|| {
            format!(
                "cannot read {}; run `konvert-migrate export` first, or name its directory with --dir",
                path.display()
            )
        })?;
        let mut line = String::new();
        BufReader::new(file).read_line(&mut line)?;
        let header =
            line.trim_end().strip_prefix("{\"header\":").context("this file is no export of konvert-migrate")?;
        let header: Header = serde_json::from_str(header).context("the header is unreadable")?;
        ensure!(
            header.format == FORMAT && header.version == VERSION,
            "the export has format {} {}; this program reads {FORMAT} {VERSION}",
            header.format,
            header.version
        );
        Ok(header)
    }

    /// Number of rows of a section.
    pub fn rows(&self, section: &str) -> u64 {
        self.checksums.get(section).map_or(0, |checksum| checksum.rows)
    }

    /// Calls `each(row)` for a section's rows.
    pub fn section(&self, name: &str, mut each: impl FnMut(&str) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let Some(start) = self.starts.get(name) else { return Ok(()) };
        let mut file = File::open(self.folder.join(NAME))?;
        file.seek(SeekFrom::Start(*start))?;
        lines(&mut BufReader::with_capacity(1 << 18, file), &mut String::new(), &mut each)?;
        Ok(())
    }
}

/// Calls `each` for the rows up to the section's end. Returns the number of bytes read.
fn lines(
    reader: &mut impl BufRead,
    line: &mut String,
    mut each: impl FnMut(&str) -> anyhow::Result<()>,
) -> anyhow::Result<u64> {
    let mut bytes = 0;
    loop {
        line.clear();
        let read = reader.read_line(line)? as u64;
        bytes += read;
        let text = line.trim_end_matches(['\n', '\r']);
        match text.strip_suffix(',').unwrap_or(text) {
            "]" => return Ok(bytes),
            _ if read == 0 => bail!("the export is cut off; export again"),
            "" => {}
            row => each(row)?,
        }
    }
}

fn compare(expected: &BTreeMap<String, Checksum>, found: &BTreeMap<String, Checksum>) -> anyhow::Result<()> {
    for (name, checksum) in expected {
        ensure!(
            found.get(name) == Some(checksum),
            "the section \"{name}\" of the export does not match its checksum; restore the file, or export again"
        );
    }
    Ok(())
}
