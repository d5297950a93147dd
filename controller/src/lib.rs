//! The cluster side of Coral: decides which node holds which images, says how far things are, and labels the nodes.
//!
//! ```text
//!                        Lease: who leads
//!                              │
//!   Prefetch ──┐               ▼               ┌──► NodeImages.spec      (what the node's agent is to do)
//!   Node ──────┼──► cache ──► plan ──► queue ──┼──► Prefetch.status      (how far it is)
//!   NodeImages ┘                               ├──► Node labels, taint   (image.stvz.io/<hash>=available)
//!                                              └──► Events               (what people are told)
//! ```
//!
//! [`plan`](plan::plan) is pure: the same objects give the same writes, and no writes once the cluster is as it should be. Who leads, what
//! people are told and which write is next are decided by pure functions too; [`Controller`] carries it all out.

mod args;
mod catch_up;
mod controller;
pub mod metrics;
mod news;
pub mod node;
mod notice;
mod options;
pub mod plan;
mod queue;
mod rate;
mod recorder;
mod watch;
mod write;

pub use args::Args;
pub use controller::Controller;
pub use coral_runtime::LeaseOptions;
pub use options::Options;

/// Runs the controller until SIGTERM or SIGINT.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let options = args.options();
    let Args { http, client, .. } = args;
    let shutdown = coral_runtime::shutdown()?;
    let client = coral_runtime::client(&client).await?;
    tracing::info!(identity = options.identity, "The controller starts");
    let controller = Controller::new(client, options);
    let metrics = controller.metrics();
    let registry = metrics.registry();
    coral_runtime::serve(&http, registry, move || metrics.is_ready()).await?;
    controller.run(shutdown).await;
    tracing::info!("The controller ends as asked");
    Ok(())
}
