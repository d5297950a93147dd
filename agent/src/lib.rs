//! The node side of Coral: makes a node hold the images that its `NodeImages` object names, and says what it holds.
//!
//! ```text
//!   API server ──watch: NodeImages of this node──► agent ──CRI: pull, list──► container runtime
//!        ▲                                          │
//!        └───────────────status─────────────────────┘
//! ```
//!
//! [`plan`] decides what to pull and [`report`] what to say and when; both are pure. The loop in `agent` carries it out.

mod agent;
mod args;
pub mod classify;
pub mod plan;
pub mod report;
pub mod runtime;
pub mod situation;

use anyhow::Context as _;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

pub use args::{Args, Log, LogFormat};

/// Runs the agent until SIGTERM or SIGINT.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let Args {
        node_name,
        runtime_endpoint,
        max_parallel_pulls,
        kubeconfig,
        log: _,
    } = args;
    let config = match kubeconfig {
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(&path)
                .with_context(|| format!("failed to read the kubeconfig {}", path.display()))?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("failed to use the kubeconfig {}", path.display()))?
        }
        None => {
            Config::incluster().context("failed to find the service account; outside a cluster, give --kubeconfig")?
        }
    };
    let client = Client::try_from(config).context("failed to set up the Kubernetes client")?;
    let runtime = runtime::Runtime::new(&runtime_endpoint)?;
    tracing::info!(node = node_name, endpoint = runtime_endpoint, "The agent starts");
    agent::Agent::new(client, runtime, node_name, max_parallel_pulls.get())
        .run(shutdown()?)
        .await;
    tracing::info!("The agent ends as asked");
    Ok(())
}

/// Completes when the process is asked to end.
fn shutdown() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to listen for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
