//! Tests that mostly wait: they run beside the others, each in a process of its own that writes to a file.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use coral_tests::{cluster, progress::step_line};
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::{
    cluster::target_dir,
    command::{self, E2E},
};

/// Where these tests have their clusters.
const FOLDER_VARIABLE: &str = "CORAL_OWN_CLUSTERS";
/// How long a process that was killed may take to be gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tests that run. When this is dropped they end, and their clusters go.
pub(super) struct Beside {
    running: Vec<Running>,
    folder: PathBuf,
}

struct Running {
    target: String,
    began: Instant,
    process: Child,
    log: PathBuf,
}

impl Beside {
    /// Builds these test targets and starts all of them.
    pub(super) async fn start(root: &Path, targets: &[&str]) -> Result<Self> {
        let mut beside = Self {
            running: Vec::new(),
            folder: target_dir().join("beside"),
        };
        fs::create_dir_all(&beside.folder).with_context(|| format!("make {}", beside.folder.display()))?;
        let mut arguments = [E2E, &["--no-run", "--message-format=json"]].concat();
        for target in targets {
            arguments.extend(["--test", target]);
        }
        let messages = command::cargo_output(root, &arguments).await?;
        for (target, program) in programs(&messages) {
            let log = beside.folder.join(format!("{target}.log"));
            let output = File::create(&log).with_context(|| format!("make {}", log.display()))?;
            let process = Command::new(&program)
                // As cargo would start it.
                .current_dir(root.join("tests"))
                .env(FOLDER_VARIABLE, &beside.folder)
                .stdin(Stdio::null())
                .stdout(output.try_clone().context("share a file")?)
                .stderr(output)
                .kill_on_drop(true)
                .spawn()
                .with_context(|| format!("start {}", program.display()))?;
            println!("{target} runs beside the others; what it says is in {}", log.display());
            beside.running.push(Running {
                target,
                began: Instant::now(),
                process,
                log,
            });
        }
        ensure!(
            beside.running.len() == targets.len(),
            "cargo did not build all of {targets:?}"
        );
        Ok(beside)
    }

    /// Waits for all of them and prints what they said.
    ///
    /// # Errors
    /// With the names of those that failed.
    pub(super) async fn join(mut self) -> Result<()> {
        let mut failed = Vec::new();
        for running in &mut self.running {
            let status = running.process.wait().await.context("wait for a test")?;
            let said = fs::read_to_string(&running.log).with_context(|| format!("read {}", running.log.display()))?;
            println!("\n{} ran beside the others:\n{}", running.target, said.trim_end());
            println!("{}", step_line(&running.target, running.began.elapsed()));
            if !status.success() {
                failed.push(running.target.as_str());
            }
        }
        ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
        Ok(())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        for running in &mut self.running {
            // It may have ended by itself.
            let _ = running.process.start_kill();
        }
        let began = Instant::now();
        while began.elapsed() < PATIENCE && self.running.iter_mut().any(|running| runs(&mut running.process)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        // A process that was killed cleans nothing up.
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            if entry.path().is_dir()
                && let Err(error) = cluster::clean_up(&entry.path())
            {
                eprintln!("failed to clean up {}: {error:#}", entry.path().display());
            }
        }
    }
}

fn runs(process: &mut Child) -> bool {
    matches!(process.try_wait(), Ok(None))
}

/// The names and programs of the test targets in cargo's messages.
fn programs(messages: &str) -> Vec<(String, PathBuf)> {
    let program = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_test = message["target"]["kind"][0] == "test";
        let name = message["target"]["name"].as_str().filter(|_| is_test)?;
        Some((name.to_owned(), message["executable"].as_str()?.into()))
    };
    messages.lines().filter_map(program).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_tests_are_found_among_cargo_s_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"coral_tests"},"executable":null}
{"reason":"compiler-artifact","target":{"kind":["test"],"name":"e2e_patience"},"executable":"/target/e2e_patience-1"}
{"reason":"build-finished","success":true}
"#;
        let expected = ("e2e_patience".to_owned(), PathBuf::from("/target/e2e_patience-1"));
        assert_eq!(programs(messages), [expected]);
    }
}
