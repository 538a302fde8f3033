//! konvert-migrate: moves a chat from Supabase to PocketBase. Its parts are in src/migrate/; from the gateway it takes
//! TLS and names.

#![warn(clippy::unwrap_used)]

#[path = "../migrate/mod.rs"]
mod migrate;

use anyhow::{Context, bail};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use migrate::document::Document;
use migrate::export::{self, Hashes};
use migrate::filter::{Filter, Only};
use migrate::gone::Gone;
use migrate::import;
use migrate::mapping::Mapping;
use migrate::plan::Plan;
use migrate::progress::{be_quiet, grouped, say};
use migrate::spool;
use migrate::supabase::Supabase;
use migrate::target::Pocket;
use migrate::verify::{self, Login};
use serde_json::json;
use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

const HELP: &str = "\
Secrets come from the environment, since other users of the machine can see a program's flags:
  SUPABASE_SERVICE_ROLE_KEY   the old project's secret key (service_role or sb_secret_…)
  SUPABASE_DB_URL             PostgreSQL of the old project, for the password hashes: postgresql://…
  POCKETBASE_ADMIN_EMAIL, POCKETBASE_ADMIN_PASSWORD   a superuser of PocketBase
  MIGRATE_LOGIN               e-mail address and password of a known user, separated by a colon, for `verify`
SUPABASE_URL and POCKETBASE_URL may stand for --from and --to.

An evening's plan:
  1. konvert-migrate export                   while the old chat is open; interrupt and repeat as you like
  2. konvert-migrate import --dry-run         what would be imported, repaired and rejected, and why
  3. konvert-migrate import                   repeating is harmless: rows that are there stay as they are
  4. konvert-migrate verify                   every row and file, byte for byte
  5. close the old chat, konvert-migrate delta, open the new one

Everything lies in one directory (--dir): export.json and files/; unmapped.jsonl, rejects.jsonl, repairs.jsonl and
verify.jsonl name every row that was not imported, or not as it was. It holds password hashes: delete it afterwards.

Exit code: 0 everything is imported and equal; 1 finished, but rows were rejected or differ; 2 not finished.";

