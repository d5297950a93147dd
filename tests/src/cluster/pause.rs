//! The program of the pause image, from a few lines of C.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{fingerprint::fingerprint, process, tools};

/// The pause image within the open registry.
pub(super) const NAME: &str = "pause:1";

/// The whole name of the pause image.
#[must_use]
pub(super) fn reference(registry: &str) -> String {
    format!("{registry}/{NAME}")
}

/// The compiled program, static, kept in the cache.
pub(crate) fn program() -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster/pause/pause.c");
    let text = fs::read(&source).with_context(|| format!("read {}", source.display()))?;
    let hash = fingerprint(&text, 16);
    let folder = tools::cache_dir()?.join("pause").join(hash);
    let program = folder.join("pause");
    if !program.exists() {
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        let beside = folder.join(format!("pause.{}", std::process::id()));
        let mut gcc = Command::new("gcc");
        gcc.args(["-static", "-Os", "-s", "-o"]).arg(&beside).arg(&source);
        process::run_command(&mut gcc).context("compile the pause program")?;
        fs::rename(&beside, &program).with_context(|| format!("move {} into place", program.display()))?;
    }
    Ok(program)
}
