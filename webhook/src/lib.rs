//! The admission webhook: annotated workloads run only where their images are.
//!
//! ```text
//!   API server ──AdmissionReview over TLS──► server ──► handler ──► coral_admission: review ──► JSON patch
//!                                              ▲                      ▲
//!        Secret ──watch──► certificate ────────┘                      │
//!      Prefetch ──watch──► coverage ──────────────────────────────────┤ for warnings only
//! MirroredImage ──watch──► copies ────────────────────────────────────┘ for rewriting
//! ```
//!
//! [`mutate`] and [`rewrite`] decide, and are pure; the `kubectl` plugin uses them, too, and does without the feature `server`. Nothing in the way of an
//! admission needs the network.

pub use coral_admission::{mutate, rewrite};

#[cfg(feature = "server")]
mod args;
#[cfg(feature = "bench")]
pub mod bench;
#[cfg(feature = "server")]
mod certificate;
#[cfg(feature = "server")]
mod copies;
#[cfg(feature = "server")]
mod coverage;
#[cfg(feature = "server")]
mod handler;
#[cfg(feature = "server")]
mod metrics;
#[cfg(feature = "server")]
mod run;
#[cfg(feature = "server")]
mod server;
#[cfg(feature = "server")]
mod watched;

#[cfg(feature = "server")]
pub use self::{
    args::{Args, CertificateArgs},
    run::run,
};
