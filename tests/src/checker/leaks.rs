//! What Coral's processes hold on to: files, threads, memory, what they have written.

use std::{fmt, fs, path::Path};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::cluster::{Cluster, NodeHandle, PodProcess};

/// The programs that are looked at.
const PROGRAMS: &[&str] = &["/coral-agent", "/coral-controller", "/coral-webhook"];

/// What one process holds on to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Footprint {
    /// The program.
    pub program: String,
    /// Its node.
    pub node: String,
    /// Files, sockets and whatever else has a descriptor.
    pub files: usize,
    /// Threads.
    pub threads: usize,
    /// Resident set, in KiB.
    pub resident_kib: usize,
    /// Files that it has written into its container.
    pub written: usize,
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            program,
            node,
            files,
            threads,
            resident_kib,
            written,
        } = self;
        write!(
            f,
            "{program} on {node}: {files} descriptors, {threads} threads, {resident_kib} KiB, {written} files written"
        )
    }
}

/// What each process of Coral's in the pods of a cluster holds on to. A process that ends meanwhile is left out.
pub fn footprints(cluster: &Cluster) -> Result<Vec<Footprint>> {
    let mut footprints = Vec::new();
    for program in PROGRAMS {
        for process in cluster.pod_processes(program)? {
            footprints.extend(footprint(cluster, program, &process));
        }
    }
    Ok(footprints)
}

/// The downloads that a node's containerd has begun and neither finished nor given up.
pub fn unfinished_downloads(node: &NodeHandle) -> Result<usize> {
    let listed = node.ctr(&["content", "active"])?;
    Ok(listed.lines().skip(1).filter(|line| !line.trim().is_empty()).count())
}

fn footprint(cluster: &Cluster, program: &str, process: &PodProcess) -> Option<Footprint> {
    let folder = Path::new("/proc").join(process.process.pid.to_string());
    let files = fs::read_dir(folder.join("fd")).ok()?.count();
    let status = fs::read_to_string(folder.join("status")).ok()?;
    let mounts = fs::read_to_string(folder.join("mountinfo")).ok()?;
    let written = match upper_folder(&mounts) {
        Some(upper) => {
            let node = cluster.node(&process.node).ok()?;
            count_files(&node.path(upper).ok()?).ok()?
        }
        None => 0,
    };
    Some(Footprint {
        program: program.trim_start_matches('/').to_owned(),
        node: process.node.clone(),
        files,
        threads: field(&status, "Threads:")?,
        resident_kib: field(&status, "VmRSS:")?,
        written,
    })
}

/// A number in `/proc/<pid>/status`.
fn field(status: &str, name: &str) -> Option<usize> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// Where what a container writes into its root goes: the upper folder of its overlay.
fn upper_folder(mounts: &str) -> Option<&str> {
    let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/"))?;
    let options = root.rsplit_once(' ')?.1;
    options.split(',').find_map(|option| option.strip_prefix("upperdir="))
}

fn count_files(folder: &Path) -> Result<usize> {
    let mut count = 0;
    let entries = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("read {}", folder.display()))?;
        let kind = entry.file_type().context("find out what a file is")?;
        count += if kind.is_dir() {
            count_files(&entry.path())?
        } else {
            // The runtime makes empty files to mount others over.
            usize::from(entry.metadata().is_ok_and(|metadata| metadata.len() > 0))
        };
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_folders_are_found_in_what_the_kernel_says() {
        let status = "Name:\tcoral-agent\nThreads:\t4\nVmRSS:\t    8120 kB\n";
        assert_eq!(
            (field(status, "Threads:"), field(status, "VmRSS:")),
            (Some(4), Some(8120))
        );
        let mounts = "80 60 0:50 / / ro,relatime - overlay overlay ro,lowerdir=/a:/b,upperdir=/var/lib/x/fs,workdir=/w\n\
                      81 80 0:51 / /proc rw - proc proc rw\n";
        assert_eq!(upper_folder(mounts), Some("/var/lib/x/fs"));
        assert_eq!(upper_folder("81 80 0:51 / /proc rw - proc proc rw\n"), None);
    }
}
