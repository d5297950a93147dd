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

mod budget;
mod copier;
mod error;
mod naming;
mod observer;
mod plan;
mod referrers;
mod send;
mod survey;
mod write;

pub use copier::{Copied, Copier, Job, Options, Outcome, Prepared, State};
pub use error::{Error, Result};
pub use naming::{InvalidName, Naming, Place};
pub use observer::{Observer, Settled, Silent};
pub use plan::{Placement, Step};
pub use survey::Credentials;
