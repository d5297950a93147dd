//! `coral-webhook`, the part that places pods by their images. The library beside it has the parts.

use std::process::ExitCode;

use clap::Parser;
use coral_webhook::{Args, run};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    args.log.init();
    coral_runtime::exit_code(run(args).await)
}
