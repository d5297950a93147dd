//! Command line of the agent. Every flag has an environment variable, for the DaemonSet.

use std::num::NonZeroUsize;

use clap::Parser;
use coral_runtime::{ClientArgs, HttpArgs, LogArgs};

/// Keeps the images on this node that the NodeImages object of the node names.
#[derive(Debug, Parser)]
#[command(name = "coral-agent", version)]
pub struct Args {
    /// Name of the node, which is also the name of its NodeImages object.
    #[arg(long, env = "NODE_NAME")]
    pub node_name: String,

    /// Where the container runtime listens for CRI calls.
    #[arg(
        long,
        env = "CORAL_RUNTIME_ENDPOINT",
        default_value = "unix:///run/containerd/containerd.sock"
    )]
    pub runtime_endpoint: String,

    /// Most pulls at the same time on this node.
    #[arg(long, env = "CORAL_MAX_PARALLEL_PULLS", default_value = "4")]
    pub max_parallel_pulls: NonZeroUsize,

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
