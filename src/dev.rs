//! `konvert-gateway dev`: the gateway beside a PocketBase with a demo chat, until a signal arrives.
//!
//! Progress goes to stderr; stdout has only the result. All state is in one directory, kept for the next run.

mod announcement;
mod page;
mod ports;
mod servers;
mod site;

use crate::config::SETTINGS;
use anyhow::{Context, bail};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use servers::Servers;
use site::Site;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Instant;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Finds or downloads PocketBase; prints the path of the binary.
const GET_POCKETBASE: &str = include_str!("../deploy/get-pocketbase.sh");

pub(crate) fn say(text: impl std::fmt::Display) {
    eprintln!("konvert-gateway dev: {text}");
}

/// The options of the command line.
pub struct Options {
    data: PathBuf,
    host: IpAddr,
    /// The gateway's URL for browsers, if it is not the listener's.
    public_url: Option<String>,
    gateway_port: u16,
    pocketbase_port: u16,
    pocketbase: Option<PathBuf>,
    /// Directory of the page, if it is not the built chat beside the sources.
    site: Option<PathBuf>,
    /// Serve the embedded page, whether the chat has been built or not.
    plain: bool,
    headless: bool,
    /// Settings of the gateway, as flags.
    settings: Vec<String>,
}

pub fn command() -> Command {
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let port = |name, default, help| option(name, "PORT", help).default_value(default).value_parser(value_parser!(u16));
    Command::new("dev")
        // deploy/quickstart.sh gives options before those of its caller.
        .args_override_self(true)
        .about("Run the gateway beside a PocketBase with a demo chat, until Ctrl-C")
        .after_help(
            "Settings of the gateway are accepted as well, such as --history-size 50 (see konvert-gateway --help).\n\
             A gateway that ends is started again, so that you can try how clients reconnect.",
        )
        .arg(
            option("data", "DIR", "Directory of all data, secrets and logs; one run at a time")
                .default_value("konvert-dev")
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(
            option(
                "pocketbase",
                "PATH",
                "PocketBase binary; without it, PocketBase is downloaded (with Python 3 and pip) [env: POCKETBASE]",
            )
            .value_parser(value_parser!(PathBuf)),
        )
        .arg(
            option("host", "ADDRESS", "Address of the gateway and PocketBase; 0.0.0.0 for other devices in your network, which know the demo's passwords")
                .default_value("127.0.0.1")
                .value_parser(value_parser!(IpAddr)),
        )
        .arg(option(
            "public-url",
            "URL",
            "URL of the gateway for browsers, as https://example.org/realtime, if a proxy stands before it",
        ))
        .arg(port("port-gateway", "8000", "Port of the gateway; the admin listener takes the next one; 0: free ports"))
        .arg(port("port-pocketbase", "8090", "Port of PocketBase; 0: a free port"))
        .arg(
            option(
                "site",
                "DIR",
                "Directory of a built page with an index.html; without it, the chat in deploy/konvert/chat/dist if that \
                 has been built beside this program's sources, else a plain page",
            )
            .value_parser(value_parser!(PathBuf))
            .conflicts_with("plain"),
        )
        .arg(
            Arg::new("plain")
                .long("plain")
                .action(ArgAction::SetTrue)
                .help("Serve the plain page, even where the chat has been built"),
        )
        .arg(
            Arg::new("headless")
                .long("headless")
                .action(ArgAction::SetTrue)
                .help("Print one line of JSON with URLs and logins when ready, and nothing else on stdout"),
        )
}

impl Options {
    /// From the matches of [`command`].
    ///
    /// # Errors
    /// If the public URL is not a URL of a web server.
    pub fn of(arguments: &ArgMatches) -> anyhow::Result<Self> {
        let path = |name| arguments.get_one::<PathBuf>(name).cloned();
        let port = |name| arguments.get_one::<u16>(name).copied().unwrap_or_default();
        let public_url = arguments.get_one::<String>("public-url").map(|url| url.trim_end_matches('/').to_owned());
        if let Some(url) = &public_url
            && !(url.starts_with("http://") || url.starts_with("https://"))
        {
            bail!("--public-url is \"{url}\"; it begins with http:// or https://, as in https://example.org/realtime");
        }
        let settings = SETTINGS.iter().filter_map(|setting| {
            let value = arguments.try_get_one::<String>(setting.name).ok()??;
            Some(format!("--{}={value}", setting.name.replace('_', "-")))
        });
        Ok(Self {
            data: path("data").unwrap_or_default(),
            host: arguments.get_one("host").copied().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            public_url,
            gateway_port: port("port-gateway"),
            pocketbase_port: port("port-pocketbase"),
            pocketbase: path("pocketbase").or_else(|| std::env::var_os("POCKETBASE").map(PathBuf::from)),
            site: path("site"),
            plain: arguments.get_flag("plain"),
            headless: arguments.get_flag("headless"),
            settings: settings.collect(),
        })
    }
}

/// Runs both servers until a signal arrives or PocketBase ends.
///
/// # Errors
/// With a text that says how to help, such as a port that is in use.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let stop = stop_signals()?;
    let pocketbase = tokio::select! {
        found = find_pocketbase(&options) => found?,
        () = stopped(stop.clone(), 1) => return Ok(ExitCode::from(130)),
    };
    let begun = Instant::now();
    let site = Site::new(&options, pocketbase)?;
    site.prepare().await?;
    let mut servers = Servers::new(stop.clone());
    let result = tokio::select! {
        result = async {
            site.start(&mut servers).await?;
            announcement::print(&site, begun.elapsed(), options.headless);
            servers.watch().await
        } => result,
        () = stopped(stop, 1) => Ok(()),
    };
    say("stopping");
    servers.stop().await;
    result.map(|()| ExitCode::SUCCESS)
}