fn main() -> ExitCode {
    let arguments = command().get_matches();
    if arguments.subcommand().is_some_and(|(_, inner)| inner.get_flag("json")) {
        be_quiet();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = runtime.context("starting").and_then(|runtime| runtime.block_on(run(&arguments)));
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("konvert-migrate: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn command() -> Command {
    let from = [
        option("from", "URL", "The old project, as in https://abc.supabase.co"),
        option("rest", "URL", "PostgREST's own address [default: FROM/rest/v1]"),
        option("table", "NAME", "The key-value table [default: the only kv_store_…]"),
        option("mapping", "FILE", "TOML file that maps other key layouts; src/migrate/mapping.rs documents the form"),
        option("hashes", "FILE", "Password hashes of auth.users: CSV or JSON of the SQL editor, or a pg_dump"),
        flag("single-pass", "Do not read the table a second time for rows that changed during the export"),
    ];
    let to = [
        option("to", "URL", "PocketBase [default: http://127.0.0.1:8090]"),
        option("public-url", "URL", "Address of PocketBase for browsers, for files in messages [default: TO]"),
        option("only", "EMAIL", "Only this user, their rooms and their own messages: a trial"),
    ];
    let force = flag("force", "Replace rows that differ, also rows that users have changed in PocketBase since");
    let dry = flag("dry-run", "Write nothing; report what would be imported, repaired and rejected");
    let again = flag("again", "Read the whole table again, although the export is complete");
    let yes = flag("yes", "Do not ask before writing");
    let base = |name: &'static str, about: &'static str| {
        Command::new(name).about(about).args([
            Arg::new("dir")
                .long("dir")
                .value_name("DIR")
                .default_value("migration")
                .value_parser(value_parser!(PathBuf))
                .help("Directory of the export"),
            flag("json", "Print the summary as JSON, and no progress"),
            flag("no-files", "Leave out files and avatars"),
        ])
    };
    Command::new("konvert-migrate")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Moves a chat from Supabase to PocketBase: users with their passwords, rooms, messages, files")
        .after_help(HELP)
        .subcommand_required(true)
        .subcommand(base("export", "Read everything from Supabase into a directory").args(&from).arg(again))
        .subcommand(base("import", "Write the export into PocketBase").args(&to).args([force.clone(), dry]))
        .subcommand(base("verify", "Compare every row and file of the export with PocketBase").args(&to))
        .subcommand(
            base("auto", "export, import and verify, with one question before writing")
                .args(&from)
                .args(&to)
                .args([force, yes.clone()]),
        )
        .subcommand(
            base("delta", "Import what has changed in Supabase since the export").args(&from).args(&to).arg(yes),
        )
}

fn option(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

/// Whether everything went well.
async fn run(arguments: &ArgMatches) -> anyhow::Result<bool> {
    let (name, arguments) = arguments.subcommand().context("no command")?;
    let job = Job(arguments);
    match name {
        "export" => job.export(false).await.map(|(summary, _)| summary.failed_files.is_empty()),
        "import" => job.import(&job.plan()?, Filter::default(), arguments.get_flag("force"), None).await,
        "verify" => job.verify(&job.plan()?).await,
        "delta" => job.delta().await,
        _ => job.auto().await,
    }
}

struct Job<'a>(&'a ArgMatches);

impl Job<'_> {
    fn folder(&self) -> PathBuf {
        self.0.get_one::<PathBuf>("dir").cloned().unwrap_or_else(|| PathBuf::from("migration"))
    }

    /// A flag's value, else the variable's.
    fn value(&self, flag: &str, variable: &str) -> Option<String> {
        let given = self.0.try_get_one::<String>(flag).ok().flatten().cloned();
        given.or_else(|| std::env::var(variable).ok()).filter(|value| !value.is_empty())
    }

    fn is_set(&self, flag: &str) -> bool {
        self.0.try_get_one::<bool>(flag).ok().flatten() == Some(&true)
    }

    fn print(&self, text: &str, json: serde_json::Value) {
        if self.is_set("json") { println!("{json}") } else { println!("{text}") }
    }

    // ---- export

    fn export_options(&self) -> anyhow::Result<export::Options> {
        let mapping = match self.value("mapping", "") {
            Some(path) => {
                Mapping::from_toml(&std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?)?
            }
            None => Mapping::default(),
        };
        let hashes = match (self.value("hashes", ""), std::env::var("SUPABASE_DB_URL")) {
            (Some(path), _) => Hashes::File(path.into()),
            (None, Ok(url)) if !url.is_empty() => Hashes::Postgres(url),
            _ => {
                say("no password hashes: without --hashes or SUPABASE_DB_URL, users need a reset link");
                Hashes::None
            }
        };
        Ok(export::Options {
            folder: self.folder(),
            table: self.value("table", ""),
            mapping,
            hashes,
            with_files: !self.is_set("no-files"),
            again: self.is_set("again"),
            single_pass: self.is_set("single-pass"),
        })
    }

    async fn export(&self, watch: bool) -> anyhow::Result<(export::Summary, Document)> {
        let url = self.value("from", "SUPABASE_URL").context("which project? Give --from URL or SUPABASE_URL")?;
        let key = std::env::var("SUPABASE_SERVICE_ROLE_KEY").ok().filter(|key| !key.is_empty());
        let key = key.context("set SUPABASE_SERVICE_ROLE_KEY to the project's secret key")?;
        let source = Supabase::new(&url, self.value("rest", "SUPABASE_REST_URL").as_deref(), key.trim())?;
        let summary = export::run(&source, &self.export_options()?, watch).await?;
        let document = Document::open(&self.folder(), |_, _| Ok(()))?;
        let text = export::text(&summary, &document);
        self.print(
            &text,
            json!({"export": summary, "sections": document.checksums, "fingerprint": document.fingerprint}),
        );
        Ok((summary, document))
    }

    // ---- import

    fn target(&self) -> String {
        self.value("to", "POCKETBASE_URL").unwrap_or_else(|| "http://127.0.0.1:8090".to_owned())
    }

    fn plan(&self) -> anyhow::Result<Arc<Plan>> {
        let public = self.value("public-url", "POCKETBASE_PUBLIC_URL").unwrap_or_else(|| self.target());
        Ok(Arc::new(Plan::read(&self.folder(), &public)?))
    }

    async fn pocket(&self) -> anyhow::Result<Pocket> {
        let variable = |name: &str| {
            std::env::var(name)
                .ok()
                .filter(|value| !value.is_empty())
                .with_context(|| format!("set {name} to a superuser's"))
        };
        Pocket::login(&self.target(), &variable("POCKETBASE_ADMIN_EMAIL")?, &variable("POCKETBASE_ADMIN_PASSWORD")?)
            .await
    }

    fn filter(&self, plan: &Plan, filter: Filter) -> anyhow::Result<Filter> {
        let only = self.value("only", "").map(|email| Only::of(plan, &email)).transpose()?;
        Ok(Filter { only: only.map(Arc::new), ..filter })
    }

    async fn import(
        &self,
        plan: &Arc<Plan>,
        filter: Filter,
        force: bool,
        gone: Option<Arc<Gone>>,
    ) -> anyhow::Result<bool> {
        let dry_run = self.is_set("dry-run");
        let pocket = if dry_run { None } else { Some(self.pocket().await?) };
        let options = import::Options {
            filter: self.filter(plan, filter)?,
            force,
            dry_run,
            with_files: !self.is_set("no-files"),
            gone,
        };
        let summary = import::run(plan, pocket.as_ref(), &options).await?;
        self.print(&import::text(&summary), json!({"import": summary}));
        Ok(!summary.has_rejects())
    }

    async fn verify(&self, plan: &Arc<Plan>) -> anyhow::Result<bool> {
        let logins: Vec<Login> = match std::env::var("MIGRATE_LOGIN") {
            Ok(login) => vec![
                login
                    .split_once(':')
                    .map(|(a, b)| (a.to_owned(), b.to_owned()))
                    .context("MIGRATE_LOGIN is EMAIL:PASSWORD")?,
            ],
            Err(_) => Vec::new(),
        };
        let filter = self.filter(plan, Filter::default())?;
        let report = verify::run(plan, &self.pocket().await?, &logins, &filter, !self.is_set("no-files")).await?;
        self.print(&verify::text(&report), json!({"verify": report}));
        Ok(report.differences == 0)
    }

    // ---- both

    async fn auto(&self) -> anyhow::Result<bool> {
        self.pocket().await?; // fails before the long export
        self.export(false).await?;
        let plan = self.plan()?;
        self.ask(&plan)?;
        let imported = self.import(&plan, Filter::default(), self.is_set("force"), None).await?;
        Ok(self.verify(&plan).await? && imported)
    }

    async fn delta(&self) -> anyhow::Result<bool> {
        if !export::is_complete(&self.folder()) {
            bail!("{} holds no export yet; run `konvert-migrate export` and `import` first", self.folder().display());
        }
        let (mut summary, _) = self.export(true).await?;
        say(&format!(
            "{} rows are new or changed, {} are gone",
            grouped(summary.changed.len() as u64),
            grouped(summary.gone_meanwhile)
        ));
        if summary.changed.is_empty() && summary.gone.count == 0 {
            return Ok(true);
        }
        let plan = self.plan()?;
        let changed = summary.changed.iter().copied().collect();
        summary.gone.add_hidden(&plan, &changed)?;
        let dependents = Arc::new(std::mem::take(&mut summary.gone.dependents));
        let filter = Filter { changed: Some(Arc::new(changed)), dependents: Some(dependents), only: None };
        let is_good = self.import(&plan, filter, true, Some(Arc::new(summary.gone))).await?;
        spool::settle(&self.folder())?;
        Ok(is_good)
    }

    /// One question before the first write.
    fn ask(&self, plan: &Plan) -> anyhow::Result<()> {
        if self.is_set("yes") {
            return Ok(());
        }
        if !std::io::stdin().is_terminal() {
            bail!("nobody can be asked here; repeat with --yes");
        }
        eprint!(
            "Import {} users, {} rooms and {} messages into {}? [y/N] ",
            grouped(plan.users.len() as u64),
            grouped(plan.rooms.len() as u64),
            grouped(plan.messages.len() as u64),
            self.target()
        );
        std::io::stderr().flush()?;
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer)?;
        if !matches!(answer.trim().to_lowercase().as_str(), "y" | "yes" | "д" | "да") {
            bail!("nothing was written; the export stays in {}", self.folder().display());
        }
        Ok(())
    }
}
