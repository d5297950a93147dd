//! The contract between Coral's parts.
//!
//! ```text
//!   plugin ──creates──► Prefetch ──watched by──► controller ──writes spec──► NodeImages
//!                                                                              ▲   │
//!                                                         agent ──writes status┘◄──┘ watched by agent
//! ```
//!
//! What two parts must agree on is here and nowhere else: the resources ([`Prefetch`], [`NodeImages`], [`Mirror`], [`MirroredImage`]),
//! the keys that Coral puts on other people's objects ([`keys`]), why an image is not on a node
//! ([`FailureReason`]), and how an image is named ([`ImageReference`]).
//! The crate does no input or output and knows no async runtime, so every part can depend on it.

pub mod conditions;
pub mod failure;
pub mod image_reference;
pub mod keys;
pub mod mirror;
pub mod mirrored_image;
pub mod node_images;
pub mod prefetch;
mod schema;

pub use failure::FailureReason;
pub use image_reference::{ImageReference, InvalidReference};
pub use mirror::{Mirror, MirrorSpec, MirrorStatus};
pub use mirrored_image::{MirroredImage, MirroredImageSpec, MirroredImageStatus};
pub use node_images::{NodeImages, NodeImagesSpec, NodeImagesStatus};
pub use prefetch::{Prefetch, PrefetchSpec, PrefetchStatus};
