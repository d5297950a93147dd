//! The cluster side of Coral: decides which node holds which images, says how far things are, and labels the nodes.
//!
//! ```text
//!   Prefetch ──┐                    ┌──► NodeImages.spec      (what the node's agent is to do)
//!   Node ──────┼──► cache ──► plan ─┼──► Prefetch.status      (how far it is)
//!   NodeImages ┘                    └──► Node labels          (image.stvz.io/<hash>=available)
//! ```
//!
//! [`plan`](plan::plan) is pure: the same objects give the same writes, and no writes once the cluster is as it should be.

mod args;
mod cache;
mod controller;
pub mod node;
pub mod plan;
mod write;

pub use args::Args;

/// Runs the controller until SIGTERM or SIGINT.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let Args { client, log: _ } = args;
    let shutdown = coral_runtime::shutdown()?;
    let client = coral_runtime::client(&client).await?;
    tracing::info!("The controller starts");
    controller::Controller::new(client).run(shutdown).await;
    tracing::info!("The controller ends as asked");
    Ok(())
}
