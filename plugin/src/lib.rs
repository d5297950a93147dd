//! `kubectl coral`: images on nodes before anyone needs them, and where they are.
//!
//! ```text
//!   main ──► cli (arguments) ──► commands/<verb> ──► client ──► API server
//!                                      │
//!                                      └──► printer (stdout: data, stderr: the rest)
//! ```
//!
//! What is worth testing is pure: `selector`, `naming`, `matrix`, `failures`, the layout of tables, and the judgement of a wait.

mod apply;
#[cfg(feature = "bench")]
pub mod bench;
mod cli;
mod client;
mod commands;
mod complete;
mod doctor;
mod error;
mod exit;
mod explanation;
mod failure_advice;
mod failures;
mod files;
#[cfg(test)]
mod fixtures;
mod grant;
mod human;
mod images;
mod installation;
mod inventory;
mod layout;
mod manifests;
mod matrix;
mod mirror;
mod naming;
mod near;
mod originals;
mod output;
mod prefetches;
mod printer;
mod progress;
mod rollout;
mod selector;
mod table;
mod wait;
mod workload;

use std::{env, process::ExitCode};

use clap::CommandFactory as _;

use crate::{cli::Cli, printer::Printer};

/// The command line, for what is derived from it: reference pages and completion.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Does what the command line of the process asks for.
#[must_use]
pub fn run() -> ExitCode {
    if let Some(words) = complete::asked(env::args_os()) {
        // Where nobody reads it, nobody misses it.
        let _ = Printer::new().data(complete::answer(command(), &words));
        return ExitCode::SUCCESS;
    }
    let cli = match cli::read(env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return cli::refuse(&error),
    };
    let printer = Printer::new();
    match commands::run(cli, &printer) {
        Ok(code) => ExitCode::from(code),
        Err(error) => error.report(&printer),
    }
}
