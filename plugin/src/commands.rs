//! The verbs, one file each.

pub(crate) mod allow_secret;
pub(crate) mod completion;
pub(crate) mod delete;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod images;
pub(crate) mod inject;
pub(crate) mod install;
pub(crate) mod mirror;
pub(crate) mod prefetch;
pub(crate) mod refresh;
pub(crate) mod status;
pub(crate) mod suspend;
pub(crate) mod uninstall;
pub(crate) mod version;

use std::io;

use tokio::runtime;

use crate::{
    cli::{Cli, ClusterArgs, Command},
    client::Cluster,
    error::Error,
    printer::Printer,
};

/// Does what the command line asks for, and gives the exit code.
pub(crate) fn run(cli: Cli, printer: &Printer) -> Result<u8, Error> {
    let Cli { command, cluster } = cli;
    match command {
        Command::Install(arguments) => runtime()?.block_on(arguments.run(&cluster, printer)),
        Command::Upgrade(arguments) => runtime()?.block_on(arguments.run(&cluster, printer)),
        Command::Uninstall(arguments) => runtime()?.block_on(arguments.run(&cluster, printer)),
        Command::Inject(arguments) => runtime()?.block_on(arguments.run(&cluster, printer)),
        Command::Uninject(arguments) => runtime()?.block_on(arguments.run(&cluster, printer)),
        Command::Prefetch(arguments) => runtime()?.block_on(arguments.run(&cluster, printer)),
        Command::Status(arguments) => on(&cluster, async |cluster| arguments.run(cluster, printer).await),
        Command::Images(arguments) => on(&cluster, async |cluster| arguments.run(cluster, printer).await),
        Command::Explain(arguments) => on(&cluster, async |cluster| arguments.run(cluster, printer).await),
        Command::Refresh(arguments) => on(&cluster, async |cluster| arguments.run(cluster, printer).await),
        Command::Suspend(arguments) => on(&cluster, async |cluster| arguments.run(cluster, printer).await),
        Command::Resume(arguments) => on(&cluster, async |cluster| arguments.run(cluster, printer).await),
        Command::Delete(arguments) => on(&cluster, async |cluster| arguments.run(cluster, printer).await),
        Command::Mirror(arguments) => arguments.run(&cluster, printer),
        Command::AllowSecret(arguments) => on(&cluster, async |cluster| arguments.run(cluster, printer).await),
        Command::Doctor(arguments) => on(&cluster, async |cluster| arguments.run(cluster, printer).await),
        Command::Version(arguments) if arguments.is_offline() => arguments.run(printer),
        Command::Version(arguments) => runtime()?.block_on(arguments.run_in(&cluster, printer)),
        Command::Completion(arguments) => arguments.run(printer),
    }
}

/// Does something on the cluster that the arguments and the environment name.
fn on(arguments: &ClusterArgs, run: impl AsyncFnOnce(&Cluster) -> Result<u8, Error>) -> Result<u8, Error> {
    runtime()?.block_on(async { run(&Cluster::connect(arguments).await?).await })
}

/// One thread is enough for one person, and starts at once.
fn runtime() -> Result<runtime::Runtime, Error> {
    let runtime: io::Result<_> = runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(Error::Runtime)
}
