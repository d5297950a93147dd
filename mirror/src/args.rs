//! Command line of the mirror controller. Every flag has an environment variable, for the Deployment.

use std::num::NonZeroU8;

use clap::Parser;
use coral_api::keys;
use coral_runtime::{ClientArgs, ElectionArgs, HttpArgs, LogArgs};
use kube::core::Duration;

use crate::controller::Options;

/// Keeps copies of images in registries of one's own.
#[derive(Debug, Parser)]
#[command(name = "coral-mirror", version)]
#[command(mut_arg("lease_name", |arg| arg.required(false).default_value("coral-mirror")))]
pub struct Args {
    /// Requests at the same time at each registry.
    #[arg(long, env = "CORAL_PARALLEL_REQUESTS", default_value = "6")]
    pub parallel_requests: NonZeroU8,

    /// Registry of originals that is spoken to without TLS, e.g. registry.lan:5000; may be repeated. Those of copies say so in the Mirror.
    #[arg(long, env = "CORAL_PLAIN_HTTP", value_delimiter = ',', value_name = "REGISTRY")]
    pub plain_http: Vec<String>,

    /// How often it is looked for copies that nobody needs any more, e.g. 10m.
    #[arg(long, env = "CORAL_COLLECTION_INTERVAL", default_value = "10m")]
    pub collection_interval: Duration,

    /// Namespace of the Secrets that the destinations of Mirrors name, and of the Lease.
    #[arg(long, env = "POD_NAMESPACE", default_value = keys::SYSTEM_NAMESPACE)]
    pub namespace: String,

    /// Who of several controllers works.
    #[command(flatten)]
    pub election: ElectionArgs,

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
            lease: self.election.lease(&self.namespace),
            identity: self.election.identity(),
            namespace: self.namespace.clone(),
            plain_http: self
                .plain_http
                .iter()
                .filter(|name| !name.is_empty())
                .cloned()
                .collect(),
            parallel: usize::from(self.parallel_requests.get()),
            collection_interval: self.collection_interval.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn flags_become_options() {
        let options = Args::parse_from(["coral-mirror", "--identity", "a"]).options();
        let lease = options.lease.unwrap();
        assert_eq!(
            (lease.namespace.as_str(), lease.name.as_str()),
            ("coral-system", "coral-mirror")
        );
        assert_eq!((options.identity.as_str(), options.parallel), ("a", 6));
        let options = Args::parse_from(["coral-mirror", "--leader-elect=false", "--collection-interval=1h"]).options();
        assert!(options.lease.is_none());
        assert_eq!(options.collection_interval, std::time::Duration::from_hours(1));
    }
}
