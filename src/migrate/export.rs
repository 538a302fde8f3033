//! The export: the table page by page, accounts, password hashes and files into the working files, from which
//! `export.json` and `unmapped.jsonl` are written.

use super::document::{Document, Header, Writer, private};
use super::gone::Gone;
use super::hashes;
use super::mapping::{ACCOUNTS, FILES, HASHES, INDEX, Mapping, SECTIONS};
use super::progress::{Progress, grouped, say};
use super::record::Row;
use super::spool::{Spool, UNMAPPED};
use super::state::State;
use super::storage;
use super::supabase::{PAGE, Supabase};
use anyhow::{Context, ensure};
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;
use std::fs;
use std::io::{BufWriter, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const SAVE_EVERY: Duration = Duration::from_secs(1);
/// Later passes end when one finds no changes, or after this number: a busy chat always changes.
const PASSES: u32 = 2;

pub struct Options {
    pub folder: PathBuf,
    pub table: Option<String>,
    pub mapping: Mapping,
    /// Where password hashes come from.
    pub hashes: Hashes,
    pub with_files: bool,
    /// Reads the table again, although a finished export is there.
    pub again: bool,
    /// Whether the second pass is left out.
    pub single_pass: bool,
}

pub enum Hashes {
    None,
    File(PathBuf),
    Postgres(String),
}

#[derive(Debug, Default, Serialize)]
pub struct Summary {
    pub table_rows: u64,
    pub counted_rows: u64,
    pub unmapped: u64,
    pub changed_meanwhile: u64,
    pub gone_meanwhile: u64,
    pub accounts: u64,
    pub password_hashes: u64,
    pub files: u64,
    pub failed_files: Vec<String>,
    pub rows_per_second: u64,
    /// Hashes of changed keys, for `delta`.
    #[serde(skip)]
    pub changed: Vec<u64>,
    /// Rows that are gone, for `delta`.
    #[serde(skip)]
    pub gone: Gone,
}

fn table_sections() -> Vec<&'static str> {
    SECTIONS.iter().copied().chain([INDEX, UNMAPPED]).collect()
}

fn all_sections() -> Vec<&'static str> {
    table_sections().into_iter().chain([ACCOUNTS, HASHES, FILES]).collect()
}

/// Exports, or continues an interrupted export. With `watch`, reads again and collects the keys that have changed.
pub async fn run(source: &Supabase, options: &Options, watch: bool) -> anyhow::Result<Summary> {
    let mut builder = fs::DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o700)
        .create(&options.folder)
        .with_context(|| format!("cannot create {}", options.folder.display()))?;
    let table = match &options.table {
        Some(table) => table.clone(),
        None => source.find_table().await?,
    };
    let mut state = State::load(&options.folder, &source.url, &table)?;
    let mut spool = Spool::open(&options.folder, &all_sections())?;
    let mut summary = Summary::default();
    if options.again || watch {
        state.is_read = false;
        state.last_key = None;
    }
    if watch {
        spool.watch()?;
    }
    let resumed = state.last_key.is_some() && !state.is_read;
    if resumed {
        say(&format!("continuing the export after the key {:?}", state.last_key.as_deref().unwrap_or("")));
    }
    let counted = source.count(&table).await?;
    ensure!(counted > 0, "the table {table} is empty for this key; is it the service_role key of the right project?");
    if !state.is_read {
        if !resumed {
            spool.begin_pass();
        }
        summary.rows_per_second = pass(source, options, &mut spool, &mut state, counted, "rows").await?.1;
        state.is_read = true;
        state.save(&options.folder)?;
    }
    accounts(source, options, &mut spool, &mut summary).await?;
    if options.with_files {
        (summary.files, summary.failed_files) = storage::export(source, &options.folder, &mut spool).await?;
    }
    if !options.single_pass {
        settle(source, options, &mut spool, &state, &mut summary).await?;
    } else if !resumed {
        drop_gone(options, &mut spool, &table_sections(), &mut summary)?;
    }
    summary.table_rows = spool.total(&table_sections());
    summary.counted_rows = source.count(&table).await?;
    summary.unmapped = spool.count(UNMAPPED);
    write(options, &state, &mut spool, &summary)?;
    summary.changed = spool.changed();
    Ok(summary)
}

/// Reads the table again until nothing has changed meanwhile.
async fn settle(
    source: &Supabase,
    options: &Options,
    spool: &mut Spool,
    state: &State,
    summary: &mut Summary,
) -> anyhow::Result<()> {
    for _ in 0..PASSES - 1 {
        let mut state = State { last_key: None, ..state.clone() };
        let counted = source.count(&state.table).await?;
        spool.begin_pass();
        let (changed, _) = pass(source, options, spool, &mut state, counted, "second pass").await?;
        let before = summary.gone_meanwhile;
        drop_gone(options, spool, &table_sections(), summary)?;
        summary.changed_meanwhile += changed;
        if changed == 0 && summary.gone_meanwhile == before {
            break;
        }
    }
    Ok(())
}

