//! `coral-mirror`, the part that keeps copies of images. The library beside it has the parts.

use std::process::ExitCode;

use clap::Parser;
use coral_mirror::{Args, run};

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    args.log.init();
    coral_runtime::exit_code(run(args).await)
}
