//! The end of a server.

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

/// Completes when the process is asked to end, by SIGTERM or SIGINT. The signals are caught from this call on.
pub fn shutdown() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to listen for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
