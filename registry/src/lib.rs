//! A client of registries that speak the OCI distribution specification.
//!
//! ```text
//!   Secrets ──Keyring──► Credential ─┐
//!   ImageReference ──────────────────┴─► Client ──HTTPS──► registry ──► manifest, size
//! ```
//!
//! A registry is not trusted with more than the credentials that are meant for it. What it sends is bounded in size and time, a
//! manifest that was asked for by digest has that digest, and where it redirects to is looked at first (`address`).
//!
//! # Certificate authorities
//!
//! Registries are held against the authorities of the system (`SSL_CERT_FILE`, `SSL_CERT_DIR`, or the usual paths), or, where
//! there are none, as in an image that is made from scratch, against those of Mozilla's list at the time of the build. Others
//! are named in [`Options::authorities`].

mod address;
mod blob;
mod challenge;
mod client;
mod credential;
mod digest;
mod error;
mod listing;
mod manifest;
mod origin;
mod platform;
mod repository;
mod size;
#[cfg(test)]
mod test_server;
mod tls;
mod token;
mod transport;
mod upload;

pub use blob::Blob;
pub use client::{Client, Options};
pub use credential::{Credential, Keyring, Malformed};
pub use error::{Error, RedirectRefusal, Result};
pub use manifest::{Descriptor, Document, Manifest, ManifestHead};
pub use platform::Platform;
pub use repository::Repository;
pub use size::ImageSize;
pub use tls::InvalidAuthorities;
pub use upload::Upload;
