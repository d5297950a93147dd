//! `cargo xtask bench`: measures Coral on a real cluster of its own, and compares with the targets.

mod agent;
mod figures;
mod machine;
mod node;

use std::path::Path;

use anyhow::Result;
use clap::Subcommand;

use crate::cluster::or_signal;

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
}

pub(crate) async fn run(root: &Path, args: Args) -> Result<()> {
    match args.subject {
        Subject::Agent(args) => or_signal(Box::pin(agent::run(root, args))).await,
    }
}
