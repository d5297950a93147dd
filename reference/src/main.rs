//! Writes the reference pages: `kubectl coral` with its verbs, and what the servers can be told. `cargo xtask generate` runs it.
//!
//! ```text
//!   clap's trees of all programs ──► pages (Markdown), man (roff) ──► docs/reference
//! ```
//!
//! It is a program of its own because it needs every program of Coral, which the other commands of xtask do not.
#![expect(clippy::print_stderr, reason = "a command line program prints")]

mod man;
mod markdown;
mod pages;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Parser;

/// Write the reference pages.
#[derive(Debug, Parser)]
struct Cli {
    /// Folder of the pages. What is in it goes.
    folder: PathBuf,
}

fn main() -> ExitCode {
    match write(&Cli::parse().folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Writes every page, and nothing else is left: a verb that is gone has no page.
fn write(folder: &Path) -> anyhow::Result<()> {
    let files = pages::pages().into_iter().chain(man::pages()?);
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("failed to delete {}", folder.display()))?;
    }
    for (name, text) in files {
        let path = folder.join(name);
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent).with_context(|| format!("failed to make {}", parent.display()))?;
        fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_page_of_nothing_goes() {
        let folder = tempfile::tempdir().unwrap();
        let old = folder.path().join("kubectl-coral-old.md");
        fs::write(&old, "").unwrap();
        write(folder.path()).unwrap();
        assert!(!old.exists() && folder.path().join("README.md").exists());
        assert!(folder.path().join("man/kubectl-coral.1").exists());
    }
}
