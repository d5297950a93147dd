//! `coral-agent`, the process on every node. The library beside it has the parts.
//!
//! The same program is, by its first argument, what goes with a registry in the cluster: small things that need no image of their own.

use std::{env, ffi::OsStr, process::ExitCode};

use clap::Parser;
use coral_agent::{Args, relay, restart, run};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let first = env::args_os().nth(1);
    match first.as_deref().and_then(OsStr::to_str) {
        Some("relay") => {
            let args = relay::RelayArgs::parse_from(env::args_os().skip(1));
            args.log.init();
            coral_runtime::exit_code(relay::run(args).await)
        }
        Some("restart-registry") => {
            let args = restart::RestartArgs::parse_from(env::args_os().skip(1));
            args.log.init();
            coral_runtime::exit_code(restart::run(args).await)
        }
        _ => {
            let args = Args::parse();
            args.log.init();
            coral_runtime::exit_code(run(args).await)
        }
    }
}
