//! The command line: refused arguments and settings, and their error messages.

use crate::harness::pocketbase::PocketBase;
use crate::harness::redis::Redis;
use crate::harness::{SECRET, process::free_port};
use std::io::Write;
use std::process::{Command, Output, Stdio};

fn gateway(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_konvert-gateway"));
    command.args(arguments).env_clear().env("GATEWAY_SECRET", SECRET).envs(environment.iter().copied());
    away_from_default_ports(&mut command);
    command.output().expect("the gateway runs")
}

/// A gateway of this machine may use the default ports.
fn away_from_default_ports(command: &mut Command) {
    for name in ["GATEWAY_LISTEN", "GATEWAY_ADMIN_LISTEN"] {
        command.env(name, format!("127.0.0.1:{}", free_port()));
    }
}

fn refused(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let output = gateway(arguments, environment);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn check_config_names_the_wrong_setting() {
    let unknown = file("histroy_size = 10");
    let path = unknown.path().to_str().unwrap();
    let told = refused(&["check-config", "--config", path], &[]);
    assert!(told.contains("`histroy_size`") && told.contains("history_size") && told.contains(path), "{told}");
    let told = refused(&["check-config"], &[("GATEWAY_PING_INTERVAL", "often")]);
    assert!(told.contains("GATEWAY_PING_INTERVAL") && told.contains("often") && told.contains("seconds"), "{told}");
    let told = refused(&["check-config"], &[("GATEWAY_SECRET", "short")]);
    assert!(told.contains("GATEWAY_SECRET") && told.contains("32") && !told.contains("short"), "{told}");
    let told = refused(&["check-config", "--listen", "everywhere"], &[]);
    assert!(told.contains("`listen`") && told.contains("everywhere"), "{told}");
    let told = refused(&["check-config", "--config", "/does/not/exist"], &[]);
    assert!(told.contains("/does/not/exist"), "{told}");
    assert!(refused(&["check-config", "--lisen", "x"], &[]).contains("--listen"));
    // The same holds for `serve`: the configuration is checked before any port is bound.
    assert!(refused(&["serve"], &[("GATEWAY_REDIS_URL", "x")]).contains("GATEWAY_REDIS_URL"));
}

#[test]
fn check_config_prints_the_effective_settings_without_secrets() {
    let settings = file("history_size = 10\nlog_format = \"json\"");
    let path = settings.path().to_str().unwrap();
    let output = gateway(
        &["check-config", "--config", path, "--history-size", "30"],
        &[("GATEWAY_HISTORY_SIZE", "20"), ("GATEWAY_REDIS_URL", "redis://:hunter2@127.0.0.1:1/")],
    );
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{printed}");
    assert!(printed.contains("\nhistory_size = 30 ") && printed.contains("\nlog_format = \"json\" "), "{printed}");
    assert!(!printed.contains(SECRET) && !printed.contains("hunter2"), "{printed}");
}

#[test]
fn a_reader_that_closes_early_is_no_error() {
    for command in ["check-config", "doctor"] {
        let mut started = Command::new(env!("CARGO_BIN_EXE_konvert-gateway"));
        started
            .arg(command)
            .env_clear()
            .env("GATEWAY_SECRET", SECRET)
            .env("GATEWAY_POCKETBASE_URL", "http://127.0.0.1:1");
        away_from_default_ports(&mut started);
        let mut child = started.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        // The doctor finds no PocketBase, and says so with its exit code.
        assert_eq!(output.status.code(), Some(i32::from(command == "doctor")), "{command}: {told}");
        assert!(!told.contains("panicked"), "{command}: {told}");
    }
}

#[test]
fn check_config_warns_of_unknown_variables() {
    let output = gateway(&["check-config"], &[("GATEWAY_FOO_BAR_BAZ", "5")]);
    assert!(String::from_utf8(output.stderr).unwrap().contains("GATEWAY_FOO_BAR_BAZ"));
}

#[test]
fn help_explains_the_settings_and_a_port_in_use_is_named() {
    let help = String::from_utf8(gateway(&["--help"], &[]).stdout).unwrap();
    for word in ["check-config", "doctor", "--pocketbase-url", "GATEWAY_REDIS_URL", "GATEWAY_SECRET", "duration"] {
        assert!(help.contains(word), "{word} in {help}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let told = refused(&["--listen", &address], &[]);
    assert!(told.contains(&address) && told.contains("`listen`"), "{told}");
}

#[test]
fn more_connections_than_descriptors_are_refused_before_any_port_is_bound() {
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -n 1024; exec \"$0\" --max-connections 1000"])
        .arg(env!("CARGO_BIN_EXE_konvert-gateway"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    command.env_clear().env("GATEWAY_SECRET", SECRET).env("GATEWAY_LISTEN", address);
    let output = command.output().expect("sh runs");
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("`max_connections` = 1000") && told.contains("ulimit -n") && told.contains("1024"), "{told}");
}

#[tokio::test]
async fn doctor_names_the_problem() {
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let output = gateway(&["doctor"], &[("GATEWAY_POCKETBASE_URL", &nowhere)]);
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(told.contains("WRONG PocketBase") && told.contains("GATEWAY_POCKETBASE_URL"), "{told}");

    let (pocketbase, redis) = (PocketBase::start(&nowhere).await, Redis::start());
    let url = redis.url();
    let right = [("GATEWAY_POCKETBASE_URL", pocketbase.url.as_str()), ("GATEWAY_REDIS_URL", url.as_str())];
    let output = gateway(&["doctor"], &right);
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && told.contains("ok    PocketBase") && told.contains("ok    Redis"), "{told}");

    let wrong = [
        right[0],
        ("GATEWAY_SECRET", "another secret of 32 characters or more"),
        ("GATEWAY_REDIS_URL", "redis://127.0.0.1:1"),
    ];
    let output = gateway(&["doctor"], &wrong);
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(told.contains("same GATEWAY_SECRET") && told.contains("WRONG Redis"), "{told}");
}
