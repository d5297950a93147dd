//! The verbs, one file each.

pub(crate) mod allow_secret;
pub(crate) mod completion;
pub(crate) mod prefetch;
pub(crate) mod status;
pub(crate) mod version;

use std::io;

use tokio::runtime;

use crate::{
    cli::{Cli, Command},
    client::Cluster,
    error::Error,
    printer::Printer,
};

/// Does what the command line asks for, and gives the exit code.
pub(crate) fn run(cli: Cli, printer: &Printer) -> Result<u8, Error> {
    let Cli { command, cluster } = cli;
    match command {
        Command::Version(arguments) => arguments.run(printer),
        Command::Completion(arguments) => arguments.run(printer),
        Command::Prefetch(arguments) => runtime()?.block_on(arguments.run(&cluster, printer)),
        Command::AllowSecret(arguments) => {
            runtime()?.block_on(async { arguments.run(&Cluster::connect(&cluster).await?, printer).await })
        }
        Command::Status(arguments) => {
            runtime()?.block_on(async { arguments.run(&Cluster::connect(&cluster).await?, printer).await })
        }
    }
}

/// One thread is enough for one person, and starts at once.
fn runtime() -> Result<runtime::Runtime, Error> {
    let runtime: io::Result<_> = runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(Error::Runtime)
}
