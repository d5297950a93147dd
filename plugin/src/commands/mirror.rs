//! `kubectl coral mirror`: copies of images in a registry of one's own.

mod add;
mod check;
mod copy;
mod gc;
mod registries;
mod status;

use std::io;

use clap::{Args, Subcommand, ValueEnum};
use coral_mirror::Naming;
use tokio::runtime;

use self::{add::AddArgs, check::CheckArgs, copy::CopyArgs, gc::GcArgs, status::StatusArgs};
use crate::{cli::ClusterArgs, client::Cluster, error::Error, printer::Printer};

/// Keep copies of images in a registry of one's own
#[derive(Args, Debug)]
#[command(
    subcommand_negates_reqs = true,
    arg_required_else_help = true,
    override_usage = "kubectl coral mirror [OPTIONS] --to <REGISTRY[/PREFIX]> [IMAGE]...\n       kubectl coral mirror <COMMAND>",
    long_about = "\
Keep copies of images in a registry of one's own.

With images, or with --discover, and --to it makes a Mirror: Coral copies these images, or all that the cluster uses, to that \
registry, keeps the copies as new as the originals, and sends new pods to them if --rewrite says so. The same command \
twice is one Mirror. `copy` needs no cluster.",
    after_help = "\
Examples:
  # copies of two images
  kubectl coral mirror nginx:1.29 ghcr.io/acme/app:v7 --to registry.example/mirror --push-secret push

  # copies of all that the cluster uses; new pods use them while an original is not to be had
  kubectl coral mirror --discover --to registry.example/mirror --rewrite on-failure

  # where they are, and why a pod uses one or does not
  kubectl coral mirror status
  kubectl coral mirror check nginx:1.29"
)]
pub(crate) struct MirrorArgs {
    #[command(subcommand)]
    command: Option<MirrorCommand>,

    #[command(flatten)]
    add: AddArgs,
}

#[derive(Debug, Subcommand)]
enum MirrorCommand {
    Status(StatusArgs),
    Check(CheckArgs),
    Gc(GcArgs),
    Copy(CopyArgs),
}

/// How copies are named.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum NamingChoice {
    /// Host and path of the original
    Path,
    /// One level, with a hash
    Flat,
}

impl From<NamingChoice> for Naming {
    fn from(choice: NamingChoice) -> Self {
        match choice {
            NamingChoice::Path => Self::Path,
            NamingChoice::Flat => Self::Flat,
        }
    }
}

impl MirrorArgs {
    /// Does what is asked for.
    pub(crate) fn run(self, cluster: &ClusterArgs, printer: &Printer) -> Result<u8, Error> {
        let Self { command, add } = self;
        match command {
            Some(MirrorCommand::Copy(arguments)) => {
                // What comes is held against its digest, which is work for more than one processor.
                start(runtime::Builder::new_multi_thread().enable_all().build())?
                    .block_on(Box::pin(arguments.run(printer)))
            }
            Some(MirrorCommand::Status(arguments)) => {
                one_thread()?.block_on(async { arguments.run(&Cluster::connect(cluster).await?, printer).await })
            }
            Some(MirrorCommand::Check(arguments)) => {
                one_thread()?.block_on(async { arguments.run(&Cluster::connect(cluster).await?, printer).await })
            }
            Some(MirrorCommand::Gc(arguments)) => one_thread()?
                .block_on(async { Box::pin(arguments.run(&Cluster::connect(cluster).await?, printer)).await }),
            None => one_thread()?.block_on(add.run(cluster, printer)),
        }
    }
}

/// One thread is enough for one person, and starts at once.
fn one_thread() -> Result<runtime::Runtime, Error> {
    start(runtime::Builder::new_current_thread().enable_all().build())
}

fn start(runtime: io::Result<runtime::Runtime>) -> Result<runtime::Runtime, Error> {
    runtime.map_err(Error::Runtime)
}
