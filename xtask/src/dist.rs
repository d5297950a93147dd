//! `cargo xtask dist`: what a release has to offer. The crate `dist/` does it, which also builds where the rest of xtask does not.

use std::path::Path;

use crate::command::cargo;

/// Build what a release has to offer of kubectl coral.
#[derive(Debug, clap::Args)]
// What it says about itself is the other program's to say.
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// Arguments of coral-dist, such as --help.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub(crate) async fn run(root: &Path, args: Args) -> anyhow::Result<()> {
    let Args { arguments } = args;
    let mut all = vec!["run", "--locked", "--quiet", "--package", "coral-dist", "--"];
    all.extend(arguments.iter().map(String::as_str));
    cargo(root, &all, &[]).await
}