/// Forgets the rows that the last pass has not met.
fn drop_gone(options: &Options, spool: &mut Spool, sections: &[&str], summary: &mut Summary) -> anyhow::Result<()> {
    let before = summary.gone.count;
    spool.drop_gone(sections, |section, row| summary.gone.add(&options.mapping, section, row))?;
    summary.gone_meanwhile += summary.gone.count - before;
    Ok(())
}

/// One pass over the table in the order of keys. The next page is asked for while the current page is worked on.
/// Returns the number of new or changed rows, and the rate.
async fn pass(
    source: &Supabase,
    options: &Options,
    spool: &mut Spool,
    state: &mut State,
    counted: u64,
    label: &str,
) -> anyhow::Result<(u64, u64)> {
    let (started, mut saved) = (Instant::now(), Instant::now());
    let (mut changed, mut rows) = (0, 0);
    let mut progress = Progress::new(label, counted);
    let ask = |last: Option<String>| {
        let (source, table) = (source.clone(), state.table.clone());
        tokio::spawn(async move { source.page(&table, last.as_deref()).await })
    };
    let mut next = ask(state.last_key.clone());
    loop {
        let answer = next.await.context("a page")??;
        let page: Vec<&RawValue> =
            serde_json::from_slice(&answer.body).context("PostgREST's answer is no array of rows")?;
        let page: Vec<Row<'_>> = page
            .iter()
            .map(|row| serde_json::from_str(row.get()))
            .collect::<Result<_, _>>()
            .context("the table needs columns key and value")?;
        let Some(last) = page.last().map(|row| row.key.clone().into_owned()) else { break };
        ensure!(
            state.last_key.as_ref() != Some(&last),
            "PostgREST repeats the page after {last:?}: does the table's key order bytes?"
        );
        next = ask(Some(last.clone()));
        for row in &page {
            let section = options.mapping.section(&row.key).unwrap_or(UNMAPPED);
            changed += u64::from(spool.put(section, &row.key, row.value.get())?);
        }
        rows += page.len() as u64;
        progress.add(page.len() as u64);
        state.last_key = Some(last);
        if label == "rows" && saved.elapsed() > SAVE_EVERY {
            spool.flush()?;
            state.save(&options.folder)?;
            saved = Instant::now();
        }
        // A short page may be a server's own limit, so only an empty page is the end.
        debug_assert!(page.len() <= PAGE);
    }
    spool.flush()?;
    progress.finish();
    Ok((changed, (rows as f64 / started.elapsed().as_secs_f64().max(0.001)) as u64))
}

async fn accounts(
    source: &Supabase,
    options: &Options,
    spool: &mut Spool,
    summary: &mut Summary,
) -> anyhow::Result<()> {
    let accounts = source.accounts().await?;
    summary.accounts = accounts.len() as u64;
    for (id, account) in &accounts {
        spool.put(ACCOUNTS, &format!("account:{id}"), &account.to_string())?;
    }
    let hashes = match &options.hashes {
        Hashes::None => Default::default(),
        Hashes::File(path) => hashes::from_file(path)?,
        Hashes::Postgres(url) => hashes::from_postgres(url).await?,
    };
    summary.password_hashes = hashes.len() as u64;
    for (id, hash) in &hashes {
        spool.put(HASHES, &format!("hash:{id}"), &json!({"id": id, "hash": hash}).to_string())?;
    }
    // The lists are whole, unlike a table that is read in passes; without a source of hashes there is no list.
    let lists: &[&str] = if matches!(options.hashes, Hashes::None) { &[ACCOUNTS] } else { &[ACCOUNTS, HASHES] };
    drop_gone(options, spool, lists, summary)
}

fn write(options: &Options, state: &State, spool: &mut Spool, summary: &Summary) -> anyhow::Result<()> {
    let mut header = Header::new(&state.source, &state.table, &state.exported_at, &state.salt, &options.mapping);
    header.table_rows = summary.table_rows;
    header.unmapped = summary.unmapped;
    let mut writer = Writer::new(&options.folder, &header)?;
    for section in [ACCOUNTS, HASHES].iter().chain(SECTIONS).chain(&[INDEX, FILES]) {
        spool.write_section(&mut writer, section)?;
    }
    writer.finish()?;
    let mut unmapped = BufWriter::new(private(&options.folder.join("unmapped.jsonl"))?);
    spool.read(UNMAPPED, |line| Ok(writeln!(unmapped, "{line}")?))?;
    unmapped.flush()?;
    Ok(())
}

/// Whether the directory holds a whole export.
pub fn is_complete(folder: &Path) -> bool {
    folder.join(super::document::NAME).exists()
}

/// The summary for people.
pub fn text(summary: &Summary, document: &Document) -> String {
    let mut lines = vec![format!(
        "{} rows of the table (PostgreSQL counts {}), {} of them unmapped; {} rows/s",
        grouped(summary.table_rows),
        grouped(summary.counted_rows),
        grouped(summary.unmapped),
        grouped(summary.rows_per_second)
    )];
    for (name, checksum) in &document.checksums {
        lines.push(format!("  {name:<18} {:>12}", grouped(checksum.rows)));
    }
    for failure in &summary.failed_files {
        lines.push(format!("  file not downloaded: {failure}"));
    }
    lines.join("\n")
}
