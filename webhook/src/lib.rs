//! The admission webhook: annotated workloads run only where their images are.
//!
//! ```text
//!   API server ──AdmissionReview over TLS──► server ──► handler ──► review ──► mutate ──► JSON patch
//!                                              ▲                      ▲
//!        Secret ──watch──► certificate ────────┘                      │
//!      Prefetch ──watch──► coverage ──────────────────────────────────┘ for warnings only
//! ```
//!
//! [`mutate`] decides, and is pure; the `kubectl` plugin uses it, too, and does without the feature `server`. Nothing in the way of an
//! admission needs the network.

pub mod mutate;

#[cfg(feature = "server")]
mod args;
#[cfg(feature = "bench")]
pub mod bench;
#[cfg(feature = "server")]
mod certificate;
#[cfg(feature = "server")]
mod coverage;
#[cfg(feature = "server")]
mod handler;
#[cfg(feature = "server")]
mod metrics;
#[cfg(feature = "server")]
mod review;
#[cfg(feature = "server")]
mod run;
#[cfg(feature = "server")]
mod server;

#[cfg(feature = "server")]
pub use self::{
    args::{Args, CertificateArgs},
    run::run,
};
