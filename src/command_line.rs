//! The commands and options, and the texts around them.

use clap::{Arg, ArgAction, Command, value_parser};
use konvert_gateway::config::{Config, SETTINGS};
use konvert_gateway::dev;
use konvert_gateway::init::{App, Report};
use konvert_gateway::limits::descriptors;
use std::path::{Path, PathBuf};

/// Other users of the machine can see a program's flags.
const HAVE_NO_FLAG: &[&str] = &["secret", "secret_second", "admin_token"];

/// The version, and in a release the commit.
pub fn version() -> String {
    let version = env!("CARGO_PKG_VERSION");
    option_env!("KONVERT_COMMIT").map_or_else(|| version.to_owned(), |commit| format!("{version} ({commit})"))
}

pub fn command() -> Command {
    Command::new("konvert-gateway")
        .version(version())
        .about("A realtime WebSocket gateway beside PocketBase")
        .after_help(
            "Without a command, the gateway serves. Settings: built-in defaults < --config FILE < environment < flags.\n\
             GATEWAY_SECRET is required: at least 32 characters, the same as for PocketBase's hooks.\n\
             GATEWAY_SECRET_FILE, GATEWAY_SECRET_SECOND_FILE, GATEWAY_ADMIN_TOKEN_FILE, GATEWAY_REDIS_URL_FILE and \
             GATEWAY_POCKETBASE_URL_FILE name files with the value.\n\
             First steps: `konvert-gateway dev` runs a demo; `konvert-gateway init DIR` sets up your own PocketBase.",
        )
        .subcommand(Command::new("serve").about("Serve clients until SIGINT, SIGTERM or SIGHUP (the default)"))
        .subcommand(
            Command::new("check-config").about("Print the values in force with their sources, secrets masked"),
        )
        .subcommand(
            Command::new("doctor").about("Check PocketBase, its hooks and Redis, and print problems and remedies"),
        )
        .subcommand(health())
        .subcommand(init())
        .subcommand(dev::command().args(settings().map(hidden)))
        .args(settings().map(|setting| setting.global(true)))
}

fn settings() -> impl Iterator<Item = Arg> {
    let config = Arg::new("config").long("config").value_name("FILE").help("TOML file with settings by name");
    let settings = SETTINGS.iter().filter(|setting| !HAVE_NO_FLAG.contains(&setting.name)).map(|setting| {
        let default = if setting.default.is_empty() { "none" } else { setting.default };
        let variable = setting.name.to_uppercase();
        let help = format!("{} [default: {default}] [env: GATEWAY_{variable}]", setting.help);
        Arg::new(setting.name)
            .long(setting.name.replace('_', "-"))
            .value_name(setting.takes)
            .help(help)
            .help_heading(setting.group)
    });
    std::iter::once(config).chain(settings)
}

/// A setting that a command's help leaves out. The command's own definition replaces the global one.
fn hidden(setting: Arg) -> Arg {
    setting.hide(true)
}

fn health() -> Command {
    Command::new("health")
        .about("Ask the running gateway whether it is ready: exit code 0 or 1, for health checks of containers")
        .arg(Arg::new("URL").help("Ask this http:// URL of another server instead, such as PocketBase's /api/health"))
        .args(settings().map(hidden))
}

fn init() -> Command {
    Command::new("init")
        .about("Write PocketBase's side of the gateway into a PocketBase directory, or upgrade it")
        .after_help(
            "Run it again after an upgrade of the gateway: files that nobody edited are replaced, edited files are kept\n\
             and their differences shown. The exit code is 1 if edited files other than the config were kept.",
        )
        .arg(
            Arg::new("DIR")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("The directory that holds pb_data (or will hold it)"),
        )
        .arg(
            Arg::new("app")
                .long("app")
                .value_name("APP")
                .value_parser(value_parser!(App))
                .help("The collections to begin with [default: blank, or the application of the previous run]"),
        )
        .arg(Arg::new("force").long("force").action(ArgAction::SetTrue).help("Overwrite edited files as well, except gateway.config.js; each is copied to FILE.bak first"))
        .args(settings().map(hidden))
}

/// The next steps after `init`.
pub fn after_init(folder: &Path, report: &Report) -> String {
    if report.kept > 0 {
        return format!(
            "\n{} edited file(s) kept, which may not fit this version. Compare them, or overwrite them with --force.\n",
            report.kept
        );
    }
    if !report.is_first {
        return "\nRestart PocketBase to load the files.\n".to_owned();
    }
    let folder = folder.display();
    format!(
        "
Next:
  1. Edit {folder}/pb_hooks/gateway.config.js.
  2. Make a secret for both, in a file that only you can read:
       (umask 077; openssl rand -hex 32 > gateway-secret)
       export GATEWAY_SECRET_FILE=$PWD/gateway-secret
  3. Start PocketBase, and in a second terminal, with the same variable, the gateway:
       {folder}/pocketbase serve --hooksPool=100
       konvert-gateway
  4. Check the result with `konvert-gateway doctor`, also with the variable.
"
    )
}

/// Values of settings that are not set, as the gateway computes them at its start.
pub fn computed(config: &Config) -> Vec<(&'static str, String)> {
    let limit = descriptors::raise();
    vec![
        ("threads", format!("{}, half of the cores", config.threads.count())),
        ("max_connections", format!("about {}, by ulimit -n {limit}", limit / 10 * 9)),
    ]
}
