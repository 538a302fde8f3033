//! The manifests of deploy/kubernetes: Kubernetes's schemas, and the gateway's own settings and paths in them.

use crate::harness::SECRET;
use crate::harness::process::unpacked;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/kubernetes");
const GATEWAY: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/kubernetes/gateway.yaml"));
/// Kubernetes's version; its schema is part of kubernetes-validate.
const VERSION: &str = "1.31";

/// Checks a manifest against the schemas; unknown keys are errors.
fn validate(manifest: &Path) -> Output {
    let tool = unpacked("kubernetes-validate");
    let program = tool.join("bin/kubernetes-validate");
    assert!(program.exists(), "kubernetes-validate: `tests/run.sh rust` gets it");
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", &tool).arg(program).args(["--strict", "-k", VERSION]).arg(manifest);
    command.output().expect("python3 runs")
}

#[test]
fn the_manifests_fit_the_schemas_of_kubernetes() {
    let entries = std::fs::read_dir(FOLDER).expect("deploy/kubernetes").map(|entry| entry.expect("a file").path());
    let manifests: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|it| it == "yaml")).collect();
    assert!(manifests.len() >= 2, "{manifests:?}");
    for manifest in manifests {
        let output = validate(&manifest);
        assert!(output.status.success(), "{}: {output:?}", manifest.display());
    }
    // The check finds a misspelt key.
    let folder = TempDir::new().expect("a folder");
    let wrong = folder.path().join("wrong.yaml");
    std::fs::write(&wrong, GATEWAY.replacen("readinessProbe:", "readynessProbe:", 1)).expect("it can be written");
    assert!(!validate(&wrong).status.success());
}

/// The variables of the gateway's container with their values.
fn variables() -> Vec<(String, String)> {
    let entries = GATEWAY.lines().filter_map(|line| line.trim().strip_prefix("- { name: GATEWAY_"));
    let pairs = entries.map(|entry| {
        let (name, value) = entry.trim_end_matches(" }").split_once(", value: ").expect("a value");
        (format!("GATEWAY_{name}"), value.trim_matches('"').to_owned())
    });
    pairs.collect()
}

fn seconds(variables: &[(String, String)], name: &str) -> u64 {
    let (_, value) = variables.iter().find(|(variable, _)| variable == name).expect("the variable");
    value.trim_end_matches('s').parse().expect("seconds")
}

#[test]
fn the_gateway_accepts_the_settings_and_the_pod_waits_for_the_drain() {
    let folder = TempDir::new().expect("a folder");
    let mut variables = variables();
    for (name, content) in [("GATEWAY_SECRET_FILE", SECRET), ("GATEWAY_REDIS_URL_FILE", "redis://:password@redis:6379")]
    {
        let (path, (_, value)) =
            (folder.path().join(name), variables.iter_mut().find(|(it, _)| it == name).expect(name));
        std::fs::write(&path, content).expect("it can be written");
        *value = path.to_str().expect("a path").to_owned();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_konvert-gateway"));
    let output = command.arg("check-config").env_clear().envs(variables.clone()).output().expect("it runs");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let printed = String::from_utf8(output.stdout).expect("text");
    for (name, _) in &variables {
        let setting = name.trim_start_matches("GATEWAY_").trim_end_matches("_FILE").to_lowercase();
        assert!(printed.contains(&format!("\n{setting} = ")), "{setting} is not in {printed}");
    }

    let drain = seconds(&variables, "GATEWAY_DRAIN_DELAY") + seconds(&variables, "GATEWAY_SHUTDOWN_TIMEOUT") + 2;
    let grace = GATEWAY.split("terminationGracePeriodSeconds:").nth(1).expect("a grace period");
    let grace: u64 = grace.split_whitespace().next().expect("a number").parse().expect("a number");
    assert!(grace >= drain, "{grace} s of grace, {drain} s of drain");
}
