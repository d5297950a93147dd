//! The client of the Kubernetes API.

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::Args;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

/// How long an answer may be silent. A watch ends by itself sooner; a list on a connection that has gone dead must not hang for ever.
const READ_TIMEOUT: Duration = Duration::from_secs(305);

/// How a server reaches the Kubernetes API.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Kubernetes")]
pub struct ClientArgs {
    /// Kubeconfig file; without it the service account of the pod is used.
    #[arg(long, env = "KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
}

/// A client with the credentials that `args` name.
pub async fn client(args: &ClientArgs) -> anyhow::Result<Client> {
    let mut config = match &args.kubeconfig {
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(path)
                .with_context(|| format!("failed to read the kubeconfig {}", path.display()))?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("failed to use the kubeconfig {}", path.display()))?
        }
        None => {
            Config::incluster().context("failed to find the service account; outside a cluster, give --kubeconfig")?
        }
    };
    config.read_timeout = Some(READ_TIMEOUT);
    Client::try_from(config).context("failed to set up the Kubernetes client")
}
