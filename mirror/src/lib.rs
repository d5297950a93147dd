//! Copies of images from one registry to another.
//!
//! ```text
//!   Job (source, destination) ──survey──► Survey: what the image is made of
//!                                            │ with what the destination has
//!                                         plan (pure): each blob once over all images, mounts, the order of manifests
//!                                            │
//!                                         Copier ──► blobs ──► images ──► indexes ──► referrers ──► tag
//! ```
//!
//! A copy is the original byte for byte, with the same digest. Everything that a manifest names is there before the manifest is, and the
//! tag comes last, so that nobody ever sees half an image. Blobs go from one registry to the other as they come: none is ever in
//! memory, or on disk, as a whole.

#[cfg(feature = "server")]
mod args;
mod budget;
#[cfg(feature = "server")]
mod controller;
mod copier;
pub mod destination;
mod error;
mod holdings;
pub mod mark;
mod naming;
mod observer;
mod plan;
mod referrers;
pub mod retention;
mod send;
mod survey;
pub mod user;
mod write;

#[cfg(feature = "server")]
pub use args::Args;
#[cfg(feature = "server")]
pub use controller::{Controller, Metrics, Options as ControllerOptions, run};
pub use copier::{Copied, Copier, Job, Options, Outcome, Prepared, State};
#[cfg(feature = "server")]
pub use coral_runtime::LeaseOptions;
pub use error::{Error, Result, chain};
pub use naming::{InvalidName, Naming, Place};
pub use observer::{Observer, Settled, Silent};
pub use plan::{Placement, Step};
pub use survey::Credentials;
