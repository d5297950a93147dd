//! `cargo xtask bench`: measures Coral on a real cluster of its own, and compares with the targets.

mod agent;
mod api_server;
mod coral;
mod figures;
mod footprint;
mod machine;
mod mirror;
mod node;
mod plugin;
mod process;
mod profiles;
mod pull;
mod report;
mod scale;
mod webhook;

use std::{env, fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use clap::Subcommand;
use serde_json::Value;
use tokio::process::Command;

pub(crate) use self::{
    footprint::check_sizes,
    report::{PAGES, pages},
};
use crate::{
    cluster::{or_signal, target_dir},
    image,
};

/// Measure, and compare with the targets.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    subject: Subject,
}

#[derive(Debug, Subcommand)]
enum Subject {
    /// What the agent adds to a pull, and what it takes when it has nothing to do.
    Agent(agent::Args),
    /// All of it, one after the other, and the page: an hour, on a machine that does nothing else.
    All,
    /// Sizes and memory, compared with what is accepted.
    Footprint(footprint::Args),
    /// Hollow nodes of `scale`.
    #[command(hide = true)]
    Hollow(scale::HollowArgs),
    /// What copies of images take from one registry to another, and what others take.
    Mirror(mirror::Args),
    /// How long `kubectl coral` keeps people waiting.
    Plugin(plugin::Args),
    /// What the hot paths cost alone: plan, admission and table, by criterion.
    Profiles,
    /// What a Prefetch takes from beginning to end on real nodes, and what others would take.
    Pull(pull::Args),
    /// Write docs/benchmarks.md from what the benches have measured last.
    Report,
    /// What thousands of nodes cost.
    Scale(scale::Args),
    /// What the webhook costs: reviews a second, memory, and what an API server waits for.
    Webhook(webhook::Args),
}

pub(crate) async fn run(root: &Path, args: Args) -> Result<()> {
    match args.subject {
        Subject::Agent(args) => or_signal(Box::pin(agent::run(root, args))).await,
        Subject::All => or_signal(all()).await,
        Subject::Footprint(args) => footprint::run(root, args).await,
        Subject::Hollow(args) => scale::hollow(args).await,
        Subject::Mirror(args) => or_signal(Box::pin(mirror::run(root, args))).await,
        Subject::Plugin(args) => or_signal(Box::pin(plugin::run(root, args))).await,
        Subject::Profiles => or_signal(profiles::run(root)).await,
        Subject::Report => report::run(root),
        Subject::Pull(args) => or_signal(Box::pin(pull::run(root, args))).await,
        // Thousands of agents are in this process: they must not be slower than those that are shipped.
        Subject::Scale(_) if cfg!(debug_assertions) => or_signal(optimised(root)).await,
        Subject::Scale(args) => or_signal(Box::pin(scale::run(root, args))).await,
        Subject::Webhook(args) => or_signal(Box::pin(webhook::run(root, args))).await,
    }
}

/// Runs every bench as a command of its own. One that fails does not keep the others from being measured.
async fn all() -> Result<()> {
    let program = env::current_exe().context("failed to find this program")?;
    let mut failed = Vec::new();
    for bench in [
        "agent",
        "pull",
        "scale",
        "webhook",
        "mirror",
        "plugin",
        "profiles",
        "footprint",
        "report",
    ] {
        println!("\n==> {bench}");
        let mut command = Command::new(&program);
        let status = command.args(["bench", bench]).kill_on_drop(true).status().await;
        if !status.context("failed to run a bench")?.success() {
            failed.push(bench);
        }
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

/// Runs this very command once more, by a program that is compiled as those that are shipped, and that may open more files.
async fn optimised(root: &Path) -> Result<()> {
    let program = image::build(root, &["xtask"]).await?.join("xtask");
    let mut command = Command::new("sh");
    let script = r#"ulimit -n 200000 2>/dev/null || ulimit -n "$(ulimit -H -n)"; exec "$0" "$@""#;
    command
        .args(["-c", script])
        .arg(&program)
        .args(env::args_os().skip(1))
        .kill_on_drop(true);
    let status = command
        .status()
        .await
        .with_context(|| format!("failed to run {}", program.display()))?;
    ensure!(status.success(), "{} ended with {status}", program.display());
    Ok(())
}

/// Writes what a bench has found to `target/bench/<name>.json`, for `bench report`.
fn write_result(name: &str, result: &Value) -> Result<()> {
    let folder = target_dir().join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("failed to make {}", folder.display()))?;
    let file = folder.join(format!("{name}.json"));
    fs::write(&file, format!("{result:#}\n")).with_context(|| format!("failed to write {}", file.display()))?;
    println!("\n{}", file.display());
    Ok(())
}