/// Counts the signals that ask to stop.
fn stop_signals() -> anyhow::Result<watch::Receiver<u32>> {
    let (count, counted) = watch::channel(0);
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let (mut signals, count): (Signal, _) = (signal(kind)?, count.clone());
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                count.send_modify(|count| *count += 1);
            }
        });
    }
    Ok(counted)
}

/// Returns after `count` signals.
async fn stopped(mut signals: watch::Receiver<u32>, count: u32) {
    if signals.wait_for(|seen| *seen >= count).await.is_err() {
        std::future::pending().await
    }
}

async fn find_pocketbase(options: &Options) -> anyhow::Result<PathBuf> {
    let found = match &options.pocketbase {
        Some(path) => path.clone(),
        None => download_pocketbase(&options.data).await?,
    };
    let version = tokio::process::Command::new(&found).arg("--version").stdin(Stdio::null()).output().await;
    match version {
        Ok(output) if output.status.success() && output.stdout.starts_with(b"pocketbase version") => {
            Ok(std::path::absolute(&found)?)
        }
        Ok(_) => bail!("{} is not PocketBase; name the binary with --pocketbase PATH", found.display()),
        Err(error) => {
            bail!("{} cannot be run ({error}); name PocketBase's binary with --pocketbase PATH", found.display())
        }
    }
}

/// By the script that the repository uses as well; the download is kept below `data`.
async fn download_pocketbase(data: &Path) -> anyhow::Result<PathBuf> {
    site::create_private(data)?;
    let script = data.join("get-pocketbase.sh");
    std::fs::write(&script, GET_POCKETBASE).with_context(|| format!("cannot write {}", script.display()))?;
    let child = tokio::process::Command::new("bash")
        .arg(&script)
        .env("CARGO_TARGET_DIR", std::path::absolute(data)?)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output();
    let output =
        child.await.context("cannot run bash, which downloads PocketBase; name a binary with --pocketbase PATH")?;
    if !output.status.success() {
        bail!("PocketBase could not be downloaded; the reason is shown above, and --pocketbase PATH names a binary");
    }
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}
