//! The node side of Coral: makes a node hold the images that its `NodeImages` object names, and says what it holds.
//!
//! ```text
//!   API server ──watch: NodeImages of this node──► agent ──CRI: pull, list──► container runtime
//!        ▲                                          │
//!        └───────────────status─────────────────────┘
//! ```
//!
//! [`plan`] decides what to pull and [`report`] what to say and when; both are pure. The loop in `agent` carries it out.
//!
//! [`relay`] is another process, of the same program: with a registry in the cluster, it makes that known to the node.

mod agent;
mod args;
pub mod classify;
pub mod containerd;
pub mod discovery;
pub mod filesystem;
mod ledger;
pub mod metrics;
pub mod plan;
mod pull;
pub mod relay;
pub mod removal;
pub mod report;
pub mod restart;
pub mod runtime;
pub mod situation;
pub mod space;

use anyhow::Context as _;
use runtime::Runtime;

pub use agent::Agent;
pub use args::Args;

/// Runs the agent until SIGTERM or SIGINT.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let Args {
        node_name,
        runtime_endpoint,
        host_run_dir,
        max_parallel_pulls,
        image_filesystem_reserve,
        http,
        client,
        log: _,
    } = args;
    // Credentials pass through this process: its memory is for no core dump and no debugger.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .context("failed to keep the memory of the process out of core dumps")?;
    let shutdown = coral_runtime::shutdown()?;
    let client = coral_runtime::client(&client).await?;
    let runtime = match &runtime_endpoint {
        Some(endpoint) => Runtime::new(endpoint)?,
        None => Runtime::discover(&host_run_dir),
    };
    tracing::info!(
        node = node_name,
        endpoint = runtime_endpoint,
        host_run_dir = %host_run_dir.display(),
        "The agent starts"
    );
    let agent = Agent::new(client, runtime, node_name, max_parallel_pulls.get()).with_reserve(image_filesystem_reserve);
    let metrics = agent.metrics();
    let registry = metrics.registry();
    coral_runtime::serve(&http, registry, move || metrics.is_ready()).await?;
    agent.run(shutdown).await;
    tracing::info!("The agent ends as asked");
    Ok(())
}
