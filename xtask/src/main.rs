//! Developer commands of Coral: `cargo xtask <command>`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line program prints")]

mod bench;
mod chart;
mod cluster;
mod command;
mod demo;
mod deploy;
mod dist;
mod e2e;
mod faults;
mod generate;
mod image;
mod test;

use std::{path::Path, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Developer commands of Coral.
#[derive(Debug, Parser)]
#[command(name = "xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure, and compare with the targets.
    Bench(bench::Args),
    /// A real Kubernetes cluster on this machine.
    Cluster(cluster::Args),
    /// Watch Coral do its job on a real Kubernetes on this machine.
    Demo(demo::Args),
    /// Install Coral, as it is in this checkout, in a running cluster.
    Deploy(deploy::Args),
    /// Build what a release has to offer of kubectl coral.
    Dist(dist::Args),
    /// Write the files that are derived from code.
    Generate(generate::Args),
    /// Build the image of the in-cluster parts and push it.
    Image(image::Args),
    /// Run everything that must hold before a change lands.
    Test(test::Args),
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<()> {
    let root = workspace();
    match command {
        Command::Bench(args) => bench::run(root, args).await,
        Command::Cluster(args) => cluster::run(args).await,
        Command::Demo(args) => demo::run(root, args).await,
        Command::Deploy(args) => deploy::run(root, args).await,
        Command::Dist(args) => dist::run(root, args).await,
        Command::Generate(args) => generate::run(root, &args).await,
        Command::Image(args) => image::run(root, &args).await,
        Command::Test(args) => test::run(root, args).await,
    }
}

/// The folder of the workspace.
fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
