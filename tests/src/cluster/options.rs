//! What a caller may choose about a cluster.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc};

use crate::progress::{Progress, Silent};

/// What to start, and where.
#[derive(Clone)]
pub struct ClusterOptions {
    /// Everything the cluster writes lies below this directory (but for sockets, whose paths must be short). One
    /// cluster per directory; clusters in different directories run side by side.
    pub dir: PathBuf,
    /// Nodes with a kubelet, named `node-1`, `node-2`, …
    pub nodes: u32,
    /// The size of the disk of each of these nodes (`300m`, as `mount -t tmpfs` takes it); `None` is the disk that
    /// `dir` lies on.
    pub node_disk: Option<String>,
    /// Nodes with a containerd and a Node object but no kubelet, named `light-1`, `light-2`, …
    pub light_nodes: u32,
    /// The agent to run on each light node; without it they only hold a containerd.
    pub agent: Option<AgentOptions>,
    /// Which containerd all of these nodes run.
    pub containerd: Containerd,
    /// Further arguments of parts of the control plane, by the name of the part. They stay those of the cluster, also when a part is
    /// started again.
    pub arguments: BTreeMap<String, Vec<String>>,
    /// Leave the cluster running when the [`super::Cluster`] is dropped.
    pub keep: bool,
    /// Who is told how far things are.
    pub progress: Arc<dyn Progress>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            dir: PathBuf::new(),
            nodes: 2,
            node_disk: None,
            light_nodes: 0,
            agent: None,
            containerd: Containerd::default(),
            arguments: BTreeMap::new(),
            keep: false,
            progress: Arc::new(Silent),
        }
    }
}

impl fmt::Debug for ClusterOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterOptions")
            .field("dir", &self.dir)
            .field("nodes", &self.nodes)
            .field("node_disk", &self.node_disk)
            .field("light_nodes", &self.light_nodes)
            .field("agent", &self.agent)
            .field("containerd", &self.containerd)
            .field("arguments", &self.arguments)
            .field("keep", &self.keep)
            .finish_non_exhaustive()
    }
}

/// Which containerd a node runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Containerd {
    /// The newest, from the Go modules of the cluster.
    #[default]
    Bundled,
    /// The one of this Debian: years old, and what many nodes run.
    Debian,
}

/// Where the agent of a light node answers, at the node's own address.
pub(super) const AGENT_PORT: u16 = 8080;

/// The agent process of a light node.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AgentOptions {
    /// The program.
    pub binary: PathBuf,
    /// Its arguments. `{node}`, `{endpoint}`, `{kubeconfig}` and `{address}` stand for the node's name, its container
    /// runtime's endpoint, a kubeconfig of the agent's ServiceAccount, and the node's own IP address.
    pub arguments: Vec<String>,
}

impl AgentOptions {
    /// The program with the arguments that every agent needs.
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        let arguments = vec![
            "--node-name={node}".to_owned(),
            "--runtime-endpoint={endpoint}".to_owned(),
            "--kubeconfig={kubeconfig}".to_owned(),
            format!("--listen={{address}}:{AGENT_PORT}"),
            // The disk of a developer's machine may be fuller than that of a node should be.
            "--image-filesystem-reserve=1%".to_owned(),
        ];
        Self {
            binary: binary.into(),
            arguments,
        }
    }
}

/// What to choose about one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeOptions {
    /// The size of its disk, as in [`ClusterOptions::node_disk`].
    pub disk: Option<String>,
    /// Which containerd it runs.
    pub containerd: Containerd,
    /// Taints that its kubelet registers it with, as `kubectl taint` has them: `key:Effect` or `key=value:Effect`.
    pub register_with_taints: Vec<String>,
    /// The agent of a light node, if not the one that the cluster's light nodes run.
    pub agent: Option<AgentOptions>,
}
