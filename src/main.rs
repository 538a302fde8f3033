//! The command line: from arguments to the exit code.

mod command_line;

use anyhow::Context;
use clap::ArgMatches;
use konvert_gateway::config::{self, Config, LogFormat, SETTINGS, Sources};
use konvert_gateway::init::{self, App};
use konvert_gateway::metrics::Metrics;
use konvert_gateway::server::{Inherited, Server};
use konvert_gateway::tasks;
use konvert_gateway::{dev, doctor, health};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    let arguments = command_line::command().get_matches();
    let name = arguments.subcommand_name().unwrap_or("serve");
    match run(name, &arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("konvert-gateway: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(name: &str, arguments: &ArgMatches) -> anyhow::Result<ExitCode> {
    match arguments.subcommand() {
        Some(("init", arguments)) => return write_files(arguments),
        Some(("dev", arguments)) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            return runtime.block_on(dev::run(dev::Options::of(arguments)?));
        }
        Some(("health", arguments)) => {
            if let Some(url) = arguments.get_one::<String>("URL") {
                return Ok(report(health::check_url(url)));
            }
        }
        _ => {}
    }
    let environment: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let unknown: Vec<String> = config::unknown_variables(&environment).into_iter().map(str::to_owned).collect();
    let config = load(arguments.subcommand().map_or(arguments, |(_, inner)| inner), environment)?;
    if name == "check-config" {
        for variable in unknown {
            eprintln!("konvert-gateway: unknown variable {variable} in the environment; ignored");
        }
        print(&config.explained(&command_line::computed(&config)));
        return Ok(ExitCode::SUCCESS);
    }
    if name == "health" {
        return Ok(report(health::check(&config.admin_listen)));
    }
    let inherited = Inherited::from_environment().context("a file descriptor of LISTEN_FDS is no listening socket")?;
    log_to_stderr(&config);
    tasks::exit_on_panic();
    for variable in unknown {
        tracing::warn!(variable, "unknown GATEWAY_ variable in the environment; ignored");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.threads.count())
        // When thousands of clients return at once, tasks beyond a thread's queue of 256 wait in the global queue. By
        // default every 61st task comes from there, so the earliest clients would be served last.
        .global_queue_interval(2)
        .enable_all()
        .build()?;
    let code = match name {
        "doctor" => runtime.block_on(examine(config)),
        _ => runtime.block_on(serve(config, inherited)),
    };
    // Background work must not delay the exit.
    runtime.shutdown_background();
    code
}

fn load(arguments: &ArgMatches, environment: Vec<(String, String)>) -> anyhow::Result<Config> {
    let path = arguments.get_one::<String>("config");
    let text =
        path.map(|path| std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))).transpose()?;
    let flag = |name: &str| Some((name.to_owned(), arguments.try_get_one::<String>(name).ok()??.clone()));
    let sources = Sources {
        file: path.map(String::as_str).zip(text.as_deref()),
        environment,
        flags: SETTINGS.iter().filter_map(|setting| flag(setting.name)).collect(),
    };
    Ok(Config::load(&sources)?)
}

fn log_to_stderr(config: &Config) {
    let log = tracing_subscriber::fmt().with_env_filter(config.log_level.filter()).with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Text => log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}

fn write_files(arguments: &ArgMatches) -> anyhow::Result<ExitCode> {
    let folder = arguments.get_one::<PathBuf>("DIR").context("DIR is missing")?;
    let report = init::init(folder, arguments.get_one::<App>("app").copied(), arguments.get_flag("force"))?;
    print(&report.text);
    print(&command_line::after_init(folder, &report));
    Ok(if report.kept == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn report(health: Result<(), health::Unhealthy>) -> ExitCode {
    match health {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("konvert-gateway: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Writes to standard output. A reader that closes early, such as `head`, is no error.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

async fn serve(config: Config, inherited: Inherited) -> anyhow::Result<ExitCode> {
    let server = Server::bind(config, inherited).await?;
    tracing::info!(public = %server.public_address()?, admin = %server.admin_address()?, "konvert-gateway {} listens", command_line::version());
    let shutdown = CancellationToken::new();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut hang_up = signal(SignalKind::hangup())?;
    let asked = shutdown.clone();
    let mut serving = std::pin::pin!(server.run(shutdown));
    loop {
        tokio::select! {
            () = &mut serving => return Ok(ExitCode::SUCCESS),
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
        }
        if asked.is_cancelled() {
            tracing::warn!("second signal received: exiting at once, remaining connections are cut");
            return Ok(ExitCode::FAILURE);
        }
        tracing::info!("stop requested: draining connections; a second signal exits at once");
        asked.cancel();
    }
}

async fn examine(config: Config) -> anyhow::Result<ExitCode> {
    let mut healthy = true;
    for doctor::Finding { what, outcome } in doctor::examine(&config, Metrics::new()?).await {
        match outcome {
            doctor::Outcome::Good => print(&format!("ok    {what}\n")),
            doctor::Outcome::Untested(reason) => print(&format!("?     {what} are not tested: {reason}\n")),
            doctor::Outcome::Wrong(problem) => {
                healthy = false;
                print(&format!("WRONG {what}: {problem}\n"));
            }
        }
    }
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
