//! Command line of the controller. Every flag has an environment variable, for the Deployment.

use std::num::{NonZeroU32, NonZeroUsize};

use clap::Parser;
use coral_runtime::{ClientArgs, ElectionArgs, HttpArgs, LogArgs};
use kube::core::Duration;

use crate::Options;

/// Decides which node holds which images.
#[derive(Debug, Parser)]
#[command(name = "coral-controller", version)]
#[command(mut_arg("lease_name", |arg| arg.required(false).default_value("coral-controller")))]
pub struct Args {
    /// Most nodes that pull at the same time, over all Prefetches [default: no limit but their own parallelism].
    #[arg(long, env = "CORAL_MAX_PULLING_NODES")]
    pub max_pulling_nodes: Option<NonZeroUsize>,

    /// How long a new node keeps its startup taint, at most, e.g. 5m.
    #[arg(long, env = "CORAL_GATE_TIMEOUT", default_value = "5m")]
    pub gate_timeout: Duration,

    /// Most writes to the API server per second; twice as many at once after a pause.
    #[arg(long, env = "CORAL_MAX_WRITES_PER_SECOND", default_value_t = Options::default().max_writes_per_second)]
    pub max_writes_per_second: NonZeroU32,

    /// Namespace of the Lease.
    #[arg(
        long,
        env = "POD_NAMESPACE",
        default_value = coral_api::keys::SYSTEM_NAMESPACE,
        help_heading = "Leader election"
    )]
    pub lease_namespace: String,

    /// Who of several controllers works.
    #[command(flatten)]
    pub election: ElectionArgs,

    /// Gives every Prefetch metrics of its own, with its namespace and name as labels.
    #[arg(long, env = "CORAL_METRICS_PER_PREFETCH", help_heading = "Metrics and health")]
    pub metrics_per_prefetch: bool,

    /// Where the controller tells of itself.
    #[command(flatten)]
    pub http: HttpArgs,

    /// How the controller reaches the Kubernetes API.
    #[command(flatten)]
    pub client: ClientArgs,

    /// How the controller logs.
    #[command(flatten)]
    pub log: LogArgs,
}

impl Args {
    /// What the flags choose about the controller.
    #[must_use]
    pub fn options(&self) -> Options {
        Options {
            max_pulling_nodes: self.max_pulling_nodes,
            gate_timeout: self.gate_timeout.into(),
            lease: self.election.lease(&self.lease_namespace),
            identity: self.election.identity(),
            max_writes_per_second: self.max_writes_per_second,
            metrics_per_prefetch: self.metrics_per_prefetch,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::{CommandFactory as _, Parser as _};

    use super::Args;

    #[test]
    fn arguments_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn flags_become_options() {
        let options = Args::parse_from(["coral-controller", "--identity", "a"]).options();
        let lease = options.lease.unwrap();
        assert_eq!(
            (lease.namespace.as_str(), lease.name.as_str()),
            ("coral-system", "coral-controller")
        );
        assert_eq!((options.identity.as_str(), options.max_pulling_nodes), ("a", None));
        assert_eq!(options.gate_timeout, Duration::from_mins(5));

        let flags = [
            "coral-controller",
            "--leader-elect=false",
            "--gate-timeout=90s",
            "--max-pulling-nodes=7",
        ];
        let options = Args::parse_from(flags).options();
        assert!(options.lease.is_none());
        assert_eq!(options.gate_timeout, Duration::from_secs(90));
        assert_eq!(options.max_pulling_nodes.unwrap().get(), 7);
    }
}
