//! `cargo xtask test`: everything that must hold before a change lands, cheapest first.

use std::{
    collections::BTreeSet,
    env,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use clap::ValueEnum;
use coral_tests::cluster::{prerequisites, tools::Tools};

use crate::{
    cluster::{Lines, or_signal},
    command::cargo,
    e2e, faults, generate,
};

/// One step of the tests.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Step {
    /// The code is formatted.
    Format,
    /// The linter has nothing to say.
    Lint,
    /// The documentation builds without a warning.
    Doc,
    /// The files that are derived from code are as the code has them.
    Generate,
    /// Unit tests, tests of the command line, doc tests.
    Unit,
    /// End-to-end tests on a real cluster.
    E2e,
    /// Everything around Coral fails, one thing after another, on a real cluster.
    Faults,
}

/// Run everything that must hold before a change lands, cheapest first.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The steps to run; all of them when none is named.
    steps: Vec<Step>,

    #[command(flatten)]
    faults: faults::Options,
}

/// How a step ended.
struct Ended {
    step: Step,
    took: Duration,
    error: Option<anyhow::Error>,
}

/// Runs the steps, also those behind one that fails, and says at the end how each ended.
pub(crate) async fn run(root: &Path, args: Args) -> anyhow::Result<()> {
    let Args { steps, faults } = args;
    prerequisites::ensure(&Lines)?;
    let steps = if steps.is_empty() {
        Step::value_variants()
    } else {
        &steps
    };
    let mut ended = Vec::with_capacity(steps.len());
    for step in steps {
        ended.push(or_signal(async { Ok(end(root, *step, &faults).await) }).await?);
    }
    println!("\nSTEP       RESULT   TIME");
    for Ended { step, took, error } in &ended {
        let result = if error.is_none() { "passed" } else { "FAILED" };
        println!("{:<10} {result:<8} {} s", name(*step), took.as_secs());
    }
    for Ended { step, error, .. } in &ended {
        if let Some(error) = error {
            println!("\n{}: {error:#}", name(*step));
        }
    }
    let failed = ended.iter().filter(|ended| ended.error.is_some()).count();
    println!("\nsteps: {} passed, {failed} failed", ended.len() - failed);
    ensure!(failed == 0, "{failed} of {} steps failed", ended.len());
    Ok(())
}

async fn end(root: &Path, step: Step, faults: &faults::Options) -> Ended {
    println!("\n==> {}", name(step));
    let began = Instant::now();
    let error = carry_out(root, step, faults).await.err();
    if let Some(error) = &error {
        println!("{} failed: {error:#}", name(step));
    }
    Ended {
        step,
        took: began.elapsed(),
        error,
    }
}

async fn carry_out(root: &Path, step: Step, faults: &faults::Options) -> anyhow::Result<()> {
    match step {
        Step::Format => cargo(root, &["fmt", "--all", "--check"], &[]).await,
        Step::Lint => {
            cargo(
                root,
                &[
                    "clippy",
                    "--locked",
                    "--workspace",
                    "--all-targets",
                    "--all-features",
                    "--",
                    "-D",
                    "warnings",
                ],
                &[],
            )
            .await
        }
        Step::Doc => {
            cargo(
                root,
                &[
                    "doc",
                    "--locked",
                    "--workspace",
                    "--no-deps",
                    "--document-private-items",
                ],
                &[("RUSTDOCFLAGS", "-D warnings")],
            )
            .await
        }
        Step::Generate => is_generated(root).await,
        // The feature that switches the end-to-end tests on is off here; they are a step of their own.
        Step::Unit => {
            // What the plugin makes of the manifests is compared with what kubectl makes of them.
            let kubectl = Tools::build(&Lines).await?.control_plane("kubectl");
            let path = env::var_os("PATH").unwrap_or_default();
            let path = env::join_paths(
                kubectl
                    .parent()
                    .map(PathBuf::from)
                    .into_iter()
                    .chain(env::split_paths(&path)),
            )
            .context("PATH cannot be extended")?;
            let path = path.to_str().context("PATH is not in UTF-8")?;
            cargo(
                root,
                &["test", "--locked", "--workspace", "--no-fail-fast"],
                &[("PATH", path)],
            )
            .await
        }
        Step::E2e => e2e::run(root).await,
        Step::Faults => faults::run(root, faults).await,
    }
}

/// Writes the derived files and compares them with what was there.
async fn is_generated(root: &Path) -> anyhow::Result<()> {
    let before = generate::derived(root)?;
    generate::all(root).await?;
    let after = generate::derived(root)?;
    let paths: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let stale: Vec<&str> = paths
        .into_iter()
        .filter(|path| before.get(*path) != after.get(*path))
        .map(String::as_str)
        .collect();
    ensure!(
        stale.is_empty(),
        "out of date, and now written anew: {}; commit them",
        stale.join(", ")
    );
    Ok(())
}

fn name(step: Step) -> String {
    step.to_possible_value()
        .map_or_else(String::new, |value| value.get_name().to_owned())
}
