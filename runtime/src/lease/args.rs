//! Flags of an election.

use clap::{ArgAction, Args};

use super::LeaseOptions;

/// Who of several controllers works. The program says what its Lease is called: `mut_arg("lease_name", |arg| arg.required(false).default_value(…))`.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Leader election")]
pub struct ElectionArgs {
    /// Whether to work only while holding the Lease. Without that, this must be the only controller of the cluster.
    #[arg(long, env = "CORAL_LEADER_ELECT", default_value_t = true, action = ArgAction::Set)]
    pub leader_elect: bool,

    /// Name of the Lease.
    #[arg(long, env = "CORAL_LEASE_NAME")]
    pub lease_name: String,

    /// Who this controller is; no other has the same name [default: the process ID].
    ///
    /// The name of the Pod is right: the kubelet starts a container again only when the one before has ended, and the new one then
    /// leads at once.
    #[arg(long, env = "POD_NAME")]
    pub identity: Option<String>,
}

impl ElectionArgs {
    /// How to be elected with a Lease in that namespace; `None` is to lead from the beginning.
    #[must_use]
    pub fn lease(&self, namespace: &str) -> Option<LeaseOptions> {
        self.leader_elect
            .then(|| LeaseOptions::new(namespace, self.lease_name.as_str()))
    }

    /// Who this is.
    #[must_use]
    pub fn identity(&self) -> String {
        let process = || format!("process-{}", std::process::id());
        self.identity.clone().unwrap_or_else(process)
    }
}
