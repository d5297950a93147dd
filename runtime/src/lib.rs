//! What every server of Coral's begins and ends with: its log, its Kubernetes client, its metrics and health, its election, its shutdown.
//!
//! ```text
//!   agent ──────┐
//!   controller ─┴──► coral-runtime ──► tracing, kube, tokio signals
//! ```

mod cache;
mod client;
mod clock;
mod http;
mod lease;
mod log;
mod pause;
mod shutdown;
mod watch;

use std::{fmt::Display, process::ExitCode};

pub use cache::{Cache, Key};
pub use client::{ClientArgs, client};
pub use clock::{Clock, SetBack};
pub use http::{HttpArgs, serve};
pub use lease::{ElectionArgs, Leadership, LeaseOptions};
pub use log::{LogArgs, LogFormat};
pub use pause::spread;
pub use shutdown::shutdown;
pub use watch::{watch, watch_backoff};

/// Where Kubernetes looks for the last words of a container.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// The exit code of a server. A fatal error is logged, and left where `kubectl describe pod` shows it.
pub fn exit_code<E: Display>(result: Result<(), E>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    let message = format!("{error:#}");
    tracing::error!(error = message, "The process ends");
    // Outside a pod there is no such file, and it must not be made.
    if let Ok(mut file) = std::fs::OpenOptions::new().write(true).open(TERMINATION_LOG) {
        let _ = std::io::Write::write_all(&mut file, message.as_bytes());
    }
    ExitCode::FAILURE
}
