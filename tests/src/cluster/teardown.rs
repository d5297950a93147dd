//! Taking a cluster away, whatever state it is in.

use std::{
    fs, io,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::{
    cgroup::Hierarchies,
    layout::{Layout, RUNTIME_DIRS},
    mounts, network,
    process::{ProcessRecord, boot_id},
    state::State,
    tunables,
};

/// How long the parts have for an orderly end.
const PATIENCE: Duration = Duration::from_secs(2);

/// What stays below the cluster's directory.
const KEPT: &str = "logs";

/// Ends every process of the cluster in this directory and removes everything but the logs. Does nothing where there
/// is no cluster. This is synchronous, so that a guard can do it.
pub(super) fn clean(layout: &Layout) -> Result<()> {
    stop_parts(layout);
    let hierarchies = Hierarchies::find()?;
    let cgroup = layout.cgroup();
    hierarchies.kill(&cgroup)?;
    if let Ok(Some(state)) = State::read(layout) {
        tunables::restore(&state.tunables);
    }
    let runtime_dir = layout.runtime_dir();
    let own = [layout.dir.as_path(), &runtime_dir];
    mounts::unmount_below(&own)?;
    network::remove(layout)?;
    hierarchies.remove(&cgroup)?;
    // What is mounted there is not ours to delete.
    if let Some(mounted) = mounts::below(&mounts::read()?, &own).first() {
        bail!("something is still mounted at {}", mounted.display());
    }
    remove(&runtime_dir)?;
    // Stays while it holds the folder of another cluster.
    let _ = fs::remove_dir(RUNTIME_DIRS);
    for entry in entries(&layout.dir)? {
        if !entry.ends_with(KEPT) {
            remove(&entry)?;
        }
    }
    Ok(())
}

/// Asks all parts at once. A state that nobody can read is no reason to leave things behind: the cgroup has them all.
fn stop_parts(layout: &Layout) {
    let Ok(Some(state)) = State::read(layout) else { return };
    if boot_id().ok().as_ref() != Some(&state.boot_id) {
        return;
    }
    let processes: Vec<ProcessRecord> = state.parts.values().map(|part| part.process).collect();
    for process in &processes {
        process.signal(Signal::TERM);
    }
    let started = Instant::now();
    for process in &processes {
        let _ = process.wait(PATIENCE.saturating_sub(started.elapsed()));
    }
}

fn entries(dir: &Path) -> Result<Vec<std::path::PathBuf>> {
    match fs::read_dir(dir) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("read {}", dir.display())),
    }
}

/// Removes what is in a folder.
pub(super) fn empty(folder: &Path) -> Result<()> {
    entries(folder)?.iter().try_for_each(|entry| remove(entry))
}

/// Removes a file or a folder; nothing happens when there is none.
pub(super) fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Cleans up when it goes out of scope, unless it was told not to: after an error, a panic, or when the work is
/// dropped half-way.
pub(super) struct CleanUp {
    layout: Layout,
    armed: bool,
}

impl CleanUp {
    /// Guards this cluster.
    #[must_use]
    pub(super) fn new(layout: Layout) -> Self {
        Self { layout, armed: true }
    }

    /// All is well: the cluster stays.
    pub(super) fn disarm(&mut self) {
        self.armed = false;
    }
}

impl Drop for CleanUp {
    #[expect(clippy::print_stderr, reason = "there is nobody left to return the error to")]
    fn drop(&mut self) {
        if self.armed
            && let Err(error) = clean(&self.layout)
        {
            eprintln!(
                "failed to clean up the cluster in {}: {error:#}",
                self.layout.dir.display()
            );
        }
    }
}
