//! `coral-controller`, the part that decides which node holds which images. The library beside it has the parts.

use std::process::ExitCode;

use clap::Parser;
use coral_controller::{Args, run};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    args.log.init();
    coral_runtime::exit_code(run(args).await)
}
