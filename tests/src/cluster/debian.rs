//! containerd and runc as Debian ships them: fetched and unpacked, but not installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::{
    fingerprint::fingerprint,
    prerequisites::on_path,
    process::run_command,
    state,
    tools::{Tools, cache_dir},
};
use crate::progress::Progress;

const PACKAGES: [&str; 2] = ["containerd", "runc"];
/// What a node runs, by its path in the packages.
const PROGRAMS: [&str; 4] = [
    "usr/bin/containerd",
    "usr/bin/containerd-shim-runc-v2",
    "usr/bin/ctr",
    "usr/sbin/runc",
];
/// Debian packages the plugins of containerd's network apart, in a version of its own: these are ours.
const NETWORK_PLUGINS: [&str; 3] = ["ptp", "loopback", "host-local"];

/// The folder with these programs; they are fetched where they are not there yet.
///
/// # Errors
/// Also where this is no Debian, or has no package source that answers.
pub(super) async fn programs(tools: &Tools, progress: &dyn Progress) -> Result<PathBuf> {
    ensure!(
        on_path("apt-get") && on_path("dpkg"),
        "Debian's containerd is to be had on Debian only"
    );
    let release = fs::read_to_string("/etc/os-release").context("read /etc/os-release")?;
    let key = fingerprint(format!("{release}{}", tools.node.display()), 16);
    let folder = cache_dir()?.join("cluster-tools").join(format!("debian-{key}"));
    let bin = folder.join("bin");
    if !bin.exists() {
        progress.note("fetching Debian's packages of containerd and runc");
        let tools = tools.clone();
        tokio::task::spawn_blocking(move || fetch(&folder, &tools)).await??;
    }
    Ok(bin)
}

/// Unpacks beside the place where the programs will be: whoever finds them there finds all of them.
fn fetch(folder: &Path, tools: &Tools) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let _lock = state::lock(folder)?;
    let bin = folder.join("bin");
    if bin.exists() {
        return Ok(());
    }
    let work = tempfile::Builder::new()
        .prefix("unpack-")
        .tempdir_in(folder)
        .context("make a folder to unpack in")?;
    let download = || {
        let mut apt = Command::new("apt-get");
        run_command(apt.arg("download").args(PACKAGES).current_dir(work.path()))
    };
    // Most often what fails is that the machine has no lists of packages yet, or old ones.
    if download().is_err() {
        run_command(Command::new("apt-get").arg("update"))?;
        download().context("fetch Debian's packages of containerd and runc")?;
    }
    let unpacked = work.path().join("unpacked");
    for entry in fs::read_dir(work.path()).with_context(|| format!("read {}", work.path().display()))? {
        let package = entry.context("find a package")?.path();
        if package.extension().is_some_and(|extension| extension == "deb") {
            run_command(Command::new("dpkg").arg("--extract").arg(&package).arg(&unpacked))?;
        }
    }
    let beside = work.path().join("bin");
    fs::create_dir(&beside).with_context(|| format!("create {}", beside.display()))?;
    let programs = PROGRAMS.iter().map(|program| unpacked.join(program));
    let plugins = NETWORK_PLUGINS.iter().map(|plugin| tools.node(plugin));
    for program in programs.chain(plugins) {
        let name = program.file_name().context("find the name of a program")?;
        fs::copy(&program, beside.join(name)).with_context(|| format!("copy {}", program.display()))?;
    }
    fs::rename(&beside, &bin).with_context(|| format!("move {} into place", bin.display()))
}
