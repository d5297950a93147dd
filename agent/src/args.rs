//! Command line of the agent. Every flag has an environment variable, for the DaemonSet.

use std::{num::NonZeroUsize, path::PathBuf};

use clap::Parser;
use coral_runtime::{ClientArgs, HttpArgs, LogArgs};

use crate::space::Reserve;

/// Keeps the images on this node that the NodeImages object of the node names.
#[derive(Debug, Parser)]
#[command(name = "coral-agent", version)]
pub struct Args {
    /// Name of the node, which is also the name of its NodeImages object.
    #[arg(long, env = "NODE_NAME")]
    pub node_name: String,

    /// Socket of the container runtime: an absolute path, also with `unix://` before it. Without it, the usual sockets of containerd,
    /// k3s, RKE2, k0s, CRI-O and cri-dockerd are tried.
    #[arg(long, env = "CORAL_RUNTIME_ENDPOINT")]
    pub runtime_endpoint: Option<String>,

    /// Where this process sees the node's /run, in which runtimes have their sockets.
    #[arg(long, env = "CORAL_HOST_RUN_DIR", default_value = "/run")]
    pub host_run_dir: PathBuf,

    /// Most pulls at the same time on this node.
    #[arg(long, env = "CORAL_MAX_PARALLEL_PULLS", default_value = "4")]
    pub max_parallel_pulls: NonZeroUsize,

    /// What of the image filesystem is to stay free: percent of its capacity, or bytes such as 10Gi. An image that would take of it
    /// waits. The kubelet evicts pods below 15% by default.
    #[arg(long, env = "CORAL_IMAGE_FILESYSTEM_RESERVE", default_value = "15%")]
    pub image_filesystem_reserve: Reserve,

    /// Where the agent tells of itself.
    #[command(flatten)]
    pub http: HttpArgs,

    /// How the agent reaches the Kubernetes API.
    #[command(flatten)]
    pub client: ClientArgs,

    /// How the agent logs.
    #[command(flatten)]
    pub log: LogArgs,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn arguments_are_consistent() {
        super::Args::command().debug_assert();
    }
}
