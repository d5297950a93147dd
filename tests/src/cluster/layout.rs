//! Where the things of a cluster lie.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::fingerprint::fingerprint;

/// Where every cluster of the machine has a folder for its sockets.
pub(super) const RUNTIME_DIRS: &str = "/run/coral";

/// The paths and names of one cluster, all of which follow from its directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The cluster's directory, absolute.
    pub dir: PathBuf,
    /// Eight hex digits that tell clusters on one machine apart.
    pub id: String,
}

impl Layout {
    /// The layout of the cluster in `dir`.
    pub fn new(dir: &Path) -> Result<Self> {
        let current = env::current_dir().context("find the current directory")?;
        let dir = current.join(dir);
        // The kernel names mounts by their real paths. The directory itself need not exist yet.
        let existing = dir
            .ancestors()
            .find_map(|ancestor| Some((ancestor, ancestor.canonicalize().ok()?)));
        Ok(match existing {
            Some((ancestor, real)) => Self::below(&real, dir.strip_prefix(ancestor).unwrap_or(Path::new(""))),
            None => Self::below(&current, &dir),
        })
    }

    fn below(current: &Path, dir: &Path) -> Self {
        // `components` drops `.` and doubled slashes, so that two spellings of one directory are one cluster.
        let dir: PathBuf = current.join(dir).components().collect();
        let id = fingerprint(dir.as_os_str().as_encoded_bytes(), 8);
        Self { dir, id }
    }

    /// Sockets, and the `/run` of each node. Short, because a socket's path may have 107 bytes at most.
    #[must_use]
    pub fn runtime_dir(&self) -> PathBuf {
        Path::new(RUNTIME_DIRS).join(&self.id)
    }

    /// The file that holds the cluster's network namespace.
    #[must_use]
    pub fn network_namespace(&self) -> PathBuf {
        self.runtime_dir().join("netns")
    }

    /// The host's end of the link into the cluster's network namespace (15 bytes at most).
    #[must_use]
    pub fn host_interface(&self) -> String {
        format!("coral{}", self.id)
    }

    /// The cgroup that everything of this cluster is in, relative to the root of every hierarchy.
    #[must_use]
    pub fn cgroup(&self) -> PathBuf {
        PathBuf::from(format!("coral-{}", self.id))
    }

    /// One file per part.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    /// The log of one part.
    #[must_use]
    pub fn log(&self, part: &str) -> PathBuf {
        self.logs().join(format!("{part}.log"))
    }

    /// What runs; see [`super::state`].
    #[must_use]
    pub fn state_file(&self) -> PathBuf {
        self.dir.join("state.json")
    }

    /// Certificates and keys.
    #[must_use]
    pub fn certificates(&self) -> PathBuf {
        self.dir.join("certificates")
    }

    /// The kubeconfig of a cluster administrator.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// What the containerds of all nodes know about registries.
    #[must_use]
    pub fn registry_hosts(&self) -> PathBuf {
        self.dir.join("certs.d")
    }

    /// The disk of a node, as the host sees it. A node with a small disk has a file system of its own mounted over it,
    /// which only the node sees.
    #[must_use]
    pub fn node_dir(&self, node: &str) -> PathBuf {
        self.dir.join("nodes").join(node)
    }

    /// What a node sees as `/run`.
    #[must_use]
    pub fn node_run_dir(&self, node: &str) -> PathBuf {
        self.runtime_dir().join(node)
    }

    /// The containerd socket of a node, as the host sees it. The node itself sees it in the usual place,
    /// `/run/containerd/containerd.sock`.
    #[must_use]
    pub fn containerd_socket(&self, node: &str) -> PathBuf {
        self.node_run_dir(node).join("containerd/containerd.sock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_directory_are_one_cluster() {
        let here = Path::new("/home/someone/coral");
        let relative = Layout::below(here, Path::new("./target//cluster/"));
        assert_eq!(
            relative,
            Layout::below(here, Path::new("/home/someone/coral/target/cluster"))
        );
        assert_ne!(relative.id, Layout::below(here, Path::new("target/other")).id);
    }

    #[test]
    fn socket_paths_stay_short_below_deep_directories() {
        let layout = Layout::below(Path::new("/"), Path::new(&"deep/".repeat(60)));
        assert!(layout.containerd_socket("light-100").as_os_str().len() < 100);
        assert!(layout.host_interface().len() <= 15);
    }
}
