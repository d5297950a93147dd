//! Running other programs.

use std::path::Path;

use anyhow::{Context as _, ensure};
use tokio::process::Command;

/// What makes cargo build or run end-to-end tests.
pub(crate) const E2E: &[&str] = &["test", "--locked", "--package", "coral-tests", "--features", "e2e"];

/// Runs cargo and fails when it fails.
pub(crate) async fn cargo(root: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<()> {
    let mut command = Command::new(env!("CARGO"));
    command
        .current_dir(root)
        .args(arguments)
        .envs(environment.iter().copied())
        .kill_on_drop(true);
    let status = command.status().await.context("failed to run cargo")?;
    ensure!(status.success(), "cargo {} ended with {status}", arguments.join(" "));
    Ok(())
}

/// Runs cargo and gives what it printed on standard output; what else it says is shown as it comes.
pub(crate) async fn cargo_output(root: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new(env!("CARGO"));
    command
        .current_dir(root)
        .args(arguments)
        .stderr(std::process::Stdio::inherit())
        .kill_on_drop(true);
    let output = command.output().await.context("failed to run cargo")?;
    let status = output.status;
    ensure!(status.success(), "cargo {} ended with {status}", arguments.join(" "));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program quietly and gives what it printed; what it said is in the error when it fails.
pub(crate) fn output(command: &mut std::process::Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("failed to run {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
