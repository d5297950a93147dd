//! What a machine must have before a cluster can be built and started on it.

use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::progress::Progress;

/// Something needed, and the Debian package that brings it.
struct Prerequisite {
    what: &'static str,
    package: &'static str,
    present: fn() -> bool,
}

const PREREQUISITES: &[Prerequisite] = &[
    Prerequisite {
        what: "gcc",
        package: "gcc",
        present: || on_path("gcc"),
    },
    Prerequisite {
        what: "a C library to link statically",
        package: "libc6-dev",
        present: || gcc_finds("libc.a"),
    },
    Prerequisite {
        what: "pkg-config",
        package: "pkg-config",
        present: || on_path("pkg-config"),
    },
    Prerequisite {
        what: "libseccomp's header files",
        package: "libseccomp-dev",
        present: has_libseccomp,
    },
    Prerequisite {
        what: "ip",
        package: "iproute2",
        present: || on_path("ip"),
    },
    Prerequisite {
        what: "nft",
        package: "nftables",
        present: || on_path("nft"),
    },
    Prerequisite {
        what: "nsenter, unshare, setsid",
        package: "util-linux",
        present: || on_path("nsenter"),
    },
    Prerequisite {
        what: "mount",
        package: "mount",
        present: || on_path("mount"),
    },
];

/// Whether a program is on the `PATH`, or in the folders that only root's `PATH` has.
#[must_use]
pub fn on_path(program: &str) -> bool {
    find_on_path(program).is_some()
}

/// The path of a program.
#[must_use]
pub fn find_on_path(program: &str) -> Option<std::path::PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(Into::into))
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// What `gcc` prints is the whole path of a file that it knows, and the bare name of one that it does not.
fn gcc_finds(file: &str) -> bool {
    let output = Command::new("gcc").arg(format!("-print-file-name={file}")).output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim().starts_with('/'))
}

fn has_libseccomp() -> bool {
    let mut command = Command::new("pkg-config");
    command
        .args(["--exists", "libseccomp"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Checks for everything, and installs what Debian has.
///
/// # Errors
/// With the list of what is missing, when it cannot be installed.
pub fn ensure(progress: &dyn Progress) -> Result<()> {
    if !on_path("go") {
        bail!("there is no `go` on the PATH; the programs of the cluster are built with Go 1.26 or newer");
    }
    if !rustix::process::geteuid().is_root() {
        bail!("a cluster needs network namespaces, mounts and cgroups, and so has to be started by root");
    }
    require_overlay()?;
    install_missing(PREREQUISITES, progress)
}

fn require_overlay() -> Result<()> {
    let known = fs::read_to_string("/proc/filesystems").context("read /proc/filesystems")?;
    let overlay = |text: &str| text.lines().any(|line| line.ends_with("\toverlay"));
    if overlay(&known)
        || Command::new("modprobe")
            .arg("overlay")
            .status()
            .is_ok_and(|status| status.success())
    {
        return Ok(());
    }
    bail!("the kernel has no overlay file system, which containerd keeps images in");
}

fn install_missing(prerequisites: &[Prerequisite], progress: &dyn Progress) -> Result<()> {
    let missing: Vec<&Prerequisite> = prerequisites.iter().filter(|one| !(one.present)()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|one| one.package).collect();
    install(&packages, progress).with_context(|| {
        format!(
            "the cluster needs these, which this machine does not have: {}",
            listed(&missing)
        )
    })?;
    let still: Vec<&Prerequisite> = missing.into_iter().filter(|one| !(one.present)()).collect();
    if !still.is_empty() {
        bail!(
            "still missing after their Debian packages were installed: {}",
            listed(&still)
        );
    }
    Ok(())
}

fn listed(prerequisites: &[&Prerequisite]) -> String {
    let items = prerequisites
        .iter()
        .map(|one| format!("{} (Debian package {})", one.what, one.package));
    items.collect::<Vec<_>>().join(", ")
}

/// Installs Debian packages.
///
/// # Errors
/// When this is not Debian or one of its children, or we are not root.
pub fn install(packages: &[&str], progress: &dyn Progress) -> Result<()> {
    if !Path::new("/etc/debian_version").exists() || !on_path("apt-get") {
        bail!("please install {} by this system's own means", packages.join(", "));
    }
    if !rustix::process::geteuid().is_root() {
        bail!(
            "please run, as root: apt-get update && apt-get install {}",
            packages.join(" ")
        );
    }
    progress.note(&format!("installing Debian packages: {}", packages.join(", ")));
    apt_get(&["update"])?;
    apt_get(&[&["install", "--yes", "--no-install-recommends"], packages].concat())
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    super::process::run_command(&mut command).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_things_are_named_with_their_packages() {
        let missing: Vec<&Prerequisite> = PREREQUISITES.iter().filter(|one| one.package == "nftables").collect();
        assert_eq!(listed(&missing), "nft (Debian package nftables)");
    }

    #[test]
    fn programs_are_found_by_name() {
        assert!(on_path("sh"));
        assert!(!on_path("no-such-program-anywhere"));
    }
}
