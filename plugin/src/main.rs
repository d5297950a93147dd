//! `kubectl coral`: images on nodes before anyone needs them, and where they are.
//!
//! ```text
//!   main ──► cli (arguments) ──► commands/<verb> ──► client ──► API server
//!                                      │
//!                                      └──► printer (stdout: data, stderr: the rest)
//! ```
//!
//! What is worth testing is pure: [`selector`], [`naming`], [`matrix`], [`failures`], the layout of tables, and the judgement of a wait.

mod apply;
mod cli;
mod client;
mod commands;
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
mod naming;
mod near;
mod output;
mod prefetches;
mod printer;
mod progress;
mod rollout;
mod selector;
mod table;
mod wait;
mod workload;

use std::process::ExitCode;

use clap::Parser as _;

use crate::{cli::Cli, printer::Printer};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return cli::refuse(&error),
    };
    let printer = Printer::new();
    match commands::run(cli, &printer) {
        Ok(code) => ExitCode::from(code),
        Err(error) => error.report(&printer),
    }
}
