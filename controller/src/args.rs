//! Command line of the controller. Every flag has an environment variable, for the Deployment.

use clap::Parser;
use coral_runtime::{ClientArgs, LogArgs};

/// Decides which node holds which images.
#[derive(Debug, Parser)]
#[command(name = "coral-controller", version)]
pub struct Args {
    /// How the controller reaches the Kubernetes API.
    #[command(flatten)]
    pub client: ClientArgs,

    /// How the controller logs.
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
